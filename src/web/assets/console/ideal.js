// What should the assistant have said? Ideal answers: written here, or corrections that wait for approval.

function idealPage(app, prefill) {
  const filter = { status: prefill ? "" : "draft" };
  const detail = h("div", { class: "detail", tabindex: "-1" }, h("p", { class: "empty" }, "Choose an ideal answer, or write one."));
  const list = new PagedList(app, {
    address: (before) => query("/v1/demonstrations", { ...filter, before, limit: PAGE_SIZE }),
    row: (item) => idealRow(app, item, detail, list),
    empty: "Nothing here.",
  });
  const status = select([["draft", "Waiting for approval"], ["approved", "Approved"], ["", "All"]], filter.status, () => {
    filter.status = status.value;
    list.load();
  });
  status.setAttribute("aria-label", "Status");
  const bar = h("div", { class: "bar" }, status,
    button("Write ideal answer", () => editIdeal(app, null, detail, list), { class: "button primary" }));
  list.load();
  const page = app.page("Ideal answers", "Questions with the answer people should get. The assistant learns from the approved ones.",
    bar, h("div", { class: "split" }, list.node, detail));
  if (prefill) editIdeal(app, null, detail, list, prefill);
  return page;
}

const SOURCE_WORDS = { import: "Imported", written: "Written", correction: "Correction" };

function idealRow(app, item, detail, list) {
  const row = h("button", { type: "button", class: "row-button", onclick: () => {
    markCurrent(row);
    showIdeal(app, item.id, detail, list);
  } },
  h("span", { class: "row-title" }, questionOf(item.messages)),
  h("span", { class: "row-text" }, item.response),
  meta(when(item.updated), item.author, SOURCE_WORDS[item.source],
    item.status === "draft" ? pill("Waiting", "warn") : pill("Approved", "good")));
  return row;
}

const idealPath = (id) => `/v1/demonstrations/${encodeURIComponent(id)}`;

/** Its own groups, and for each page behind the answer it corrects the groups of which one is needed. */
function seenBy(item) {
  const needed = [item.groups, ...(item.access ?? [])].filter((groups) => (groups ?? []).length > 0);
  if (needed.length === 0) return "Everybody";
  return needed.map((groups, index) => [index > 0 ? " and " : null, groupPills(groups)]);
}

/** What a change sends: everything a person can change, the rest as it was. */
function idealBody(item, changes) {
  const body = { messages: item.messages, prompt: questionOf(item.messages), response: item.response, groups: item.groups, status: item.status };
  if (item.passages) body.passages = item.passages;
  return { ...body, ...changes };
}

async function showIdeal(app, id, detail, list) {
  let item;
  let corrected = null;
  try {
    item = await app.client.json("GET", idealPath(id));
    if (item.corrects) corrected = await app.client.json("GET", `/v1/answers/${encodeURIComponent(item.corrects)}`).catch(() => null);
  } catch (error) {
    app.failed(error, detail);
    return;
  }
  const setStatus = async (status, words) => {
    try {
      await app.client.json("PUT", idealPath(id), idealBody(item, { status }));
    } catch (error) {
      app.failed(error, detail);
      return;
    }
    app.toast(words);
    list.load();
    showIdeal(app, id, detail, list);
  };
  const decide = item.status === "draft"
    ? button("Approve", () => setStatus("approved", "Approved. The assistant will learn from it."), { class: "button primary approve" })
    : button("Back to waiting", () => setStatus("draft", "Not learnt from until it is approved again."));
  fill(
    detail,
    h("h2", {}, questionOf(item.messages)),
    h("div", { class: "row" }, decide,
      button("Edit", () => editIdeal(app, item, detail, list)),
      button("Delete", () => deleteIdeal(app, item, detail, list), { class: "button danger" })),
    section("Ideal answer", rendered(item.response)),
    corrected ? section("It corrects", rendered(corrected.answer)) : null,
    section("About it", facts([
      ["Status", item.status === "draft" ? "Waiting for approval" : "Approved"],
      ["Source", SOURCE_WORDS[item.source]],
      ["Author", item.author],
      ["May be seen by", seenBy(item)],
      ["Imported from", item.lineage ? `line ${item.lineage.line}, file ${item.lineage.file_sha256.slice(0, 12)}, by ${item.lineage.importer}` : null],
      ["Changed", when(item.updated)],
      ["Id", h("code", {}, item.id)],
    ])),
  );
  reveal(detail);
}

function editIdeal(app, item, detail, list, prefill) {
  const question = h("textarea", { rows: "3", required: true, value: item || prefill ? questionOf((item ?? prefill).messages) : "" });
  const response = h("textarea", { rows: "8", required: true, value: item?.response ?? prefill?.answer ?? "" });
  const groups = h("input", { value: (item?.groups ?? []).join(", ") });
  const problem = h("div", { role: "alert" });
  const save = async (event) => {
    event.preventDefault();
    const changes = { prompt: question.value.trim(), response: response.value.trim(), groups: names(groups.value) };
    try {
      const saved = item
        ? await app.client.json("PUT", idealPath(item.id), idealBody(item, { ...changes, messages: withQuestion(item.messages, changes.prompt) }))
        : await app.client.json("POST", "/v1/demonstrations", prefill
          ? { ...changes, messages: withQuestion(prefill.messages, changes.prompt), corrects: prefill.id } : changes);
      app.toast("Saved.");
      list.load();
      showIdeal(app, saved?.id ?? item.id, detail, list);
    } catch (error) {
      app.failed(error, problem);
    }
  };
  const cancel = () => (item ? showIdeal(app, item.id, detail, list) : fill(detail));
  fill(detail, h("h2", {}, item ? "Edit ideal answer" : "Write ideal answer"), h("form", { class: "form", onsubmit: save },
    field("Question", question),
    field("Ideal answer", response, "As the assistant should say it. Markdown is shown."),
    field("Groups (optional)", groups, "Separated by commas. Only members of one of them see it; empty means everybody."),
    problem,
    h("div", { class: "row" }, h("button", { type: "submit", class: "button primary" }, "Save ideal answer"), button("Cancel", cancel))));
  (item || prefill ? response : question).focus();
}

function withQuestion(messages, question) {
  const last = messages.map((message) => message.role).lastIndexOf("user");
  return messages.map((message, index) => (index === last ? { ...message, content: question } : message));
}

async function deleteIdeal(app, item, detail, list) {
  try {
    await app.client.json("DELETE", idealPath(item.id));
  } catch (error) {
    app.failed(error, detail);
    return;
  }
  fill(detail, h("p", { class: "empty" }, "Choose an ideal answer, or write one."));
  list.load();
  app.toast("Ideal answer deleted.", async () => {
    await app.client.json("POST", `${idealPath(item.id)}/restore`, {});
    list.load();
  });
}
