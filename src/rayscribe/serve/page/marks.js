// A sentence as nodes: words that the labeler reads, and words in which two texts differ, may lie over each other.
import { element } from "./dom.js";

/** Python counts code points, JavaScript half of some of them. */
const unit = (text, codePoints) => [...text].slice(0, codePoints).join("").length;

/** `against(observation, state)`: what contradicts the mention, if anything does. */
export const mentionSpans = ({ text, mentions }, against) => mentions.map(({ observation, state, start, end }) => ({
  start: unit(text, start), end: unit(text, end), kind: "mention", state, observation, contradiction: against(observation, state),
}));

/** Spans: {start, end, kind: "mention" | "differs", ...}. */
export function marked(text, spans) {
  const cuts = [...new Set([0, text.length, ...spans.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
  const nodes = [];
  for (let at = 0; at + 1 < cuts.length; at += 1) {
    const [start, end] = [cuts[at], cuts[at + 1]];
    const over = spans.filter((span) => span.start <= start && span.end >= end);
    let node = document.createTextNode(text.slice(start, end));
    for (const { kind, state, observation } of over) {
      const properties = kind === "mention" ? { className: `mention ${state}`, title: `${observation}: ${state}` } : { className: "differs" };
      node = element(kind === "mention" ? "span" : "mark", properties, node);
    }
    nodes.push(node);
    // One tag for each state, behind the last word: the colour alone would say nothing to many readers.
    const ending = over.filter((span) => span.kind === "mention" && span.end === end);
    for (const state of new Set(ending.map((span) => span.state))) nodes.push(element("small", { className: `tag ${state}` }, state));
    if (ending.some((span) => span.contradiction)) nodes.push(element("small", { className: "tag against" }, "disputed"));
  }
  return nodes;
}
