// The calls of the service. Paths are relative, so the page works behind a prefix. Names of files are never sent.
import { byId } from "./dom.js";

/** What the server refused, or that it does not answer (`status` 0). */
export class Problem extends Error {
  constructor({ status = 0, detail = "", title = "", image = null }, retryAfter = 5) {
    super(detail || title || `the server answered ${status}`);
    this.status = status;
    this.image = image; // place of the one at fault, from 1 on
    this.retryAfter = retryAfter;
  }
  get isBusy() { return this.status === 429 || this.status === 503; }
  get isLost() { return this.status === 0; }
}

let key = ""; // in the memory of this tab only
let asking = null;

/** One question for all calls that are refused at the same time. */
function askKey(wasWrong) {
  asking ??= new Promise((answered) => {
    const dialog = byId("key");
    byId("key-words").textContent = wasWrong ? "The server refused this key." : "This server asks for an API key.";
    byId("key-text").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue === "ok") key = byId("key-text").value.trim();
      byId("key-text").value = "";
      answered(dialog.returnValue === "ok");
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function call(path, init = {}) {
  for (;;) {
    const used = key;
    const headers = { ...init.headers, ...(used ? { Authorization: `Bearer ${used}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...init, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem({ detail: "The server does not answer. What you wrote is still on this page." });
    }
    if (answer.ok) return answer;
    if (answer.status === 401 && (used !== key || await askKey(Boolean(used)))) continue;
    const plain = await answer.json().catch(() => ({}));
    const seconds = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10);
    throw new Problem({ ...plain, status: answer.status }, Number.isNaN(seconds) ? 5 : seconds);
  }
}

const json = async (path, init) => (await call(path, init)).json();

/** Images go under a neutral name; the ending tells the reader of the file that it is DICOM. */
const neutral = (image, place) => `image-${place + 1}${image.isDicom ? ".dcm" : ""}`;

function form(images, fields) {
  const data = new FormData();
  images.forEach((image, place) => data.append("images", image.file, neutral(image, place)));
  for (const [name, value] of Object.entries(fields)) data.append(name, JSON.stringify(value));
  return data;
}

export const models = () => json("v1/models");

export async function preview(image, signal) {
  const data = new FormData();
  data.append("image", image.file, neutral(image, 0));
  return (await call("v1/images", { method: "POST", body: data, signal })).blob();
}

export const classify = (images, options) =>
  json("v1/classify", { method: "POST", body: form(images, { options }) });

export const submit = (images, options, idempotencyKey) =>
  json("v1/studies", {
    method: "POST", body: form(images, { options }), headers: { "Idempotency-Key": idempotencyKey },
  });

export const job = (id) => json(`v1/studies/${encodeURIComponent(id)}`);
export const cancel = (id) => json(`v1/studies/${encodeURIComponent(id)}`, { method: "DELETE" });

export const labels = (text) =>
  json("v1/labels", { method: "POST", body: JSON.stringify({ text }), headers: { "Content-Type": "application/json" } });

/** The file and the name that the server gives it. */
export async function exported(kind, draft, images) {
  const answer = await call(`v1/exports/${kind}`, { method: "POST", body: form(images, { draft }) });
  const name = /filename="?([^";]+)/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1];
  return { blob: await answer.blob(), name: name ?? `draft-${kind}` };
}
