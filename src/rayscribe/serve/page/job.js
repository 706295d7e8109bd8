// One study that the server writes a draft for: its progress, its place in the queue, and the way to cancel it.
import * as api from "./api.js";
import { byId, button, element, say } from "./dom.js";

const SLOWEST = 4000;
const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

/** For retries: a study that was taken already is not written twice. */
export const freshKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The draft, or null where the reader cancelled. Throws Problem. */
export async function write(images, options, { title, idempotencyKey }) {
  let isCancelled = false;
  const words = element("span", { className: "stage", "aria-live": "polite" }, "sending the images");
  const bar = element("progress", { max: 1, "aria-label": `Progress of ${title}` }); // no value: it is not known yet
  const stop = button("Cancel", () => { isCancelled = true; stop.disabled = true; words.textContent = "cancelling"; });
  const line = element("div", { className: "job" }, element("strong", {}, title), words, bar, stop);
  byId("jobs").append(line);
  try {
    let state = await api.submit(images, options, idempotencyKey);
    for (let wait = 250; state.state === "queued" || state.state === "running"; wait = Math.min(SLOWEST, wait * 1.2)) {
      if (isCancelled) return await cancelled(state.id);
      show(state);
      for (let left = wait; left > 0 && !isCancelled; left -= 100) await pause(Math.min(100, left));
      if (isCancelled) return await cancelled(state.id);
      state = await polled(state);
    }
    if (isCancelled || state.state === "cancelled") return await cancelled(state.id);
    if (state.state === "failed") throw new api.Problem(state.problem ?? { status: 500, detail: "the draft failed" });
    api.cancel(state.id).catch(() => {}); // the draft is here: the server need not keep it
    say(`${title}: done.`);
    return state.draft;
  } finally {
    line.remove();
  }

  function show({ state, stage, progress, position }) {
    const queue = state === "queued" && position ? `waiting, place ${position} in the queue` : stage;
    if (words.textContent !== queue) words.textContent = queue;
    bar.value = progress ?? 0;
  }

  async function polled(state) {
    try {
      return await api.job(state.id);
    } catch (error) {
      if (!error.isLost && !error.isBusy) throw error;
      words.textContent = "The server does not answer; asking again. What you wrote is still on this page.";
      return state;
    }
  }

  async function cancelled(id) {
    await api.cancel(id).catch(() => {}); // one that is gone is cancelled as well
    say(`${title}: cancelled.`);
    return null;
  }
}
