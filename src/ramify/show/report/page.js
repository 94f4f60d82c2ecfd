// Draws every plot of the page in its colours, and again when the reader's system turns light or dark.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function merge(base, over) {
    const merged = { ...base };
    for (const [key, value] of Object.entries(over)) {
      const both = [value, merged[key]].every((each) => each && typeof each === "object" && !Array.isArray(each));
      merged[key] = both ? merge(merged[key], value) : value;
    }
    return merged;
  }

  function layout(given) {
    const ink = colour("--ink"), muted = colour("--muted"), line = colour("--line"), paper = colour("--paper");
    const axis = {
      gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { color: muted },
      title: { font: { color: muted, size: 13 }, standoff: 10 }, automargin: true, fixedrange: narrow.matches,
    };
    const base = {
      height: narrow.matches ? 320 : 400,
      margin: { l: 56, r: 16, t: 16, b: 48 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: ink } },
      hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: ink } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink },
      hovermode: "closest",
      dragmode: narrow.matches ? false : "zoom",
    };
    const merged = merge(base, given);
    for (const key of ["xaxis", "yaxis", ...Object.keys(given).filter((each) => /^[xy]axis\d+$/.test(each))]) {
      merged[key] = merge(axis, given[key] || {});
    }
    for (const note of merged.annotations || []) {
      note.font = { color: muted, size: 12, ...note.font };
      if (note.name === "change" && narrow.matches) note.text = note.text.replace(/ [^<]*/g, "");
    }
    return merged;
  }

  const options = {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"],
  };

  function draw(figure) {
    const record = JSON.parse(figure.querySelector("script").textContent);
    return Plotly.react(figure.querySelector(".canvas"), record.data, layout(record.layout || {}), options);
  }

  const figures = [...document.querySelectorAll("figure.plot")];
  const drawAll = () => Promise.all(figures.map(draw));
  drawAll().then(() => document.documentElement.classList.add("drawn"));
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);

  // The navigation tells where the reader is.
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const here = links.get(entry.target.id);
      here?.setAttribute("aria-current", "true");
      // On a phone the list is a strip, which follows.
      if (here) here.closest("ol").scrollLeft = here.offsetLeft - 16;
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));
})();
