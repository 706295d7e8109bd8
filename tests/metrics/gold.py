"""Reads the hand-written sentences and scores a labeler on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rayscribe.labels import NEGATIVE, OBSERVATIONS, POSITIVE, UNCERTAIN

SHORT = dict(zip("EC CM LL LO ED CO PN AT PX EF PO FX SD".split(), OBSERVATIONS[1:], strict=True))
SIGNS = {"+": POSITIVE, "-": NEGATIVE, "?": UNCERTAIN}


def gold_sentences() -> list[tuple[str, dict[str, int]]]:
    """Sentences with the state of every observation that they mention."""
    found = []
    for line in (Path(__file__).parent / "gold_sentences.tsv").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            sentence, marks = line.split("\t")
            found.append((sentence, {SHORT[mark[:2]]: SIGNS[mark[2:]] for mark in marks.split() if mark != "-"}))
    return found


def disagreements(
    states: Callable[[str], Sequence[int]],
) -> tuple[Counter[tuple[int, str]], list[tuple[str, str, int, int]]]:
    """Counts of (state, tp / fp / fn), and every decision that differs: sentence, observation, gold, found."""
    counts: Counter[tuple[int, str]] = Counter()
    different = []
    for sentence, gold in gold_sentences():
        for name, found in zip(OBSERVATIONS[1:], states(sentence)[1:], strict=True):
            wanted = gold.get(name, 0)
            if found == wanted:
                counts[found, "tp"] += 1
                continue
            counts[wanted, "fn"] += 1
            counts[found, "fp"] += 1
            different.append((sentence, name, wanted, found))
    return counts, different


def f1(counts: Counter[tuple[int, str]], states: Sequence[int]) -> float:
    """Micro F1 over mentions with one of the states."""
    tp, fp, fn = (sum(counts[state, kind] for state in states) for kind in ("tp", "fp", "fn"))
    return 2 * tp / (2 * tp + fp + fn)
