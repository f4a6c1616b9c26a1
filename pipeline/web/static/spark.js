/* A small line of the last two minutes. Owns its points; gaps stay gaps: what was not heard is not drawn. */

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const SECONDS = 120;
const WIDTH = 240;
const HEIGHT = 36;
const GAP = 3.5; // seconds without a point that break the line

export class Spark {
  /** name: what is drawn, for those who do not see it. format: value -> text. floor, ceiling: fixed ends of the scale. */
  constructor(name, format, { floor = 0, ceiling = null } = {}) {
    Object.assign(this, { name, format, floor, ceiling, points: [] });
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("class", "spark");
    this.svg.setAttribute("role", "img");
    this.area = this.svg.appendChild(document.createElementNS(SVG, "path"));
    this.line = this.svg.appendChild(document.createElementNS(SVG, "path"));
    this.area.setAttribute("class", "area");
    this.line.setAttribute("class", "line");
    this.scale = h("p", { class: "scale" }, "");
    this.element = h("div", { class: "sparkbox" }, this.svg, this.scale);
  }

  /** at: seconds. value: null where it is unknown. */
  add(at, value) {
    this.points.push([at, value ?? null]);
    while (this.points.length && this.points[0][0] < at - SECONDS) this.points.shift();
    this.draw(at);
  }

  draw(now) {
    const known = this.points.map(([, value]) => value).filter((value) => value !== null);
    const least = known.length ? Math.min(...known) : null;
    const most = known.length ? Math.max(...known) : null;
    const bottom = Math.min(this.floor, least ?? this.floor);
    const top = this.ceiling ?? Math.max(most ?? 0, bottom + 1e-9) * 1.05;
    const x = (at) => (WIDTH * (1 - (now - at) / SECONDS)).toFixed(1);
    const y = (value) => (HEIGHT - 1.5 - ((value - bottom) / (top - bottom || 1)) * (HEIGHT - 3)).toFixed(1);
    const runs = this.runs();
    this.line.setAttribute("d", runs.map((run) => "M" + run.map(([at, value]) => `${x(at)} ${y(value)}`).join("L") + (run.length === 1 ? "h1" : "")).join(""));
    this.area.setAttribute("d", runs.filter((run) => run.length > 1).map((run) =>
      `M${x(run[0][0])} ${HEIGHT}L` + run.map(([at, value]) => `${x(at)} ${y(value)}`).join("L") + `L${x(run.at(-1)[0])} ${HEIGHT}Z`).join(""));
    const text = known.length ? `2 min range: ${this.format(least)} to ${this.format(most)}` : "2 min range: unknown";
    if (this.scale.textContent !== text) {
      this.scale.textContent = text;
      this.svg.setAttribute("aria-label", `${this.name}, ${text}`);
    }
  }

  /** The unbroken stretches of known points. */
  runs() {
    const runs = [];
    let last = null;
    for (const point of this.points) {
      if (point[1] === null) { last = null; continue; }
      if (last === null || point[0] - last > GAP) runs.push([]);
      runs.at(-1).push(point);
      last = point[0];
    }
    return runs;
  }
}
