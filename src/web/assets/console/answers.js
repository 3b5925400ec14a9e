// What was asked and answered? The log, each answer with its provenance and what people said of it.

function answersPage(app) {
  const filter = { q: "", rating: "", refused: "" };
  const detail = h("div", { class: "detail", tabindex: "-1" }, h("p", { class: "empty" }, "Choose an answer to see it."));
  const list = new PagedList(app, {
    address: (before) => query("/v1/answers", { ...filter, before, limit: PAGE_SIZE }),
    row: (answer) => answerRow(app, answer, detail),
    empty: "No answers match.",
  });
  const search = h("input", { type: "search", "aria-label": "Search questions and answers", placeholder: "Search questions and answers",
    oninput: debounced(() => {
      filter.q = search.value.trim();
      list.load();
    }) });
  const choose = (key, label, options) => {
    const node = select(options, "", () => {
      filter[key] = node.value;
      list.load();
    });
    node.setAttribute("aria-label", label);
    return node;
  };
  const bar = h("div", { class: "bar", role: "search" }, search,
    choose("rating", "Thumb", [["", "Any thumb"], ["up", "Helpful"], ["down", "Not helpful"]]),
    choose("refused", "Outcome", [["", "Answered or not"], ["false", "Answered"], ["true", "Not answered"]]));
  list.load();
  return app.page("Answers", "Everything that was asked, newest first.", bar, h("div", { class: "split" }, list.node, detail));
}

function answerRow(app, answer, detail) {
  const row = h("button", { type: "button", class: "row-button", onclick: () => {
    markCurrent(row);
    showAnswer(app, answer.id, detail);
  } },
  h("span", { class: "row-title" }, questionOf(answer.messages)),
  h("span", { class: "row-text" }, answer.answer),
  meta(when(answer.created), answer.user, answer.refused ? pill("Not answered", "warn") : null));
  return row;
}

async function showAnswer(app, id, detail) {
  let record;
  try {
    record = await app.client.json("GET", `/v1/answers/${encodeURIComponent(id)}`);
  } catch (error) {
    app.failed(error, detail);
    return;
  }
  const { feedback } = record;
  fill(
    detail,
    h("h2", {}, questionOf(record.messages)),
    meta(when(record.created), record.user, record.refused ? pill("Not answered", "warn") : null,
      record.finish_reason === "stop" ? null : pill(`ended: ${record.finish_reason}`)),
    section("Answer", rendered(record.answer)),
    section("What people said", feedback.length > 0 ? feedback.map(feedbackCard) : h("p", { class: "empty" }, "Nothing yet.")),
    h("div", { class: "row" }, button("Write the ideal answer", () => app.writeIdeal(record))),
    section("Pages it was given", passageList(record)),
    earlier(record),
    section("Provenance", provenance(record)),
  );
  reveal(detail);
}

function feedbackCard(feedback) {
  return h("div", { class: "card" },
    meta(feedback.rating ? pill(RATING_WORDS[feedback.rating], feedback.rating === "up" ? "good" : "bad") : null,
      feedback.user, when(feedback.updated)),
    (feedback.reasons ?? []).length > 0 ? h("p", {}, feedback.reasons.map((reason) => pill(reason.replaceAll("_", " ")))) : null,
    feedback.comment ? h("p", { class: "plain" }, feedback.comment) : null,
    feedback.ideal_answer ? [h("p", { class: "label" }, "Suggested answer"), rendered(feedback.ideal_answer)] : null);
}

function passageList(record) {
  const passages = record.passages ?? [];
  if (passages.length === 0) return h("p", { class: "empty" }, "None.");
  const cited = new Set((record.citations ?? []).map((citation) => citation.passage_id));
  return passages.map((passage, index) => h("details", { class: "card" },
    h("summary", {}, `${index + 1}. ${passage.title} `, cited.has(passage.passage_id) ? pill("cited", "good") : null),
    h("p", { class: "plain" }, passage.text),
    meta(`Score ${Number(passage.score).toFixed(2)}`, passage.passage_id, passage.url ? safeLink(passage.url, "Open page") : null)));
}

function earlier(record) {
  const before = record.messages.slice(0, -1);
  if (before.length === 0) return null;
  return section("Earlier in the conversation", before.map((message) => h("div", { class: "card" },
    h("p", { class: "label" }, message.role), h("p", { class: "plain" }, message.content))));
}

function provenance(record) {
  const { sampling = {}, usage = {}, timing = {} } = record;
  const ms = (value) => (typeof value === "number" ? `${Math.round(value)} ms` : null);
  return facts([
    ["Answer", h("code", {}, record.id)],
    ["Generation", h("code", {}, record.generation)],
    ["Prompt template", h("code", {}, record.template_hash)],
    ["Index version", h("code", {}, record.index_version)],
    ["Searched for", record.search_query],
    ["Sampling", `temperature ${sampling.temperature}, top-p ${sampling.top_p}, seed ${sampling.seed}`],
    ["Tokens", `${usage.prompt_tokens} prompt, ${usage.completion_tokens} answer`],
    ["First token", ms(timing.first_token_ms)],
    ["Retrieval", ms(timing.retrieval_ms)],
    ["Total", ms(timing.total_ms)],
    ["Comparison", record.comparison ? h("code", {}, record.comparison) : null],
  ]);
}
