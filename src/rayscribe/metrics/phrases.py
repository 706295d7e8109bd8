"""Phrases of several words, looked up by their first word: the longest one at a position wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rayscribe.metrics.spellings import canonical

Phrases = dict[str, tuple[tuple[tuple[str, ...], frozenset[str]], ...]]
"First word -> (the words after it, the groups that list the phrase), longest first."


def phrase_table(groups: Mapping[str, str]) -> Phrases:
    """The table of groups of ";"-separated phrases. "airspace" also matches "air space"."""
    found: dict[tuple[str, ...], set[str]] = {}
    for group, listed in groups.items():
        for phrase in listed.split(";"):
            for spelled in _spellings(phrase.split()):
                found.setdefault(spelled, set()).add(group)
    table: dict[str, list[tuple[tuple[str, ...], frozenset[str]]]] = {}
    for words in sorted(found, key=len, reverse=True):
        table.setdefault(words[0], []).append((words[1:], frozenset(found[words])))
    return {first: tuple(rest) for first, rest in table.items()}


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def longest(table: Phrases, words: Sequence[str], at: int) -> tuple[int, frozenset[str]] | None:
    """End (exclusive) and groups of the longest phrase that starts at word `at`; None if there is none."""
    for rest, groups in table.get(words[at], ()):
        end = at + 1 + len(rest)
        if not rest or tuple(words[at + 1 : end]) == rest:
            return end, groups
    return None


def scanned(table: Phrases, words: Sequence[str]) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Start, end (exclusive) and groups of non-overlapping phrases, from left to right."""
    at = 0
    while at < len(words):
        match = longest(table, words, at)
        if match is None:
            at += 1
            continue
        yield at, *match
        at = match[0]


def _spellings(phrase: Iterable[str]) -> list[tuple[str, ...]]:
    words = tuple(canonical(word) for word in phrase)
    if not words:
        return []
    if "airspace" not in words:
        return [words]
    return [words, tuple(part for word in words for part in (("air", "space") if word == "airspace" else (word,)))]
