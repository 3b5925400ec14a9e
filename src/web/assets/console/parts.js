// What do the console's pages share? Lists that page, dialogs that ask, words for values, and undo.

const RATING_WORDS = { up: "Helpful", down: "Not helpful" };
const PAGE_SIZE = 30;

function when(millis) {
  if (!millis) return "";
  const date = new Date(millis);
  const text = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }).format(date);
  return h("time", { datetime: date.toISOString() }, text);
}

/** The question of a conversation: its last message by a person. */
function questionOf(messages) {
  return (messages ?? []).filter((message) => message.role === "user").at(-1)?.content ?? "";
}

function counted(n, noun) {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

/** A line of small facts; texts become spans, so that they keep their distance. */
function meta(...parts) {
  const shown = parts.flat().filter((part) => part !== null && part !== undefined && part !== "");
  return h("span", { class: "row-meta" }, shown.map((part) => (typeof part === "string" ? h("span", {}, part) : part)));
}

/** Moves to what was just opened: reading position and, where the page is one column, the view. */
function reveal(detail) {
  detail.focus({ preventScroll: true });
  detail.scrollTop = 0;
  if (matchMedia("(max-width: 899px)").matches) detail.scrollIntoView({ block: "start" });
}

function pill(text, kind) {
  return h("span", { class: `pill ${kind ?? ""}` }, text);
}

function button(label, onclick, props) {
  return h("button", { type: "button", class: "button", onclick, ...props }, label);
}

/** A labelled field; `control` gets the id that the label names. */
function field(label, control, hint) {
  control.id = freshId("field");
  const hintNode = hint ? h("p", { class: "hint", id: freshId("hint") }, hint) : null;
  if (hintNode) control.setAttribute("aria-describedby", hintNode.id);
  return h("div", { class: "field" }, h("label", { htmlFor: control.id }, label), control, hintNode);
}

function select(options, value, onchange) {
  return h("select", { onchange }, options.map(([key, label]) => h("option", { value: key, selected: key === value }, label)));
}

function facts(rows) {
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function section(title, ...children) {
  const id = freshId("section");
  return h("section", { "aria-labelledby": id }, h("h3", { id }, title), children);
}

function rendered(text, cite) {
  return h("div", { class: "prose" }, renderMarkdown(text ?? "", cite));
}

/**
 * A list that asks for more pages. `address(cursor)` gives the path, `row(item)` a list item. A newer `load` wins over
 * one whose answer comes late.
 */
class PagedList {
  constructor(app, { address, row, empty }) {
    Object.assign(this, { app, address, row, empty });
    this.items = h("ul", { class: "rows" });
    this.more = button("Show more", () => this.page(), { hidden: true });
    this.node = h("div", { class: "list", "aria-busy": "false" }, this.items, this.more);
    this.turn = 0;
  }

  load() {
    this.turn += 1;
    this.next = null;
    return this.page(true);
  }

  async page(first) {
    const turn = this.turn;
    this.node.setAttribute("aria-busy", "true");
    try {
      const page = await this.app.client.json("GET", this.address(this.next));
      if (turn !== this.turn) return;
      if (first) fill(this.items);
      this.items.append(...page.data.map((item) => h("li", {}, this.row(item))));
      this.next = page.next ?? null;
      if (this.items.children.length === 0) fill(this.items, h("li", { class: "empty" }, this.empty));
    } catch (error) {
      if (turn === this.turn) this.app.failed(error, this.items);
    }
    this.more.hidden = !this.next;
    this.node.setAttribute("aria-busy", "false");
  }
}

/** Marks the row of a list that is shown beside it. */
function markCurrent(row) {
  for (const other of row.closest(".rows")?.querySelectorAll("[aria-current]") ?? []) other.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
}

function query(path, parameters) {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") search.set(key, value);
  }
  return `${path}?${search}`;
}

/** Asks before something that changes the knowledge of everybody. Resolves to whether the person agreed. */
function confirmDialog({ title, text, action }) {
  return new Promise((resolve) => {
    const id = freshId("confirm");
    const dialog = h("dialog", { class: "confirm", "aria-labelledby": id, onclose: () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    } },
    h("h2", { id }, title), h("p", {}, text),
    h("div", { class: "row" },
      button(action, () => dialog.close("yes"), { class: "button danger" }),
      button("Cancel", () => dialog.close("no"), { autofocus: true })));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Runs `act` when typing pauses: a quarter of a second is shorter than people wait for, longer than between keys. */
function debounced(act) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, 250);
  };
}
