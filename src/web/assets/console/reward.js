// How do people like answers, as a model? The active reward model's figures and report, and answers to try it on.

/** Figures of a reward model, with what they are called. */
const REWARD_FIGURES = {
  rung: "Kind", accuracy: "Held-out choices predicted right", accuracy_interval: "95% interval", log_loss: "Log-loss",
  calibration_error: "Calibration error", cross_validated_accuracy: "Right in cross-validation", pairs: "Choices learnt from",
  thumbs: "Thumbs learnt from", held_out: "Held out", people: "People", effective_pairs: "Effective choices",
};
const RUNGS = { features: "Features of answers", backbone: "Features and a frozen language model", adapter: "A trained language model" };

function rewardPage(app) {
  const report = h("div", { class: "detail", tabindex: "-1" });
  showReward(app, report);
  return app.page("Reward model", "Learns from choices and thumbs which answers people like; the policy is optimised by it.",
    h("div", { class: "split" }, tryIt(app), report));
}

async function showReward(app, place) {
  let model;
  try {
    model = await activeOne(app, "reward");
    if (model) model = await app.client.json("GET", generationPath(model.id));
  } catch (error) {
    app.failed(error, place);
    return;
  }
  if (!model) {
    fill(place, h("p", { class: "empty" }, "There is no reward model yet. It is trained when enough choices between answers are there; the run says how many."));
    return;
  }
  fill(place, h("h2", {}, model.id), meta(generationPills(model), when(model.created)),
    section("How good it is", facts(rewardFigures(model.metrics))),
    model.report ? h("details", { class: "card", open: true }, h("summary", {}, "Report"), rendered(model.report)) : null,
    section("Made from", provenanceOf(model, model.lineage)));
}

function rewardFigures(metrics) {
  const text = (value) => (Array.isArray(value) ? value.map(number).join(" to ") : typeof value === "number" ? short(value) : RUNGS[value] ?? value);
  return Object.entries(REWARD_FIGURES).map(([name, label]) => [label, metrics?.[name] === undefined || metrics[name] === null ? null : text(metrics[name])]);
}

/** A question and two answers; says which one people would choose. */
function tryIt(app) {
  const question = h("textarea", { rows: 2, required: true });
  const passages = h("textarea", { rows: 3 });
  const answers = [h("textarea", { rows: 4, required: true }), h("textarea", { rows: 4 })];
  const result = h("div", { "aria-live": "polite" });
  const score = async (event) => {
    event.preventDefault();
    const given = answers.map((answer) => answer.value.trim()).filter((text) => text !== "");
    const texts = passages.value.split(/\n\s*\n/).map((text) => text.trim()).filter((text) => text !== "");
    try {
      const { data } = await app.client.json("POST", "/v1/score", { text_1: question.value, text_2: given, ...(texts.length > 0 ? { passages: texts } : {}) });
      fill(result, numbersTable("Scores of the answers", ["", "Score", "Better than", "Doubt"],
        data.map(({ index, score: value, percentile, spread }) => [`Answer ${index + 1}`, number(value), `${percentile.toFixed(0)}%`, number(spread)])),
      data.length === 2 ? h("p", {}, preferred(data)) : null);
    } catch (error) {
      app.failed(error, result);
    }
  };
  return h("form", { class: "form", onsubmit: score }, h("h2", {}, "Try it"),
    field("Question", question), field("Passages", passages, "What the answers rest on, with an empty line between two. May stay empty."),
    field("Answer 1", answers[0]), field("Answer 2", answers[1], "May stay empty."),
    h("div", { class: "row" }, h("button", { type: "submit", class: "button primary" }, "Score")), result);
}

function preferred([one, other]) {
  const gap = Math.abs(one.score - other.score);
  if (gap < Math.max(one.spread, other.spread)) return "Too close to call: the models of the ensemble disagree.";
  return `People would rather choose answer ${one.score > other.score ? 1 : 2}.`;
}
