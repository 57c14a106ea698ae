// Small charts, drawn as SVG.

import { element, short } from "/words.js";

const SVG = "http://www.w3.org/2000/svg";
const [LEFT, RIGHT, TOP, BOTTOM] = [38, 8, 6, 16];
/** Minutes a chart may show: the least that has room for what is known. */
const SPANS = [5, 10, 20, 40, 60];

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Points as a path: where there is none, the line is broken. */
function line(values, x, y) {
  let drawn = "";
  let apart = true;
  values.forEach((value, at) => {
    if (value === null || value === undefined) {
      apart = true;
      return;
    }
    drawn += `${apart ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    // A point with nothing beside it is a short stroke.
    if (apart && (values[at + 1] === null || values[at + 1] === undefined)) drawn += "h1.5";
    apart = false;
  });
  return drawn;
}

/**
 * Draws lines over time. `times` are seconds, the newest last; `series` have a name, values and perhaps targets. `top` is the
 * greatest value there can be, if that is known; `write` makes a value a text.
 */
export function lines(id, times, series, { top, height = 130, write = short, label }) {
  const place = document.getElementById(id);
  // One unit is one pixel, so that letters are of one size everywhere.
  const width = Math.max(220, place.clientWidth);
  const newest = times.length ? times[times.length - 1] : 0;
  const known = times.length ? newest - times[0] : 0;
  const span = 60 * (SPANS.find((minutes) => minutes * 60 >= known) ?? Math.ceil(known / 60));
  const most = top ?? niceTop(Math.max(0, ...series.flatMap((it) => it.values.filter((value) => value !== null))));
  const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (newest - times[at]) / span);
  const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - Math.min(value, most) / most);
  const chart = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": spoken(label, series, write) });
  for (const part of [0, 0.5, 1]) {
    chart.append(shape("path", { class: "axis", d: `M${LEFT} ${y(part * most)}H${width - RIGHT}` }));
    chart.append(shape("text", { x: LEFT - 4, y: y(part * most) + 3, "text-anchor": "end" }, write(part * most)));
  }
  for (const part of width < 320 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    const minutes = Number(((span * (1 - part)) / 60).toFixed(1));
    const at = LEFT + (width - LEFT - RIGHT) * part;
    const anchor = part === 1 ? "end" : "middle";
    chart.append(shape("text", { x: at, y: height - 4, "text-anchor": anchor }, minutes ? `-${minutes} min` : "now"));
  }
  series.forEach((it, at) => {
    if (it.targets) chart.append(shape("path", { class: `target c${at % 8}`, d: line(it.targets, x, y) }));
    chart.append(shape("path", { class: `carried c${at % 8}`, d: line(it.values, x, y) }));
  });
  place.replaceChildren(chart);
  if (series.length > 1 || series.some((it) => it.targets)) place.append(legend(series, write));
}

const last = (values) => (values && values.length ? values[values.length - 1] : null);

function legend(series, write) {
  const list = element("ul", undefined, "legend");
  series.forEach((it, at) => {
    const entry = element("li");
    const sample = shape("svg", { viewBox: "0 0 24 10", "aria-hidden": "true" });
    sample.append(shape("path", { class: `carried c${at % 8}`, d: "M1 5H23" }));
    const [now, wanted] = [last(it.values), last(it.targets)];
    const target = wanted === null || wanted === undefined ? "" : ` of ${write(wanted)}`;
    entry.append(sample, ` ${it.name} ${now === null ? "-" : write(now)}${target}`);
    list.append(entry);
  });
  return list;
}

/** What a chart shows, for those who do not see it. */
function spoken(label, series, write) {
  const now = series.map((it) => `${it.name} ${last(it.values) === null ? "unknown" : write(last(it.values))}`);
  return `${label}; now: ${now.join(", ") || "nothing"}`;
}

function niceTop(value) {
  if (!(value > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((it) => it * size).find((it) => it >= value);
}

/** A bar as long as its part of the whole, for a cell of a table whose figure stands beside it. */
export function bar(part) {
  const drawn = shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  drawn.append(shape("rect", { class: "bar", width: Math.max(part > 0 ? 1 : 0, 100 * part).toFixed(1), height: 10 }));
  return drawn;
}
