// The page of `rayscribe serve`: images in, a draft out, which a reader looks into, edits and takes away.
import * as api from "./api.js";
import { showAlternatives } from "./alternatives.js";
import { differing } from "./difference.js";
import { byId, say } from "./dom.js";
import { Draft } from "./draft.js";
import { Evidence } from "./evidence.js";
import { copy, guardSelection, showExports } from "./exports.js";
import { Findings } from "./findings.js";
import { Images } from "./images.js";
import { freshKey, write } from "./job.js";
import { shortcuts, themes } from "./keys.js";
import { clear, notice } from "./notices.js";
import { Panel } from "./panel.js";
import { compareWithReference } from "./reference.js";
import { Settings } from "./settings.js";
import { Viewer } from "./viewer.js";

let draft = null; // what the reader works on
let other = null; // of the second model
let isBusy = false;
let seen = []; // the images that the shown findings are of

const viewer = new Viewer({ onremove: (image) => images.remove(image) });
const images = new Images({
  onadd: (image) => { viewer.add(image); if (!draft) findings.show([]); },
  onremove: (image) => { viewer.remove(image); evidence.clear(); if (!draft) findings.show([]); },
  onchange: show,
});
const settings = new Settings({ onchange: () => { show(); findings.refresh(); } });
const findings = new Findings({
  known: (name) => settings.shown((one) => one === name) !== undefined,
  onselect: (name) => {
    first.sentences.deselect();
    evidence.finding(name, seen);
  },
});
const evidence = new Evidence({ viewer, settings, onfinding: (name) => findings.mark(name) });
const first = new Panel(byId("first"), {
  onselect: (sentence) => { if (other) second.sentences.deselect(); evidence.sentence(sentence, draft.images); },
});
const second = new Panel(byId("other"), {
  onselect: (sentence) => { first.sentences.deselect(); evidence.sentence(sentence, other.images); },
  onwork: () => put(other, draft),
});

// ---- what is on the page

function show() {
  document.body.classList.toggle("has-images", images.all.length > 0);
  document.body.classList.toggle("is-two", Boolean(other));
  byId("write").disabled = isBusy || !images.isReady || !settings.model;
  const isStale = Boolean(draft) && (draft.images.length !== images.all.length || draft.images.some((one) => !images.all.includes(one)));
  byId("stale").hidden = !isStale;
  byId("classify").hidden = !settings.classifier || (Boolean(draft?.plain.findings.length) && !isStale);
  byId("classify").disabled = isBusy || !images.isReady;
  byId("empty").hidden = Boolean(draft);
  byId("drafts").hidden = byId("actions").hidden = byId("export").hidden = byId("reference").hidden = !draft;
  byId("other").hidden = !other;
}

/** Another draft, or another pair of drafts. */
function put(main, compared = null) {
  draft = main;
  other = compared;
  evidence.clear();
  byId("compared").replaceChildren();
  first.show(draft);
  if (other) second.show(other);
  showExports(draft);
  showFindings(draft.plain.findings, draft.images);
  byId("warnings").replaceChildren(...draft.plain.warnings.map((words) => Object.assign(document.createElement("li"), { textContent: words })));
  byId("warnings").hidden = !draft.plain.warnings.length;
  show();
  showText();
}

function showFindings(found, of) {
  seen = of;
  findings.show(found);
}

/** What follows from the words of the draft. */
function showText() {
  first.sentences.refresh(other ? differing(draft.sentences, other.text) : []);
  if (other) second.sentences.refresh(differing(other.sentences, draft.text));
  showAlternatives(draft);
  showState();
  if (byId("compared").hasChildNodes()) compareWithReference(draft);
}

function showState() {
  byId("draft-state").hidden = false;
  byId("draft-state").textContent = ["preliminary", draft.plain.is_edited && "edited", !draft.isSaved && "not saved"].filter(Boolean).join(", ");
  byId("undo").disabled = !draft.canUndo;
  byId("redo").disabled = !draft.canRedo;
}

function listened(one) {
  const isMain = (action) => () => { if (one === draft) action(); };
  one.addEventListener("change", isMain(() => { showText(); first.sentences.again(); readMentions(one); }));
  one.addEventListener("read", isMain(() => { showText(); first.sentences.again(); }));
  one.addEventListener("saved", isMain(showState));
  return one;
}

/** The labeler reads what the reader wrote. */
async function readMentions(one) {
  clear("labels");
  for (const text of new Set(one.unread)) {
    try {
      one.read(text, mentionsIn(text, (await api.labels(text)).sentences));
    } catch (error) {
      notice(error, { topic: "labels", subject: "Findings of the edited sentence", again: () => readMentions(one) });
      return;
    }
  }
}

/** Places in the reader's own sentence, which the labeler may have cut into several. */
function mentionsIn(text, sentences) {
  let from = 0;
  return sentences.flatMap((sentence) => {
    const at = text.indexOf(sentence.text, from);
    if (at < 0) return [];
    from = at + sentence.text.length;
    const before = [...text.slice(0, at)].length; // in code points, as the labeler counts
    return sentence.mentions.map((one) => ({ ...one, start: one.start + before, end: one.end + before }));
  });
}

// ---- what the reader asks for

const isUnsaved = () => [draft, other].some((one) => one && !one.isSaved);

async function writeDraft(idempotencyKeys = [freshKey(), freshKey()]) {
  if (byId("write").disabled) return;
  if (isUnsaved() && !window.confirm("The edited draft is not saved and will be replaced. Go on?")) return;
  const given = [...images.all];
  const replaced = [draft?.text, other?.text];
  const names = [settings.model, settings.second].filter(Boolean);
  clear("write");
  isBusy = true;
  show();
  const ended = await Promise.allSettled(names.map((name, place) =>
    write(given, settings.options(name), { title: names.length > 1 ? name : "Draft", idempotencyKey: idempotencyKeys[place] })));
  isBusy = false;
  show();
  for (const { reason } of ended.filter(({ status }) => status === "rejected")) {
    if (!(reason instanceof api.Problem)) throw reason;
    // A server that lost the answer may have taken the study: the same key then finds it. One that failed is asked anew.
    const atFault = given[reason.image - 1];
    notice(reason, { topic: "write", subject: atFault ? `Draft, ${atFault.name}` : "Draft", again: () => writeDraft(reason.isLost ? idempotencyKeys : undefined) });
  }
  const [main, compared] = ended.flatMap(({ value }) => (value ? [listened(new Draft(value, given))] : []));
  if (!main) return;
  first.sentences.keep();
  const isChanged = draft?.text !== replaced[0] || other?.text !== replaced[1]; // while the server worked
  if (isChanged && isUnsaved() && !window.confirm("The new draft is here. The one that you edited meanwhile is not saved and will be replaced. Go on?")) return;
  put(main, compared);
  if (document.activeElement === document.body) byId("draft-title").focus({ preventScroll: true }); // else someone types
  say(`Draft of ${main.sentences.length} sentences by ${main.plain.model.name}.`);
}

async function classifyOnly() {
  const given = [...images.all];
  clear("classify");
  isBusy = true;
  show();
  try {
    const answer = await api.classify(given, { classifier: settings.classifier, evidence: null });
    const isLate = given.length !== images.all.length || given.some((one) => !images.all.includes(one));
    if (isLate) say("The images have changed; ask for findings again.");
    else {
      showFindings(answer.findings, given);
      say(`${answer.findings.length} findings.`);
    }
  } catch (error) {
    notice(error, { topic: "classify", subject: "Findings", again: classifyOnly });
  }
  isBusy = false;
  show();
}

async function start() {
  try {
    const answer = await api.models();
    settings.fill(answer);
    images.limits = answer.limits;
    byId("disclaimer").textContent = answer.disclaimer;
    byId("server").textContent = `version ${answer.version}`;
    if (!settings.model) byId("empty").textContent = "This server has no model that writes reports. It classifies: choose images, then “Findings only”.";
  } catch (error) {
    notice(error, { topic: "models", subject: "Models", again: start });
  }
  show();
}

// ---- controls

const withDraft = (action) => () => { if (draft) action(); };
byId("write").onclick = () => writeDraft();
byId("classify").onclick = classifyOnly;
byId("edit").onclick = () => first.sentences.edit();
byId("add").onclick = () => first.sentences.add();
byId("delete").onclick = () => first.sentences.remove();
byId("undo").onclick = () => draft.undo();
byId("redo").onclick = () => draft.redo();
byId("copy").onclick = () => copy(draft);
byId("compare").onclick = () => compareWithReference(draft);
byId("help-open").onclick = () => byId("help").showModal();
window.addEventListener("beforeunload", (event) => { if (isUnsaved()) event.preventDefault(); });

shortcuts([
  [["?"], "this help", () => byId("help").showModal()],
  [["g"], "write the draft", () => writeDraft()],
  [["d"], "to the sentences; arrows move, Enter edits, Delete deletes", withDraft(() => first.sentences.focus())],
  [["a"], "add a sentence below", withDraft(() => first.sentences.add())],
  [["Ctrl+Z"], "undo", withDraft(() => draft.undo())],
  [["Ctrl+Shift+Z", "Ctrl+Y"], "redo", withDraft(() => draft.redo())],
  [["o"], "overlay on or off", () => viewer.toggleOverlay()],
  [["i"], "invert", () => viewer.invert()],
  [["[", "]"], "darker, lighter", (key) => viewer.level(key === "[" ? 6 : -6)],
  [["{", "}"], "less contrast, more contrast", (key) => viewer.window(key === "{" ? 10 : -10)],
  [["+", "=", "-"], "zoom in, in, out (also the wheel or two fingers)", (key) => viewer.zoom(key === "-" ? 0.8 : 1.25)],
  [["w", "p"], "dragging sets the window, or pans (also Shift and drag; arrows on an image)", (key) => viewer.setTool(key === "w" ? "window" : "pan")],
  [["r"], "reset the view", () => viewer.reset()],
  [["v"], "one view, or all side by side", () => viewer.toggleSolo()],
  [["1", "2", "3", "4", "5", "6", "7", "8"], "that view", (key) => viewer.activate(Number(key) - 1)],
]);
themes();
guardSelection();
start();
