"use strict";
(() => {
  const charts = new Map(JSON.parse(document.getElementById("charts").textContent).map((chart) => [chart.key, chart]));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const dashes = ["solid", "dash", "dot", "dashdot"];
  const symbols = ["circle", "diamond", "square", "x"];
  const drawn = new Set();

  function traces(chart, color) {
    return chart.series.map((part) => {
      const shade = color(`--c${part.color % 8}`);
      const lines = part.mode === "lines";
      return {
        type: "scatter", name: part.name, x: part.x, y: part.y, mode: part.mode,
        line: { color: shade, width: 2, dash: dashes[part.style % 4] },
        marker: { color: shade, size: lines ? 4 : 6, symbol: symbols[part.style % 4] },
      };
    });
  }

  function layout(chart, color) {
    const axis = (text, log) => ({
      title: { text }, type: log ? "log" : "linear", gridcolor: color("--line"), zerolinecolor: color("--line"),
      linecolor: color("--soft"), automargin: true, exponentformat: "e",
    });
    const y = axis(chart.y, chart.logY);
    if (chart.equal) y.scaleanchor = "x";
    return {
      xaxis: axis(chart.x, chart.logX), yaxis: y, paper_bgcolor: color("--paper"), plot_bgcolor: color("--paper"),
      font: { family: "system-ui, sans-serif", size: 13, color: color("--ink") }, margin: { l: 60, r: 12, t: 12, b: 48 },
      hoverlabel: { namelength: 40, bgcolor: color("--band"), font: { color: color("--ink") } },
      hovermode: chart.series.some((part) => part.mode === "lines") ? "x unified" : "closest", dragmode: "zoom", showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    };
  }

  function draw(key) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const chart = charts.get(key);
    Plotly.react(key, traces(chart, color), layout(chart, color), { responsive: true, displayModeBar: false });
    drawn.add(key);
  }

  function drawAll() {
    charts.forEach((_, key) => { if (!drawn.has(key)) draw(key); });
  }

  // the ranges of a logarithmic axis are exponents, so zooming and moving are the same for both
  function relayout(key, change) {
    if (!drawn.has(key)) draw(key);
    const full = document.getElementById(key)._fullLayout;
    const update = {};
    for (const name of ["xaxis", "yaxis"]) {
      const [low, high] = full[name].range;
      update[`${name}.range`] = change(name, low, high);
    }
    return Plotly.relayout(key, update);
  }

  function zoom(key, factor) {
    return relayout(key, (_, low, high) => {
      const middle = (low + high) / 2;
      return [middle + (low - middle) * factor, middle + (high - middle) * factor];
    });
  }

  function move(key, axis, share) {
    return relayout(key, (name, low, high) => {
      const by = name === axis ? (high - low) * share : 0;
      return [low + by, high + by];
    });
  }

  function act(key, action) {
    const chart = charts.get(key);
    if (action === "in") return zoom(key, 0.5);
    if (action === "out") return zoom(key, 2);
    if (action === "log") chart.logY = !chart.logY;
    draw(key);
    return Plotly.relayout(key, { "xaxis.autorange": true, "yaxis.autorange": true });
  }

  const keys = {
    "+": (key) => zoom(key, 0.5), "=": (key) => zoom(key, 0.5), "-": (key) => zoom(key, 2), "0": (key) => act(key, "reset"),
    ArrowLeft: (key) => move(key, "xaxis", -0.2), ArrowRight: (key) => move(key, "xaxis", 0.2),
    ArrowDown: (key) => move(key, "yaxis", -0.2), ArrowUp: (key) => move(key, "yaxis", 0.2),
  };

  function cellValue(row, column) {
    const cell = row.cells[column];
    return cell.dataset.number === undefined ? cell.textContent : Number(cell.dataset.number);
  }

  function compare(a, b) {
    const rank = (value) => (typeof value !== "number" ? 1 : Number.isNaN(value) ? 2 : 0);
    if (rank(a) !== rank(b)) return rank(a) - rank(b);
    return rank(a) === 1 ? a.localeCompare(b) : a - b || 0;
  }

  function sort(button) {
    const header = button.closest("th");
    const table = button.closest("table");
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const column = Number(button.dataset.sort);
    const rows = Array.from(table.tBodies[0].rows);
    rows.sort((a, b) => compare(cellValue(a, column), cellValue(b, column)) * (up ? 1 : -1));
    table.tBodies[0].append(...rows);
    const status = document.getElementById(`${table.id}-status`);
    status.textContent = `sorted by ${button.textContent.trim()}, ${up ? "ascending" : "descending"}`;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && button.dataset.chart) act(button.dataset.chart, button.dataset.action);
    if (button && button.dataset.sort) sort(button);
  });
  document.addEventListener("keydown", (event) => {
    const place = event.target.closest(".chart");
    const action = keys[event.key];
    if (!place || event.target !== place || !action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action(place.id);
  });
  dark.addEventListener("change", () => drawn.forEach(draw));
  window.addEventListener("beforeprint", drawAll);

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(entry.target.id)) draw(entry.target.id);
    }
  }, { rootMargin: "800px" });
  charts.forEach((_, key) => near.observe(document.getElementById(key)));
})();
