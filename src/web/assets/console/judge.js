// Which of two answers is better? A queue of pairs nobody here has judged; keys 1, 2, t and b choose.

const JUDGE_CHOICES = [
  ["left", "A is better", "1"],
  ["right", "B is better", "2"],
  ["tie", "Equally good", "t"],
  ["both_bad", "Neither is good", "b"],
];

function judgePage(app) {
  const stage = h("div", { class: "stage" });
  const queue = new JudgingQueue(app, stage);
  queue.advance();
  const keys = h("p", { class: "hint keys" }, "Keys: ", JUDGE_CHOICES.map(([, label, key]) => [h("kbd", {}, key), ` ${label}  `]), h("kbd", {}, "s"), " Skip");
  const page = app.page("Judge pairs", "Choose the better of two answers. The reward model learns from it.", keys, stage);
  app.onkey = (event) => queue.key(event);
  return page;
}

class JudgingQueue {
  constructor(app, stage) {
    Object.assign(this, { app, stage, waiting: [], next: null, seen: new Set(), judged: 0, current: null });
  }

  async fill() {
    const page = await this.app.client.json("GET", query("/v1/comparisons", { unvoted: true, before: this.next, limit: 20 }));
    this.next = page.next ?? null;
    this.waiting.push(...page.data.filter((pair) => !this.seen.has(pair.id)));
    for (const pair of page.data) this.seen.add(pair.id);
  }

  async advance() {
    this.current = null;
    try {
      if (this.waiting.length === 0) await this.fill();
      while (this.waiting.length === 0 && this.next) await this.fill();
    } catch (error) {
      this.app.failed(error, this.stage);
      return;
    }
    this.current = this.waiting.shift() ?? null;
    if (this.current) this.show(this.current);
    else {
      const words = this.judged > 0 ? `All done. You judged ${this.judged}; thank you.` : "No pairs are waiting. They come from questions people ask.";
      fill(this.stage, h("p", { class: "empty big", role: "status" }, words), button("Look again", () => this.again()));
    }
  }

  again() {
    this.seen.clear();
    this.next = null;
    this.advance();
  }

  show(pair) {
    const sides = [["left", "A"], ["right", "B"]].map(([side, letter]) => {
      const id = freshId("side");
      const answer = pair[side];
      const sources = answer.citations.map((source) => h("details", { class: "card" },
        h("summary", {}, `${source.n}. ${source.title}`), h("p", { class: "plain" }, source.passage)));
      return h("section", { class: "side", "aria-labelledby": id, "data-side": side }, h("h3", { id }, `Answer ${letter}`),
        rendered(answer.content), sources);
    });
    const choices = JUDGE_CHOICES.map(([choice, label, key]) => button([h("kbd", {}, key), label], () => this.vote(choice),
      { class: "button choice", "data-choice": choice, "aria-keyshortcuts": key }));
    const title = h("h2", { tabindex: "-1" }, questionOf(pair.messages));
    fill(this.stage, title, h("div", { class: "pair" }, sides),
      h("div", { class: "row choices", role: "group", "aria-label": "Which answer is better?" }, choices,
        button([h("kbd", {}, "s"), "Skip"], () => this.advance(), { class: "button", "aria-keyshortcuts": "s" })));
    title.focus();
  }

  async vote(choice) {
    const pair = this.current;
    if (!pair) return;
    this.current = null;
    try {
      await this.send(pair, choice);
    } catch (error) {
      this.current = pair;
      this.app.toast(`Not saved. ${explain(error).text}`);
      return;
    }
    this.judged += 1;
    const label = JUDGE_CHOICES.find(([key]) => key === choice)[1];
    this.app.toast(`Saved: ${label}.`, () => {
      if (this.current) this.waiting.unshift(this.current);
      this.current = pair;
      this.judged -= 1;
      this.show(pair);
    }, "Change");
    this.advance();
  }

  send(pair, choice) {
    return this.app.client.json("POST", `/v1/comparisons/${encodeURIComponent(pair.id)}/vote`, { choice });
  }

  key(event) {
    if (event.key === "s") this.advance();
    const found = JUDGE_CHOICES.find(([, , key]) => key === event.key);
    if (found) this.vote(found[0]);
  }
}
