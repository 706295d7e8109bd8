"""Heart and mediastinum, which are judged by a word next to them ("heart size is normal"), not by being named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rayscribe.labels import NEGATIVE, POSITIVE, UNCERTAIN
from rayscribe.metrics.lexicon import ORGANS, PREDICATES
from rayscribe.metrics.phrases import longest, phrase_table, scanned

ORGAN_TABLE = phrase_table(ORGANS)
_PREDICATE_TABLE = phrase_table(PREDICATES)
_REACH = 14
"Words after an organ that are searched for its predicate."
_JOINING = frozenset(["and", "or", ",", "/", "the"])
_OF = frozenset(
    [
        "the",
        "of",
        "in",
        "size",
        "shape",
        "contour",
        "configuration",
        "appearance",
        "and",
        "caliber",
        "to",
        "overall",
        ",",
        "width",
    ]
)
_VERBS = frozenset(
    ["is", "are", "was", "were", "appears", "appear", "remains", "remain", "has", "have", "demonstrates", "shows"]
)
_NOUNS = frozenset(["enlargement", "widening", "prominence", "increase", "fullness"])
_DEGREES = frozenset(
    ["mildly", "moderately", "grossly", "slightly", "markedly", "severely", "also", "still", "again", "not"]
)
_TRUE_NAMES = {"normal": NEGATIVE, "abnormal": POSITIVE, "stable": UNCERTAIN}


class Reach(NamedTuple):
    """A cue's verdict on the words in its scope."""

    state: int
    cue: str


class Judged(NamedTuple):
    """An organ with the state of its observation, named by the words `first` up to, not including, `end`."""

    first: int
    end: int
    observation: str
    state: int
    cue: str


class _Predicate(NamedTuple):
    first: int
    end: int
    group: str


def organ_findings(texts: Sequence[str], reaches: Sequence[Reach | None], stops: frozenset[int]) -> list[Judged]:
    """Organs with their states. `reaches`: the cue in force before each word; `stops`: words that no cue reaches across."""
    organs = [(first, end, sorted(names)) for first, end, names in scanned(ORGAN_TABLE, texts)]
    if not organs:
        return []
    found = scanned(_PREDICATE_TABLE, texts)
    predicates = [_Predicate(first, end, min(groups)) for first, end, groups in found]
    judged: list[Judged] = []
    inherited: tuple[int, Reach] | None = None
    taken = -1
    for first, end, names in organs:
        verdict = _before(texts, first, predicates, reaches, taken) or _behind(texts, end, predicates, reaches, stops)
        taken = end
        if verdict is None and inherited and all(text in _JOINING for text in texts[inherited[0] : first]):
            verdict = inherited[1]
        if verdict is None:
            inherited = None
            continue
        inherited = end, verdict
        judged += [Judged(first, end, name, verdict.state, verdict.cue) for name in names]
    return judged


def _before(
    texts: Sequence[str], first: int, predicates: Sequence[_Predicate], reaches: Sequence[Reach | None], taken: int
) -> Reach | None:
    """The verdict before the organ, as in "mildly enlarged heart" and "normal size and shape of the heart"."""
    end = first
    while end and texts[end - 1] in ("the", "overall", "in"):
        end -= 1
    if end and texts[end - 1] == "of":
        while end and texts[end - 1] in _OF:
            end -= 1
    near = [one for one in predicates if one.end == end]
    if not near or near[0].group not in _TRUE_NAMES:
        return None
    one = near[0]
    has_and = one.first > 0 and texts[one.first - 1] == "and"
    before = [other for other in predicates if other.end == one.first - has_and]
    if one.group == "stable" and before and before[0].group != "stable" and (has_and or taken < 0):
        one = before[0]
    start = one.first
    while start and texts[start - 1] in _DEGREES:
        start -= 1
    is_of_another = start == taken or (start > 1 and texts[start - 1] in _VERBS and texts[start - 2] != "there")
    if is_of_another and any(other.first >= first for other in predicates):
        return None  # "heart size is normal, mediastinum widened"
    return _verdict(texts, one, reaches[one.first])


def _behind(
    texts: Sequence[str],
    end: int,
    predicates: Sequence[_Predicate],
    reaches: Sequence[Reach | None],
    stops: frozenset[int],
) -> Reach | None:
    """The verdict after the organ, as in "heart is mildly enlarged" and "heart size and mediastinal contours are normal"."""
    last = min(len(texts), end + _REACH)
    has_verb = False
    for at in range(end, last):
        if texts[at] == ";" or (at > end and (at in stops or texts[at] == ":")):
            last = at
            break
        if has_verb and texts[at] == "," and at + 1 < len(texts) and longest(ORGAN_TABLE, texts, at + 1):
            last = at
            break
        has_verb = has_verb or texts[at] in _VERBS
    stable: Reach | None = None
    for one in predicates:
        if one.first < end:
            continue
        if one.first >= last or one.group == "not of size":
            break
        if one.group not in _TRUE_NAMES:
            continue
        # A cue counts only between the organ and its predicate.
        is_between = reaches[one.first] != reaches[end - 1]
        is_one_name = one.first == end and texts[one.first] in _NOUNS  # "no mediastinal widening"
        reach = reaches[one.first] if is_between or is_one_name else None
        verdict = _verdict(texts, one, reach)
        if one.group != "stable":
            return verdict
        stable = stable or verdict
    return stable


def _verdict(texts: Sequence[str], one: _Predicate, reach: Reach | None) -> Reach:
    state = _TRUE_NAMES[one.group]
    said = " ".join(texts[one.first : one.end])
    if one.group == "abnormal":
        if reach and reach.state == NEGATIVE:
            return Reach(NEGATIVE, reach.cue)
        if reach and reach.state == UNCERTAIN:
            return Reach(UNCERTAIN, reach.cue)
        return Reach(POSITIVE, "")
    if one.group == "normal" and reach and reach.state == NEGATIVE and reach.cue == "not":
        return Reach(POSITIVE, "")
    return Reach(state, said)
