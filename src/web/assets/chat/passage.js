// What does a citation open? The passage it names, with the way to the whole page.

/** The dialog of one chat; `show` fills and opens it. */
class PassageDialog {
  constructor(client) {
    this.client = client;
    const titleId = freshId("passage");
    this.title = h("h2", { id: titleId });
    this.path = h("p", { class: "path" });
    this.body = h("div", { class: "passage-text", tabindex: "0", role: "region", "aria-label": "Passage" });
    this.note = h("p", { class: "hint", role: "status" });
    this.link = h("p", { class: "passage-link" });
    const close = iconButton("close", "Close passage", () => this.node.close(), { quiet: true, class: "button icon-only" });
    this.node = h(
      "dialog",
      { class: "passage", "aria-labelledby": titleId },
      h("div", { class: "passage-head" }, h("div", {}, this.title, this.path), close),
      this.body,
      this.note,
      this.link,
    );
    // A click on the backdrop has the dialog itself as its target.
    this.node.addEventListener("click", (event) => {
      if (event.target === this.node) this.node.close();
    });
    // Escape closes the passage, not the whole widget around it.
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape") event.stopPropagation();
    });
  }

  /** Shows what is known of `source` at once, then the passage as it stands now. */
  async show(source) {
    this.shown = source.passage_id;
    this.fill({ title: source.title, url: source.url, text: source.passage ?? source.text ?? "" });
    this.note.textContent = "";
    if (!this.node.open) this.node.showModal();
    try {
      const passage = await this.client.json("GET", `/v1/passages/${encodeURIComponent(source.passage_id)}`);
      if (this.shown === source.passage_id) this.fill({ ...passage, title: passage.title ?? source.title });
    } catch (error) {
      if (this.shown !== source.passage_id) return;
      this.note.textContent = error.status === 404
        ? "This page has changed since; the text above is what the answer was based on."
        : "The current text could not be loaded; the text above is what the answer was based on.";
    }
  }

  fill({ title, heading_path: path, url, text, html }) {
    this.title.textContent = title;
    this.path.textContent = (path ?? []).join(" › ");
    this.path.hidden = !this.path.textContent;
    fill(this.body, html ? copyHtml(html) : renderMarkdown(text ?? ""));
    const safe = url ? safeUrl(url) : null;
    fill(this.link, ...(safe ? [safeLink(safe, "Open the whole page ", icon("arrow"))] : []));
  }
}
