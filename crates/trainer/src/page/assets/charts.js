"use strict";
// Curves of runs on uPlot. `bn` is all that these scripts add to a page.
const bn = {};

// An element with attributes and children; text is never read as HTML.
bn.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

// The JSON inside the script element `id`; null if there is none.
bn.data = (id) => {
  const found = document.getElementById(id);
  return found ? JSON.parse(found.textContent) : null;
};

// A number as a person reads it.
bn.number = (value, format = "number") => {
  if (value == null || !Number.isFinite(value)) return "–";
  if (format === "percent") return (100 * value).toFixed(2) + " %";
  // A step or a number of images, to its last digit.
  if (Number.isSafeInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return Number(value.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 6 });
};

// Draws `data` ({ runs: names, charts }) into `host`. Gives { update(data), destroy() }.
bn.charts = (host, data) => {
  const COLOURS = 8;
  const state = { x: "step", smoothing: 0, log: new Map(), range: null, plots: [] };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const faded = (name, share) => `color-mix(in srgb, ${colour(name)} ${100 * share}%, transparent)`;

  // ---- What is drawn: the curves of a chart, as uPlot takes them.

  const smoothed = (y) => {
    // Exponential moving average without the pull of its beginning.
    let sum = 0, weight = 0;
    return y.map((value) => {
      if (value == null) return null;
      sum = state.smoothing * sum + (1 - state.smoothing) * value;
      weight = state.smoothing * weight + (1 - state.smoothing);
      return sum / weight;
    });
  };

  const label = (curve, chart) => {
    const name = curve.name === "value" ? chart.title.toLowerCase() : curve.name;
    if (data.runs.length < 2) return name;
    return curve.name === "value" ? data.runs[curve.run] : `${data.runs[curve.run]}: ${name}`;
  };

  const drawn = (chart) => {
    const many = data.runs.length > 1;
    const has_epochs = chart.curves.some((curve) => curve.role === "epochs");
    const lines = [];
    for (const curve of chart.curves) {
      if (many && curve.role === "epochs") continue;
      const x = state.x === "epoch" ? curve.epoch : curve.step;
      if (x.every((value) => value == null)) continue;
      const shade = many ? curve.run % COLOURS : curve.role === "validation" ? 1 : 0;
      const of = (y, more) => lines.push({ curve, x, y, shade, label: label(curve, chart), ...more });
      const is_thin = curve.role === "training" && (many || has_epochs) || curve.role === "edge";
      const is_smooth = state.smoothing > 0 && ["training", "value"].includes(curve.role);
      if (is_smooth) {
        of(curve.y, { width: 1, share: 0.25, label: `${label(curve, chart)}, as recorded` });
        of(smoothed(curve.y), { width: 1.75, share: 1 });
      } else {
        of(curve.y, { width: is_thin ? 1 : 1.75, share: is_thin ? 0.45 : 1, dash: curve.role === "epochs" ? [6, 3] : null });
      }
    }
    return lines;
  };

  // One list of x for all lines; a line has `undefined` where it has no point, null where it has a gap.
  const aligned = (lines, is_log) => {
    if (lines.length === 0) return [[]];
    return uPlot.join(lines.map((line) => {
      const x = [], y = [];
      line.x.forEach((at, i) => {
        if (at == null || (x.length > 0 && at <= x[x.length - 1])) return;
        x.push(at);
        y.push(is_log && line.y[i] <= 0 ? null : line.y[i]);
      });
      return [x, y];
    }));
  };

  const summary = (chart, lines) => {
    const of_line = (line) => {
      const known = line.y.map((y, i) => [y, line.x[i]]).filter(([y, x]) => y != null && x != null);
      if (known.length === 0) return "";
      const text = ([y, x]) => `${bn.number(y, chart.format)} at ${state.x} ${bn.number(x)}`;
      const least = known.reduce((a, b) => (b[0] < a[0] ? b : a));
      const most = known.reduce((a, b) => (b[0] > a[0] ? b : a));
      return `${line.label}: from ${text(known[0])} to ${text(known[known.length - 1])}, least ${text(least)}, greatest ${text(most)}.`;
    };
    return `${chart.title}, ${chart.label}. ${lines.map(of_line).join(" ")}`;
  };

  // ---- The parts of a chart.

  const nearest = (plot, series, at) => {
    const y = plot.data[series];
    if (y[at] != null) return at;
    let left = at, right = at;
    while (left > 0 && y[left] == null) left -= 1;
    while (right < y.length - 1 && y[right] == null) right += 1;
    if (y[left] == null) return y[right] == null ? at : right;
    if (y[right] == null) return left;
    const x = plot.data[0];
    return x[at] - x[left] <= x[right] - x[at] ? left : right;
  };

  const options = (chart, lines, width) => {
    const ink = colour("--quiet"), grid = { stroke: colour("--line"), width: 1 };
    const font = "12px system-ui, sans-serif";
    const is_log = state.log.get(chart.id);
    const write = (value) => {
      if (chart.format === "percent") return `${Number((100 * value).toPrecision(4))} %`;
      // What fits beside the axis.
      return Math.abs(value) >= 1e7 ? value.toExponential() : bn.number(value);
    };
    return {
      width, height: 260,
      cursor: {
        sync: { key: host.id || "charts", scales: ["x", null] },
        drag: { x: true, y: false },
        dataIdx: nearest,
        points: { size: 7 },
      },
      legend: { live: true },
      scales: { x: { time: false, range: (_, min, max) => state.range ?? (min === max ? [min - 1, max + 1] : [min, max]) },
                y: { distr: is_log ? 3 : 1 } },
      axes: [
        { stroke: ink, font, grid, ticks: grid, size: 36, values: (_, splits) => splits.map((v) => v == null ? "" : bn.number(v)) },
        { stroke: ink, font, grid, ticks: grid, size: 62, values: (_, splits) => splits.map((v) => v == null ? "" : write(v)) },
      ],
      series: [
        { label: state.x, value: (_, value) => bn.number(value) },
        ...lines.map((line) => ({
          label: line.label, width: line.width, dash: line.dash,
          stroke: faded(`--c${line.shade}`, line.share),
          points: { show: line.curve.role === "validation" || line.x.length < 3, size: 5 },
          value: (_, value) => bn.number(value, chart.format),
        })),
      ],
      hooks: {
        setScale: [(plot, key) => {
          if (key !== "x" || state.is_building) return;
          const x = plot.data[0], { min, max } = plot.scales.x;
          state.range = x.length === 0 || (min <= x[0] && max >= x[x.length - 1]) ? null : [min, max];
          whole.disabled = state.range === null;
        }],
      },
    };
  };

  const zoom = (range) => {
    state.range = range;
    whole.disabled = range === null;
    for (const { plot } of state.plots) {
      const x = plot.data[0];
      if (x.length === 0) continue;
      const [min, max] = range ?? [x[0], x[x.length - 1]];
      plot.setScale("x", { min, max });
    }
  };

  // The cursor of all charts at `x`, and what stands there, said aloud for `entry`.
  const point_at = (entry, x) => {
    for (const { plot } of state.plots) {
      plot.setCursor({ left: plot.valToPos(x, "x"), top: plot.over.clientHeight / 2 });
    }
    const { plot, chart, lines, said } = entry;
    const at = plot.valToIdx(x);
    const values = lines.map((line, i) =>
      `${line.label} ${bn.number(plot.data[i + 1][nearest(plot, i + 1, at)], chart.format)}`);
    said.textContent = `${state.x} ${bn.number(plot.data[0][at])}: ${values.join(", ")}`;
  };

  const on_key = (entry, event) => {
    const { plot } = entry;
    const x = plot.data[0];
    if (x.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const { min, max } = plot.scales.x;
    const { left } = plot.cursor;
    const now = left >= 0 ? plot.posToVal(left, "x") : (min + max) / 2;
    const step = (by) => {
      const from = left >= 0 ? plot.valToIdx(now) : by > 0 ? -1 : x.length;
      point_at(entry, x[Math.min(Math.max(from + by, 0), x.length - 1)]);
    };
    const scaled = (factor) => zoom([now - (now - min) * factor, now + (max - now) * factor]);
    const keys = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      Home: () => step(-x.length), End: () => step(x.length),
      "+": () => scaled(0.5), "=": () => scaled(0.5), "-": () => scaled(2),
      0: () => zoom(null), Escape: () => zoom(null),
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };

  const make = (chart) => {
    const lines = drawn(chart);
    const is_log = state.log.get(chart.id);
    const said = bn.element("p", { class: "unseen", "aria-live": "polite" });
    const place = bn.element("div", { class: "plot", tabindex: 0, role: "group", "aria-label": `${chart.title}: curves` });
    const toggle = bn.element("button", { type: "button", class: "toggle", "aria-pressed": String(is_log), title: `${chart.title}: logarithmic axis` }, "log");
    const figure = bn.element("figure", { class: "chart", "data-chart": chart.id },
      bn.element("figcaption", {}, bn.element("h3", {}, chart.title), bn.element("span", {}, chart.label), toggle),
      place, said);
    grid.append(figure);
    const plot = new uPlot(options(chart, lines, place.clientWidth), aligned(lines, is_log), place);
    const canvas = plot.root.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", summary(chart, lines));
    const entry = { chart, lines, place, plot, said, canvas };
    toggle.addEventListener("click", () => {
      state.log.set(chart.id, !state.log.get(chart.id));
      build();
      grid.querySelector(`[data-chart="${CSS.escape(chart.id)}"] .toggle`)?.focus();
    });
    place.addEventListener("keydown", (event) => {
      if (event.target === place) on_key(entry, event);
    });
    plot.over.addEventListener("dblclick", () => zoom(null));
    // The legend's labels switch curves on and off; by keyboard too.
    for (const name of place.querySelectorAll(".u-legend .u-series:not(:first-child) th")) {
      name.tabIndex = 0;
      name.setAttribute("role", "button");
      name.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        name.click();
      });
    }
    state.plots.push(entry);
  };

  const build = () => {
    state.is_building = true;
    for (const { plot } of state.plots) plot.destroy();
    state.plots = [];
    grid.replaceChildren();
    data.charts.forEach(make);
    state.is_building = false;
    whole.disabled = state.range === null;
  };

  // ---- The toolbar.

  const unit = (value, text) => {
    const input = bn.element("input", { type: "radio", name: `${host.id}-x`, value, checked: value === state.x });
    input.addEventListener("change", () => { state.x = value; state.range = null; build(); });
    return bn.element("label", {}, input, text);
  };
  const slider = bn.element("input", { type: "range", min: 0, max: 0.95, step: 0.05, value: 0, "aria-label": "Smoothing" });
  slider.addEventListener("input", () => { state.smoothing = Number(slider.value); build(); });
  const whole = bn.element("button", { type: "button", disabled: true }, "Whole range");
  whole.addEventListener("click", () => zoom(null));
  const hint = "Drag over a chart to zoom in, double-click to see all. With the keyboard: ← → move, + − zoom, 0 shows all.";
  const grid = bn.element("div", { class: "charts" });
  for (const chart of data.charts) state.log.set(chart.id, chart.log);
  host.replaceChildren(
    bn.element("div", { class: "toolbar" },
      bn.element("fieldset", {}, bn.element("legend", { class: "unseen" }, "Horizontal axis"), unit("step", "steps"), unit("epoch", "epochs")),
      bn.element("label", {}, "smoothing", slider), whole),
    bn.element("p", { class: "hint" }, hint), grid);
  build();

  let width = grid.clientWidth;
  const observer = new ResizeObserver(() => {
    if (grid.clientWidth === width) return;
    width = grid.clientWidth;
    for (const { plot, place } of state.plots) plot.setSize({ width: place.clientWidth, height: 260 });
  });
  observer.observe(grid);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", build);

  // The same curves with more points keep zoom, hidden curves and focus; other ones are drawn anew.
  const shape = (of) => JSON.stringify([of.runs, of.charts.map((chart) => [chart.id, chart.curves.map((c) => [c.run, c.role])])]);
  const update = (next) => {
    const is_same = shape(next) === shape(data);
    data = next;
    for (const chart of data.charts) if (!state.log.has(chart.id)) state.log.set(chart.id, chart.log);
    if (!is_same) return build();
    state.is_building = true;
    state.plots.forEach((entry, i) => {
      entry.chart = data.charts[i];
      const lines = drawn(entry.chart);
      if (lines.length !== entry.lines.length) return;
      entry.lines = lines;
      entry.plot.setData(aligned(lines, state.log.get(entry.chart.id)));
      entry.canvas.setAttribute("aria-label", summary(entry.chart, lines));
    });
    state.is_building = false;
  };
  // uPlot keeps each chart in lists of its own until it is told that it is gone.
  const destroy = () => {
    observer.disconnect();
    scheme.removeEventListener("change", build);
    for (const { plot } of state.plots) plot.destroy();
    state.plots = [];
    host.replaceChildren();
  };
  return { update, destroy };
};
