// How does a person choose between two answers? Both stream in side by side; a radio group takes the choice.

const CHOICES = [
  ["left", "A is better"],
  ["right", "B is better"],
  ["tie", "Equally good"],
  ["both_bad", "Neither is good"],
];
const STRENGTHS = [
  [1, "Slightly"],
  [2, "Clearly"],
  [3, "Much better"],
];

/** Streams two answers into `turn`; a 409 (no two different answers) is the caller's to fall back on. */
async function streamPair(chat, turn, signal) {
  const blank = () => ({ id: null, text: "", citations: [], sources: [] });
  const pair = { id: null, left: blank(), right: blank(), vote: null };
  const view = pairView(chat, pair);
  fill(turn.body, view.node);
  for await (const { value } of chat.client.stream("/v1/comparisons", { messages: chat.messagesFor(turn) }, signal)) {
    if (value.type === "delta") {
      view.sides[value.side].append(value.text);
      chat.follow();
    }
    if (value.type !== "finished") continue;
    pair.id = value.id;
    for (const side of ["left", "right"]) {
      const { id, content: text, citations, sources } = value[side];
      Object.assign(pair[side], { id, text, citations, sources, refused: false });
    }
  }
  turn.state = { kind: "pair", pair };
}

/** The two answers; `sides` take streamed text. */
function pairView(chat, pair) {
  const sides = {};
  const columns = [["left", "A"], ["right", "B"]].map(([side, letter]) => {
    sides[side] = new AnswerText(pair[side], (source) => chat.passage.show(source));
    const id = freshId("side");
    const chosen = pair.vote?.choice === side;
    const badge = chosen ? h("span", { class: "badge" }, icon("check"), "Your choice") : null;
    return h("section", { class: chosen ? "side chosen" : "side", "aria-labelledby": id, "data-side": side },
      h("h3", { id }, `Answer ${letter}`, badge), sides[side].node);
  });
  return { node: h("div", { class: "pair" }, columns), sides };
}

/** Draws finished answers with the vote, or the vote that was given. */
function drawPair(chat, turn) {
  const { pair } = turn.state;
  const view = pairView(chat, pair);
  for (const side of Object.values(view.sides)) side.draw(true);
  const foot = h("div", {});
  fill(
    turn.body,
    h("p", { class: "pair-title" }, "Two answers to choose from. Your choice teaches the assistant."),
    view.node,
    foot,
  );
  if (pair.vote) {
    const label = CHOICES.find(([key]) => key === pair.vote.choice)[1];
    const change = h("button", { type: "button", class: "button", onclick: () => {
      fill(foot, voteForm(chat, turn, foot));
      foot.querySelector("input:checked")?.focus();
    } }, "Change");
    const best = shownSide(pair);
    fill(
      foot,
      h("p", { class: "thanks" }, icon("check"), `Thank you. You chose: ${label}.`, change),
      answerActions(chat, turn, pair[best], view.sides[best]),
    );
  } else {
    fill(foot, voteForm(chat, turn, foot));
  }
  return "Two answers are ready. Choose the better one below them.";
}

/** The side that stands for the answer in the conversation: the chosen one, without a choice the left. */
function shownSide(pair) {
  return pair.vote?.choice === "right" ? "right" : "left";
}

function radios(name, options, checked, onchange) {
  return options.map(([value, label]) => h("label", { class: "radio" },
    h("input", { type: "radio", name, value: String(value), checked: checked === value, onchange }), h("span", {}, label)));
}

function voteForm(chat, turn) {
  const { pair } = turn.state;
  const name = freshId("choice");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const send = h("button", { type: "submit", class: "button primary", disabled: !pair.vote }, "Send choice");
  const strength = h("fieldset", { class: "strength" }, h("legend", {}, "How much better? (optional)"),
    h("div", { class: "radios" }, radios(`${name}-strength`, STRENGTHS, pair.vote?.strength ?? null)));
  const value = (group) => form.querySelector(`input[name="${group}"]:checked`)?.value ?? null;
  const update = () => {
    send.disabled = value(name) === null;
    strength.hidden = !["left", "right"].includes(value(name));
  };
  const submit = async (event) => {
    event.preventDefault();
    const choice = value(name);
    const amount = strength.hidden ? null : value(`${name}-strength`);
    const vote = amount === null ? { choice } : { choice, strength: Number(amount) };
    send.disabled = true;
    try {
      await chat.client.json("POST", `/v1/comparisons/${encodeURIComponent(pair.id)}/vote`, vote);
    } catch (error) {
      problem.textContent = `Not saved. ${explain(error).text}`;
      problem.hidden = false;
      send.disabled = false;
      return;
    }
    pair.vote = vote;
    chat.save();
    drawPair(chat, turn);
    chat.announce("Thank you. Your choice was saved.");
    turn.body.querySelector(".thanks button").focus();
  };
  const form = h("form", { class: "panel vote", onsubmit: submit },
    h("fieldset", {}, h("legend", { class: "panel-title" }, "Which answer is better?"),
      h("div", { class: "radios" }, radios(name, CHOICES, pair.vote?.choice ?? null, update))),
    strength, problem, h("div", { class: "row" }, send));
  update();
  return form;
}
