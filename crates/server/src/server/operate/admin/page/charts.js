// Draws the charts of the overview with uPlot, from the figures in `data-plot`. Without this script, the page shows the
// same lines as SVG, and the figures as tables.
"use strict";

const charts = (() => {
  /** A line continues over up to so many steps without a value. charts.rs has the same number. */
  const MAX_GAP = 6;
  /** The width of the labels at the left, as in page.css. */
  const GUTTER = 56;
  const cursor = uPlot.sync("overview");
  const drawn = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (value, unit) => {
    if (value == null) return "–";
    const digits = unit === "ms" ? (value >= 10 ? 0 : 2) : value >= 100 || unit === "req/min" ? 0 : 1;
    return `${value.toFixed(digits)} ${unit}`;
  };
  const clock = (time, more) => new Date(time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...more });
  const figures = ({ end, every, values }) => {
    const times = (values[0] ?? []).map((_, place) => end - place * every).reverse();
    return [times, ...values.map((line) => [...line].reverse())];
  };

  const tip = (names, classes, unit) => {
    const box = document.createElement("div");
    box.className = "tip";
    box.hidden = true;
    const show = (plot) => {
      const { idxs, left, top } = plot.cursor;
      const idx = idxs[1];
      // The other charts show only the same moment.
      box.hidden = idx == null || left < 0 || !plot.over.closest(".plot").matches(":hover, :focus");
      if (box.hidden) return;
      const line = (textContent, className) => Object.assign(document.createElement("div"), { textContent, className });
      const lines = names.map((name, at) => line(`${name}: ${number(plot.data[at + 1][idx], unit)}`, classes[at]));
      box.replaceChildren(line(clock(plot.data[0][idx], { second: "2-digit" }), ""), ...lines);
      const room = plot.over.clientWidth - left;
      box.style.left = room < box.offsetWidth + 24 ? `${left - box.offsetWidth - 12}px` : `${left + 12}px`;
      box.style.top = `${Math.max(0, Math.min(top, plot.over.clientHeight - box.offsetHeight))}px`;
    };
    return { hooks: { init: (plot) => plot.over.append(box), setCursor: show } };
  };

  /** The step between two labels of the time: at most six labels, and fewer if there is no room. */
  const stepOf = ({ span, width }) => [10, 15, 30, 60, 120, 180, 300].find((step) => span / step <= Math.max(3, Math.min(6, width / 96)));
  /** The round times that have room for a label. */
  const timesOf = (plot) => {
    const step = stepOf(plot);
    const first = Math.ceil((plot.end - plot.span) / step) * step;
    const all = Array.from({ length: 7 }, (_, place) => first + place * step);
    return all.filter((time) => plot.valToPos(time, "x") > 16 && plot.valToPos(time, "x") < plot.over.clientWidth - 24);
  };
  const step = (plot) => plot.valToPos(plot.end, "x", true) - plot.valToPos(plot.end - plot.every, "x", true);
  /** The places of values without a neighbour, which have no line. */
  const alone = (values) => {
    const near = (place, sign) => values.slice(Math.max(0, place + (sign < 0 ? -MAX_GAP : 1)), sign < 0 ? place : place + 1 + MAX_GAP);
    const isAlone = (place) => [-1, 1].every((sign) => near(place, sign).every((value) => value == null));
    return values.map((value, place) => (value != null && isAlone(place) ? place : -1)).filter((place) => place >= 0);
  };

  const snap = (plot, left, top) => {
    const times = plot.data[0];
    return left < 0 || !times?.length ? [left, top] : [plot.valToPos(times[plot.posToIdx(left)], "x"), top];
  };

  const options = (place, { unit }, names, classes) => {
    const text = () => colour("--soft");
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: text, font, ticks: { show: false }, grid: { stroke: () => colour("--line"), width: 1 } };
    const stroke = (line) => colour({ first: "--accent", second: "--second", third: "--third", calm: "--calm" }[classes[line]]);
    const series = names.map((label, line) => ({
      label,
      // A line that stays at zero would look like a warning.
      stroke: (plot) => (plot.data[line + 1]?.some((value) => value > 0) ? stroke(line) : colour("--line")),
      fill: () => (line === 0 ? `${stroke(line)}1a` : undefined),
      width: 2,
      gaps: (plot, _line, _from, _to, gaps) => gaps.filter(([from, to]) => to - from > (MAX_GAP + 0.5) * step(plot)),
      points: { size: 5, show: true, filter: (plot, line) => alone(plot.data[line]) },
      paths: uPlot.paths.linear(),
    }));
    return {
      width: place.clientWidth,
      height: place.clientHeight,
      legend: { show: false },
      padding: [8, 0, 0, 0],
      cursor: { move: snap, sync: { key: cursor.key }, y: false, drag: { x: false, y: false }, points: { size: 8, fill: (_, line) => stroke(line - 1) } },
      scales: {
        x: { time: true, range: (plot) => [plot.end - plot.span, plot.end] },
        y: { range: (_, low, high) => [0, high > 0 ? uPlot.rangeNum(0, high, 0.1, true)[1] : 1] },
      },
      axes: [
        { ...axis, size: 22, splits: timesOf, values: (plot, times) => times.map((time) => clock(time, stepOf(plot) < 60 ? { second: "2-digit" } : {})) },
        { ...axis, size: GUTTER, gap: 8, space: 40, incrs: unit === "req/min" ? [1, 2, 5, 10, 20, 50, 100, 500, 1e3, 1e4, 1e5] : undefined, values: (_, values) => values.map((value) => `${Number(value.toFixed(3))}${unit === "ms" ? " ms" : ""}`) },
      ],
      series: [{}, ...series],
      plugins: [tip(names, classes, unit)],
    };
  };

  const draw = (figure) => {
    const place = figure.querySelector(".plot");
    const data = JSON.parse(place.dataset.plot);
    const legend = [...figure.querySelectorAll(".legend li")];
    const names = legend.map((line) => line.firstChild.data.trim());
    const plot = new uPlot(options(place, data, names, legend.map((line) => line.className)), undefined, (plot, begin) => {
      Object.assign(plot, { end: data.end, every: data.every, span: data.span });
      place.replaceChildren(plot.root);
      begin();
    });
    plot.setData(figures(data));
    place.tabIndex = 0;
    place.addEventListener("keydown", (event) => move(plot, event));
    place.addEventListener("blur", () => plot.setCursor({ left: -10, top: -10 }));
    const size = new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: place.clientHeight }));
    size.observe(place);
    drawn.set(figure.id, { plot, size });
  };

  const move = (plot, event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const times = plot.data[0];
    if (!step || times.length === 0) return;
    event.preventDefault();
    const from = plot.cursor.left < 0 ? times.length - step * (step > 0) : (plot.cursor.idxs[1] ?? times.length) + step;
    const to = Math.max(0, Math.min(times.length - 1, from));
    plot.setCursor({ left: plot.valToPos(times[to], "x"), top: 8 });
  };

  const all = () => document.querySelectorAll("#live-charts figure:has(.plot)");
  const begin = () => {
    for (const { plot, size } of drawn.values()) {
      size.disconnect();
      plot.destroy();
    }
    drawn.clear();
    all().forEach(draw);
  };
  begin();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const { plot } of drawn.values()) plot.redraw();
  });

  /** Takes new figures from a section. Returns false if it has other charts. */
  const update = (section) => {
    const next = [...section.querySelectorAll("figure:has(.plot)")];
    const titles = (figures) => [...figures].map((it) => it.id + it.querySelector("figcaption span").textContent).join("\n");
    if (titles(next) !== titles(all())) return false;
    for (const figure of next) {
      const old = document.getElementById(figure.id);
      const plot = figure.querySelector(".plot");
      const data = JSON.parse(plot.dataset.plot);
      const { plot: chart } = drawn.get(figure.id);
      Object.assign(chart, { end: data.end, span: data.span });
      chart.setData(figures(data));
      old.querySelector(".plot").setAttribute("aria-label", plot.getAttribute("aria-label"));
      for (const part of [".legend", "tbody"]) old.querySelector(part).replaceWith(figure.querySelector(part));
    }
    return true;
  };
  return { begin, update };
})();
