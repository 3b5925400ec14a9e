// What is `<attune-chat>`? The conversation in a Shadow DOM: as a page (mode "inline") or behind a launcher.

/** Turns sent along with a question; the server cuts what does not fit its prompt, this bounds the request. */
const MAX_TURNS_SENT = 12;
/** Pixels left above a question when the view has scrolled as far as it follows. */
const ABOVE_PX = 16;

/** Milliseconds between two looks at a server that is starting. */
const STARTING_MS = 2000;
/** A browser does not say why another site can not be reached: it may be down, or this page not on its list. */
const UNREACHABLE = {
  text: "The assistant can not be reached from this page. It may be down, or this site may not be allowed to use it.",
  retry: true,
};

let sheet = null;
/** Styles without a style element: a host page's content security policy may forbid those. */
function styles() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CHAT_CSS);
  }
  return sheet;
}

class AttuneChat extends HTMLElement {
  connectedCallback() {
    if (this.shadowRoot) return;
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [styles()];
    this.inline = this.getAttribute("mode") === "inline";
    const base = this.getAttribute("base-url") || location.origin;
    this.storeKey = `attune:conversation:${base}`;
    this.tokenKey = `attune:token:${base}`;
    this.client = new Client(base, this.credentials());
    this.passage = new PassageDialog(this.client);
    this.turns = [];
    this.running = null;
    this.me = null;
    this.build();
    this.setAccent(this.getAttribute("accent"));
    this.restore();
    if (this.inline) this.start();
    else this.setOpen(this.hasAttribute("open") || session.get(`${this.storeKey}:open`) === true, { focus: false });
  }

  /** A widget gets its token from the host page, or from an address of the host's server that mints one. */
  credentials() {
    const url = this.getAttribute("token-url");
    if (!url) return { token: this.getAttribute("token") || session.get(this.tokenKey) };
    return {
      mint: async () => {
        const response = await fetch(url, { method: "POST", credentials: "same-origin" }).catch(() => null);
        if (!response?.ok) return null;
        const text = await response.text();
        try {
          return JSON.parse(text).token ?? null;
        } catch {
          return text.trim() || null;
        }
      },
    };
  }

  get heading() {
    const company = this.me?.company;
    return this.getAttribute("heading") || (company ? `Ask about ${company}` : "Ask the handbook");
  }

  build() {
    const titleId = freshId("title");
    const inputId = freshId("question");
    this.titleNode = h("h1", { id: titleId }, this.heading);
    this.log = h("div", { class: "log", role: "log", "aria-label": "Conversation", "aria-live": "off", tabindex: "0" });
    for (const gesture of ["wheel", "touchmove", "keydown", "pointerdown"]) {
      this.log.addEventListener(gesture, () => (this.following = false), { passive: true });
    }
    this.status = h("div", { class: "offscreen", role: "status" });
    this.input = h("textarea", { id: inputId, rows: "1", maxlength: "8000", placeholder: "Ask a question",
      oninput: () => this.grow(), onkeydown: (event) => this.typed(event) });
    this.sendButton = iconButton("send", "Send", null, { quiet: true, type: "submit", class: "button primary icon-only send" });
    this.stopButton = iconButton("stop", "Stop", () => this.stop(), { quiet: true, hidden: true, class: "button icon-only stop" });
    this.links = h("nav", { class: "links", "aria-label": "Pages" });
    const fresh = iconButton("plus", "New conversation", () => this.clear(), { class: "button fresh" });
    const close = this.inline ? null
      : iconButton("close", "Close chat", () => this.setOpen(false), { quiet: true, class: "button icon-only close" });
    this.composer = h("form", { class: "composer", onsubmit: (event) => (event.preventDefault(), this.submit()) },
      h("label", { htmlFor: inputId, class: "offscreen" }, "Your question"),
      h("div", { class: "field" }, this.input, this.stopButton, this.sendButton),
      h("p", { class: "notice" }, "Questions and feedback are recorded to improve the answers. Check important facts in the sources."));
    this.panel = h(this.inline ? "main" : "section",
      { class: "chat", lang: "en", id: freshId("panel"), role: this.inline ? null : "dialog", "aria-labelledby": titleId },
      h("header", {}, h("span", { class: "mark" }, icon("chat")), this.titleNode, this.links, fresh, close),
      this.log, this.composer, this.status, this.passage.node);
    this.shadowRoot.append(this.panel);
    if (!this.inline) this.buildLauncher();
  }

  buildLauncher() {
    this.classList.toggle("left", this.getAttribute("position") === "bottom-left");
    this.launcher = h("button", { type: "button", class: "launcher", lang: "en", "aria-expanded": "false",
      "aria-controls": this.panel.id, "aria-label": this.heading, onclick: () => this.setOpen(this.panel.hidden) }, icon("chat"));
    this.shadowRoot.append(this.launcher);
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) this.setOpen(false);
    });
  }

  setOpen(open, { focus = true } = {}) {
    this.panel.hidden = !open;
    this.launcher.setAttribute("aria-expanded", String(open));
    session.set(`${this.storeKey}:open`, open);
    if (open) this.start();
    if (focus) (open ? this.input : this.launcher).focus();
    if (open) this.scrollDown();
  }

  /** The accent colour, with black or white on it, whichever reads better (WCAG 2.2 relative luminance). */
  setAccent(color) {
    if (!color || !CSS.supports("color", color)) return;
    this.style.setProperty("--accent", color);
    const probe = h("span", { class: "probe" });
    this.shadowRoot.append(probe);
    const parts = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
    probe.remove();
    const [r, g, b] = parts.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    // 0.179 is where black and white contrast equally.
    this.style.setProperty("--on-accent", luminance > 0.179 ? "#000" : "#fff");
  }

  /** Who is asking, once; a person who is not signed in is asked to. */
  async start() {
    if (this.me || this.starting) return;
    this.starting = true;
    try {
      this.me = await this.client.json("GET", "/v1/me");
      this.titleNode.textContent = this.heading;
      if (this.launcher) this.launcher.setAttribute("aria-label", this.heading);
      const console = this.inline && ["curator", "operator"].includes(this.me.role);
      fill(this.links, ...(console ? [h("a", { href: "/console" }, "Console")] : []));
      this.composer.hidden = false;
      this.render();
    } catch (error) {
      if (error.status === 401 && !this.hasAttribute("token-url")) this.askToken();
      else if (error.status === 503) this.waitForServer(error);
      else this.render(error.status === 0 && this.client.base !== location.origin ? UNREACHABLE : explain(error));
    }
    this.starting = false;
  }

  /** A server that starts is asked again until it is there. */
  waitForServer(error) {
    this.render({ ...explain(error), retry: false });
    setTimeout(() => this.start(), STARTING_MS);
  }

  askToken() {
    this.composer.hidden = true;
    fill(this.log, tokenForm((token) => {
      session.set(this.tokenKey, token);
      this.client.token = token;
      this.start();
    }, this.client.token !== null));
  }

  // ---- the conversation ----

  restore() {
    const kept = session.get(this.storeKey);
    for (const { question, state } of Array.isArray(kept) ? kept : []) {
      if (typeof question === "string" && state) this.addTurn(question).state = state;
    }
    this.render();
  }

  save() {
    const kept = this.turns.filter((turn) => turn.state).map(({ question, state }) => ({ question, state }));
    session.set(this.storeKey, kept.length > 0 ? kept : null);
  }

  addTurn(question) {
    const turn = { question, state: null };
    turn.body = h("div", { class: "answer" });
    const heading = h("div", { class: "question" }, h("span", { class: "offscreen" }, "You asked: "), h("p", { dir: "auto" }, question));
    turn.node = h("article", { class: "turn" }, heading, turn.body);
    this.turns.push(turn);
    return turn;
  }

  /** Draws every turn; `problem` is shown when the conversation could not begin. */
  render(problem) {
    this.toggleAttribute("empty", this.turns.length === 0);
    if (this.turns.length > 0) {
      fill(this.log, ...this.turns.map((turn) => turn.node));
      for (const turn of this.turns) if (turn.state && !turn.drawn) this.draw(turn);
      this.scrollDown();
      return;
    }
    const again = () => {
      this.render();
      this.start();
    };
    fill(this.log, h("div", { class: "welcome" },
      h("h2", {}, this.getAttribute("greeting") || "What would you like to know?"),
      h("p", {}, "Answers come from the company's own pages and show where they are from. "
        + "If one is wrong, say so: the assistant learns from it."),
      problem ? h("p", { class: "problem", role: "alert" }, problem.text) : null,
      problem?.retry ? iconButton("retry", "Try again", again) : null));
  }

  draw(turn) {
    turn.drawn = true;
    if (turn.state.kind === "pair") return drawPair(this, turn);
    if (turn.state.kind === "answer") return drawAnswer(this, turn);
    return this.drawTrouble(turn);
  }

  /** A stopped or failed turn: what there is of the answer, why it ended, and a way on. */
  drawTrouble(turn) {
    const { text, words, retry } = turn.state;
    const part = new AnswerText({ text: text ?? "" }, () => {});
    part.draw(true);
    fill(turn.body, part.node, h("div", { class: turn.state.kind === "error" ? "trouble" : "stopped" },
      h("p", {}, words), retry ? iconButton("retry", "Try again", () => this.retry(turn), { class: "button retry" }) : null));
    return words;
  }

  messagesFor(turn) {
    const before = this.turns.slice(0, this.turns.indexOf(turn)).filter((other) => replyOf(other) !== null);
    const messages = before.slice(-MAX_TURNS_SENT).flatMap((other) => [
      { role: "user", content: other.question },
      { role: "assistant", content: replyOf(other) },
    ]);
    return [...messages, { role: "user", content: turn.question }];
  }

  submit() {
    const question = this.input.value.trim();
    if (!question || this.running) return;
    this.input.value = "";
    this.grow();
    const turn = this.addTurn(question);
    this.render();
    this.ask(turn);
  }

  /** Asks again; what came after the turn is dropped, since it built on its answer. */
  retry(turn) {
    if (this.running) return;
    this.turns.length = this.turns.indexOf(turn) + 1;
    turn.state = null;
    turn.drawn = false;
    this.render();
    this.input.focus();
    this.ask(turn);
  }

  async ask(turn) {
    const abort = new AbortController();
    this.setRunning(abort);
    turn.partial = null;
    fill(turn.body, h("p", { class: "waiting" }, h("span", { class: "dots", "aria-hidden": "true" }), "Looking it up…"));
    this.announce("Looking it up.");
    this.scrollDown();
    try {
      await this.answer(turn, abort.signal);
    } catch (error) {
      const text = turn.partial?.answer.text ?? "";
      turn.state = error.name === "AbortError"
        ? { kind: "stopped", text, words: "You stopped this answer.", retry: true }
        : { kind: "error", text, words: explain(error).text, retry: explain(error).retry };
      if (error.status === 401) {
        this.me = null;
        this.start();
      }
    }
    // Nothing is written into a conversation that was cleared in the meantime.
    if (!this.turns.includes(turn)) return;
    this.setRunning(null);
    const words = this.draw(turn);
    this.save();
    this.announce(words);
    this.follow();
  }

  async answer(turn, signal) {
    const share = this.me?.comparisons?.share ?? 0;
    if (Math.random() < share) {
      try {
        return await streamPair(this, turn, signal);
      } catch (error) {
        // No two different answers to choose from, or a refusal: the single answer is the answer.
        if (error.status !== 409) throw error;
      }
    }
    return streamAnswer(this, turn, signal);
  }

  stop() {
    this.running?.abort();
    this.input.focus();
  }

  clear() {
    this.running?.abort();
    this.setRunning(null);
    this.turns = [];
    this.save();
    this.render();
    this.announce("New conversation.");
    this.input.focus();
  }

  setRunning(abort) {
    this.running = abort;
    this.log.setAttribute("aria-busy", String(abort !== null));
    this.stopButton.hidden = abort === null;
    this.sendButton.hidden = abort !== null;
  }

  /** Says something to screen readers, once. */
  announce(words) {
    this.status.textContent = words;
  }

  /** Keeps the last turn in view as it grows, but never scrolls its question away, nor against the person. */
  follow() {
    if (!this.following) return;
    const last = this.turns.at(-1);
    const bottom = this.log.scrollHeight - this.log.clientHeight;
    this.log.scrollTop = last ? Math.min(bottom, last.node.offsetTop - ABOVE_PX) : 0;
  }

  scrollDown() {
    this.following = true;
    this.follow();
  }

  typed(event) {
    // Enter that ends an input method's composition is not a send.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  }

  grow() {
    this.input.style.setProperty("height", "auto");
    this.input.style.setProperty("height", `${this.input.scrollHeight}px`);
  }
}

/** What the assistant said in a turn, for the conversation that is sent along; null when it said nothing. */
function replyOf(turn) {
  const state = turn.state;
  if (state?.kind === "answer") return state.answer.text;
  if (state?.kind === "pair") return state.pair[shownSide(state.pair)].text;
  return null;
}
