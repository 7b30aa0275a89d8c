"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plot-data").textContent);
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const paper = { "--ink": "#000000", "--grid": "#dddddd", "--line": "#bbbbbb", "--paper": "#ffffff" };
  const places = [...document.querySelectorAll(".plot")];
  const drawn = new Set();

  // Colours come from the page, so that one set of plots serves light, dark and print.
  const colour = (name, printing) => (printing ? paper[name] : getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  const theme = (printing) => {
    const axis = { gridcolor: colour("--grid", printing), zerolinecolor: colour("--line", printing), linecolor: colour("--line", printing) };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink", printing), family: "inherit", size: 12 },
      hoverlabel: { bgcolor: colour("--paper", printing), bordercolor: colour("--line", printing), font: { color: colour("--ink", printing) } },
      xaxis: axis, yaxis: axis,
    };
  };
  const themed = (layout, printing) => {
    const look = theme(printing);
    const shapes = (layout.shapes || []).map((shape) => (shape.type === "line" ? { ...shape, line: { ...shape.line, color: look.font.color } } : shape));
    return { ...layout, ...look, shapes, xaxis: { ...layout.xaxis, ...look.xaxis }, yaxis: { ...layout.yaxis, ...look.yaxis } };
  };
  const draw = (place, printing = false) => {
    const plot = plots[place.dataset.plot];
    Plotly.react(place, plot.data, themed(plot.layout, printing), config);
    drawn.add(place);
  };
  const visible = (place) => place.closest("[hidden]") === null;
  // One plot a turn: the page answers while they come.
  const drawNext = () => {
    const place = places.find((candidate) => visible(candidate) && !drawn.has(candidate));
    if (place === undefined) return;
    draw(place);
    setTimeout(drawNext, 0);
  };
  const redraw = (printing) => drawn.forEach((place) => draw(place, printing));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(false));
  addEventListener("beforeprint", () => redraw(true));
  addEventListener("afterprint", () => redraw(false));

  const stagePickers = [...document.querySelectorAll("select[data-picks=stage]")];
  const showStage = (stage) => {
    stagePickers.forEach((picker) => { picker.value = stage; });
    document.querySelectorAll("[data-stage]").forEach((part) => { part.hidden = part.dataset.stage !== stage; });
    drawNext();
  };
  stagePickers.forEach((picker) => picker.addEventListener("change", () => showStage(picker.value)));

  const samples = [...document.querySelectorAll(".sample")].map((element) => ({ element, failing: JSON.parse(element.dataset.failing), slices: JSON.parse(element.dataset.slices) }));
  const variant = document.getElementById("filter-variant");
  const label = document.getElementById("filter-label");
  const slice = document.getElementById("filter-slice");
  const regressions = document.getElementById("filter-regressions");
  const shown = document.getElementById("samples-shown");
  const filterSamples = () => {
    let count = 0;
    samples.forEach(({ element, failing, slices }) => {
      const fits = failing.some(([name, kind]) => (variant.value === "" || name === variant.value) && (label.value === "" || kind === label.value));
      const inSlice = slice === null || slice.value === "" || slices.includes(slice.value);
      element.hidden = !(fits && inSlice && (!regressions.checked || element.dataset.referencePasses === "true"));
      count += element.hidden ? 0 : 1;
    });
    shown.textContent = `${count} of ${samples.length} shown`;
  };
  if (samples.length > 0) {
    [variant, label, slice, regressions].filter((control) => control !== null).forEach((control) => control.addEventListener("change", filterSamples));
    filterSamples();
  }

  document.documentElement.classList.add("scripted");
  if (stagePickers.length > 0) showStage(stagePickers[0].value);
  else drawNext();
})();
