// Draws every plot of the page in its colors, and again when the reader's system turns light or dark.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // One template for all plots: what a figure does not say itself.
  function template() {
    const ink = color("--ink"), muted = color("--muted"), line = color("--line"), paper = color("--paper");
    const axis = {
      gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { color: muted },
      title: { font: { color: muted, size: 13 }, standoff: 10 }, automargin: true, fixedrange: narrow.matches,
    };
    return { layout: {
      margin: { l: 56, r: 16, t: 16, b: 48 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { color: ink } },
      hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: ink } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink },
      annotationdefaults: { font: { color: muted, size: 12 } },
      hovermode: "closest",
      dragmode: narrow.matches ? false : "zoom",
      xaxis: axis,
      yaxis: axis,
    } };
  }

  const options = {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"],
  };

  function draw(figure) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    for (const note of layout.annotations || []) {
      if (note.name === "change" && narrow.matches) note.text = note.text.replace(/ [^<]*/g, "");
    }
    // A height in the template would not stop plotly from sizing the plot by itself.
    const shown = { height: narrow.matches ? 320 : 400, ...layout, template: template() };
    return Plotly.react(figure.querySelector(".canvas"), data, shown, options);
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
