// What can a person say about an answer? A thumb with reasons and a comment, and a better answer.

const REASONS = {
  up: [
    ["accurate", "Right"],
    ["clear", "Clear"],
    ["complete", "Complete"],
  ],
  down: [
    ["inaccurate", "Wrong"],
    ["outdated", "Out of date"],
    ["off_topic", "Not my question"],
    ["incomplete", "Incomplete"],
    ["too_long", "Too long"],
    ["bad_style", "Tone or form"],
    ["wrong_source", "Wrong source"],
    ["unjustified_refusal", "Should know this"],
    ["other", "Something else"],
  ],
};

/**
 * The controls under one answer. `answer` is `{id, text, refused, feedback}`; `feedback` is changed in place and
 * `changed` called, so that the conversation remembers it.
 */
class FeedbackControls {
  constructor(client, answer, { changed, announce }) {
    this.client = client;
    this.answer = answer;
    this.changed = changed;
    this.announce = announce;
    answer.feedback ??= { rating: null, reasons: [], comment: "", ideal_answer: null };
    this.thumbs = {
      up: this.thumb("up", "Helpful"),
      down: this.thumb("down", "Not helpful"),
    };
    this.suggest = iconButton("pencil", "Suggest a better answer", () => this.toggleCorrection(), {
      "aria-expanded": "false",
      class: "button suggest",
    });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.panel = h("div", { class: "panel-slot" });
    this.learnt = h("p", { class: "learnt", hidden: true });
    this.buttons = [this.thumbs.up, this.thumbs.down, this.suggest];
    this.show();
    if (this.feedback.rating || this.feedback.ideal_answer) this.tellLearnt();
  }

  get path() {
    return `/v1/feedback/${encodeURIComponent(this.answer.id)}`;
  }

  /** Tells who comes back to an answer they judged whether a model in use has learnt from it. */
  async tellLearnt() {
    try {
      const { learnt_by: generations } = await this.client.json("GET", this.path);
      if (generations.length === 0) return;
      this.learnt.textContent = `Your feedback is part of ${generations.join(" and ")}.`;
      this.learnt.hidden = false;
    } catch {
      // Only a courtesy: the answer stands without it.
    }
  }

  get feedback() {
    return this.answer.feedback;
  }

  thumb(rating, label) {
    const props = { quiet: true, class: "button icon-only", "aria-pressed": "false", "data-rating": rating };
    return iconButton(rating, label, () => this.rate(rating), props);
  }

  show() {
    for (const [rating, button] of Object.entries(this.thumbs)) {
      button.setAttribute("aria-pressed", String(this.feedback.rating === rating));
    }
  }

  /** Sends the whole feedback as `wanted`; on failure everything is as it was and the person is told. */
  async send(wanted) {
    const before = { ...this.feedback };
    Object.assign(this.feedback, wanted);
    this.show();
    try {
      await this.client.json("PUT", this.path, {
        rating: this.feedback.rating,
        reasons: this.feedback.reasons,
        comment: this.feedback.comment.trim() || null,
        ideal_answer: this.feedback.ideal_answer,
      });
      this.problem.hidden = true;
      this.changed();
      return true;
    } catch (error) {
      Object.assign(this.feedback, before);
      this.show();
      this.problem.textContent = `Not saved. ${explain(error).text}`;
      this.problem.hidden = false;
      return false;
    }
  }

  async rate(rating) {
    if (this.feedback.rating === rating) {
      this.close();
      if (await this.send({ rating: null, reasons: [], comment: "" })) this.announce("Your rating was taken back.");
      return;
    }
    if (await this.send({ rating, reasons: [] })) {
      this.announce("Thank you. Your rating was saved; you can say why.");
      this.open(this.details(rating), "details");
    }
  }

  details(rating) {
    const reasons = REASONS[rating].filter(([key]) => key !== "unjustified_refusal" || this.answer.refused);
    const chosen = new Set(this.feedback.reasons);
    const chips = reasons.map(([key, label]) => {
      const chip = h("button", { type: "button", class: "chip", "aria-pressed": chosen.has(key), "data-reason": key }, label);
      chip.addEventListener("click", () => {
        if (!chosen.delete(key)) chosen.add(key);
        chip.setAttribute("aria-pressed", String(chosen.has(key)));
      });
      return chip;
    });
    const commentId = freshId("comment");
    const comment = h("textarea", { id: commentId, rows: "2", maxlength: "2000", value: this.feedback.comment });
    const save = async () => {
      if (await this.send({ reasons: [...chosen], comment: comment.value })) this.done("Thank you for telling us.");
    };
    return h(
      "form",
      { class: "panel", onsubmit: (event) => (event.preventDefault(), save()) },
      h("div", { role: "group", "aria-label": "Reasons" },
        h("p", { class: "panel-title" }, rating === "up" ? "What was good?" : "What was wrong?"),
        h("div", { class: "chips" }, chips)),
      h("label", { htmlFor: commentId }, "Comment (optional)"),
      comment,
      this.formButtons("Send"),
    );
  }

  toggleCorrection() {
    if (this.kind === "correction") this.close();
    else this.open(this.correction(), "correction");
  }

  correction() {
    const id = freshId("ideal");
    const given = this.feedback.ideal_answer;
    const text = h("textarea", { id, rows: "6", maxlength: "8000", required: true, value: given ?? this.answer.text });
    const save = async () => {
      const value = text.value.trim();
      if (!value) return text.focus();
      if (await this.send({ ideal_answer: value })) this.done("Thank you. A curator will review your answer.");
    };
    const withdraw = async () => {
      if (await this.send({ ideal_answer: null })) this.done("Your suggestion was withdrawn.");
    };
    const extra = given ? h("button", { type: "button", class: "button", onclick: withdraw }, "Withdraw") : null;
    return h(
      "form",
      { class: "panel", onsubmit: (event) => (event.preventDefault(), save()) },
      h("label", { htmlFor: id, class: "panel-title" }, "What should the answer have been?"),
      text,
      this.formButtons("Save answer", extra),
    );
  }

  formButtons(label, extra) {
    return h("div", { class: "row" },
      h("button", { type: "submit", class: "button primary" }, label),
      h("button", { type: "button", class: "button", onclick: () => this.close() }, "Cancel"),
      extra ?? null);
  }

  open(panel, kind) {
    this.kind = kind;
    fill(this.panel, panel);
    this.suggest.setAttribute("aria-expanded", String(kind === "correction"));
    panel.querySelector(kind === "correction" ? "textarea" : ".chip").focus();
    panel.scrollIntoView({ block: "nearest" });
    panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  /** Closes the open form; the focus goes back to the control that opened it. */
  close() {
    if (!this.kind) return;
    const opener = this.kind === "correction" ? this.suggest : this.thumbs[this.feedback.rating ?? "up"];
    this.kind = null;
    this.suggest.setAttribute("aria-expanded", "false");
    fill(this.panel);
    opener.focus();
  }

  done(text) {
    this.close();
    fill(this.panel, h("p", { class: "thanks" }, icon("check"), text));
    this.announce(text);
  }
}
