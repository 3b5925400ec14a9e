// How does a person sign in where the server knows people by tokens? The token stays in this tab's session.

/** A form that hands the token to `use`; `rejected` when the one before was not accepted. */
function tokenForm(use, rejected) {
  const id = freshId("token");
  const input = h("input", { id, type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const submit = (event) => {
    event.preventDefault();
    const token = input.value.trim();
    if (token) use(token);
  };
  return h("form", { class: "panel sign-in", onsubmit: submit },
    h("h2", {}, "Sign in"),
    h("p", {}, "Paste your access token. An operator makes one with “attune tokens create”. It is kept in this tab only."),
    rejected ? h("p", { class: "problem", role: "alert" }, "This token was not accepted. It may have expired.") : null,
    h("label", { htmlFor: id }, "Access token"),
    input,
    h("button", { type: "submit", class: "button primary" }, "Sign in"));
}
