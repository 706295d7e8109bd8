// The page of a reader study: votes, kept in this browser, exported by hand. It sends nothing and loads nothing.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const work = byId("work");
  const pairs = [...document.querySelectorAll(".pair")];
  const { study, format } = work.dataset;
  const WORDS = { A: "A is better", same: "about the same", B: "B is better" };
  const KEYS = { 1: "A", a: "A", 2: "same", s: "same", 3: "B", b: "B" };
  const COLUMNS = ["study", "reader", "number", "item", "vote", "comment", "time"];
  const memory = new Map(); // stands in where the browser keeps nothing
  const LAST = `rayscribe-reader:${study}`;
  let reader = "";
  let state = { votes: {}, exported: "" };
  let at = 0;

  // ---- what is kept

  function kept(key) {
    try {
      return localStorage.getItem(key) ?? memory.get(key) ?? null;
    } catch {
      byId("nothing-kept").hidden = false;
      return memory.get(key) ?? null;
    }
  }

  function keep(key, text) {
    memory.set(key, text);
    try {
      localStorage.setItem(key, text);
    } catch {
      byId("nothing-kept").hidden = false;
    }
  }

  const place = (name) => `rayscribe-reader-study:${study}:${name.toLowerCase()}`;

  function load() {
    state = { votes: {}, exported: "" };
    try {
      const found = JSON.parse(kept(place(reader)) ?? "null");
      if (found && typeof found.votes === "object" && found.votes) state = found;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error; // what is no JSON is not ours: begin anew
    }
  }

  // ---- votes

  const isVote = (vote) => Object.hasOwn(WORDS, vote);

  const entry = (pair) => state.votes[pair.dataset.item] ?? { vote: "", comment: "", time: "" };

  function answers() {
    return pairs.flatMap((pair, place) => {
      const { vote, comment, time } = entry(pair);
      return isVote(vote) ? [{ number: place + 1, item: pair.dataset.item, vote, comment, time }] : [];
    });
  }

  const isUnsaved = () => answers().length > 0 && JSON.stringify(answers()) !== state.exported;

  function change(pair, changes) {
    state.votes[pair.dataset.item] = { ...entry(pair), ...changes, time: new Date().toISOString() };
    keep(place(reader), JSON.stringify(state));
    count();
  }

  function vote(pair, choice) {
    change(pair, { vote: choice });
    pair.querySelector(`input[value="${choice}"]`).checked = true;
    const done = answers().length;
    const rest = done === pairs.length ? " All are answered: save your votes." : "";
    say(`Study ${pairs.indexOf(pair) + 1}: ${WORDS[choice]}. ${done} of ${pairs.length} answered.${rest}`);
  }

  // ---- what is seen

  const say = (text) => { byId("status").textContent = text; };

  function count() {
    const done = answers().length;
    byId("count").textContent = `${done} of ${pairs.length} answered`;
    byId("progress").value = done;
    byId("unsaved").textContent = isUnsaved() ? "Votes not saved to a file yet." : "";
  }

  function fill() {
    for (const pair of pairs) {
      const { vote, comment } = entry(pair);
      for (const radio of pair.querySelectorAll("input[type=radio]")) radio.checked = radio.value === vote;
      pair.querySelector("textarea").value = comment;
    }
    count();
  }

  function show(wanted) {
    at = Math.max(0, Math.min(pairs.length - 1, wanted));
    pairs.forEach((pair, place) => { pair.hidden = place !== at; });
    byId("previous").disabled = at === 0;
    byId("next").disabled = at === pairs.length - 1;
    say("");
    pairs[at].querySelector("h2").focus({ preventScroll: true }); // a screen reader reads it
    work.scrollIntoView();
  }

  function showFirstUnanswered() {
    const open = pairs.findIndex((pair) => !isVote(entry(pair).vote));
    if (open < 0) say("All studies are answered: save your votes.");
    else show(open);
  }

  // ---- export

  function guarded(text) {
    // A spreadsheet would calculate a cell that begins like a formula. `score` takes the apostrophe off again.
    return /^\s*['=+\-@＝＋－＠]|^[\t\r\n]/.test(text) ? `'${text}` : text;
  }

  const cell = (value) => `"${guarded(String(value)).replaceAll('"', '""')}"`;

  function asCsv(rows) {
    const lines = rows.map((row) => COLUMNS.map((name) => cell({ study, reader, ...row }[name])).join(","));
    return `\ufeff${[COLUMNS.join(","), ...lines].join("\r\n")}\r\n`;
  }

  const asJson = (rows) => JSON.stringify({ format, study, reader, pairs: pairs.length, votes: rows }, null, 1) + "\n";

  function save(suffix, type, text) {
    const rows = answers();
    if (!rows.length) {
      say("There is no vote to save yet.");
      return;
    }
    const link = document.createElement("a");
    const name = reader.replaceAll(/[^\p{L}\p{N}]+/gu, "-");
    link.href = URL.createObjectURL(new Blob([text(rows)], { type }));
    link.download = `votes-${study}-${name}.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    state.exported = JSON.stringify(rows);
    keep(place(reader), JSON.stringify(state));
    count();
    const lost = pairs.filter((pair) => entry(pair).comment && !isVote(entry(pair).vote)).length;
    const lone = lost ? ` Not in it: ${lost} comments without a vote.` : "";
    say(`Saved ${rows.length} of ${pairs.length} votes as ${link.download}.${lone} Send the file to whoever runs the study.`);
  }

  // ---- events

  byId("start").addEventListener("submit", (event) => {
    event.preventDefault();
    reader = byId("reader").value.split(/\s+/).filter(Boolean).join(" ");
    byId("reader").setCustomValidity(reader ? "" : "Enter your name or initials.");
    if (!byId("reader").reportValidity()) return;
    keep(LAST, reader);
    load();
    fill();
    byId("start").hidden = true;
    work.hidden = false;
    byId("who").textContent = `Reader: ${reader}`;
    const open = pairs.findIndex((pair) => !isVote(entry(pair).vote));
    show(open < 0 ? 0 : open);
  });

  byId("reader").addEventListener("input", () => byId("reader").setCustomValidity(""));

  byId("change").addEventListener("click", () => {
    work.hidden = true;
    byId("start").hidden = false;
    byId("reader").focus();
  });

  for (const pair of pairs) {
    pair.addEventListener("change", (event) => {
      if (event.target.matches("input[type=radio]")) vote(pair, event.target.value);
    });
    pair.querySelector("textarea").addEventListener("input", (event) => change(pair, { comment: event.target.value }));
  }

  byId("previous").addEventListener("click", () => show(at - 1));
  byId("next").addEventListener("click", () => show(at + 1));
  byId("open").addEventListener("click", showFirstUnanswered);
  byId("save-json").addEventListener("click", () => save("json", "application/json", asJson));
  byId("save-csv").addEventListener("click", () => save("csv", "text/csv", asCsv));

  document.addEventListener("keydown", (event) => {
    if (work.hidden || !byId("keys").checked || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("textarea, input[type=text]")) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault(); // inside the radio buttons, too, where it would change the vote
      show(at + (event.key === "ArrowRight" ? 1 : -1));
    } else if (Object.hasOwn(KEYS, event.key.toLowerCase())) {
      event.preventDefault();
      vote(pairs[at], KEYS[event.key.toLowerCase()]);
    }
  });

  window.addEventListener("storage", (event) => {
    if (work.hidden || event.key !== place(reader)) return;
    load(); // the same reader votes in another window
    fill();
  });

  window.addEventListener("beforeunload", (event) => {
    if (!reader || !isUnsaved()) return;
    event.preventDefault();
    event.returnValue = true; // older browsers
  });

  byId("reader").value = kept(LAST) ?? "";
})();
