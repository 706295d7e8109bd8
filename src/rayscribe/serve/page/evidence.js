// What is laid over the images: where the decoder looked for a sentence, else where the classifier looked for a finding.
import * as api from "./api.js";
import { isSame } from "./findings.js";
import { clear, notice } from "./notices.js";

const SHORT = 44;
const SETTLED = 250; // milliseconds: someone who walks through the sentences asks the server for none on the way

const EVEN = 0.8; // where the least is this near to the most, the overlay tells next to nothing, and the words say so

const evenly = (grids) => (Math.min(...grids.flat(2)) > EVEN ? " Almost the same all over." : "");
const quoted = (text) => `“${text.length > SHORT ? `${text.slice(0, SHORT).trimEnd()}…` : text.replace(/[\s.]+$/, "")}”`;

export class Evidence {
  #kept = new Map(); // grids of the classifier, until the images or the classifier change
  #images = null;
  #asked = 0;

  constructor({ viewer, settings, onfinding }) {
    Object.assign(this, { viewer, settings, onfinding });
  }

  clear() {
    this.#asked += 1;
    this.viewer.hide();
    this.onfinding(null);
  }

  sentence(sentence, images) {
    if (sentence.evidence.length) {
      this.#asked += 1;
      this.onfinding(null);
      this.viewer.show(images, sentence.evidence, `Where the model looked while it wrote ${quoted(sentence.text)}.${evenly(sentence.evidence)}`);
      return;
    }
    const named = sentence.mentions
      .map(({ observation }) => this.settings.shown((name) => isSame(name, observation)))
      .find((name) => name !== undefined);
    if (named) this.finding(named, images, SETTLED);
    else {
      this.#asked += 1;
      this.onfinding(null);
      this.viewer.hide("Nothing to show for this sentence: its model does not tell where it looked, or the words are the reader's.");
    }
  }

  async finding(name, images, after = 0) {
    const asked = this.#asked += 1;
    const isLate = () => asked !== this.#asked;
    const classifier = this.settings.classifier;
    if (images !== this.#images) this.#kept.clear();
    this.#images = images;
    clear("evidence");
    this.onfinding(name);
    const key = `${classifier}\n${name}`;
    if (!this.#kept.has(key)) {
      this.viewer.hide(`Asking the classifier where it looks for ${name} …`);
      await new Promise((done) => { setTimeout(done, after); });
      if (isLate()) return;
      try {
        const { evidence } = await api.classify(images, { classifier, evidence: name });
        this.#kept.set(key, evidence?.grids ?? []);
      } catch (error) {
        if (isLate()) return;
        this.viewer.hide();
        notice(error, { topic: "evidence", subject: name, again: () => this.finding(name, images) });
        return;
      }
    }
    if (isLate()) return;
    const grids = this.#kept.get(key);
    if (grids.length) this.viewer.show(images, grids, `Where the model ${classifier} looked for ${name} (Grad-CAM).${evenly(grids)}`);
    else this.viewer.hide(`The classifier does not tell where it looked for ${name}.`);
  }
}
