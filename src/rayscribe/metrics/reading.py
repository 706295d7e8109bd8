"""Reads one sentence: the observations it names, with state, position and side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from rayscribe.labels import POSITIVE, UNCERTAIN
from rayscribe.metrics.clauses import lasts
from rayscribe.metrics.cues import HEADING_WORDS, HEADINGS, HISTORY_WORDS, NORMAL_WORDS, SAYS_NOTHING, VERBS
from rayscribe.metrics.lexicon import FINDINGS, NOT_MEANT, OTHER, PLAIN_FINDINGS, PLAIN_UNSURE, UNSURE
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
    is_plain_only: bool
    "The CheXpert labeler does not know the words."


def read_sentence(sentence: str) -> tuple[Found, ...]:
    """The mentions in a sentence, in text order."""
    spoken = words(sentence)
    texts = [word.text for word in spoken]
    if _STARTS.isdisjoint(texts) or _is_headed(texts):
        return ()
    named = _names(texts)
    sweep = Sweep(texts, named)
    sweep.run()
    is_request = _is_request(texts)
    found = [
        (
            one.first,
            one.end,
            one.observation,
            UNCERTAIN if is_request and state == POSITIVE else state,
            cue,
            one.is_plain_only,
        )
        for one, (state, cue) in zip(named, sweep.verdicts)
    ]
    found += [(*one, False) for one in organ_findings(texts, sweep.reaches, frozenset(sweep.stops))]
    found.sort()
    places = {place for first, end, *_ in found for place in range(first, end)}
    return tuple(
        Found(
            name, state, spoken[first].start, spoken[end - 1].end, _side(texts, first, end, places), cue, is_plain_only
        )
        for first, end, name, state, cue, is_plain_only in found
    )


def is_informative(sentence: str, *, is_history: bool) -> bool:
    """Whether a sentence without a present finding says something of the images: no reason, technique or bare "unchanged".

    `is_history`: the sentence names findings of the past.
    """
    texts = [word.text for word in words(sentence)]
    if _is_headed(texts):
        return False
    if is_history or not HISTORY_WORDS.isdisjoint(texts):
        return not NORMAL_WORDS.isdisjoint(texts)
    return any(text[0].isalpha() and text not in SAYS_NOTHING for text in texts)


def _is_headed(texts: Sequence[str]) -> bool:
    if ":" not in texts[:_HEADING_REACH]:
        return False
    heading = tuple(texts[: texts.index(":")])
    return heading in _HEADINGS or not HEADING_WORDS.isdisjoint(heading)


def _is_request(texts: Sequence[str]) -> bool:
    """Whether a short sentence without a verb only names a reason, as in "effusion follow up"."""
    spoken = [text for text in texts if text[0].isalpha()]
    return len(spoken) <= _REQUEST and " ".join(spoken).endswith(_REQUESTS) and VERBS.isdisjoint(spoken)


def _names(texts: Sequence[str]) -> list[NamedFinding]:
    named: list[NamedFinding] = []
    reached: dict[str, int] = {}
    blocked = 0
    for at in range(len(texts)):
        if at < blocked:
            continue
        match = longest(_FINDINGS, texts, at)
        if match is None:
            if named and (texts[at] in _SIDES or texts[at] == "other"):
                named += _again(texts, at, named)
            continue
        end, groups = match
        if _NOT_MEANT in groups:
            blocked = end
        for group in sorted(groups - {_NOT_MEANT}):
            if end > reached.get(group, 0):
                reached[group] = end
                name = group.removeprefix(_PLAIN).removeprefix(_UNSURE)
                if texts[at] == "collapse" and name == "Atelectasis":
                    name = _collapsed(texts, at)
                if name:
                    named.append(NamedFinding(at, end, name, _UNSURE in group, group.startswith(_PLAIN)))
    return named


def _collapsed(texts: Sequence[str], at: int) -> str:
    """The observation of a bare "collapse": lung, vertebra, another bone, or "" for airways and persons."""
    first, last = max(0, at - _COLLAPSE_REACH), min(len(texts), at + 1 + _COLLAPSE_REACH)
    first = max((k + 1 for k in range(first, at) if texts[k] in _SIDE_ENDS), default=first)
    last = next((k for k in range(at, last) if texts[k] in _SIDE_ENDS), last)
    near = texts[first:last]
    is_level = any(text in ("t", "l") and after.isdecimal() for text, after in pairwise(near))
    if is_level or not _SPINE.isdisjoint(near):
        return "Fracture"
    if not _BONES.isdisjoint(near):
        return OTHER
    return "" if not _NO_LUNG.isdisjoint(near) else "Atelectasis"


def _again(texts: Sequence[str], at: int, named: Sequence[NamedFinding]) -> list[NamedFinding]:
    """The findings that "the right one" in "no effusion on the left; the right one is larger" names again."""
    end = at + 1 + (texts[at + 1 : at + 2] in (["one"], ["side"]))
    if end >= len(texts) or texts[end] not in VERBS or not lasts(texts, end, is_bare=False):
        return []
    return [one._replace(first=at, end=end) for one in named if one.end == named[-1].end]


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


_NOT_MEANT, _UNSURE, _PLAIN = "not meant", "unsure ", "plain "
_FINDINGS = phrase_table(
    {
        **FINDINGS,
        _NOT_MEANT: NOT_MEANT,
        **{_UNSURE + name: text for name, text in UNSURE.items()},
        **{_PLAIN + name: text for name, text in PLAIN_FINDINGS.items()},
        **{_PLAIN + _UNSURE + name: text for name, text in PLAIN_UNSURE.items()},
    }
)
_HEADINGS = frozenset(tuple(heading.split()) for heading in HEADINGS.split(";"))
_HEADING_REACH = 7
"A heading ends within this many words."
_REQUESTS = ("follow up", "followup", "f/u", "evaluation", "eval", "assessment")
_REQUEST = 7
"Words of the longest sentence that only names a reason."
_SPINE = frozenset(("vertebral", "endplate", "spine", "spinal", "compression", "wedge", "thoracolumbar"))
_BONES = frozenset(("humeral", "femoral", "head", "bone", "bony", "osseous"))
_NO_LUNG = frozenset(
    (
        "tracheal",
        "trachea",
        "airway",
        "airways",
        "bronchomalacia",
        "tracheomalacia",
        "patient",
        "syncope",
        "home",
        "street",
        "witnessed",
        "esophagus",
        "esophageal",
        "balloon",
        "stent",
        "cuff",
        "catheter",
        "tube",
        "venous",
        "vein",
    )
)
_COLLAPSE_REACH = 5
"Words before and after a bare 'collapse' that tell what collapsed."
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
