// A draft and its history: every edit makes a new document, so undoing is going back to the one before.

const sentence = (text) => ({ text, mentions: [], evidence: [] });

export class Draft extends EventTarget {
  #past = [];
  #future = [];
  #unread = new WeakSet(); // sentences whose mentions the labeler has still to read

  /** `images`: those that the draft was written for; grids of evidence are in their order. */
  constructor(plain, images) {
    super();
    this.original = plain;
    this.plain = plain;
    this.images = images;
    this.isSaved = true;
  }

  get sentences() { return this.plain.reports[0].sentences; }
  get text() { return this.sentences.map(({ text }) => text).join(" "); }
  get canUndo() { return this.#past.length > 0; }
  get canRedo() { return this.#future.length > 0; }
  get unread() { return this.sentences.filter((one) => this.#unread.has(one)).map(({ text }) => text); }

  /** The evidence goes with the words that it was evidence of. */
  edit(place, text) {
    if (text !== this.sentences[place].text) this.#splice(place, 1, this.#written(text));
  }

  add(place, text) { this.#splice(place, 0, this.#written(text)); }

  remove(place) { this.#splice(place, 1); }

  /** One of the model's own alternatives becomes the draft. The reader chose it, so the draft counts as edited. */
  use(report) {
    const rest = this.original.reports.filter((one) => one !== report);
    this.#change({ ...this.plain, reports: [report, ...rest], is_edited: report !== this.original.reports[0] });
  }

  undo() { this.#step(this.#past, this.#future); }
  redo() { this.#step(this.#future, this.#past); }

  /** What the labeler read in this text; no edit, so nothing to undo. */
  read(text, mentions) {
    const sentences = this.sentences.map((one) => (one.text === text && this.#unread.has(one) ? { ...one, mentions } : one));
    this.plain = this.#with(sentences, this.plain.reports[0].log_probability);
    this.dispatchEvent(new Event("read"));
  }

  saved() {
    this.isSaved = true;
    this.dispatchEvent(new Event("saved"));
  }

  #written(text) {
    const made = sentence(text);
    this.#unread.add(made);
    return made;
  }

  #splice(...change) {
    const sentences = [...this.sentences];
    sentences.splice(...change);
    // The model never gave this text a probability.
    this.#change({ ...this.#with(sentences, null), is_edited: true });
  }

  #with(sentences, probability) {
    const [first, ...rest] = this.plain.reports;
    return { ...this.plain, reports: [{ ...first, sentences, log_probability: probability }, ...rest] };
  }

  #change(plain) {
    this.#past.push(this.plain);
    this.#future = [];
    this.#put(plain);
  }

  #step(from, to) {
    if (!from.length) return;
    to.push(this.plain);
    this.#put(from.pop());
  }

  #put(plain) {
    this.plain = plain;
    this.isSaved = !plain.is_edited; // what the model wrote can be had again
    this.dispatchEvent(new Event("change"));
  }
}
