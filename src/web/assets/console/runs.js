// What is being learnt? Runs: start one, watch it, read what came of it, cancel it.

const STATE_WORDS = {
  queued: ["Waiting", ""],
  running: ["Running", "warn"],
  succeeded: ["Succeeded", "good"],
  held: ["Held back", "warn"],
  failed: ["Failed", "bad"],
  cancelled: ["Cancelled", ""],
};
const STAGE_WORDS = { improve: "Improve", sft: "Fine-tuning", reward: "Reward model", policy: "Optimisation" };
/** Between two looks at runs that move; the worker writes every two seconds. */
const LOOK_MS = 2500;
/** Curves that are read together. */
const TOGETHER = [["Loss", ["loss", "validation_loss"]]];
/** Name, label, step of the input. What is left empty is as configured. */
const SFT_OPTIONS = [
  ["rank", "Rank", "1"],
  ["alpha", "Alpha", "any"],
  ["dropout", "Dropout", "any"],
  ["learning_rate", "Learning rate", "any"],
  ["epochs", "Epochs", "1"],
  ["batch", "Demonstrations a step", "1"],
  ["max_sequence_tokens", "Longest, in tokens", "1"],
  ["seed", "Seed", "1"],
];
const POLICY_OPTIONS = [
  ["steps", "Steps", "1"],
  ["prompts_per_step", "Questions a step", "1"],
  ["completions", "Answers to each question", "1"],
  ["max_tokens", "Longest answer, in tokens", "1"],
  ["temperature", "Temperature of drawing", "any"],
  ["learning_rate", "Learning rate", "any"],
  ["beta", "Price of a nat", "any"],
  ["target_kl", "Nats from the fine-tuned model", "any"],
  ["agreement", "Worth of the human answer", "any"],
  ["anchor", "Weight of demonstrations", "any"],
];
const ALGORITHMS = [["", "as configured"], ["rloo", "RLOO"], ["grpo", "GRPO"], ["ppo", "PPO"], ["dpo", "DPO"], ["kto", "KTO"], ["best_of_n", "Best of n"]];

const runPath = (id) => `/v1/runs/${encodeURIComponent(id)}`;
const isOver = (run) => !["queued", "running"].includes(run.state);
const words = (name) => name.replaceAll("_", " ");
const titled = (name) => words(name[0].toUpperCase() + name.slice(1));

function runsPage(app) {
  const page = new RunsPage(app);
  return app.page("Runs", "Training: what was asked for, how far it is, and what came of it.", page.bar, page.node);
}

class RunsPage {
  constructor(app) {
    this.app = app;
    this.rows = new Map();
    this.shown = null;
    this.detail = h("div", { class: "detail", tabindex: "-1" }, h("p", { class: "empty" }, "Choose a run to see it."));
    this.list = new PagedList(app, {
      address: (before) => query("/v1/runs", { before, limit: PAGE_SIZE }),
      row: (run) => this.row(run),
      empty: "No run yet.",
    });
    const start = app.me.role === "operator" ? button("Start a run", () => this.form(), { class: "button primary" }) : null;
    this.bar = h("div", { class: "bar" }, start ?? h("p", { class: "hint" }, "Operators start and cancel runs."));
    this.node = h("div", { class: "split" }, this.list.node, this.detail);
    this.list.load();
    this.timer = setInterval(() => this.look(), LOOK_MS);
  }

  row(run) {
    const row = h("button", { type: "button", class: "row-button", onclick: () => {
      markCurrent(row);
      this.show(run.id, true);
    } });
    this.rows.set(run.id, { row, run });
    this.write(run);
    return row;
  }

  /** Writes a run into its row; says whether it has one. */
  write(run) {
    const known = this.rows.get(run.id);
    if (!known) return false;
    known.run = run;
    fill(known.row, h("span", { class: "row-title" }, STAGE_WORDS[run.stage] ?? run.stage, " ", statePill(run)),
      isOver(run) || !run.progress ? null : bar(run.progress),
      meta(when(run.created), run.requested_by, run.generation ? h("code", {}, run.generation) : null));
    return true;
  }

  /** Looks at what may have changed; ends with the page. */
  async look() {
    if (!this.node.isConnected) {
      clearInterval(this.timer);
      return;
    }
    const moving = [...this.rows.values()].some(({ run }) => !isOver(run));
    if (document.hidden || !moving) return;
    try {
      const { data } = await this.app.client.json("GET", query("/v1/runs", { limit: PAGE_SIZE }));
      if (!data.map((run) => this.write(run)).every(Boolean)) await this.list.load();
      if (this.shown && !isOver(this.shown)) await this.show(this.shown.id, false);
    } catch (error) {
      // The next look may succeed; what is shown stays.
      if (error.status === 401) this.app.failed(error, this.detail);
    }
  }

  async show(id, opened) {
    if (opened) this.shown = { id, state: "queued" };
    let run;
    try {
      run = await this.app.client.json("GET", runPath(id));
    } catch (error) {
      if (opened) this.app.failed(error, this.detail);
      return;
    }
    // Another one was opened meanwhile.
    if (this.shown?.id !== id) return;
    this.shown = run;
    this.write(run);
    const mayCancel = this.app.me.role === "operator" && !isOver(run);
    const focused = this.detail.querySelector(".cancel") === document.activeElement;
    fill(this.detail,
      h("h2", {}, STAGE_WORDS[run.stage] ?? run.stage, " ", statePill(run)),
      progressOf(run),
      mayCancel ? h("div", { class: "row" }, button(run.cancel_requested ? "Cancelling…" : "Cancel run", () => this.cancel(run),
        { class: "button danger cancel", disabled: run.cancel_requested })) : null,
      run.error ? h("p", { class: "problem" }, sentence(run.error)) : null,
      run.reasons.length > 0 ? section("Reasons", h("ul", { class: "reasons" }, run.reasons.map((reason) => h("li", {}, reason)))) : null,
      metricsOf(run), curvesOf(run), section("About this run", runFacts(run)));
    if (focused) this.detail.querySelector(".cancel")?.focus();
    if (opened) reveal(this.detail);
  }

  async cancel(run) {
    const agreed = await confirmDialog({
      title: "Cancel this run?",
      text: run.state === "running" ? "It ends at its next step. What it has learnt so far is not used." : "It has not begun.",
      action: "Cancel the run",
    });
    if (!agreed) return;
    try {
      const { state } = await this.app.client.json("POST", `${runPath(run.id)}/cancel`);
      this.app.toast(state === "cancelled" ? "Cancelled." : "It ends at its next step.");
    } catch (error) {
      this.app.toast(`Not cancelled. ${explain(error).text}`);
    }
    await this.show(run.id, false);
  }

  form() {
    this.shown = null;
    const stage = select(Object.entries(STAGE_WORDS), "improve");
    const promote = h("input", { type: "checkbox" });
    const restricted = h("input", { type: "checkbox" });
    const warm = h("input", { type: "checkbox" });
    const inputs = (names) => names.map(([name, label, step]) => [name, label, h("input", { type: "number", step, min: "0", placeholder: "as configured" })]);
    const options = inputs(SFT_OPTIONS);
    const optimising = inputs(POLICY_OPTIONS);
    const algorithm = select(ALGORITHMS, "");
    const filled = (options) => Object.fromEntries(options.filter(([, , input]) => input.value !== "").map(([name, , input]) => [name, Number(input.value)]));
    const problem = h("div", { role: "alert" });
    const start = async (event) => {
      event.preventDefault();
      const sft = { include_restricted: restricted.checked, ...(warm.checked ? { warm_start: true } : {}), ...filled(options) };
      const policy = { ...(algorithm.value ? { algorithm: algorithm.value } : {}), ...filled(optimising) };
      try {
        const run = await this.app.client.json("POST", "/v1/runs", { stage: stage.value, promote: promote.checked, sft, policy });
        await this.list.load();
        const known = this.rows.get(run.id);
        if (known) markCurrent(known.row);
        await this.show(run.id, true);
      } catch (error) {
        this.app.failed(error, problem);
      }
    };
    fill(this.detail, h("h2", {}, "Start a run"), h("form", { class: "form", onsubmit: start },
      field("Stage", stage, "Fine-tuning learns from the approved ideal answers, the reward model from choices and thumbs. Optimisation fine-tunes and then follows what people chose. Improve does all of it, the optimisation only where the reward model is good enough, and asks the gate."),
      checkbox("Serve the new generation at once if the gate lets it", promote),
      checkbox("Begin with what the newest earlier fine-tuning made", warm),
      checkbox("Learn from restricted ideal answers too: whoever is served the generation may then read them", restricted),
      h("details", { class: "card" }, h("summary", {}, "Options of fine-tuning"), h("div", { class: "options" }, options.map(([, label, input]) => field(label, input)))),
      h("details", { class: "card" }, h("summary", {}, "Options of optimisation"), h("div", { class: "options" }, field("Algorithm", algorithm), optimising.map(([, label, input]) => field(label, input)))),
      problem, h("div", { class: "row" }, h("button", { type: "submit", class: "button primary" }, "Start"))));
    reveal(this.detail);
  }
}

function checkbox(label, control) {
  control.id = freshId("field");
  return h("div", { class: "check" }, control, h("label", { htmlFor: control.id }, label));
}

function statePill(run) {
  const [label, kind] = STATE_WORDS[run.state] ?? [run.state, ""];
  return pill(label, kind);
}

function bar(progress) {
  return h("progress", { max: String(Math.max(progress.total, 1)), value: String(progress.done), "aria-label": words(progress.phase) });
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function progressOf(run) {
  const { progress } = run;
  if (isOver(run) || !progress) return run.state === "queued" ? h("p", { class: "hint" }, "Waits for a worker; one run is worked on at a time.") : null;
  const left = progress.eta_seconds === null ? "" : `, about ${duration(progress.eta_seconds)} left`;
  return h("div", { class: "progress" }, bar(progress), h("p", { class: "hint" }, `${words(progress.phase)}: ${progress.done} of ${progress.total || "?"}${left}`));
}

/** Figures before and after, each with the interval of the change; other figures below. */
function metricsOf(run) {
  const compared = Object.entries(run.metrics).filter(([, value]) => value !== null && typeof value === "object" && "after" in value);
  const plain = Object.entries(run.metrics).filter(([, value]) => typeof value !== "object");
  if (compared.length + plain.length === 0) return null;
  const interval = (value) => (Array.isArray(value) ? `${short(value[0])} to ${short(value[1])}` : "");
  const row = ([name, { before, after, interval: range }]) => h("tr", {}, h("th", { scope: "row" }, words(name)), h("td", {}, short(before)),
    h("td", {}, short(after)), h("td", {}, interval(range)));
  const table = compared.length === 0 ? null : h("div", { class: "table", tabindex: "0" }, h("table", {}, h("thead", {}, h("tr", {},
    ["Figure", "Before", "After", "Change (95%)"].map((title) => h("th", { scope: "col" }, title)))), h("tbody", {}, compared.map(row))));
  return section("Figures", table, facts(plain.map(([name, value]) => [words(name), typeof value === "number" ? short(value) : String(value)])));
}

function curvesOf(run) {
  const series = run.series ?? {};
  const names = Object.keys(series).filter((name) => series[name].length > 0);
  if (names.length === 0) return null;
  const joined = TOGETHER.map(([title, members]) => [title, members.filter((name) => names.includes(name))]).filter(([, members]) => members.length > 0);
  const alone = names.filter((name) => !joined.some(([, members]) => members.includes(name))).map((name) => [titled(name), [name]]);
  const charts = [...joined, ...alone].map(([title, members]) => chart(title, members.map((name) => [words(name), series[name]])));
  return section("Curves", h("div", { class: "charts" }, charts));
}

function optionsOf(options) {
  return Object.entries(options).map(([name, value]) => `${words(name)} ${value}`).join(", ");
}

function runFacts(run) {
  const seconds = run.started && run.finished ? (run.finished - run.started) / 1000 : null;
  const { include_restricted: restricted, ...options } = run.request.sft;
  return facts([
    ["Run", h("code", {}, run.id)],
    ["Asked for by", run.requested_by],
    ["Asked for", when(run.created)],
    ["Begun", when(run.started)],
    ["Ended", when(run.finished)],
    ["Took", seconds === null ? null : duration(seconds)],
    ["Phases", run.phases.map(({ phase, seconds: took }) => `${words(phase)} ${duration(took)}`).join(", ")],
    ["Attempts", run.attempts > 1 ? String(run.attempts) : null],
    ["Generation", run.generation ? h("code", {}, run.generation) : null],
    ["Serve at once", run.request.promote ? "if the gate lets it" : "no"],
    ["Restricted ideal answers", restricted ? "learnt from" : null],
    ["Fine-tuning", optionsOf(options)],
    ["Optimisation", ["policy", "improve"].includes(run.stage) ? optionsOf(run.request.policy ?? {}) : null],
  ]);
}
