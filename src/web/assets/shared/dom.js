// How are elements made? Only through `h`: text stays text, so nothing a person, page or model wrote is ever parsed.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "open", "htmlFor", "className"]);

/** An element. `on…` are listeners, `aria-…` keep "false", other false or missing values are left out. */
function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) node[name] = value;
    else if (name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...present(children));
  return node;
}

/** Replaces what is in a node; like `h`, it leaves out what is missing. */
function fill(node, ...children) {
  node.replaceChildren(...present(children));
}

function present(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
}

const ICONS = {
  up: "M7 10v10M7 10l4-7a2 2 0 0 1 2.6 2.4L13 9h5.2a2 2 0 0 1 2 2.4l-1.4 7A2 2 0 0 1 16.8 20H4V10z",
  down: "M17 14V4M17 14l-4 7a2 2 0 0 1-2.6-2.4L11 15H5.8a2 2 0 0 1-2-2.4l1.4-7A2 2 0 0 1 7.2 4H20v10z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  pencil: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
  retry: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4.5h4.5",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  chat: "M4 5h16v11H10l-5 4v-4H4z",
  page: "M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6",
  check: "M5 12.5l4.5 4.5L19 7.5",
  arrow: "M7 17L17 7M9 7h8v8",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  scales: "M12 4v16M8 20h8M5 7h14M5 7l-3 7h6zM19 7l-3 7h6z",
  layers: "M12 3l9 5-9 5-9-5zM3 12.5l9 5 9-5M3 16.5l9 5 9-5",
  list: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  chart: "M4 4v16h16M7 15l4-5 4 3 5-7",
  back: "M15 5l-7 7 7 7",
};

/** A line icon; decoration only, the control beside it has the name. */
function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  const attributes = { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false", class: "icon" };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon; `label` is its name, shown unless `quiet`. */
function iconButton(name, label, onclick, props) {
  const { quiet, ...rest } = props ?? {};
  const named = quiet ? { "aria-label": label, title: label } : {};
  return h("button", { type: "button", class: "button", onclick, ...named, ...rest }, icon(name), quiet ? null : label);
}

/** Session storage that may be denied: then nothing is kept, and nothing breaks. */
const session = {
  get(key) {
    try {
      return JSON.parse(sessionStorage.getItem(key));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      if (value === null) sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, JSON.stringify(value));
    } catch {
      // Denied or full: the conversation then ends with the page.
    }
  },
};

/** Copies text; plain HTTP pages have no clipboard interface, so the old way is the fallback. */
async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not permitted here: the fallback may be.
    }
  }
  const area = h("textarea", { value: text, class: "offscreen", "aria-hidden": "true", tabindex: "-1" });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

let serial = 0;
/** An id for `for` and `aria-labelledby`, unique on the page. */
function freshId(prefix) {
  serial += 1;
  return `attune-${prefix}-${serial}`;
}
