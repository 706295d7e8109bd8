// Which models the server has, and what the reader chose of them.
import { byId, element } from "./dom.js";

const IS_WRITER = { report: true, "vision-llm": true };

export class Settings {
  models = [];

  constructor({ onchange }) {
    for (const name of ["model", "second", "classifier"]) byId(name).addEventListener("change", onchange);
    byId("beams").addEventListener("change", () => { byId("best").max = byId("beams").value; });
  }

  fill({ models, default: chosen }) {
    this.models = models;
    const writers = models.filter(({ kind }) => IS_WRITER[kind]);
    const option = ({ name, system }) => element("option", { value: name }, `${name} (${system})`);
    const fill = (id, list, value, none) => {
      byId(id).replaceChildren(...(none ? [element("option", { value: "" }, none)] : []), ...list.map(option));
      byId(id).value = value ?? "";
    };
    fill("model", writers, chosen.model);
    fill("second", writers, "", "none");
    fill("classifier", models.filter(({ kind }) => kind === "classifier"), chosen.classifier, "none");
  }

  get model() { return byId("model").value || null; }
  get second() { return byId("second").value || null; }
  get classifier() { return byId("classifier").value || null; }

  /** The classifier's own name of a finding that it can show, or undefined. */
  shown(matches) {
    const classifier = this.models.find(({ name }) => name === this.classifier);
    return classifier?.has_evidence ? classifier.findings.find(matches) : undefined;
  }

  /** For a draft by this model. */
  options(model) {
    const beams = number("beams");
    return { model, classifier: this.classifier, best: Math.min(beams, number("best")), decoding: { beams } };
  }
}

const number = (id) => Math.max(1, Math.min(Number(byId(id).max), Math.round(byId(id).valueAsNumber) || 1));
