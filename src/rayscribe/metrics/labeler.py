"""States of the 14 CheXpert observations in a report, by rules: mentions, cues and their scope, aggregation.

Modelled on NegEx (Chapman et al., 2001) and the CheXpert labeler (Irvin et al., 2019), with its own lexicon and rules.
Readings are plain: "no displaced rib fractures" negates a fracture, although the CheXpert labeler's output says otherwise.
`RuleLabeler(as_chexpert=True)` adds that labeler's habits (see `chexpert_habits`), to compare with numbers from its output.

Shapes: R reports, O observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rayscribe.labels import NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNCERTAIN, Labels
from rayscribe.metrics.chexpert_habits import with_habits
from rayscribe.metrics.cues import BYGONE
from rayscribe.metrics.lexicon import OTHER
from rayscribe.metrics.reading import Found, Side, is_informative, read_sentence
from rayscribe.metrics.sentences import reported_sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A place in a report that names an observation."""

    observation: str
    state: int
    "POSITIVE, NEGATIVE or UNCERTAIN of `rayscribe.labels`."
    sentence: str
    start: int
    end: int
    "report[start:end] are the words that name the observation."
    side: Side
    cue: str
    "The words that decided a negative or uncertain state."


def mentions(report: str) -> list[Mention]:
    """All mentions of observations in a report, in text order."""
    return [
        Mention(
            observation=found.observation,
            state=found.state,
            sentence=sentence.strip(),
            start=place + found.start,
            end=place + found.end,
            side=found.side,
            cue=found.cue,
        )
        for place, sentence in reported_sentences(report)
        for found in _read(sentence)
        if found.observation in OBSERVATIONS and found.state != BYGONE
    ]


def states(report: str, *, as_chexpert: bool = False) -> tuple[int, ...]:
    """States in the order of `OBSERVATIONS`; `as_chexpert` applies the habits of `chexpert_habits`."""
    seen = dict.fromkeys((*OBSERVATIONS, OTHER, _SPOKEN), NOT_MENTIONED)
    for _, sentence in reported_sentences(report):
        for name, state in _sentence_states(sentence, as_chexpert):
            if _RANK[state] > _RANK[seen[name]]:
                seen[name] = state
    spoken = seen.pop(_SPOKEN) != NOT_MENTIONED
    if spoken and all(state not in (POSITIVE, UNCERTAIN) for name, state in seen.items() if name != "Support Devices"):
        seen["No Finding"] = POSITIVE
    return tuple(seen[name] for name in OBSERVATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLabeler:
    """The rules as a `rayscribe.labels.Labeler`."""

    as_chexpert: bool = False
    "label as the CheXpert labeler does, misreadings included; for comparison with numbers from its output"

    @property
    def name(self) -> str:
        """Name and version of the rules, as score files state them."""
        return "rayscribe-rules-2-as-chexpert" if self.as_chexpert else "rayscribe-rules-2"

    def label(self, reports: Sequence[str]) -> Labels:
        """States, int8 (R, O), in the order of `OBSERVATIONS`."""
        rows = [states(report, as_chexpert=self.as_chexpert) for report in reports]
        return np.array(rows, np.int8).reshape(len(reports), len(OBSERVATIONS))


_LONGEST = 500
"Sentences of up to this many characters are cached; reports repeat their short ones."
_SPOKEN = "spoken"
"Present in a sentence's states if it says something: a report without any such sentence is not normal."
_RANK = {NOT_MENTIONED: 0, NEGATIVE: 1, UNCERTAIN: 2, POSITIVE: 3}


def _read(sentence: str) -> tuple[Found, ...]:
    return _known(sentence) if len(sentence) <= _LONGEST else read_sentence(sentence)


@lru_cache(maxsize=1 << 16)
def _known(sentence: str) -> tuple[Found, ...]:
    return read_sentence(sentence)


def _sentence_states(sentence: str, as_chexpert: bool) -> tuple[tuple[str, int], ...]:
    return (_known_states if len(sentence) <= _LONGEST else _states)(sentence, as_chexpert)


@lru_cache(maxsize=1 << 16)
def _known_states(sentence: str, as_chexpert: bool) -> tuple[tuple[str, int], ...]:
    return _states(sentence, as_chexpert)


def _states(sentence: str, as_chexpert: bool) -> tuple[tuple[str, int], ...]:
    states: dict[str, int] = {}
    named = _read(sentence)
    for found in named:
        if as_chexpert and found.is_plain_only:
            continue
        state = POSITIVE if as_chexpert and found.state == BYGONE else found.state  # it reads history as a finding
        if state != BYGONE and _RANK[state] > _RANK[states.get(found.observation, NOT_MENTIONED)]:
            states[found.observation] = state
    if as_chexpert:
        states = with_habits(sentence, states)
    if any(map(str.isalpha, sentence)) if as_chexpert else states or is_informative(sentence, is_history=bool(named)):
        states[_SPOKEN] = POSITIVE
    return tuple(states.items())
