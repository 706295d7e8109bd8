// The images of the study as the reader gives them: each goes to the server at once, so a bad one is named at once.
import * as api from "./api.js";
import { byId, button, element, say } from "./dom.js";

const MAGIC_AT = 128;

async function isDicom(file) {
  if (/\.(dcm|dicom)$/i.test(file.name)) return true;
  return await file.slice(MAGIC_AT, MAGIC_AT + 4).text() === "DICM";
}

export class Images {
  all = []; // {file, name, isDicom, bitmap}, in the order of the draft's views
  #coming = 0;
  #limits = { images: Infinity, megabytes: Infinity };

  constructor({ onadd, onremove, onchange }) {
    Object.assign(this, { onadd, onremove, onchange });
    byId("files").addEventListener("change", () => {
      const files = [...byId("files").files];
      byId("files").value = ""; // the same file can be chosen again
      this.add(files);
    });
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    document.addEventListener("drop", (event) => {
      document.body.classList.remove("dropping");
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
  }

  set limits(limits) { this.#limits = { ...this.#limits, ...limits }; }

  /** Every image is here that was given. */
  get isReady() { return this.all.length > 0 && this.#coming === 0; }

  async add(files) {
    byId("refused").replaceChildren();
    this.#coming += files.length;
    this.onchange();
    for (const file of files) { // one after the other: the views keep the order in which they were given
      say(`Reading ${file.name}`);
      try {
        await this.#take(file);
      } catch (error) {
        this.#refuse(file, error);
      }
      this.#coming -= 1;
      this.onchange();
    }
    say(`${this.all.length} ${this.all.length === 1 ? "image" : "images"} in the study.`);
  }

  async #take(file) {
    if (this.all.length >= this.#limits.images) throw new Error(`a study has at most ${this.#limits.images} images here`);
    if (file.size > this.#limits.megabytes * 1e6) throw new Error(`larger than the ${this.#limits.megabytes} MB that the server takes`);
    const image = { file, name: file.name, isDicom: await isDicom(file) };
    image.bitmap = await createImageBitmap(await api.preview(image), { colorSpaceConversion: "none" });
    this.all.push(image);
    this.onadd(image);
  }

  #refuse(file, error) {
    const again = () => { line.remove(); this.add([file]); };
    const words = error.message.replace(/^image 1: /, ""); // as the server calls it
    const line = element("li", {}, element("strong", {}, file.name), `: ${words} `);
    if (error.isBusy || error.isLost) line.append(button("Try again", again), " ");
    line.append(button("Dismiss", () => line.remove()));
    byId("refused").append(line);
  }

  remove(image) {
    this.all = this.all.filter((one) => one !== image);
    this.onremove(image);
    this.onchange();
  }
}
