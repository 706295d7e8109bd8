// Elements in one expression. Text goes in as text nodes only, so no report can become markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties (`aria-*` and `data-*` as attributes, `on*` as listeners) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const button = (words, onclick, properties = {}) =>
  element("button", { type: "button", onclick, ...properties }, words);

/** Says it to screen readers. */
export const say = (words) => { byId("status").textContent = words; };

/** A file to the folder of downloads. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may still be reading it
}
