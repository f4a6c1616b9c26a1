/* Making and changing elements. Knows no figures. Text only ever goes in as text, never as markup. */

/** Make an element: h("p", {class: "x"}, "text", child). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set the text, or show that it is unknown. Touches the page only when something changes. */
export function put(element, text, title = null) {
  const known = text !== null && text !== undefined && text !== "";
  const key = known ? "=" + text : "?";
  if (element.dataset.shown !== key) {
    element.dataset.shown = key;
    if (known) element.replaceChildren(text);
    else element.replaceChildren(h("span", { "aria-hidden": "true" }, "–"), h("span", { class: "unseen" }, "unknown"));
    element.classList.toggle("unknown", !known);
  }
  const hover = known ? title : title ?? "unknown";
  if (hover === null) element.removeAttribute("title");
  else if (element.getAttribute("title") !== hover) element.setAttribute("title", hover);
}

/** A figure in large type: its unit is set smaller, so that the number is what is seen first. */
export function figure(element, text, title = null) {
  const cut = text ? text.lastIndexOf("\u202f") : -1;
  if (cut < 0 || text.includes(" ") && !text.startsWith("≤")) return put(element, text, title);
  if (element.dataset.shown === "=" + text) return;
  put(element, text, title);
  element.replaceChildren(text.slice(0, cut), h("span", { class: "unit" }, text.slice(cut)));
}

/** Set a class out of a family, so that "state good" becomes "state bad". */
export function mood(element, base, extra) {
  const wanted = extra ? base + " " + extra : base;
  if (element.className !== wanted) element.className = wanted;
}

/** Text with `code` in it, as nodes. */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

/**
 * A table that keeps its rows, so that focus, selection and scrolling survive each change.
 *
 * columns: [{title, hint, width (em; the one without takes the rest), wrap, numeric, head, cell(row) -> text | null | {text, title, mood, shape, below, mark, link, linkText}}];
 * mark and link only in the head
 * Roles are given outright: the narrow layout changes `display`, which takes the implied ones away.
 */
export class Table {
  constructor(caption, columns, empty) {
    this.columns = columns;
    this.rows = new Map();
    this.body = h("tbody", { role: "rowgroup" });
    const heads = columns.map((column) =>
      h("th", { scope: "col", role: "columnheader", class: column.numeric ? "number" : column.wrap ? "wrap" : null, title: column.hint }, column.title));
    this.table = h("table", { role: "table" },
      h("caption", { class: "unseen" }, caption),
      h("colgroup", {}, ...columns.map(sized)),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)), this.body);
    this.empty = h("p", { class: "empty" }, ...prose(empty));
    this.element = h("div", { class: "holder" }, this.table, this.empty);
  }

  /** Show these rows, in this order; null: nothing is known of them. */
  show(rows, keyOf, emptyText = null) {
    if (emptyText !== null && this.empty.dataset.text !== emptyText) {
      this.empty.dataset.text = emptyText;
      this.empty.replaceChildren(...prose(emptyText));
    }
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    const seen = new Set();
    rows.forEach((row, index) => {
      const key = keyOf(row, index);
      seen.add(key);
      let line = this.rows.get(key);
      if (!line) this.rows.set(key, (line = this.line()));
      this.columns.forEach((column, at) => fill(line.cells[at], column.cell(row), column.head));
      if (this.body.children[index] !== line.element) this.body.insertBefore(line.element, this.body.children[index] ?? null);
    });
    for (const [key, line] of this.rows) {
      if (!seen.has(key)) { line.element.remove(); this.rows.delete(key); }
    }
  }

  line() {
    const cells = this.columns.map((column) => {
      const value = h("span", { class: "value" });
      const below = h("span", { class: "below", hidden: true });
      const mark = h("span", { class: "below flag", hidden: true });
      const link = h("a", { class: "below link", hidden: true, target: "_blank", rel: "noopener noreferrer" });
      const attributes = { class: column.numeric ? "number" : column.wrap ? "wrap" : null, "data-label": column.title };
      const holder = column.head
        ? h("th", { scope: "row", role: "rowheader", ...attributes }, value, below, mark, link)
        : h("td", { role: "cell", ...attributes }, value, below);
      return { holder, value, below, mark, link };
    });
    return { element: h("tr", { role: "row" }, ...cells.map((cell) => cell.holder)), cells };
  }
}

/** The address, if it leads into the web; other schemes could run what somebody wrote into a rule. */
export function webAddress(text) {
  try {
    const { protocol, href } = new URL(text);
    return protocol === "https:" || protocol === "http:" ? href : null;
  } catch {
    return null;
  }
}

/** Widths are fixed, so that no column moves when a figure grows. */
function sized(column) {
  const col = h("col");
  if (column.width) col.style.width = column.width + "em";
  return col;
}

/** A name that may break after a dot, a slash or an underscore; what is copied stays the name. */
function breakable(name) {
  return name.split(/(?<=[._/-])/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
}

function fill(cell, content, isName) {
  const given = content !== null && typeof content === "object" ? content : { text: content };
  mood(cell.value, "value", given.mood);
  if (given.shape && given.text) {
    const key = given.shape + given.text;
    if (cell.value.dataset.shown !== key) {
      cell.value.dataset.shown = key;
      cell.value.replaceChildren(h("span", { class: "shape", "aria-hidden": "true" }, given.shape), " ", given.text);
    }
    if (given.title) cell.value.title = given.title;
  } else {
    const before = cell.value.dataset.shown;
    put(cell.value, given.text, given.title ?? null);
    if (isName && given.text && cell.value.dataset.shown !== before) cell.value.replaceChildren(...breakable(given.text));
    cell.value.classList.toggle("unknown", given.text === null || given.text === undefined || given.text === "");
  }
  if (given.below) {
    put(cell.below, given.below);
    mood(cell.below, "below", given.belowMood);
  }
  cell.below.hidden = !given.below;
  if (given.mark) put(cell.mark, given.mark);
  cell.mark.hidden = !given.mark;
  const address = webAddress(given.link);
  if (address) {
    put(cell.link, given.linkText);
    if (cell.link.getAttribute("href") !== address) cell.link.setAttribute("href", address);
  }
  cell.link.hidden = !address;
}
