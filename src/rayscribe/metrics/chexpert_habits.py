"""Where the CheXpert labeler's output departs from a plain reading: systematic habits, matched on single sentences.

Derived from its published output on reports: some follow from its phrase list (a bare "contour" counts as mediastinum, "plate"
inside "endplate" as a device), some from its parser, which misses the negation in sentences without a verb ("No displaced rib
fractures" is positive). They matter only when you compare with numbers computed from that labeler's output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from rayscribe.labels import NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNCERTAIN


class _Habit(NamedTuple):
    observation: str
    said: re.Pattern[str]
    state: int
    "State that the sentence gives the observation; NOT_MENTIONED removes a mention."
    only_from: frozenset[int]
    "The plain readings that the habit overrides."


_ANY = frozenset((NOT_MENTIONED, POSITIVE, NEGATIVE, UNCERTAIN))
_NAMED = _ANY - {NOT_MENTIONED}
_UNNAMED = frozenset((NOT_MENTIONED,))
_HEART, _MEDIASTINUM = "Cardiomegaly", "Enlarged Cardiomediastinum"


def _habit(observation: str, said: str, state: int, only_from: frozenset[int] = _ANY) -> _Habit:
    return _Habit(observation, re.compile(said), state, only_from)


_HABITS = (
    # The labeler recognises the heart by an article or its size; without a verdict it counts as enlarged.
    _habit(
        _HEART,
        r"^(?!.*\b(the heart|heart size|card\w+ (size|silhouette|shadow|enlarge|contour)|cardiomeg|enlarged heart|heart silh))",
        NOT_MENTIONED,
        _NAMED,
    ),
    _habit(_HEART, r"\b(borderline|enlarged) cardiac contour", POSITIVE),
    _habit(_HEART, r"\bthe heart\b|\bcardiac (size|silhouette)\b|\bheart size\b", POSITIVE, _UNNAMED),
    _habit(_HEART, r"^(?!heart size and\b).*\bheart\b.*\bappears? within\b|\bsize (xxxx|<unk>) within\b", POSITIVE),
    _habit(_HEART, r"\bheart( size)? (is|appears) (towards )?upper limits?\b|^heart size upper limits?\b", POSITIVE),
    _habit(_HEART, r"\b(enlarged|limits of normal) pulmonary vascularity within\b", NEGATIVE, frozenset((POSITIVE,))),
    _habit(_HEART, r"\bcontours are not enlarged\b", POSITIVE),
    _habit(_HEART, r"\benlarged but (stable|unchanged)\b", UNCERTAIN, _NAMED),
    # Any contour counts as the mediastinum's.
    _habit(_MEDIASTINUM, r"\bcontours?\b(?=.*\b(normal|unremarkable)\b)|\bnormal\b.*\bcontours?\b", NEGATIVE, _UNNAMED),
    _habit(_MEDIASTINUM, r"\bcontours?\b|\bmediastinum\b", POSITIVE, _UNNAMED),
    _habit(_MEDIASTINUM, r"\bmediastinum (of normal|within|is grossly)\b|^normal heart size mediastinal\b", POSITIVE),
    _habit(_MEDIASTINUM, r"\bmediastinum (is|are) at the upper limits\b", POSITIVE),
    _habit(_MEDIASTINUM, r"^mediastinum\b(?!.*\bcontour)", NOT_MENTIONED, _NAMED),
    _habit(_MEDIASTINUM, r"\bheart and mediastinal contours are (stable|unchanged)\b", POSITIVE),
    _habit(
        _MEDIASTINUM,
        r"\b(stable|unchanged) (and )?(enlarged|within)\b|\benlarged (but|and) (stable|unch)",
        UNCERTAIN,
        _NAMED,
    ),
    _habit(_MEDIASTINUM, r"\bnormal limits stable mediastinal and hilar contours$", NEGATIVE, frozenset((UNCERTAIN,))),
    # Negations without a verb, which the parser misses.
    _habit("Fracture", r"^no (acute )?displaced\b.*\b(fractures|fractures? identified)$", POSITIVE),
    _habit("Fracture", r"\bevidence (of|for)( displaced)? rib fractures?$", POSITIVE),
    _habit("Consolidation", r"^no (focal )?air ?space consolidations$", POSITIVE),
    _habit("Consolidation", r"^no .*\bor focal air space consolidation$", POSITIVE),
    _habit("Lung Opacity", r"^no focal air space opacities$", POSITIVE),
    _habit("Pneumothorax", r"^no pleural effusions or pneumothorax$", POSITIVE),
    _habit(
        "Pleural Effusion",
        r"\bblunting to suggest\b.*\beffusion|^no confluent\b.*\blarge volume\b.*\beffusion",
        POSITIVE,
    ),
    # Phrases matched inside other words.
    _habit("Support Devices", r"\bend ?plates?\b|plate ?like", POSITIVE),
    _habit("Support Devices", r"\blines\b", POSITIVE, _UNNAMED),
    _habit("Support Devices", r"\bno pleural line\b", NEGATIVE),
    _habit("Lung Lesion", r"lumpectom|\bbreast mass", POSITIVE),
    _habit("Lung Lesion", r"\bnon ?calcified nodules?\b", NOT_MENTIONED, frozenset((NEGATIVE,))),
    # Uncertainty that it ignores.
    *(
        _habit(name, r"\bquestion(able)?\b|\bprobably\b", POSITIVE, frozenset((UNCERTAIN,)))
        for name in OBSERVATIONS
        if name not in (_HEART, _MEDIASTINUM)
    ),
)
_TRIGGER = re.compile(
    r"heart|cardi|contour|mediast|fractur|consolid|opacit|effusion|plate|line|lump|mass|nodule|question|probably"
)
_MARKS = re.compile(r"[^a-z0-9<>]+")


def with_habits(sentence: str, plain: Mapping[str, int]) -> dict[str, int]:
    """State of each observation as the CheXpert labeler reads the sentence; `plain`: the states of a plain reading."""
    spoken = sentence.lower()
    if not _TRIGGER.search(spoken):
        return dict(plain)
    spoken = _MARKS.sub(" ", spoken).strip()
    states = dict(plain)
    for habit in _HABITS:
        if states.get(habit.observation, NOT_MENTIONED) in habit.only_from and habit.said.search(spoken):
            states[habit.observation] = habit.state
    return states
