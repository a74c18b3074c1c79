/** Plots by hand, in SVG: small functions from numbers to an element. Every one says in words what it shows. */

import { svg } from "./dom.js";

const PAD = { left: 46, right: 12, top: 10, bottom: 24 };
const HEIGHT = 190;

/** Round figures that cover [0, most], about `count` of them. */
export function ticks(most, count = 4) {
  if (!(most > 0)) return [0, 1];
  const raw = most / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= raw * 0.999);
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, index) => index * step);
}

class Frame {
  constructor(host, label, { xMost = 1, xLeast = 0, yMost, yLeast = 0, height = HEIGHT }) {
    this.width = Math.max(260, host.clientWidth || 600);
    this.height = height;
    this.x = (value) => PAD.left + ((value - xLeast) / (xMost - xLeast || 1)) * (this.width - PAD.left - PAD.right);
    this.y = (value) => height - PAD.bottom - ((value - yLeast) / (yMost - yLeast || 1)) * (height - PAD.top - PAD.bottom);
    this.node = svg("svg", { viewBox: `0 0 ${this.width} ${height}`, width: this.width, height, role: "img", "aria-label": label });
  }

  rows(values, format) {
    for (const value of values) {
      this.node.append(
        svg("line", { class: "grid", x1: PAD.left, x2: this.width - PAD.right, y1: this.y(value), y2: this.y(value) }),
        svg("text", { class: "tick", x: PAD.left - 6, y: this.y(value) + 4, "text-anchor": "end" }, format(value)));
    }
  }

  columns(values, format) {
    const last = values.length - 1;
    const narrow = this.width < 420 && last > 3;
    values.forEach((value, index) => {
      if (narrow && (last - index) % 2) return;
      const anchor = index === 0 ? "start" : index === last ? "end" : "middle";
      this.node.append(svg("text", { class: "tick", x: this.x(value), y: this.height - 6, "text-anchor": anchor }, format(value)));
    });
  }

  path(points, name) {
    const along = points.map(([x, y], index) => `${index ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    this.node.append(svg("path", { class: `line ${name}`, d: along }));
  }

  dot([x, y], name) {
    this.node.append(svg("circle", { class: `dot ${name}`, cx: this.x(x), cy: this.y(y), r: 5 }));
  }

  upright(value, name) {
    const at = { x1: this.x(value), x2: this.x(value), y1: PAD.top, y2: this.height - PAD.bottom };
    this.node.append(svg("line", { class: `upright ${name}`, ...at }));
  }

  box(x1, x2, low, high, name) {
    const height = this.y(low) - this.y(high);
    const width = Math.max(0.5, this.x(x2) - this.x(x1) - 1);
    if (height > 0) this.node.append(svg("rect", { class: name, x: this.x(x1) + 0.5, width, y: this.y(high), height }));
  }
}

/** A line with marked points; `marks` are `{point, name}`. */
export function linePlot(host, label, { points, marks = [], xTicks, xFormat, yFormat, yLeast = 0, band = [] }) {
  const top = Math.max(...points.map(([, y]) => y), ...band.map(([, , high]) => high), yLeast);
  const values = ticks(top - yLeast).map((value) => value + yLeast);
  const frame = new Frame(host, label, { xLeast: xTicks[0], xMost: xTicks.at(-1), yLeast, yMost: values.at(-1) });
  frame.rows(values, yFormat);
  frame.columns(xTicks, xFormat);
  frame.path(points, "main");
  for (const { point, name } of marks) {
    frame.upright(point[0], name);
    frame.dot(point, name);
  }
  return frame.node;
}

/** Bars of two tiers, one on the other. `bars` are `{from, to, small, large}`, `marks` are `{value, name}`. */
export function stackedBars(host, label, { bars, xTicks, xFormat, height, least = 4, marks = [] }) {
  const values = ticks(Math.max(least, ...bars.map(({ small, large }) => small + large)));
  const frame = new Frame(host, label, { xLeast: xTicks[0], xMost: xTicks.at(-1), yMost: values.at(-1), height });
  frame.rows(values, (value) => String(value));
  frame.columns(xTicks, xFormat);
  for (const { from, to, small, large } of bars) {
    frame.box(from, to, 0, small, "bar-small");
    frame.box(from, to, small, small + large, "bar-large");
  }
  for (const { value, name } of marks) frame.upright(value, name);
  return frame.node;
}

/** A line without axes, as wide as its place, for a figure that moves; `most` is its full height. */
export function spark(label, values, most, name) {
  const known = values.length > 1 ? values : [values[0] ?? 0, values[0] ?? 0];
  const y = (value) => 40 - (Math.min(value, most) / (most || 1)) * 36;
  const points = known.map((value, index) => `${((index / (known.length - 1)) * 300).toFixed(1)},${y(value).toFixed(1)}`);
  return svg("svg", { class: "spark", viewBox: "0 0 300 44", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("line", { class: "grid", x1: 0, x2: 300, y1: 43, y2: 43 }), svg("polyline", { class: `line ${name}`, points: points.join(" ") }));
}
