// What is the console? A frame with one page at a time, chosen by the address's fragment and the person's role.

/** Address fragment, title, icon and page; the roles a page needs are those of the calls it makes. */
const PAGES = [
  { key: "answers", title: "Answers", icon: "list", make: answersPage },
  { key: "documents", title: "Documents", icon: "page", make: documentsPage },
  { key: "ideal", title: "Ideal answers", icon: "pencil", make: idealPage },
  { key: "judge", title: "Judge", icon: "scales", make: judgePage },
  { key: "runs", title: "Runs", icon: "chart", make: runsPage },
  { key: "reward", title: "Reward model", icon: "scales", make: rewardPage },
  { key: "generations", title: "Generations", icon: "layers", make: generationsPage },
];
const CONSOLE_ROLES = ["curator", "operator"];
/** How long an undo is offered, in milliseconds: long enough to read and reach it (WCAG 2.2.1 has no need here: what
 * was done can also be undone by hand). */
const UNDO_MS = 12000;

class ConsoleApp {
  constructor() {
    this.tokenKey = `attune:token:${location.origin}`;
    this.client = new Client(location.origin, { token: session.get(this.tokenKey) });
    this.view = h("main", { id: "view", tabindex: "-1" });
    this.nav = h("nav", { "aria-label": "Console" });
    this.who = h("div", { class: "who" });
    this.toasts = h("div", { class: "toasts", role: "status" });
    document.body.append(
      h("a", { class: "skip", href: "#view", onclick: (event) => (event.preventDefault(), this.view.focus()) }, "Skip to content"),
      h("header", {}, h("a", { class: "brand", href: "/" }, h("span", { class: "mark" }, icon("chat")), "Attune"), this.nav, this.who),
      this.view, this.toasts);
    window.addEventListener("hashchange", () => this.route());
    document.addEventListener("keydown", (event) => this.keydown(event));
    this.start();
  }

  async start() {
    try {
      this.me = await this.client.json("GET", "/v1/me");
    } catch (error) {
      this.failed(error, this.view);
      return;
    }
    const signedIn = this.client.token !== null;
    fill(this.who, h("span", {}, this.me.user, " ", pill(this.me.role)),
      ...(signedIn ? [button("Sign out", () => this.signOut())] : []));
    if (!CONSOLE_ROLES.includes(this.me.role)) {
      fill(this.view, h("div", { class: "notice" }, h("h1", {}, "Not for this role"),
        h("p", {}, `The console is for curators and operators. You are signed in as ${this.me.user} (${this.me.role}).`),
        h("p", {}, h("a", { href: "/" }, "Go to the chat"))));
      return;
    }
    fill(this.nav, ...PAGES.map(({ key, title, icon: name }) => h("a", { href: `#${key}`, "data-key": key }, icon(name), h("span", {}, title))));
    this.route();
  }

  route(prefill) {
    if (!CONSOLE_ROLES.includes(this.me?.role)) return;
    const page = PAGES.find(({ key }) => `#${key}` === location.hash) ?? PAGES[0];
    this.onkey = null;
    for (const link of this.nav.children) {
      if (link.dataset.key === page.key) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${page.title} · Attune`;
    fill(this.view, page.make(this, prefill));
  }

  page(title, about, ...children) {
    return h("div", { class: "page" }, h("div", { class: "page-head" }, h("h1", {}, title), h("p", {}, about)), children);
  }

  /** Opens the ideal answers with a better answer than this one begun. */
  writeIdeal(record) {
    // Replacing the address does not tell `hashchange`, so the page is made here, once.
    history.pushState(null, "", "#ideal");
    this.route(record);
  }

  signOut() {
    session.set(this.tokenKey, null);
    session.set(`attune:conversation:${location.origin}`, null);
    location.reload();
  }

  /** Shows an error in `place`; one of missing credentials asks for them instead. */
  failed(error, place) {
    if (error.status === 401) {
      const rejected = this.client.token !== null;
      fill(this.nav);
      fill(this.view, tokenForm((token) => {
        session.set(this.tokenKey, token);
        this.client.token = token;
        this.start();
      }, rejected));
      return;
    }
    if (!(error instanceof ApiError)) throw error;
    fill(place, h("p", { class: "problem", role: "alert" }, explain(error).text));
  }

  /** A short note; with `undo` it can be taken back for a while. */
  toast(text, undo, label) {
    const toast = h("div", { class: "toast" }, h("span", {}, text));
    if (undo) {
      toast.append(button(label ?? "Undo", async () => {
        toast.remove();
        try {
          await undo();
          if (!label) this.toast("Undone.");
        } catch (error) {
          this.toast(`Not undone. ${explain(error).text}`);
        }
      }));
    }
    fill(this.toasts, toast);
    setTimeout(() => toast.remove(), UNDO_MS);
  }

  /** Single keys act on the open page only while nothing is typed into. */
  keydown(event) {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (this.onkey && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) this.onkey(event);
  }
}

new ConsoleApp();
