// The page of a reader study: votes, kept in this browser, exported by hand. It sends nothing and loads nothing.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const work = byId("work");
  const pairs = [...document.querySelectorAll(".pair")];
  const { study, format } = work.dataset;
  const WORDS = { A: "A is better", same: "about the same", B: "B is better" };
  const KEYS = { 1: "A", a: "A", 2: "same", s: "same", 3: "B", b: "B" };
  const COLUMNS = ["study", "reader", "number", "item", "vote", "comment"];
  const memory = new Map(); // what the browser did not take
  const session = new Map(); // every reader since the page was opened, with the votes: to warn before they are lost
  const LAST = `rayscribe-reader:${study}`;
  let reader = "";
  let state = { votes: {}, exported: "" };
  let at = 0;

  // ---- what is kept

  function kept(key) {
    if (memory.has(key)) return memory.get(key); // newer than what the browser has
    try {
      return localStorage.getItem(key);
    } catch {
      byId("nothing-kept").hidden = false;
      return null;
    }
  }

  function keep(key, text) {
    try {
      localStorage.setItem(key, text);
      memory.delete(key);
    } catch {
      memory.set(key, text);
      byId("nothing-kept").hidden = false;
    }
  }

  const place = (name) => `rayscribe-reader-study:${study}:${name.toLowerCase()}`;

  function stored(name) {
    try {
      const found = JSON.parse(kept(place(name)) ?? "null");
      if (found && typeof found.votes === "object" && found.votes) return found;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error; // what is no JSON is not ours: begin anew
    }
    return { votes: {}, exported: "" };
  }

  function load() {
    state = stored(reader);
    session.set(place(reader), { name: reader, state });
  }

  // ---- votes

  const isVote = (vote) => Object.hasOwn(WORDS, vote);

  const entry = (pair, given = state) => given.votes[pair.dataset.item] ?? { vote: "", comment: "" };

  function answers(given = state) {
    return pairs.flatMap((pair, place) => {
      const { vote, comment } = entry(pair, given);
      return isVote(vote) ? [{ number: place + 1, item: pair.dataset.item, vote, comment }] : [];
    });
  }

  const hasUnsavedVotes = (given) => answers(given).length > 0 && JSON.stringify(answers(given)) !== given.exported;

  const loneComments = (given) =>
    pairs.filter((pair) => entry(pair, given).comment && !isVote(entry(pair, given).vote)).length;

  function change(pair, changes) {
    state.votes[pair.dataset.item] = { ...entry(pair), ...changes };
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
    const open = [...session.values()].filter(({ state }) => hasUnsavedVotes(state)).map(({ name }) => name);
    const lone = loneComments(state);
    byId("unsaved").textContent = [
      open.length ? `Not saved to a file yet: votes of ${open.join(", ")}.` : "",
      lone ? `Comments without a vote, which no file will hold: ${lone}.` : "",
    ].join(" ").trim();
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
    return /^[ \t\r\n]*['=+\-@＝＋－＠]|^[\t\r\n]/.test(text) ? `'${text}` : text;
  }

  const cell = (value) => `"${guarded(String(value)).replaceAll('"', '""')}"`;

  function asCsv(rows) {
    const lines = rows.map((row) => COLUMNS.map((name) => cell({ study, reader, ...row }[name])).join(","));
    return `\ufeff${[COLUMNS.join(","), ...lines].join("\r\n")}\r\n`;
  }

  const asJson = (rows) => JSON.stringify({ format, study, reader, votes: rows }, null, 1) + "\n";

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
    const lost = loneComments(state);
    const lone = lost ? ` Not in it: comments without a vote (${lost}).` : "";
    say(`Saved ${rows.length} of ${pairs.length} votes as ${link.download}.${lone} Send the file to whoever runs the study.`);
  }

  // ---- events

  function nameOf(text) {
    // As `score` reads names: one spelling of every letter, single spaces, no control characters, something to see.
    const words = text.split(/\s+/).map((word) => word.replaceAll(/[\p{Cc}\p{Cs}]/gu, ""));
    const name = words.filter(Boolean).join(" ").normalize("NFC");
    return /[^\p{Cc}\p{Cf}\p{Cs}\p{Z}]/u.test(name) ? name : "";
  }

  function greet() {
    const name = nameOf(byId("reader").value);
    const votes = name ? answers(stored(name)).length : 0;
    const some = `${votes} ${votes === 1 ? "vote" : "votes"}`;
    byId("go").textContent = votes ? `Go on with ${some}` : "Start";
    byId("known").textContent = votes ? `Kept here: ${some} of ${name}. Not yours? Enter another name.` : "";
  }

  byId("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = nameOf(byId("reader").value);
    byId("reader").setCustomValidity(name ? "" : "Enter your name or initials.");
    if (!byId("reader").reportValidity()) return;
    reader = name;
    keep(LAST, reader);
    load();
    fill();
    byId("start").hidden = true;
    work.hidden = false;
    byId("who").textContent = `Reader: ${reader}`;
    const open = pairs.findIndex((pair) => !isVote(entry(pair).vote));
    show(open < 0 ? 0 : open);
  });

  byId("reader").addEventListener("input", () => {
    byId("reader").setCustomValidity("");
    greet();
  });

  byId("change").addEventListener("click", () => {
    work.hidden = true;
    byId("start").hidden = false;
    byId("reader").value = "";
    greet();
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
      if (event.repeat) return; // a key held down would run past studies
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
    if (![...session.values()].some(({ state }) => hasUnsavedVotes(state) || loneComments(state))) return;
    event.preventDefault();
    event.returnValue = true; // older browsers
  });

  byId("reader").value = kept(LAST) ?? "";
  greet();
})();
