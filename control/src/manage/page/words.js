// Numbers and times in words, and what is put into the page: always text, never markup.

/** A number with a letter for its thousands. */
export function short(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "-";
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    const divisor = letter === "k" ? 1e3 : size;
    if (number >= size) return (number / divisor).toFixed(1) + letter;
  }
  return number >= 100 || Number.isInteger(number) ? number.toFixed(0) : number.toFixed(number >= 1 ? 1 : 2);
}

export const percent = (part) => (part === null || part === undefined ? "-" : `${(100 * part).toFixed(0)} %`);

/** Seconds, to the two largest units. */
export function duration(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  const [d, h, m, s] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s} s` : `${s} s`;
}

/** A short time, as a histogram has it. */
export function moment(seconds) {
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
}

export const clock = (date) => date.toTimeString().slice(0, 8);

/** Writes text where it differs, so that readers of screens are not told the same again. */
export function say(id, text, look) {
  const place = document.getElementById(id);
  if (place.textContent !== String(text)) place.textContent = text;
  if (look !== undefined) place.className = look;
}

export function element(name, text, look) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (look) made.className = look;
  return made;
}

/**
 * A table. `columns` are its heads, with ">" before those of numbers and "~" before those of long text; in `rows` a cell is a
 * text, a node, or [text, class]. The first cell of a row is its head.
 */
export function table(id, columns, rows, none) {
  const looks = columns.map((head) => (head[0] === ">" ? "number" : head[0] === "~" ? "text" : ""));
  const top = element("tr");
  columns.forEach((head, at) => {
    const cell = element("th", head.replace(/^[>~]/, ""), looks[at]);
    cell.scope = "col";
    top.append(cell);
  });
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    row.forEach((given, at) => {
      const [content, look] = Array.isArray(given) ? given : [given, ""];
      const cell = element(at ? "td" : "th", undefined, `${looks[at]} ${at ? "" : "name"} ${look}`.trim());
      if (!at) cell.scope = "row";
      cell.append(content instanceof Node ? content : String(content ?? "-"));
      line.append(cell);
    });
    body.append(line);
  }
  if (!rows.length) {
    const cell = element("td", none);
    cell.colSpan = columns.length;
    const line = element("tr");
    line.append(cell);
    body.append(line);
  }
  const head = element("thead");
  head.append(top);
  document.getElementById(id).replaceChildren(head, body);
}
