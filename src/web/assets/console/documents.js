// What does the assistant know? Documents: read, write, delete with undo, and try a search.

function documentsPage(app) {
  const detail = h("div", { class: "detail", tabindex: "-1" }, h("p", { class: "empty" }, "Choose a document, or add one."));
  const list = new PagedList(app, {
    address: (cursor) => query("/v1/documents", { before: cursor, limit: PAGE_SIZE }),
    row: (document) => documentRow(app, document, detail, list),
    empty: "No documents yet. Add one, or index a folder with “attune index”.",
  });
  const results = h("div", { "aria-live": "polite" });
  const question = h("input", { type: "search", "aria-label": "Try a search", placeholder: "Try a search: what would the assistant find?" });
  const form = h("form", { class: "bar", role: "search", onsubmit: (event) => {
    event.preventDefault();
    trySearch(app, question.value.trim(), results);
  } }, question, h("button", { type: "submit", class: "button" }, "Search"),
  button("Add document", () => editDocument(app, null, detail, list), { class: "button primary" }));
  list.load();
  return app.page("Documents", "The pages answers are taken from.", form, results, h("div", { class: "split" }, list.node, detail));
}

function documentRow(app, document, detail, list) {
  const row = h("button", { type: "button", class: "row-button", onclick: () => {
    markCurrent(row);
    showDocument(app, document.id, detail, list);
  } },
  h("span", { class: "row-title" }, document.title),
  meta(when(document.updated), counted(document.passages, "passage"), document.source, groupPills(document.groups)));
  return row;
}

function groupPills(groups) {
  return (groups ?? []).map((group) => pill(group, "warn"));
}

async function trySearch(app, text, results) {
  if (!text) return fill(results);
  try {
    const found = await app.client.json("GET", query("/v1/search", { q: text, k: 8 }));
    const cards = found.results.map((result) => h("li", { class: "card" },
      h("p", { class: "row-title" }, result.title), h("p", { class: "plain" }, result.text),
      meta(`Score ${Number(result.score).toFixed(2)}`, result.document_id)));
    const summary = `${counted(found.results.length, "passage")} in ${Math.round(found.took_ms)} ms`;
    fill(results, h("div", { class: "results" },
      h("div", { class: "row" }, h("h2", {}, summary), button("Clear", () => fill(results))), h("ol", { class: "cards" }, cards)));
  } catch (error) {
    app.failed(error, results);
  }
}

const documentPath = (id) => `/v1/documents/${encodeURIComponent(id)}`;

async function loadDocument(app, id, detail) {
  try {
    return await app.client.json("GET", documentPath(id));
  } catch (error) {
    app.failed(error, detail);
    return null;
  }
}

async function showDocument(app, id, detail, list) {
  const document = await loadDocument(app, id, detail);
  if (!document) return;
  const change = [
    button("Edit", () => editDocument(app, document, detail, list)),
    button("Delete", () => deleteDocument(app, document, detail, list), { class: "button danger" })];
  fill(
    detail,
    h("h2", {}, document.title),
    document.watched && !document.url ? null : h("div", { class: "row" },
      document.watched ? null : change,
      document.url ? safeLink(document.url, "Open page") : null),
    document.watched ? h("p", { class: "hint" }, "This page is kept in step with a folder: change or delete its file there.") : null,
    h("div", { class: "prose document" }, document.html ? copyHtml(document.html) : renderMarkdown(document.text ?? "")),
    section("About this document", facts([
      ["Id", h("code", {}, document.id)],
      ["May be seen by", document.groups.length > 0 ? groupPills(document.groups) : "Everybody"],
      ["Passages", String(document.passages)],
      ["Source", document.source],
      ["Format", document.format],
      ["Updated", when(document.updated)],
    ])),
  );
  reveal(detail);
}

function editDocument(app, document, detail, list) {
  const id = h("input", { value: document?.id ?? "", required: true, maxlength: "200", pattern: "[A-Za-z0-9._~:\\-]{1,200}", disabled: Boolean(document) });
  const title = h("input", { value: document?.title ?? "", required: true, maxlength: "500" });
  const format = select([["markdown", "Markdown"], ["html", "HTML"], ["text", "Plain text"]], document?.format ?? "markdown");
  const text = h("textarea", { rows: "16", required: true, value: document?.text ?? "" });
  const url = h("input", { type: "url", value: document?.url ?? "" });
  const groups = h("input", { value: (document?.groups ?? []).join(", ") });
  const problem = h("div", { role: "alert" });
  const save = async (event) => {
    event.preventDefault();
    const body = { title: title.value.trim(), text: text.value, format: format.value, groups: names(groups.value) };
    if (url.value.trim()) body.url = url.value.trim();
    if (document?.metadata) body.metadata = document.metadata;
    try {
      await app.client.json("PUT", documentPath(id.value.trim()), body);
    } catch (error) {
      app.failed(error, problem);
      return;
    }
    app.toast("Saved. Answers can use it now.");
    list.load();
    showDocument(app, id.value.trim(), detail, list);
  };
  const cancel = () => (document ? showDocument(app, document.id, detail, list) : fill(detail));
  fill(detail, h("h2", {}, document ? "Edit document" : "Add document"), h("form", { class: "form", onsubmit: save },
    field("Title", title),
    field("Id", id, "Letters, digits and . _ ~ : - such as it:vpn. It can not be changed later."),
    field("Format", format), field("Text", text),
    field("Link (optional)", url, "Where people read the page."),
    field("Groups (optional)", groups, "Separated by commas. Only members of one of them see it; empty means everybody."),
    problem,
    h("div", { class: "row" }, h("button", { type: "submit", class: "button primary" }, "Save document"), button("Cancel", cancel))));
  (document ? text : title).focus();
}

function names(text) {
  return text.split(",").map((name) => name.trim()).filter(Boolean);
}

async function deleteDocument(app, document, detail, list) {
  const agreed = await confirmDialog({
    title: `Delete “${document.title}”?`,
    text: "Answers stop using this page at once.",
    action: "Delete document",
  });
  if (!agreed) return;
  try {
    await app.client.json("DELETE", documentPath(document.id));
  } catch (error) {
    app.failed(error, detail);
    return;
  }
  fill(detail, h("p", { class: "empty" }, "Choose a document, or add one."));
  list.load();
  app.toast("Document deleted.", async () => {
    const { title, text, format, url, groups, metadata } = document;
    await app.client.json("PUT", documentPath(document.id), { title, text, format, groups, metadata, ...(url ? { url } : {}) });
    list.load();
  });
}
