// One image on a canvas: window and level, inverting, zoom, pan, and an overlay.
import { heat } from "./heat.js";

export const FRESH = { width: 255, level: 127.5, isInverted: false, zoom: 1, x: 0.5, y: 0.5 };
const LARGEST = 12;
const between = (low, value, high) => Math.min(high, Math.max(low, value));

export class View {
  settings = { ...FRESH }; // x and y: the point of the image, in shares of its sides, that stands in the middle
  grid = null;
  strength = 0.6;
  #isWaiting = false;

  constructor(canvas, bitmap) {
    this.canvas = canvas;
    this.bitmap = bitmap;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(canvas.parentElement);
  }

  close() {
    this.observer.disconnect();
    this.bitmap.close();
  }

  set(changes) {
    const next = { ...this.settings, ...changes };
    next.width = between(1, next.width, 255);
    next.level = between(0, next.level, 255);
    next.zoom = between(1, next.zoom, LARGEST);
    next.x = next.zoom === 1 ? 0.5 : between(0, next.x, 1);
    next.y = next.zoom === 1 ? 0.5 : between(0, next.y, 1);
    this.settings = next;
    this.draw();
  }

  overlay(grid, strength = this.strength) {
    this.grid = grid;
    this.strength = strength;
    this.draw();
  }

  /** Zooms so that what is under the point (in CSS pixels of the canvas) stays there. */
  zoomAt(factor, left = this.canvas.clientWidth / 2, top = this.canvas.clientHeight / 2) {
    const { zoom, x, y } = this.settings;
    const next = between(1, zoom * factor, LARGEST);
    const shift = (1 - zoom / next) / this.#scale();
    this.set({
      zoom: next,
      x: x + ((left - this.canvas.clientWidth / 2) * shift) / this.bitmap.width,
      y: y + ((top - this.canvas.clientHeight / 2) * shift) / this.bitmap.height,
    });
  }

  /** Moves the image by CSS pixels. */
  pan(right, down) {
    const scale = this.#scale();
    const { x, y } = this.settings;
    this.set({ x: x - right / scale / this.bitmap.width, y: y - down / scale / this.bitmap.height });
  }

  /** At the next frame, once, however many changes come before it. */
  draw() {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    requestAnimationFrame(() => {
      this.#isWaiting = false;
      this.#paint();
    });
  }

  /** CSS pixels to a pixel of the image. */
  #scale() {
    const { clientWidth, clientHeight } = this.canvas;
    return this.settings.zoom * Math.min(clientWidth / this.bitmap.width, clientHeight / this.bitmap.height) || 1;
  }

  #fit() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    this.#paint(); // at once: a canvas that was resized is empty
  }

  #paint() {
    const { canvas, context, bitmap, settings } = this;
    const scale = this.#scale() * (canvas.width / (canvas.clientWidth || 1));
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    const [left, top] = [canvas.width / 2 - settings.x * width, canvas.height / 2 - settings.y * height];
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, left, top, width, height);
    // The window is applied to what is seen, not to the whole image: as fast for a large film as for a small one.
    const seen = context.getImageData(0, 0, canvas.width, canvas.height);
    const table = greys(settings);
    const { data } = seen;
    for (let at = 0; at < data.length; at += 4) data[at] = data[at + 1] = data[at + 2] = table[data[at]];
    context.putImageData(seen, 0, 0);
    if (this.grid) context.drawImage(heat(this.grid, this.strength), left, top, width, height);
  }
}

/** What each of the 256 greys becomes. */
function greys({ width, level, isInverted }) {
  return Uint8ClampedArray.from({ length: 256 }, (_, grey) => {
    const shown = ((grey - level) / width + 0.5) * 255;
    return isInverted ? 255 - shown : shown;
  });
}
