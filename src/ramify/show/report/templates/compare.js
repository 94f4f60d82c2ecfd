// Tables that sort themselves, and legends that hide groups. Both are buttons, so that a keyboard will do.
(() => {
  "use strict";
  function sortBy(table, heading) {
    const column = heading.cellIndex, numeric = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    // What is most is looked for first; names begin with A.
    const rising = before ? before === "descending" : !numeric;
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const compared = (a, b) => {
      const [x, y] = [value(a), value(b)];
      // What is not known stands at the end, whatever the direction.
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
      return rising ? order : -order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compared));
  }

  function show(group, shown) {
    for (const button of document.querySelectorAll(`.legend [data-group="${group}"]`)) {
      button.setAttribute("aria-pressed", String(shown));
    }
    for (const figure of document.querySelectorAll("figure.plot")) {
      const record = figure.querySelector('script[type="application/json"]');
      const drawn = JSON.parse(record.textContent);
      const traces = [...drawn.data.keys()].filter((i) => drawn.data[i].legendgroup === group);
      if (!traces.length) continue;
      for (const i of traces) drawn.data[i].visible = shown;
      // The page draws from this record again when the colors change.
      record.textContent = JSON.stringify(drawn);
      Plotly.restyle(figure.querySelector(".canvas"), { visible: shown }, traces);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const table = button.closest("table.sortable");
    if (table) sortBy(table, button.closest("th"));
    else if (button.closest(".legend")) show(button.dataset.group, button.getAttribute("aria-pressed") !== "true");
  });
})();
