// Which words two texts do not share: the longest common subsequence of their words, letters' case aside.

const WORD = /[\p{L}\p{N}]+(?:[-'’./][\p{L}\p{N}]+)*|[^\s\p{L}\p{N}]/gu;

const words = (text) => [...text.matchAll(WORD)].map((found) => ({
  word: found[0], like: found[0].toLowerCase(), start: found.index, end: found.index + found[0].length,
}));

/** Words in order: {kind: "same" | "removed" | "added", word, start, end}; places are in the first text, of added ones in the second. */
export function difference(first, second) {
  const [a, b] = [words(first), words(second)];
  const wide = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * wide); // of a[i...] and b[j...]
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * wide + j] = a[i].like === b[j].like
        ? longest[(i + 1) * wide + j + 1] + 1
        : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
  }
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i].like === b[j].like) {
      found.push({ kind: "same", ...a[i] });
      i += 1;
      j += 1;
    } else if (j === b.length || (i < a.length && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) {
      found.push({ kind: "removed", ...a[i] });
      i += 1;
    } else {
      found.push({ kind: "added", ...b[j] });
      j += 1;
    }
  }
  return found;
}

const isWord = ({ word }) => /[\p{L}\p{N}]/u.test(word);

/** For each sentence of the first text, the words that the second text does not have; neighbours are one span. */
export function differing(sentences, other) {
  const text = sentences.map((sentence) => sentence.text).join(" ");
  const removed = difference(text, other).filter((one) => one.kind === "removed" && isWord(one));
  let offset = 0;
  return sentences.map((sentence) => {
    const [from, to] = [offset, offset + sentence.text.length];
    offset = to + 1;
    const spans = [];
    for (const { start, end } of removed.filter((one) => one.start >= from && one.end <= to)) {
      const last = spans.at(-1);
      if (last && !text.slice(last.end + from, start).trim()) last.end = end - from;
      else spans.push({ start: start - from, end: end - from, kind: "differs" });
    }
    return spans;
  });
}
