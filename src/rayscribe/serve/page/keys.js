// Shortcuts of one key, their list in the help, and light or dark.
import { byId, element } from "./dom.js";

const TYPED = "textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio], [type=file])";

/** `table`: rows of [keys, words, action]. Nothing fires while someone types, in a dialog, or when switched off in the help. */
export function shortcuts(table) {
  const actions = new Map(table.flatMap(([keys, , action]) => keys.map((key) => [key, action])));
  byId("key-list").append(...table.flatMap(([keys, words]) => [
    element("dt", {}, ...keys.flatMap((key) => [element("kbd", {}, key), " "])), element("dd", {}, words),
  ]));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.(TYPED) || document.querySelector("dialog[open]")) return;
    const isCommand = event.ctrlKey || event.metaKey;
    if (event.altKey || (!isCommand && !byId("keys-on").checked)) return;
    const name = isCommand ? `Ctrl+${event.shiftKey ? "Shift+" : ""}${event.key.toUpperCase()}` : event.key;
    const action = actions.get(name);
    if (!action) return;
    event.preventDefault();
    action(event.key);
  });
}

const THEMES = ["system", "light", "dark"];
const KEPT = "rayscribe-theme";

export function themes() {
  let theme = "system";
  const apply = () => {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
  };
  try {
    theme = THEMES.find((name) => name === localStorage.getItem(KEPT)) ?? theme;
  } catch { /* a browser that keeps nothing shows the system's */ }
  apply();
  byId("theme").onclick = () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    apply();
    try {
      localStorage.setItem(KEPT, theme);
    } catch { /* as above */ }
  };
}
