// What a model holds of each finding: its probability, the same in words, and its state in words.
import { byId, element } from "./dom.js";

/** Whether two names mean one finding: data sets write "Effusion" for "Pleural Effusion". */
export function isSame(one, other) {
  const [short, long] = [one.toLowerCase(), other.toLowerCase()].sort((a, b) => a.length - b.length);
  return short === long || long.endsWith(` ${short}`);
}

// A classifier flags a finding from the threshold on that was best on its validation split, which may lie at an unlikely 20 %; so
// "positive" would say too much. "No Finding: positive" would read like its opposite.
const FLAGS = { positive: ["flagged", "positive"], negative: ["not flagged", "negative"] };
const NORMAL = { positive: ["called normal", "negative"], negative: ["not called normal", "uncertain"] };

/** A state in words, and its colour. */
function inWords({ name, state, source }) {
  if (isSame(name, "No Finding") && NORMAL[state]) return NORMAL[state];
  return (source === "classifier" && FLAGS[state]) || [state, state];
}

/** What of the findings contradicts a sentence that speaks of one: the other state, and how sure. */
export function against(findings, observation, state) {
  const opposite = { positive: "negative", negative: "positive" }[state];
  const found = findings.find((finding) => isSame(finding.name, observation) && finding.state === opposite);
  return found && `${found.source}: ${inWords(found)[0]}${found.wording && `, ${found.wording}`}`;
}

const percent = (probability) => `${(100 * probability).toFixed(probability < 0.1 ? 1 : 0)} %`;

export class Findings {
  #findings = [];

  /** `known`: whether the chosen classifier can show where it saw the finding. */
  constructor({ onselect, known }) {
    Object.assign(this, { onselect, known });
  }

  show(findings) {
    this.#findings = [...findings].sort((a, b) => (b.probability ?? -1) - (a.probability ?? -1));
    byId("findings").hidden = !findings.length;
    byId("findings-source").textContent = [...new Set(findings.map(({ source }) => source))].join(", ");
    byId("finding-list").replaceChildren(...this.#findings.map((finding) => this.#row(finding)));
  }

  /** After another classifier was chosen, which knows other findings. */
  refresh() { this.show(this.#findings); }

  mark(name) {
    for (const row of byId("finding-list").querySelectorAll("button")) {
      row.setAttribute("aria-pressed", String(row.dataset.name === name));
    }
  }

  #row(finding) {
    const { name, probability, wording, source } = finding;
    const [said, colour] = inWords(finding);
    const hasProbability = probability !== null && probability !== undefined;
    const meter = element("span", { className: "meter", "aria-hidden": "true" }, element("i"));
    meter.firstChild.style.width = `${100 * (probability ?? 0)}%`;
    const parts = [
      element("span", { className: "what" }, name),
      element("span", { className: `tag ${colour}` }, said),
      element("span", { className: "wording" }, hasProbability ? wording : `${source}, no probability`),
      hasProbability ? meter : element("span"),
      element("span", { className: "number" }, hasProbability ? percent(probability) : ""),
    ];
    const row = this.known(name)
      ? element("button", {
        type: "button", "aria-pressed": "false", "data-name": name, title: "Show where the classifier looked",
        onclick: () => this.onselect(name),
      }, ...parts)
      : element("div", { title: "No classifier here shows where it looked for this finding" }, ...parts);
    return element("li", {}, row);
  }
}
