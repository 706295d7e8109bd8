// One column: who wrote a draft, and its sentences.
import { button, element } from "./dom.js";
import { Sentences } from "./sentences.js";

const SECTION = { "findings+impression": "findings and impression" };

export class Panel {
  /** `onwork`: what “Work on this one” does, where a draft is only shown for comparison. */
  constructor(article, { onselect, onwork = null }) {
    this.article = article;
    this.author = element("p", { className: "author" });
    const list = element("ol", { className: "sentences" });
    const reads = element("p", { className: "reads muted" });
    this.sentences = new Sentences(list, reads, { onselect, canEdit: !onwork });
    this.swap = onwork && button("Work on this one", onwork);
    article.append(this.author, list, reads, ...(this.swap ? [this.swap] : []));
  }

  show(draft) {
    const { name, system, section, weights_sha256: weights } = draft.plain.model;
    this.author.replaceChildren(
      element("strong", {}, name), element("span", { className: "muted", title: `weights ${weights}` }, `${system}; ${SECTION[section] ?? section}`),
    );
    this.sentences.show(draft);
  }
}
