// How is an answer shown? Its text as it streams in, its sources, and what can be done with it.

/** One answer's text and sources. `answer`: `{text, citations, sources}`; `open(source)` opens a passage. */
class AnswerText {
  constructor(answer, open) {
    this.answer = answer;
    this.open = open;
    this.text = h("div", { class: "prose", dir: "auto" });
    this.sources = h("div", { class: "sources" });
    this.node = h("div", { class: "answer-text" }, this.text, this.sources);
    this.pending = false;
  }

  /** Appends streamed text; drawn at most once a frame. */
  append(piece) {
    this.answer.text += piece;
    if (this.pending) return;
    this.pending = true;
    const draw = () => {
      if (this.pending) this.draw(false);
    };
    // A hidden page draws no frames; its text still has to arrive.
    if (document.hidden) setTimeout(draw, 50);
    else requestAnimationFrame(draw);
  }

  draw(finished) {
    this.pending = false;
    const sources = sourcesOf(this.answer);
    const cite = (n) => {
      const source = sources.get(n);
      // While the answer streams its sources are not known yet: the mark stands as text.
      if (!finished) return h("span", { class: "cite pending" }, String(n));
      return source ? this.mark(n, source) : null;
    };
    fill(this.text, renderMarkdown(this.answer.text, cite));
    this.text.classList.toggle("streaming", !finished);
    fill(this.sources, ...(finished ? this.sourceLists() : []));
  }

  mark(n, source) {
    const name = `Source ${n}: ${source.title}`;
    return h("button", { type: "button", class: "cite", "aria-label": name, title: source.title, "data-n": n,
      onclick: () => this.open(source) }, String(n));
  }

  sourceLists() {
    const cited = new Set((this.answer.citations ?? []).map((source) => source.passage_id));
    const all = this.answer.sources ?? [];
    const related = all.filter((source) => !cited.has(source.passage_id));
    return [
      this.sourceList("Cited by the answer", this.answer.citations ?? [], "cited"),
      this.sourceList(cited.size > 0 ? "Related pages" : "Pages that may help", related, "related"),
    ].filter((list) => list !== null);
  }

  sourceList(title, sources, kind) {
    if (sources.length === 0) return null;
    const id = freshId("sources");
    const rows = sources.map((source) => h("li", {}, h(
      "button",
      { type: "button", class: "source", "data-kind": kind, onclick: () => this.open(source) },
      h("span", { class: "n", "aria-hidden": "true" }, kind === "cited" ? String(source.n) : icon("page")),
      h("span", { class: "source-title" }, source.title),
    )));
    return h("section", { "aria-labelledby": id }, h("h3", { id }, title), h("ul", {}, rows));
  }
}

/** Number to source: citations win over the list of everything that was retrieved. */
function sourcesOf(answer) {
  const sources = new Map();
  for (const source of [...(answer.sources ?? []), ...(answer.citations ?? [])]) {
    if (Number.isInteger(source.n)) sources.set(source.n, source);
  }
  return sources;
}

/** The answer as plain text, for the clipboard and for screen readers. */
function plainText(node) {
  const copy = node.cloneNode(true);
  for (const mark of copy.querySelectorAll(".cite")) mark.remove();
  for (const block of copy.querySelectorAll("p, li, pre, h4, tr, br")) block.append("\n");
  return copy.textContent.replace(/\n{2,}/g, "\n").trim();
}

/** The row of controls under a finished answer. */
function answerActions(chat, turn, answer, text) {
  const feedback = new FeedbackControls(chat.client, answer, {
    changed: () => chat.save(),
    announce: (words) => chat.announce(words),
  });
  const copy = iconButton("copy", "Copy answer", async () => {
    chat.announce((await copyText(plainText(text.text))) ? "Answer copied." : "Copying is not possible here.");
  }, { quiet: true, class: "button icon-only" });
  const retry = iconButton("retry", "Ask again", () => chat.retry(turn), { quiet: true, class: "button icon-only retry" });
  const [up, down, suggest] = feedback.buttons;
  const row = h("div", { class: "actions", role: "group", "aria-label": "About this answer" }, up, down, copy, retry, suggest);
  return h("div", { class: "answer-foot" }, row, feedback.learnt, feedback.problem, feedback.panel);
}

/** Streams one answer into `turn`; errors are the caller's. */
async function streamAnswer(chat, turn, signal) {
  const answer = { id: null, text: "", citations: [], sources: [], refused: false };
  const text = new AnswerText(answer, (source) => chat.passage.show(source));
  fill(turn.body, text.node);
  turn.partial = text;
  const body = { model: "attune", messages: chat.messagesFor(turn) };
  for await (const { value } of chat.client.stream("/v1/chat/completions", body, signal)) {
    answer.id = value.id ?? answer.id;
    const piece = value.choices?.[0]?.delta?.content;
    if (piece) {
      text.append(piece);
      chat.follow();
    }
    // Comes with the last chunk, when the answer is recorded.
    if (value.attune) {
      const { citations, sources, refused } = value.attune;
      Object.assign(answer, { citations, sources, refused });
    }
  }
  turn.state = { kind: "answer", answer };
}

/** Draws a finished answer; returns its plain text for the announcement. */
function drawAnswer(chat, turn) {
  const { answer } = turn.state;
  const text = new AnswerText(answer, (source) => chat.passage.show(source));
  text.draw(true);
  fill(turn.body, text.node, answerActions(chat, turn, answer, text));
  return plainText(text.text);
}
