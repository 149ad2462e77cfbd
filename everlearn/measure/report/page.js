"use strict";
(() => {
  const parts = JSON.parse(document.getElementById("report-data").textContent);
  const views = new Map();
  let focus = "";

  // Charts -----------------------------------------------------------------------------------------------------------
  const quiet = { labelColor: "var(--muted)", titleColor: "var(--muted)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
  const config = {
    font: getComputedStyle(document.body).fontFamily,
    background: "transparent",
    view: { stroke: null },
    axis: { ...quiet, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)", titlePadding: 8, labelPadding: 5, labelFlush: false },
    axisY: { domain: false, ticks: false },
    text: { fill: "var(--ink)" },
  };

  function rows(table) {
    const keys = Object.keys(table);
    const length = keys.length ? table[keys[0]].length : 0;
    return Array.from({ length }, (_, index) => Object.fromEntries(keys.map((key) => [key, table[key][index]])));
  }

  function sized(part, width, more) {
    const spec = structuredClone(part.spec);
    spec.datasets = { ...spec.datasets, table: rows(part.table) };
    if (part.panel) {
      // As many panels in a row as fit; where they come out even, without a gap in the last row.
      const own = spec.resolve?.scale?.y === "independent" ? 46 : 0; // room for an axis of every panel, or of the first one
      const panels = part.panels;
      const most = Math.max(1, Math.min(panels, Math.floor((width - 40) / (part.panel + own + 20))));
      const even = Array.from({ length: most }, (_, index) => most - index).find((count) => panels % count === 0);
      const count = even > most / 2 ? even : most;
      spec.columns = count;
      spec.spec.width = Math.floor((width - (own ? 0 : 40) - 20 * (count - 1)) / count) - own - 6 + Math.floor(more / count);
      spec.facet.header.labelLimit = spec.spec.width;
    }
    return spec;
  }

  async function draw(name) {
    const box = document.getElementById("chart-" + name);
    const part = parts[name];
    const options = { mode: "vega-lite", renderer: "svg", actions: false, config, tooltip: { theme: "report" } };
    part.width = box.clientWidth;
    try {
      views.get(name)?.finalize();
      let { view } = await vegaEmbed(box, sized(part, part.width, 0), options);
      const left = part.width - box.querySelector("svg").getAttribute("width");
      if (part.panel && Math.abs(left) > 8) {
        view.finalize(); // axes took less or more room than was guessed: share what is left among the panels
        view = (await vegaEmbed(box, sized(part, part.width, left - 4), options)).view;
      }
      views.set(name, view);
    } catch (error) {
      box.innerHTML = "";
      const text = document.createElement("p");
      text.className = "failed";
      text.textContent = "This chart could not be drawn: " + error.message;
      box.append(text);
      console.error(error);
    }
  }

  function set(view, parameter, value) {
    try {
      view.signal(parameter, value).runAsync();
    } catch {
      // a chart without this parameter
    }
  }

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      for (const name of Object.keys(parts)) {
        const box = document.getElementById("chart-" + name);
        if (parts[name].panel && box.clientWidth !== parts[name].width) draw(name);
      }
    }, 150);
  });

  for (const select of document.querySelectorAll("select[data-chart]")) {
    select.addEventListener("change", () => set(views.get(select.dataset.chart), select.dataset.parameter, select.value));
  }

  // Legend: a learner under the pointer, or pressed, stands out in every chart ---------------------------------------------
  const chips = [...document.querySelectorAll(".chip")];
  const point = (label) => views.forEach((view) => set(view, "focus", label));
  for (const chip of chips) {
    const label = chip.dataset.learner;
    chip.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point(label));
    chip.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(focus));
    chip.addEventListener("click", () => {
      focus = focus === label ? "" : label;
      for (const other of chips) other.setAttribute("aria-pressed", String(other.dataset.learner === focus));
      point(focus);
    });
  }

  // Table ------------------------------------------------------------------------------------------------------------
  const table = document.getElementById("learners");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.dataset.better === "high" ? "descending" : "ascending";
      const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column]?.dataset.value ?? "";
      const compare = (left, right) => {
        const [a, b] = [key(left), key(right)];
        if (column === 0) return sign * a.localeCompare(b);
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (Number(a) - Number(b));
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });

  Promise.all(Object.keys(parts).map(draw)).then(() => document.documentElement.setAttribute("data-ready", "true"));
})();
