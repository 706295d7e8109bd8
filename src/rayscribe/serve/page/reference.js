// The draft against a report that the reader pastes: words, and the findings that the labeler reads in both.
import * as api from "./api.js";
import { byId, element } from "./dom.js";
import { difference } from "./difference.js";
import { notice } from "./notices.js";

let compared = 0; // an answer that is overtaken is dropped

export async function compareWithReference(draft) {
  const reference = byId("reference-text").value.trim();
  compared += 1;
  const mine = compared;
  if (!reference) return byId("compared").replaceChildren();
  const text = draft.text;
  const report = element("p", { className: "words" }, ...inWords(difference(reference, text)));
  const legend = element("p", { className: "muted" }, element("del", {}, "only in the reference"), " ", element("ins", {}, "only in the draft"));
  const table = element("div", {}, "Reading the findings of both …");
  byId("compared").replaceChildren(legend, report, table);
  try {
    const [ours, theirs] = await Promise.all([api.labels(text), api.labels(reference)]);
    if (mine === compared) table.replaceWith(findings(ours.states, theirs.states));
  } catch (error) {
    table.remove();
    notice(error, { topic: "reference", subject: "Findings of the reference", again: () => compareWithReference(draft) });
  }
  return undefined;
}

function inWords(found) {
  const tags = { removed: "del", added: "ins" };
  const nodes = [];
  for (let at = 0; at < found.length;) {
    const { kind } = found[at];
    const run = [];
    for (; at < found.length && found[at].kind === kind; at += 1) run.push(found[at].word);
    const words = run.join(" ").replace(/ ([.,;:!?%)])/g, "$1");
    const isMark = /^[.,;:!?%)]/.test(words);
    nodes.push(isMark || !nodes.length ? "" : " ", tags[kind] ? element(tags[kind], {}, words) : words);
  }
  return nodes;
}

function findings(ours, theirs) {
  const names = [...new Set([...Object.keys(theirs), ...Object.keys(ours)])];
  const different = names.filter((name) => ours[name] !== theirs[name]);
  if (!names.length) return element("p", {}, "The labeler reads no finding in either.");
  const same = `${names.length - different.length} of ${names.length} findings that the labeler reads agree.`;
  if (!different.length) return element("p", {}, same);
  const state = (name) => (name ? element("span", { className: `tag ${name}` }, name) : "not mentioned");
  const head = element("tr", {}, ...["Finding", "Reference", "Draft"].map((words) => element("th", { scope: "col" }, words)));
  const rows = different.map((name) => element("tr", {},
    element("th", { scope: "row" }, name), element("td", {}, state(theirs[name])), element("td", {}, state(ours[name]))));
  return element("div", {}, element("p", {}, same),
    element("table", {}, element("caption", {}, "Findings that differ"), element("thead", {}, head), element("tbody", {}, ...rows)));
}
