// Which version of the model answers? Generations: how they did, compare two, promote, go back.

const STATES = { active: ["Active", "good"], candidate: ["Candidate", null], held: ["Held", "warn"], retired: ["Retired", null] };
const KINDS = { base: "Base model", policy: "Answers questions", reward: "Judges answers" };
/** Metrics people ask for first, with what they are called; the others follow under their own names. */
const METRICS = {
  f1: "Token F1", exact_match: "Exact match", rouge_1: "ROUGE-1", rouge_2: "ROUGE-2", rouge_l: "ROUGE-L", bleu: "BLEU", chrf: "chrF",
  cosine: "Similarity", nll: "NLL per token", cited: "Right page cited", ended: "Answers that end",
};

function generationsPage(app) {
  const detail = h("div", { class: "detail", tabindex: "-1" }, h("p", { class: "empty" }, "Choose a generation to see how it did."));
  const filter = { kind: "", state: "" };
  const list = new PagedList(app, {
    address: (before) => query("/v1/generations", { ...filter, before, limit: PAGE_SIZE }),
    row: (generation) => generationRow(app, generation, detail, list),
    empty: "No generations match.",
  });
  const choose = (key, label, options) => {
    const node = select(options, "", () => {
      filter[key] = node.value;
      list.load();
    });
    node.setAttribute("aria-label", label);
    return node;
  };
  const bar = h("div", { class: "bar" },
    choose("kind", "Kind", [["", "Any kind"], ...Object.entries(KINDS)]),
    choose("state", "State", [["", "Any state"], ...Object.entries(STATES).map(([key, [word]]) => [key, word])]),
    mayPromote(app) ? button("Roll back…", () => rollBack(app, detail, list)) : null);
  list.load();
  return app.page("Generations", "Versions of the model, newest first. The active one answers.", bar,
    h("div", { class: "split" }, list.node, detail));
}

const mayPromote = (app) => app.me.role === "operator";
const generationPath = (id) => `/v1/generations/${encodeURIComponent(id)}`;

function generationPills({ state, pruned }) {
  const [word, kind] = STATES[state] ?? [state, null];
  return [pill(word, kind), pruned ? pill("Files deleted", "warn") : null];
}

function generationRow(app, generation, detail, list) {
  const f1 = generation.metrics?.f1;
  const row = h("button", { type: "button", class: "row-button", "data-id": generation.id, onclick: () => {
    markCurrent(row);
    showGeneration(app, generation.id, detail, list);
  } },
  h("span", { class: "row-title" }, generation.id),
  meta(generationPills(generation), KINDS[generation.kind], when(generation.created),
    typeof f1?.after === "number" ? `F1 ${number(f1.before)} → ${number(f1.after)}` : null,
    generation.failure ? pill("Can not be served", "bad") : null));
  return row;
}

async function showGeneration(app, id, detail, list) {
  let generation;
  try {
    generation = await app.client.json("GET", generationPath(id));
  } catch (error) {
    app.failed(error, detail);
    return;
  }
  const { failure, reasons, lineage } = generation;
  const comparison = h("div", { "aria-live": "polite" });
  fill(
    detail,
    h("h2", {}, generation.id),
    meta(generationPills(generation), KINDS[generation.kind], when(generation.created),
      generation.served ? "This server answers with it" : generation.loaded ? "Still answering older questions" : null),
    actions(app, generation, detail, list),
    generation.live ? h("p", { class: "notice" }, `Watched: ${generation.live}.`) : null,
    failure ? h("p", { class: "problem" }, "It was tried ", when(failure.at), ` and is not served: ${failure.reason}`) : null,
    reasons.length > 0 ? section("Why it is held", h("ul", { class: "plain-list" }, reasons.map((reason) => h("li", {}, reason)))) : null,
    section("How it did",
      reasons.length > 0 ? h("p", { class: "hint" }, "Over the held-out questions alone; a reason why it is held can count further ones.") : null,
      metricsTable(generation.metrics)),
    section("Compare", await comparisonChoice(app, generation, comparison), comparison),
    generation.report ? h("details", { class: "card" }, h("summary", {}, "Evaluation report"), rendered(generation.report)) : null,
    section("Made from", provenanceOf(generation, lineage)),
  );
  reveal(detail);
}

function actions(app, generation, detail, list) {
  if (!mayPromote(app) || generation.state === "active" || generation.pruned) return null;
  const progress = h("span", { class: "hint", role: "status" });
  const promote = button(generation.state === "retired" ? "Promote again…" : "Promote…",
    () => promoteGeneration(app, generation, { detail, list, promote, progress }), { class: "button primary" });
  return h("div", { class: "row" }, promote, progress);
}

/** The generation that is active in the same role. */
async function activeOne(app, kind) {
  const page = await app.client.json("GET", query("/v1/generations", { state: "active", limit: 10 }));
  const judges = kind === "reward";
  return page.data.find((other) => (other.kind === "reward") === judges) ?? null;
}

async function promoteGeneration(app, generation, { detail, list, promote, progress }) {
  const held = generation.reasons.length > 0 ? ` It is held: ${generation.reasons.join("; ")}.` : "";
  const agreed = await confirmDialog({
    title: `Promote ${generation.id}?`,
    text: `Everybody is answered by it from now on; answers in the making finish on the one they began with. You can undo this, also later with “Roll back”.${held}`,
    action: "Promote",
  });
  if (!agreed) return;
  promote.disabled = true;
  progress.textContent = "Checking and loading it…";
  try {
    const before = await activeOne(app, generation.kind);
    await move(app, generation.id, before?.id);
    app.toast(`${generation.id} is promoted.`, before ? async () => {
      await move(app, before.id, generation.id);
      await refresh(app, before.id, detail, list);
    } : null);
    await refresh(app, generation.id, detail, list);
  } catch (error) {
    promote.disabled = false;
    app.failed(error, progress);
    list.load();
  }
}

async function rollBack(app, detail, list) {
  const agreed = await confirmDialog({
    title: "Roll back?",
    text: "The generation before the active one answers again. A second roll back returns to the one that is active now.",
    action: "Roll back",
  });
  if (!agreed) return;
  try {
    const now = await app.client.json("POST", "/v1/rollback", {});
    app.toast(`Back at ${now.id}.`, async () => {
      const again = await app.client.json("POST", "/v1/rollback", {});
      await refresh(app, again.id, detail, list);
    });
    await refresh(app, now.id, detail, list);
  } catch (error) {
    app.failed(error, detail);
  }
}

function move(app, id, expected) {
  return app.client.json("POST", `${generationPath(id)}/promote`, expected ? { expected } : {});
}

async function refresh(app, id, detail, list) {
  await list.load();
  const row = list.node.querySelector(`[data-id="${CSS.escape(id)}"]`);
  if (row) markCurrent(row);
  await showGeneration(app, id, detail, list);
}

function number(value) {
  if (typeof value !== "number") return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3);
}

/** Metrics that have a value after, the known ones first. */
function measured(metrics) {
  const all = Object.entries(metrics ?? {}).filter(([, value]) => typeof value?.after === "number");
  const rank = ([name]) => (name in METRICS ? Object.keys(METRICS).indexOf(name) : 100);
  return all.sort((one, other) => rank(one) - rank(other));
}

function numbersTable(caption, head, rows) {
  return h("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption }, h("table", { class: "numbers" },
    h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, cell)))),
    h("tbody", {}, rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", {}, cell)))))));
}

function metricsTable(metrics) {
  const rows = measured(metrics).map(([name, { before, after, interval }]) => {
    const [low, high] = interval ?? [];
    const sure = typeof low === "number" ? `${number(low)} to ${number(high)}` : "–";
    return [METRICS[name] ?? name, number(before), number(after), sure];
  });
  if (rows.length === 0) return h("p", { class: "empty" }, "Nothing was measured.");
  return numbersTable("Metrics before and after training", ["", "Before", "After", "Change, 95%"], rows);
}

/** A choice of another generation; what differs is shown in `place`. */
async function comparisonChoice(app, generation, place) {
  let others = [];
  try {
    const page = await app.client.json("GET", query("/v1/generations", { kind: generation.kind, limit: 100 }));
    others = page.data.filter((other) => other.id !== generation.id);
  } catch (error) {
    app.failed(error, place);
  }
  if (others.length === 0) return h("p", { class: "hint" }, "There is no other generation of its kind.");
  const choice = select([["", "With…"], ...others.map((other) => [other.id, `${other.id} (${(STATES[other.state] ?? [other.state])[0]})`])], "", () => {
    const other = others.find(({ id }) => id === choice.value);
    fill(place, other ? comparisonTable(generation, other) : null);
  });
  choice.setAttribute("aria-label", "Compare with another generation");
  return choice;
}

function comparisonTable(one, other) {
  const theirs = Object.fromEntries(measured(other.metrics));
  const scores = measured(one.metrics).filter(([name]) => name in theirs)
    .map(([name, { after }]) => [METRICS[name] ?? name, number(after), number(theirs[name].after)]);
  const settings = differences(one, other);
  return numbersTable("Comparison of two generations", ["", shortId(one.id), shortId(other.id)],
    [...scores, ["Rows trained on", rowsOf(one), rowsOf(other)], ...settings]);
}

const shortId = (id) => `${id.slice(0, 8)}…`;
const rowsOf = ({ lineage }) => {
  const counts = Object.values(lineage.dataset?.counts ?? {});
  return counts.length > 0 ? String(counts.reduce((sum, count) => sum + count, 0)) : "–";
};

/** Settings of the training that are not the same. */
function differences(one, other) {
  const [mine, theirs] = [one.lineage.training ?? {}, other.lineage.training ?? {}];
  const text = (value) => (value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const names = [...new Set([...Object.keys(mine), ...Object.keys(theirs)])].sort();
  return names.map((name) => [name, text(mine[name]), text(theirs[name])]).filter(([, left, right]) => left !== right);
}

function provenanceOf(generation, lineage) {
  const counts = Object.entries(lineage.dataset?.counts ?? {}).map(([name, count]) => `${name} ${count}`).join(", ");
  const code = (value) => (value ? h("code", {}, value) : null);
  return facts([
    ["Parent", code(generation.parent)],
    ["Base model", lineage.base.name],
    ["Run", code(lineage.run)],
    ["Dataset", code(lineage.dataset?.sha256?.slice(0, 16))],
    ["Rows", counts],
    ["Tensors changed", lineage.merged_tensors > 0 ? String(lineage.merged_tensors) : null],
    ["Weights", lineage.serving_format],
    ["May be told to", lineage.access.length > 0 ? lineage.access.map((groups) => groups.join(" or ")).join(", and ") : "Everybody"],
    ["Prompt template", code(lineage.template.prompt)],
  ]);
}
