"""METEOR 1.5's alignment of a hypothesis with a reference: which phrases match, found by beam search.

Source: Denkowski and Lavie, "Meteor Universal", 2014, section 2, and the released program. Its quirks are reproduced, because
scores are comparable only with them: inside the search a match counts whole words after weighting (so a stem counts none),
and its distance is charged to the alternatives that are tried after it instead of to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from rayscribe.metrics.meteor_resources import PHRASE_WORDS, Lexicon, Paraphrases, Words, synonym_sets
from rayscribe.metrics.stemmer import stem

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
BEAM = 40
_SEARCH_WEIGHTS = (1.0, 0.5, 0.5, 0.5)  # inside the search; the score uses others
_CHUNK, _MATCH = 1 << 32, 1 << 52  # packed into one sortable number: matches, then chunks, then distance


class Match(NamedTuple):
    """A phrase of the hypothesis that matches a phrase of the reference."""

    reference: int
    reference_words: int
    hypothesis: int
    hypothesis_words: int
    matcher: int


@dataclass(frozen=True, slots=True)
class Matchers:
    """The four matchers over fixed tables; caches the stems and synonym sets of words."""

    lexicon: Lexicon
    paraphrases: Paraphrases
    _stems: dict[str, str] = field(default_factory=dict)
    _sets: dict[str, frozenset[str]] = field(default_factory=dict)

    def matches(self, hypothesis: Words, reference: Words) -> list[list[Match]]:
        """All matches, by the position in the reference where they start, in the order in which the search tries them."""
        found: list[list[Match]] = [[] for _ in reference]
        same = _places(hypothesis)
        for place, word in enumerate(reference):
            found[place] += [Match(place, 1, other, 1, EXACT) for other in same.get(word, ())]
        if hypothesis == reference:
            return found
        self._learn({*hypothesis, *reference})
        stems = _places([self._stems[word] for word in hypothesis])
        for place, word in enumerate(reference):
            for other in stems.get(self._stems[word], ()):
                if hypothesis[other] != word:
                    found[place].append(Match(place, 1, other, 1, STEM))
        named = [(other, word, sets) for other, word in enumerate(hypothesis) if (sets := self._sets[word])]
        for place, word in enumerate(reference):
            if sets := self._sets[word]:
                for other, other_word, other_sets in named:
                    if other_word != word and not sets.isdisjoint(other_sets):
                        found[place].append(Match(place, 1, other, 1, SYNONYM))
        if self.paraphrases:
            self._add_paraphrases(found, hypothesis, reference)
        return found

    def _learn(self, words: set[str]) -> None:
        for word in words - self._stems.keys():
            self._stems[word] = stem(word)
            self._sets[word] = synonym_sets(word, self.lexicon)

    def _add_paraphrases(self, found: list[list[Match]], hypothesis: Words, reference: Words) -> None:
        """Looks up every entry of the table from the reference first, then from the hypothesis."""
        for place, words, paraphrase in self._entries(reference):
            for other in _occurrences(paraphrase, hypothesis):
                found[place].append(Match(place, words, other, len(paraphrase), PARAPHRASE))
        for other, words, paraphrase in self._entries(hypothesis):
            for place in _occurrences(paraphrase, reference):
                found[place].append(Match(place, len(paraphrase), other, words, PARAPHRASE))

    def _entries(self, text: Words) -> list[tuple[int, int, Words]]:
        return [
            (place, size, paraphrase)
            for place in range(len(text))
            for size in range(1, min(PHRASE_WORDS, len(text) - place) + 1)
            for paraphrase in self.paraphrases.get(text[place : place + size], ())
        ]


def align(hypothesis: Words, reference: Words, matchers: Matchers) -> list[Match]:
    """The matches of the best alignment found, in the reference's order."""
    options = matchers.matches(hypothesis, reference)
    certain = _certain(options, len(hypothesis), len(reference))
    return _search(options, certain)


def chunks(matches: Sequence[Match]) -> int:
    """The number of runs of matches that are contiguous and in the same order on both sides."""
    count, ends = 0, (-1, -1)
    for match in matches:
        count += (match.reference, match.hypothesis) != ends
        ends = (match.reference + match.reference_words, match.hypothesis + match.hypothesis_words)
    return count


def _certain(options: list[list[Match]], hypothesis_words: int, reference_words: int) -> dict[int, Match]:
    """Matches whose words no other match covers; they are fixed before the search."""
    cover_hypothesis, cover_reference = [0] * hypothesis_words, [0] * reference_words
    for matches in options:
        for match in matches:
            for place in range(match.hypothesis, match.hypothesis + match.hypothesis_words):
                cover_hypothesis[place] += 1
            for place in range(match.reference, match.reference + match.reference_words):
                cover_reference[place] += 1
    return {
        match.reference: match
        for match in (matches[0] for matches in options if len(matches) == 1)
        if max(cover_hypothesis[match.hypothesis : match.hypothesis + match.hypothesis_words]) == 1
        and max(cover_reference[match.reference : match.reference + match.reference_words]) == 1
    }


class _Option(NamedTuple):
    """A match prepared for the search; masks have one bit per covered word."""

    match: Match
    hypothesis_mask: int
    reference_mask: int
    cost: int
    start: int
    end: int
    distance: int

    @classmethod
    def of(cls, match: Match) -> _Option:
        weight = _SEARCH_WEIGHTS[match.matcher]
        whole = int(match.hypothesis_words * weight) + int(match.reference_words * weight)
        return cls(
            match,
            ((1 << match.hypothesis_words) - 1) << match.hypothesis,
            ((1 << match.reference_words) - 1) << match.reference,
            -whole * _MATCH,
            match.hypothesis,
            match.hypothesis + match.hypothesis_words,
            abs(match.reference - match.hypothesis),
        )


_Chain = tuple["_Chain", Match] | None  # the matches of a path, last first
_Path = tuple[int, int, int, int, _Chain]  # rank, end of the last match or -1, covered hypothesis, covered reference


def _search(options: list[list[Match]], certain: dict[int, Match]) -> list[Match]:
    """Beam search over the reference's words; the sort is stable, so ties break as in METEOR."""
    hypothesis_mask = reference_mask = 0
    for match in certain.values():
        option = _Option.of(match)
        hypothesis_mask |= option.hypothesis_mask
        reference_mask |= option.reference_mask
    paths: list[_Path] = [(0, -1, hypothesis_mask, reference_mask, None)]
    for place, matches in enumerate(options):
        paths.sort(key=itemgetter(0))
        if place in certain:
            paths = [_taken(path, _Option.of(certain[place])) for path in paths[:BEAM]]
        else:
            paths = _extended(paths[:BEAM], [_Option.of(match) for match in matches], 1 << place)
    paths.sort(key=itemgetter(0))
    closed = [(rank + _CHUNK * (end != -1), chain) for rank, end, _, _, chain in paths[:BEAM]]
    chain = min(closed, key=itemgetter(0))[1]
    chosen = []
    while chain:
        chain, match = chain
        chosen.append(match)
    return chosen[::-1]


def _taken(path: _Path, option: _Option) -> _Path:
    """The path extended by a fixed match."""
    rank, end, covered_hypothesis, covered_reference, chain = path
    rank += option.cost + option.distance + _CHUNK * (end not in (-1, option.start))
    return rank, option.end, covered_hypothesis, covered_reference, (chain, option.match)


def _extended(paths: list[_Path], options: list[_Option], here: int) -> list[_Path]:
    """Every path, extended by each match that starts here and whose words are free, and by none."""
    extended: list[_Path] = []
    for path in paths:
        rank, end, covered_hypothesis, covered_reference, chain = path
        if covered_reference & here:
            extended.append(path)
            continue
        for match, hypothesis_mask, reference_mask, cost, start, option_end, distance in options:
            if covered_hypothesis & hypothesis_mask or covered_reference & reference_mask:
                continue
            better = rank + cost if end in (-1, start) else rank + cost + _CHUNK
            covered = covered_reference | reference_mask
            extended.append((better, option_end, covered_hypothesis | hypothesis_mask, covered, (chain, match)))
            rank += distance
        extended.append((rank if end == -1 else rank + _CHUNK, -1, covered_hypothesis, covered_reference, chain))
    return extended


def _places(words: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    return places


def _occurrences(phrase: Words, text: Words) -> list[int]:
    return [place for place in range(len(text) - len(phrase) + 1) if text[place : place + len(phrase)] == phrase]
