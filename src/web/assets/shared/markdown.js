// How is Markdown shown safely? It becomes DOM nodes of a few known kinds; there is no way from text to HTML here.

/** Deepest nesting of lists, quotes and emphasis; deeper text is shown as it stands. */
const MAX_DEPTH = 6;

/** The address if a link to it is harmless (http or https), else null. */
function safeUrl(value) {
  try {
    const url = new URL(value);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}

/** A link that opens elsewhere and learns nothing about this page. */
function safeLink(value, ...children) {
  const href = safeUrl(value);
  if (!href) return h("span", {}, ...children);
  return h("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...children);
}

/**
 * A fragment for Markdown text. `cite(n)` gives the node for a mark `[n]`, or null when there is no such source: the
 * mark is then left out. Without `cite`, marks stay text.
 */
function renderMarkdown(text, cite) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.replace(/\r\n?/g, "\n").split("\n"), cite ?? null, 0));
  return fragment;
}

const FENCE = /^ {0,3}(```|~~~)\s*(\S*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}>\s?/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+/;
const TABLE_RULE = /^\s*\|?\s*:?-{1,}:?\s*(?:\|\s*:?-{1,}:?\s*)*\|?\s*$/;

function blocks(lines, cite, depth) {
  const out = [];
  let at = 0;
  const takeWhile = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at], at - from)) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    let match;
    if (!line.trim()) {
      at += 1;
    } else if ((match = FENCE.exec(line))) {
      at += 1;
      const code = takeWhile((next) => !next.trim().startsWith(match[1]));
      at += 1;
      out.push(h("pre", { tabindex: "0" }, h("code", {}, code.join("\n"))));
    } else if ((match = HEADING.exec(line))) {
      at += 1;
      // The page owns the levels above: a heading inside an answer is always a small one.
      out.push(h("h4", {}, inline(match[2].trimEnd().replace(/ #{1,6}$/, ""), cite, 0)));
    } else if (RULE.test(line)) {
      at += 1;
      out.push(h("hr"));
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const inner = takeWhile((next) => QUOTE.test(next)).map((next) => next.replace(QUOTE, ""));
      out.push(h("blockquote", {}, blocks(inner, cite, depth + 1)));
    } else if (ITEM.test(line) && depth < MAX_DEPTH) {
      out.push(list(takeWhile(isListLine(line)), cite, depth));
    } else if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) {
      out.push(table(takeWhile((next) => next.includes("|")), cite));
    } else {
      const first = at;
      const words = takeWhile((next, offset) => offset === 0 || !startsBlock(next));
      if (at === first) at += 1;
      out.push(paragraph(words, cite));
    }
  }
  return out;
}

function startsBlock(line) {
  return !line.trim() || [FENCE, HEADING, RULE, QUOTE, ITEM].some((start) => start.test(line));
}

function paragraph(lines, cite) {
  const parts = [];
  lines.forEach((line, index) => {
    if (index > 0) parts.push(/ {2}$|\\$/.test(lines[index - 1]) ? h("br") : " ");
    parts.push(...inline(line.trim().replace(/\\$/, ""), cite, 0));
  });
  return h("p", {}, parts);
}

/** Lines that belong to the list which begins with `first`: its items, what is indented below them, blank lines between. */
function isListLine(first) {
  const [, { length: indent }, marker] = ITEM.exec(first);
  const ordered = /\d/.test(marker);
  let blank = false;
  return (line) => {
    if (!line.trim()) {
      if (blank) return false;
      blank = true;
      return true;
    }
    const item = ITEM.exec(line);
    const sibling = item && item[1].length <= indent + 1;
    const inside = sibling ? item[1].length >= indent && /\d/.test(item[2]) === ordered : !blank || line.search(/\S/) > indent;
    blank = false;
    return inside;
  };
}

function list(lines, cite, depth) {
  const first = ITEM.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  for (const line of lines) {
    const match = ITEM.exec(line);
    if (match && match[1].length <= first[1].length + 1) items.push([line.slice(match[0].length)]);
    else items[items.length - 1].push(line.slice(Math.min(first[0].length, Math.max(0, line.search(/\S/)))));
  }
  const start = ordered ? Number.parseInt(first[2], 10) : 1;
  const rows = items.map((inner) => {
    const nodes = blocks(inner, cite, depth + 1);
    // A one-paragraph item needs no paragraph of its own.
    if (nodes.length > 0 && nodes[0].tagName === "P") nodes.splice(0, 1, ...nodes[0].childNodes);
    return h("li", {}, nodes);
  });
  return h(ordered ? "ol" : "ul", { start: ordered && start !== 1 ? start : null }, rows);
}

function table(lines, cite) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim(), cite, 0));
  const head = h("tr", {}, cells(lines[0]).map((cell) => h("th", { scope: "col" }, cell)));
  const rows = lines.slice(2).map((line) => h("tr", {}, cells(line).map((cell) => h("td", {}, cell))));
  const grid = h("table", {}, h("thead", {}, head), h("tbody", {}, rows));
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, grid);
}

/** Each way an inline element can begin, tried in this order at each place; all are linear in the text. */
const INLINE = [
  [/^\\([\\`*_[\]()#+\-.!|~>])/, (match) => match[1]],
  [/^(`+)([^`]+)\1(?!`)/, (match) => h("code", {}, match[2])],
  [/^\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?!\()/, citationMarks],
  [/^\[([^[\]]{1,400})\]\(\s*<?([^\s()<>]{1,2000}(?:\([^\s()<>]{0,400}\))?)>?(?:\s+"[^"]{0,400}")?\s*\)/,
    (match, cite, depth) => safeLink(match[2], ...inline(match[1], cite, depth + 1))],
  [/^<(https?:\/\/[^\s<>]{1,2000})>/, (match) => safeLink(match[1], match[1])],
  [/^https?:\/\/[^\s<>"'`)\]]{1,2000}[^\s<>"'`)\].,;:!?]/, (match) => safeLink(match[0], match[0])],
  [/^(\*\*|__)(?=\S)((?:(?!\1).){1,2000})\1/, (match, cite, depth) => h("strong", {}, inline(match[2], cite, depth + 1))],
  [/^\*(?=[^\s*])([^*]{1,2000})\*/, (match, cite, depth) => h("em", {}, inline(match[1], cite, depth + 1))],
  [/^_(?=[^\s_])([^_]{1,2000})_(?!\w)/, (match, cite, depth) => h("em", {}, inline(match[1], cite, depth + 1))],
];
/** Characters at which one of `INLINE` may begin (`h` for http). */
const INLINE_START = /[\\`[<*_h]/g;

function inline(text, cite, depth) {
  const out = [];
  let plain = "";
  let rest = text;
  const flush = () => {
    if (plain) out.push(plain);
    plain = "";
  };
  while (rest) {
    INLINE_START.lastIndex = 0;
    const start = depth < MAX_DEPTH ? INLINE_START.exec(rest) : null;
    if (!start) {
      plain += rest;
      break;
    }
    // An `h` or `_` inside a word begins nothing.
    const before = start.index > 0 ? rest[start.index - 1] : plain.slice(-1);
    plain += rest.slice(0, start.index);
    rest = rest.slice(start.index);
    const inWord = /[h_]/.test(start[0]) && /\w/.test(before);
    const found = inWord ? null : firstInline(rest, cite, depth);
    if (found) {
      flush();
      out.push(...[found.node].flat());
      rest = rest.slice(found.length);
    } else {
      plain += rest[0];
      rest = rest.slice(1);
    }
  }
  flush();
  return out;
}

function firstInline(rest, cite, depth) {
  for (const [pattern, make] of INLINE) {
    const match = pattern.exec(rest);
    const node = match ? make(match, cite, depth) : null;
    if (node !== null) return { node, length: match[0].length };
  }
  return null;
}

function citationMarks(match, cite) {
  if (!cite) return null;
  return match[1].split(",").map((n) => cite(Number.parseInt(n, 10))).filter((node) => node !== null);
}

const ALLOWED = new Set(
  ("A ABBR B BLOCKQUOTE BR CODE DD DEL DIV DL DT EM H1 H2 H3 H4 H5 H6 HR I INS KBD LI OL P PRE S SPAN STRONG SUB SUP "
    + "TABLE TBODY TD TFOOT TH THEAD TR U UL").split(" "),
);
const DROPPED = new Set("SCRIPT STYLE TEMPLATE IFRAME OBJECT EMBED SVG MATH NOSCRIPT TITLE HEAD".split(" "));

/**
 * A fragment for HTML that the server has sanitised already. It is sanitised again: parsed in an inert document, then
 * copied element by element, without attributes but `href` (http and https), `colspan` and `rowspan`.
 */
function copyHtml(html) {
  const source = new DOMParser().parseFromString(html, "text/html");
  const fragment = document.createDocumentFragment();
  fragment.append(...copyNodes(source.body, 0));
  return fragment;
}

function copyNodes(parent, depth) {
  const out = [];
  for (const node of parent.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) out.push(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) continue;
    const tag = node.tagName.toUpperCase();
    if (DROPPED.has(tag) || depth > 60) continue;
    const children = copyNodes(node, depth + 1);
    if (tag === "A") out.push(safeLink(node.getAttribute("href") ?? "", ...children));
    else if (ALLOWED.has(tag)) {
      const span = (name) => (/^\d{1,3}$/.test(node.getAttribute(name) ?? "") ? node.getAttribute(name) : null);
      out.push(h(tag.toLowerCase(), { colspan: span("colspan"), rowspan: span("rowspan") }, children));
    } else out.push(...children);
  }
  return out;
}
