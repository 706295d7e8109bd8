// A draft as a list of sentences that can be selected, edited, added and removed, all of it from the keyboard too.
import { button, element } from "./dom.js";
import { against } from "./findings.js";
import { marked, mentionSpans } from "./marks.js";

const reading = ({ mentions }, isUnread, disputed) => {
  if (isUnread) return "Findings of this sentence are not read yet.";
  if (!mentions.length) return "No finding is read in this sentence.";
  return mentions.map(({ observation, state }) => {
    const contradiction = disputed(observation, state);
    return `${observation}: ${state}${contradiction ? ` (but ${contradiction})` : ""}`;
  }).join("; ");
};

export class Sentences {
  #draft = null;
  #editing = null; // {place, isNew}
  #differing = [];
  selected = -1;

  /** `onselect(sentence)` when one is selected; `canEdit` false: only to read. `reads`: where the labeler's reading is said. */
  constructor(list, reads, { onselect, canEdit = true }) {
    Object.assign(this, { list, reads, onselect, canEdit });
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  show(draft) {
    this.#draft = draft;
    this.selected = -1;
    this.#editing = null;
    this.#render();
  }

  /** `spans`: for each sentence, the words in which it differs from another text. */
  refresh(spans = this.#differing) {
    this.#differing = spans;
    if (!this.#editing) this.#render(); // when the editing ends, all is drawn anew
  }

  /** A new sentence behind the selected one, or at the end. */
  add() {
    this.#edit({ place: this.selected < 0 ? this.#draft.sentences.length : this.selected + 1, isNew: true });
  }

  /** Tells of the selected sentence once more: its words or its mentions changed. */
  again() { if (this.selected >= 0 && !this.#editing) this.onselect(this.#draft.sentences[this.selected]); }

  /** What is being typed becomes part of the draft. */
  keep() { if (this.#editing) this.#keep(this.list.querySelector("textarea").value, false); }

  edit() { if (this.selected >= 0) this.#edit({ place: this.selected }); }
  remove() { if (this.selected >= 0) this.#remove(this.selected); }
  focus() { this.#button(Math.max(0, this.selected))?.focus(); }

  /** Another thing is shown on the images. */
  deselect() {
    this.selected = -1;
    if (this.#draft) this.#mark();
  }

  #render() {
    const hadFocus = this.list.contains(document.activeElement);
    const { sentences } = this.#draft;
    this.selected = Math.min(this.selected, sentences.length - 1);
    const rows = sentences.map((sentence, place) =>
      this.#editing?.place === place && !this.#editing.isNew ? this.#field(sentence.text) : this.#row(sentence, place));
    if (this.#editing?.isNew) rows.splice(this.#editing.place, 0, this.#field(""));
    this.list.replaceChildren(...rows);
    this.#mark();
    if (this.#editing) this.list.querySelector("textarea").focus();
    else if (hadFocus) this.focus();
  }

  /** Rows stay where they are when another one is selected, so that a double click meets one row. */
  #mark() {
    for (const words of this.list.querySelectorAll(".say")) {
      const place = Number(words.dataset.place);
      words.setAttribute("aria-pressed", String(place === this.selected));
      words.tabIndex = place === Math.max(0, this.selected) ? 0 : -1; // one stop for Tab; arrows move inside
    }
    const sentence = this.#draft.sentences[this.selected];
    this.reads.textContent = sentence
      ? `Sentence ${this.selected + 1}. ${reading(sentence, this.#draft.unread.includes(sentence.text), this.#disputed)}`
      : "Select a sentence to see where the model looked.";
  }

  #disputed = (observation, state) => against(this.#draft.plain.findings, observation, state);

  #button(place) { return this.list.querySelector(`.say[data-place="${place}"]`); }

  #row(sentence, place) {
    const spans = [...mentionSpans(sentence, this.#disputed), ...(this.#differing[place] ?? [])];
    const select = () => this.#select(place);
    return element("li", {}, element("button", {
      type: "button", className: "say", "data-place": place,
      onclick: select, onfocus: select, ondblclick: () => this.#edit({ place }),
    }, ...marked(sentence.text, spans)));
  }

  #field(text) {
    const field = element("textarea", {
      value: text, rows: Math.max(2, Math.ceil(text.length / 48)), "aria-label": "Sentence. Enter keeps it, Escape leaves it as it was.",
      onkeydown: (event) => {
        event.stopPropagation();
        if (event.isComposing) return; // Enter ends a composed word, not the sentence
        if (event.key === "Enter") { event.preventDefault(); this.#keep(field.value, true); }
        if (event.key === "Escape") this.#finish(true);
      },
      onblur: () => this.#keep(field.value, false),
    });
    return element("li", { className: "editing" }, field);
  }

  #select(place) {
    this.selected = place;
    this.#mark();
    this.onselect(this.#draft.sentences[place]);
  }

  #edit({ place, isNew = false }) {
    if (!this.canEdit || this.#editing) return;
    this.#editing = { place, isNew };
    this.#render();
  }

  #keep(value, returnsFocus) {
    if (!this.#editing) return; // Enter was here first
    const { place, isNew } = this.#editing;
    const text = value.trim().replace(/\s+/g, " ");
    this.selected = place;
    this.#finish(returnsFocus, () => {
      if (isNew && text) this.#draft.add(place, text);
      if (!isNew && text) this.#draft.edit(place, text);
      if (!isNew && !text) this.#draft.remove(place);
    });
  }

  #finish(returnsFocus, change = () => {}) {
    this.#editing = null;
    change();
    this.#render();
    if (returnsFocus) this.focus();
  }

  #remove(place) {
    this.#draft.remove(place);
    this.focus();
  }

  #key(event) {
    if (!event.target.classList.contains("say") || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = Number(event.target.dataset.place);
    const actions = {
      ArrowDown: () => this.#button(place + 1)?.focus(),
      ArrowUp: () => this.#button(place - 1)?.focus(),
      Home: () => this.#button(0)?.focus(),
      End: () => this.#button(this.#draft.sentences.length - 1)?.focus(),
      Enter: this.canEdit && (() => this.#edit({ place })),
      Delete: this.canEdit && (() => this.#remove(place)),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}
