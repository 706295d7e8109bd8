// The draft as text on the clipboard and as files. Whatever leaves the page carries the disclaimer.
import * as api from "./api.js";
import { byId, button, download, say } from "./dom.js";
import { clear, notice } from "./notices.js";

const KINDS = { text: "Text", json: "JSON", pdf: "PDF", fhir: "FHIR", sr: "DICOM SR", "dicom-pdf": "DICOM PDF" };
const NEEDS_ORIGINALS = new Set(["sr", "dicom-pdf"]);

const disclaimer = () => byId("disclaimer").textContent;

export function showExports(draft) {
  const others = draft.images.filter((image) => !image.isDicom);
  byId("dicom-reason").textContent = others.length
    ? "DICOM SR and DICOM PDF take the patient and the study from the originals, so every image has to be DICOM; "
      + `${others.length === draft.images.length ? "none" : `${draft.images.length - others.length} of ${draft.images.length}`} of these is.`
    : "";
  byId("kinds").replaceChildren(...Object.entries(KINDS).map(([kind, words]) => {
    const isLocked = NEEDS_ORIGINALS.has(kind) && others.length > 0;
    const properties = isLocked ? { disabled: true, "aria-describedby": "dicom-reason" } : {};
    return button(words, () => save(kind, draft), properties);
  }));
}

async function save(kind, draft) {
  const written = draft.plain;
  clear("export");
  try {
    const takesOriginals = NEEDS_ORIGINALS.has(kind) || (kind === "fhir" && draft.images.every((image) => image.isDicom));
    const { blob, name } = await api.exported(kind, written, takesOriginals ? draft.images : []);
    download(blob, name);
    if (draft.plain === written) draft.saved(); // it may have been edited while the server worked
    say(`${KINDS[kind]} saved as ${name}.`);
  } catch (error) {
    notice(error, { topic: "export", subject: KINDS[kind], again: () => save(kind, draft) });
  }
}

export const withDisclaimer = (text) => `${text}\n\n${disclaimer()}\n`;

export async function copy(draft) {
  const written = draft.plain;
  const isCopied = await put(withDisclaimer(draft.text));
  if (isCopied && draft.plain === written) draft.saved();
  say(isCopied ? "Copied, with the disclaimer." : "The browser did not let the page copy.");
  return isCopied;
}

async function put(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // refused, or not there at all: a page on plain HTTP has no `navigator.clipboard`
    const fill = (event) => {
      event.preventDefault();
      event.stopImmediatePropagation();
      event.clipboardData.setData("text/plain", text);
    };
    document.addEventListener("copy", fill, { capture: true, once: true });
    const isCopied = document.execCommand("copy");
    document.removeEventListener("copy", fill, { capture: true });
    return isCopied;
  }
}

/** A part of the draft that the reader selects and copies carries the disclaimer too. */
export function guardSelection() {
  document.addEventListener("copy", (event) => {
    const selection = document.getSelection();
    const place = selection?.anchorNode?.parentElement;
    if (!selection?.toString().trim() || !place?.closest("#drafts, #alternatives, #compared")) return;
    event.preventDefault();
    event.clipboardData.setData("text/plain", withDisclaimer(selection.toString()));
  });
}
