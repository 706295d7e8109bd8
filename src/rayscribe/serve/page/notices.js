// What went wrong, in words, with a way on: a line that stays until it is dismissed or tried again.
import { byId, button, element } from "./dom.js";
import { Problem } from "./api.js";

/** Shows the error. `topic`: a newer notice of the same topic takes its place; `again`: what the retry button does. */
export function notice(error, { topic, again = null, subject = "" }) {
  clear(topic);
  const words = element("span");
  const line = element("div", { className: "notice", role: "alert", "data-topic": topic }, words);
  const busy = error instanceof Problem && error.isBusy;
  const until = Date.now() + 1000 * (busy ? error.retryAfter : 0);
  const retry = again && button("Try again", () => { line.remove(); again(); });
  // The clock runs in a part of its own that screen readers skip: one message, not one a second.
  const clock = element("span", { "aria-hidden": "true" });
  words.append(subject ? `${subject}: ` : "", error.message, busy ? ` Busy, try again in ${error.retryAfter} s.` : "", clock);
  line.append(...(retry ? [retry] : []), button("Dismiss", () => line.remove()));
  byId("notices").append(line);
  if (!busy || !retry) return;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    retry.disabled = left > 0;
    clock.textContent = left > 0 ? ` (${left} s)` : "";
    if (left > 0 && line.isConnected) setTimeout(tick, 250);
  };
  tick();
}

export function clear(topic) {
  for (const line of document.querySelectorAll(`.notice[data-topic="${topic}"]`)) line.remove();
}
