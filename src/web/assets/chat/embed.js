// How does a page get the widget? `<script src="…/widget/v1.js" data-…>` defines the element and adds one launcher.

/** `data-…` of the script to attributes of the element. */
const EMBED_ATTRIBUTES = {
  token: "token",
  tokenUrl: "token-url",
  title: "heading",
  greeting: "greeting",
  position: "position",
  accent: "accent",
  open: "open",
  mode: "mode",
};

/** `data-manual` only defines the element, for pages that place `<attune-chat>` themselves. */
function embed(script) {
  if (!customElements.get("attune-chat")) customElements.define("attune-chat", AttuneChat);
  if (!script || "manual" in script.dataset || document.querySelector("attune-chat")) return;
  const base = script.dataset.baseUrl || new URL(script.src).origin;
  const chat = h("attune-chat", { "base-url": base });
  for (const [key, attribute] of Object.entries(EMBED_ATTRIBUTES)) {
    const value = script.dataset[key];
    if (value !== undefined && value !== "false") chat.setAttribute(attribute, value);
  }
  document.body.append(chat);
}

// Captured now: `currentScript` is gone once this script has run.
const embedScript = document.currentScript;
if (document.body) embed(embedScript);
else document.addEventListener("DOMContentLoaded", () => embed(embedScript));
