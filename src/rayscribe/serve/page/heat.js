// A grid of evidence as a picture to lay over an image: one warm hue, more of it where the model looked more.

const HUE = [255, 168, 20];

/** A canvas of the grid's own size; the caller stretches it over the image, as the image was stretched for the model. */
export function heat(grid, strength) {
  const canvas = document.createElement("canvas");
  canvas.width = grid[0].length;
  canvas.height = grid.length;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  grid.flat().forEach((value, place) => picture.data.set([...HUE, 255 * strength * Math.min(1, Math.max(0, value))], 4 * place));
  context.putImageData(picture, 0, 0);
  return canvas;
}
