"""METEOR 1.5's alignment of a hypothesis with a reference: which phrases match, found by beam search.

Source: Denkowski and Lavie, "Meteor Universal", 2014, section 2, and the released program. Its quirks are reproduced, because
scores are comparable only with them: inside the search a match counts whole words after weighting (so a stem counts none),
and its distance is charged to the alternatives that are tried after it instead of to itself.

Bound: a text in which words recur hundreds of times has millions of possible matches. Above `MOST_MATCHES` a pair, a word of
the reference is compared only with the nearest places of the same word, stem or synonym, so that one pair takes a few seconds.
Below it, which every ordinary report is, the alignment equals the released program's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from operator import itemgetter
from typing import NamedTuple

from rayscribe.metrics.meteor_resources import PHRASE_WORDS, Lexicon, Paraphrases, Words, synonym_sets
from rayscribe.metrics.stemmer import stem

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
BEAM = 40
MOST_MATCHES = 80_000
"Of a pair, for each matcher; two reports of 280 words that are all the same word have as many."
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
        """Matches by the position in the reference where they start, in the order in which the search tries them.

        All of them, or the nearest where there are more than `MOST_MATCHES`.
        """
        found: list[list[Match]] = [[] for _ in reference]
        most = max(1, MOST_MATCHES // max(1, len(reference)))
        same = _places(hypothesis)
        for place, word in enumerate(reference):
            found[place] += [Match(place, 1, other, 1, EXACT) for other in _nearest(same.get(word, ()), place, most)]
        if hypothesis == reference:
            return found
        self._learn({*hypothesis, *reference})
        stems, synonyms = self._stemmed(same, set(reference)), self._synonymous(same, set(reference))
        for place, word in enumerate(reference):
            for matcher, others in ((STEM, stems[word]), (SYNONYM, synonyms[word])):
                found[place] += [Match(place, 1, other, 1, matcher) for other in _nearest(others, place, most)]
        if self.paraphrases:
            self._add_paraphrases(found, hypothesis, reference)
            found = [_nearest_matches(matches, most) for matches in found]
        return found

    def _stemmed(self, same: Mapping[str, list[int]], reference: set[str]) -> dict[str, list[int]]:
        """Places of the other words of the hypothesis with the same stem, by word of the reference."""
        by_stem: dict[str, list[str]] = {}
        for word in same:
            by_stem.setdefault(self._stems[word], []).append(word)
        return {
            word: sorted(
                place for other in by_stem.get(self._stems[word], ()) if other != word for place in same[other]
            )
            for word in reference
        }

    def _synonymous(self, same: Mapping[str, list[int]], reference: set[str]) -> dict[str, list[int]]:
        """Places of the other words of the hypothesis that share a synonym set, by word of the reference."""
        named = [(other, sets) for other in same if (sets := self._sets[other])]
        return {
            word: sorted(
                place
                for other, sets in named
                if other != word and not sets.isdisjoint(self._sets[word])
                for place in same[other]
            )
            for word in reference
        }

    def _learn(self, words: set[str]) -> None:
        for word in words - self._stems.keys():
            self._stems[word] = stem(word)
            self._sets[word] = synonym_sets(word, self.lexicon)

    def _add_paraphrases(self, found: list[list[Match]], hypothesis: Words, reference: Words) -> None:
        """Looks up every entry of the table from the reference first, then from the hypothesis."""
        most = max(1, MOST_MATCHES // max(1, len(reference)))
        same, wanted = _places(hypothesis), _places(reference)
        for place, words, paraphrase in self._entries(reference):
            for other in _nearest(_occurrences(paraphrase, hypothesis, same), place, most):
                found[place].append(Match(place, words, other, len(paraphrase), PARAPHRASE))
        for other, words, paraphrase in self._entries(hypothesis):
            for place in _nearest(_occurrences(paraphrase, reference, wanted), other, most):
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
    """Every path, extended by each match that starts here and whose words are free, and by none.

    Leaves out what cannot be among the `BEAM` best: a path's rank only rises while its alternatives are tried.
    """
    extended: list[_Path] = []
    best: list[int] = []  # a heap of the best ranks, negated
    cheapest = min((option.cost for option in options), default=0)
    last = {option.start: number for number, option in enumerate(options)}

    def add(path: _Path) -> None:
        if len(best) < BEAM:
            heappush(best, -path[0])
        elif path[0] < -best[0]:
            heapreplace(best, -path[0])
        else:
            return  # the sort is stable: of equal ranks the earlier stays
        extended.append(path)

    for path in paths:
        rank, end, covered_hypothesis, covered_reference, chain = path
        if covered_reference & here:
            add(path)
            continue
        unbroken = len(options) if end == -1 else last.get(end, -1)  # the last match that begins no chunk
        for number, (match, hypothesis_mask, reference_mask, cost, start, option_end, distance) in enumerate(options):
            if covered_hypothesis & hypothesis_mask or covered_reference & reference_mask:
                continue
            better = rank + cost if end in (-1, start) else rank + cost + _CHUNK
            if len(best) == BEAM and better >= -best[0]:
                if number > unbroken and rank + cheapest + _CHUNK >= -best[0]:
                    break
            else:
                covered = covered_reference | reference_mask
                add((better, option_end, covered_hypothesis | hypothesis_mask, covered, (chain, match)))
            rank += distance
        else:
            add((rank if end == -1 else rank + _CHUNK, -1, covered_hypothesis, covered_reference, chain))
    return extended


def _places(words: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    return places


def _nearest(places: Sequence[int], place: int, most: int) -> Sequence[int]:
    """At most so many of the places, in their order: those around `place`."""
    if len(places) <= most:
        return places
    first = min(max(0, bisect_left(places, place) - most // 2), len(places) - most)
    return places[first : first + most]


def _nearest_matches(matches: list[Match], most: int) -> list[Match]:
    if len(matches) <= 4 * most:
        return matches
    kept = set(sorted(matches, key=lambda match: abs(match.reference - match.hypothesis))[: 4 * most])
    return [match for match in matches if match in kept]


def _occurrences(phrase: Words, text: Words, places: Mapping[str, list[int]]) -> list[int]:
    """Where the phrase stands in the text; `places`: of each word of the text."""
    return [place for place in places.get(phrase[0], ()) if text[place : place + len(phrase)] == phrase]
