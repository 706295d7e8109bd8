// The images side by side, their tools, and the overlay with its legend. Tools act on the active view.
import { byId, button, element } from "./dom.js";
import { gestures } from "./gestures.js";
import { FRESH, View } from "./view.js";

const WARNING = "Not the place of a lesion.";
const NOTHING = "Select a sentence or a finding to see where the model looked.";
const FINER = 1.25;

export class Viewer {
  #shown = []; // {image, figure, view}
  #active = 0;
  #isSolo = false;
  #evidence = { grids: new Map(), words: NOTHING }; // a grid for each image
  #isOverlaid = true;

  constructor({ onremove }) {
    this.onremove = onremove;
    const change = (control, make) => byId(control).addEventListener("input", (event) => this.set(make(event.target)));
    change("width", (range) => ({ width: Number(range.value) }));
    change("level", (range) => ({ level: Number(range.value) }));
    byId("invert").onclick = () => this.invert();
    byId("zoom-in").onclick = () => this.zoom(FINER);
    byId("zoom-out").onclick = () => this.zoom(1 / FINER);
    byId("reset").onclick = () => this.reset();
    byId("solo").onclick = () => this.toggleSolo();
    byId("overlay").onclick = () => this.toggleOverlay();
    byId("strength").oninput = () => this.#lay();
    byId("drag").onchange = () => byId("films").classList.toggle("panning", this.tool() === "pan");
  }

  tool() { return byId("drag").querySelector("input:checked").value; }

  setTool(name) {
    byId("drag").querySelector(`input[value="${name}"]`).checked = true;
    byId("drag").dispatchEvent(new Event("change"));
  }

  get current() { return this.#shown[this.#active]?.view; }

  add(image) {
    const canvas = element("canvas", { tabIndex: 0, role: "img" });
    const figure = element("figure", {}, element("div", { className: "frame" }, canvas), element("figcaption"));
    byId("films").append(figure);
    const view = new View(canvas, image.bitmap);
    const activate = () => this.activate(this.#shown.findIndex((one) => one.view === view));
    gestures(view, { tool: () => this.tool(), onchange: () => this.#tell(), onactive: activate });
    canvas.addEventListener("focus", activate);
    this.#shown.push({ image, figure, view });
    this.#arrange();
  }

  remove(image) {
    const place = this.#shown.findIndex((one) => one.image === image);
    const [{ figure, view }] = this.#shown.splice(place, 1);
    view.close();
    figure.remove();
    this.#active = Math.max(0, Math.min(this.#active, this.#shown.length - 1));
    this.#arrange();
  }

  activate(place) {
    if (place < 0 || place >= this.#shown.length || place === this.#active) return;
    this.#active = place;
    this.#arrange();
  }

  set(changes) { this.current?.set(changes); this.#tell(); }
  window(step) { if (this.current) this.set({ width: this.current.settings.width + step }); }
  level(step) { if (this.current) this.set({ level: this.current.settings.level + step }); }
  invert() { if (this.current) this.set({ isInverted: !this.current.settings.isInverted }); }
  zoom(factor) { this.current?.zoomAt(factor); this.#tell(); }
  reset() { this.set({ ...FRESH }); }
  toggleSolo() { this.#isSolo = !this.#isSolo; this.#arrange(); }

  toggleOverlay() {
    this.#isOverlaid = !this.#isOverlaid;
    byId("overlay").setAttribute("aria-pressed", String(this.#isOverlaid));
    this.#lay();
  }

  /** Lays a grid over every image that it was made for; `words` say what the grids show. */
  show(images, grids, words) {
    this.#evidence = { grids: new Map(images.map((image, place) => [image, grids[place]])), words };
    this.#lay();
  }

  /** No overlay; `words` say why. */
  hide(words = NOTHING) {
    this.#evidence = { grids: new Map(), words };
    this.#lay();
  }

  #lay() {
    const { grids, words } = this.#evidence;
    for (const { image, view } of this.#shown) {
      view.overlay(this.#isOverlaid && grids.get(image)?.length ? grids.get(image) : null, Number(byId("strength").value) / 100);
    }
    const text = grids.size ? `${words} ${WARNING}` : words;
    if (byId("legend-words").textContent !== text) byId("legend-words").textContent = text;
  }

  #arrange() {
    const count = this.#shown.length;
    if (count < 2) this.#isSolo = false;
    byId("tools").hidden = byId("legend").hidden = count === 0;
    byId("solo").hidden = count < 2;
    byId("solo").setAttribute("aria-pressed", String(this.#isSolo));
    byId("films").dataset.views = String(this.#isSolo ? 1 : Math.min(count, 9));
    this.#shown.forEach(({ image, figure, view }, place) => {
      const isActive = place === this.#active;
      figure.hidden = this.#isSolo && !isActive;
      figure.classList.toggle("active", isActive && count > 1);
      view.canvas.setAttribute("aria-label", `View ${place + 1} of ${count}${isActive && count > 1 ? ", active" : ""}. Arrow keys pan.`);
      figure.querySelector("figcaption").replaceChildren(
        element("strong", {}, `View ${place + 1}`),
        element("span", { className: "name", title: image.name }, image.name),
        button("Remove", () => this.onremove(image), { "aria-label": `Remove view ${place + 1}` }),
      );
    });
    this.#lay();
    this.#tell();
  }

  /** The tools show what the active view has. */
  #tell() {
    if (!this.current) return;
    const { width, level, isInverted, zoom } = this.current.settings;
    byId("width").value = width;
    byId("level").value = level;
    byId("width-value").textContent = Math.round(width);
    byId("level-value").textContent = Math.round(level);
    byId("invert").setAttribute("aria-pressed", String(isInverted));
    byId("zoom-value").textContent = `${Math.round(100 * zoom)} %`;
  }
}
