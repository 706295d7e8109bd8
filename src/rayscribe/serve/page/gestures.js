// Dragging, the wheel, two fingers and the arrow keys on an image.

const STEP = 40;
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** `tool()` says what a drag does, "window" or "pan"; with Shift or another button than the first it pans. */
export function gestures(view, { tool, onchange, onactive }) {
  const { canvas } = view;
  const fingers = new Map();

  canvas.addEventListener("pointerdown", (event) => {
    onactive();
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const [right, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (fingers.size === 2) pinch(event, before, right, down);
    else if (tool() === "pan" || event.shiftKey || event.buttons > 1) view.pan(right, down);
    else view.set({ width: view.settings.width + right / 2, level: view.settings.level - down / 2 });
    fingers.set(event.pointerId, event);
    onchange();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }

  function pinch(event, before, right, down) {
    const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY) || 1;
    view.pan(right / 2, down / 2);
    const place = canvas.getBoundingClientRect();
    view.zoomAt(
      apart(event) / apart(before),
      (event.clientX + other.clientX) / 2 - place.left,
      (event.clientY + other.clientY) / 2 - place.top,
    );
  }

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault(); // the page would scroll
    onactive();
    view.zoomAt(Math.exp(-event.deltaY / 500), event.offsetX, event.offsetY);
    onchange();
  }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault()); // the second button pans
  canvas.addEventListener("dblclick", () => { view.zoomAt(view.settings.zoom > 1 ? 0 : 2); onchange(); });
  canvas.addEventListener("keydown", (event) => {
    const way = ARROWS[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    view.pan(way[0] * STEP, way[1] * STEP);
    onchange();
  });
}
