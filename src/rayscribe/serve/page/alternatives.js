// What else the model would have written: its n-best, each of which can become the draft.
import { byId, button, element } from "./dom.js";
import { marked } from "./marks.js";
import { differing } from "./difference.js";

const textOf = (report) => report.sentences.map(({ text }) => text).join(" ");

export function showAlternatives(draft) {
  const reports = draft.original.reports;
  byId("alternatives").hidden = reports.length < 2;
  byId("alternative-count").textContent = `(${reports.length} from ${draft.original.model.name})`;
  byId("alternative-list").replaceChildren(...reports.map((report, place) => {
    const isInUse = textOf(report) === draft.text;
    const use = isInUse
      ? element("span", { className: "badge" }, "in use")
      : button("Use this one", () => draft.use(report), { "aria-label": `Use this one: alternative ${place + 1}` });
    const spans = differing(report.sentences, draft.text);
    const words = report.sentences.flatMap(({ text }, at) => [...marked(text, spans[at]), " "]);
    const likely = report.log_probability === null ? "" : `log probability ${report.log_probability.toFixed(1)}`;
    return element("li", {}, element("p", {}, ...words), element("div", { className: "row" }, use, element("span", { className: "muted" }, likely)));
  }));
}
