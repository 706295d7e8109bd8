"""Reads one sentence: the observations it names, with state, position and side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from rayscribe.metrics.cues import HEADINGS
from rayscribe.metrics.lexicon import FINDINGS, NOT_MEANT, UNSURE
from rayscribe.metrics.organs import ORGAN_TABLE, organ_findings
from rayscribe.metrics.phrases import longest, phrase_table
from rayscribe.metrics.scope import NamedFinding, Sweep
from rayscribe.metrics.sentences import words

Side = Literal["left", "right", "bilateral", ""]


class Found(NamedTuple):
    """A mention and its place in the sentence, in characters."""

    observation: str
    state: int
    start: int
    end: int
    side: Side
    cue: str


def read_sentence(sentence: str) -> tuple[Found, ...]:
    """The mentions in a sentence, in text order."""
    spoken = words(sentence)
    texts = [word.text for word in spoken]
    if _STARTS.isdisjoint(texts) or _is_headed(texts):
        return ()
    named = _names(texts)
    sweep = Sweep(texts, named)
    sweep.run()
    found = [(one.first, one.end, one.observation, *reach) for one, reach in zip(named, sweep.verdicts)]
    found += organ_findings(texts, sweep.reaches, frozenset(sweep.stops))
    found.sort()
    places = {place for first, end, *_ in found for place in range(first, end)}
    return tuple(
        Found(name, state, spoken[first].start, spoken[end - 1].end, _side(texts, first, end, places), cue)
        for first, end, name, state, cue in found
    )


def _is_headed(texts: Sequence[str]) -> bool:
    return ":" in texts[:5] and tuple(texts[: texts.index(":")]) in _HEADINGS


def _names(texts: Sequence[str]) -> list[NamedFinding]:
    named: list[NamedFinding] = []
    reached: dict[str, int] = {}
    blocked = 0
    for at in range(len(texts)):
        if at < blocked:
            continue
        match = longest(_FINDINGS, texts, at)
        if match is None:
            continue
        end, groups = match
        if _NOT_MEANT in groups:
            blocked = end
        for group in sorted(groups - {_NOT_MEANT}):
            if end > reached.get(group, 0):
                reached[group] = end
                named.append(NamedFinding(at, end, group.removeprefix(_UNSURE), group.startswith(_UNSURE)))
    return named


def _side(texts: Sequence[str], first: int, end: int, named: set[int]) -> Side:
    """The side nearest before the finding, else after it; both sides give "bilateral"."""
    sides: set[Side] = set()
    for at in range(first - 1, max(-1, first - 1 - _LEFTMOST), -1):
        if at in named or texts[at] in _SIDE_ENDS:
            break
        if texts[at] in _SIDES:
            sides.add(_SIDES[texts[at]])
    has_place = False
    start = end + 1 if texts[end : end + 1] == [","] and _COMPARING & set(texts[end + 2 : end + 4]) else end
    for at in range(start, 0 if sides else min(len(texts), end + _RIGHTMOST)):
        # "no pneumothorax small left effusion": a side without a preposition may be the next finding's.
        if at in named and not has_place:
            sides.clear()
        if at in named or texts[at] in _SIDE_ENDS:
            break
        has_place = has_place or texts[at] in _PLACING
        if texts[at] in _SIDES:
            sides.add(_SIDES[texts[at]])
    return "bilateral" if len(sides) > 1 else next(iter(sides), "")


_NOT_MEANT, _UNSURE = "not meant", "unsure "
_FINDINGS = phrase_table({**FINDINGS, _NOT_MEANT: NOT_MEANT, **{_UNSURE + name: text for name, text in UNSURE.items()}})
_HEADINGS = frozenset(tuple(heading.split()) for heading in HEADINGS.split(";"))
_STARTS = frozenset(_FINDINGS) | frozenset(ORGAN_TABLE)
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("left", "leftward", "lingula", "lingular"), "left"),
    **dict.fromkeys(("right", "rightward"), "right"),
    **dict.fromkeys(("bilateral", "bilaterally", "both", "bibasilar", "biapical", "bibasal", "bibasally"), "bilateral"),
}
_SIDE_ENDS = frozenset((",", ";", ":", "but", "no", "without", "with"))
_COMPARING = frozenset(("greater", "larger", "worse", "more", "less", "smaller"))
_PLACING = frozenset(("in", "on", "at", "of", "within", "over", "throughout", "to"))
_LEFTMOST, _RIGHTMOST = 6, 9
"Words before and after a finding that are searched for its side."
