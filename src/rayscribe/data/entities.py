"""The clinical words of a report: what JIMA predicts from the image before it writes (Li et al., 2025; spec 4.2).

The paper uses the words of RadGraph's entities, anatomy and observations, whether present, absent or uncertain. Three sources
have the same form, words per report: the built-in `LexiconEntities`, which runs anywhere; `RadGraphEntities` from a model on
disk; a file from `rayscribe build entities` or another tool.

Shapes: B studies of a batch, S studies, E entities of all studies, V words of the vocabulary.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayscribe.data.predictions import ID_NAMES
from rayscribe.errors import InputError
from rayscribe.metrics.lexicon import FINDINGS, ORGANS
from rayscribe.metrics.radgraph import Annotation, RadGraph
from rayscribe.metrics.spellings import canonical

LEXICON = "lexicon"
_NAMES = ("entities", "tokens")  # the second is the released code's


class EntityExtractor(Protocol):
    """Extracts clinical words from reports."""

    @property
    def name(self) -> str: ...

    def words(self, reports: Sequence[str]) -> list[list[str]]:
        """Lower-case words per report, repeated as often as they occur."""


@dataclass(frozen=True, slots=True)
class LexiconEntities:
    """Words from the rule labeler's lexicon, and all others except those of grammar or of reporting."""

    name: str = LEXICON

    def words(self, reports: Sequence[str]) -> list[list[str]]:
        return [[word for word in _split(report) if is_clinical(word)] for report in reports]


@dataclass(frozen=True, slots=True)
class RadGraphEntities:
    """The words of RadGraph's entities."""

    radgraph: RadGraph

    @property
    def name(self) -> str:
        return self.radgraph.name

    def words(self, reports: Sequence[str]) -> list[list[str]]:
        return [words_of(annotation) for annotation in self.radgraph.annotate(reports)]


def is_clinical(word: str) -> bool:
    """Whether the built-in rules count a lower-case word as an entity."""
    if word in _GRAMMAR or "xxxx" in word:  # Open-i's mask
        return False
    return canonical(word) in _CLINICAL or (word not in _REPORTING and word[0].isalpha())


def words_of(annotation: Annotation | None) -> list[str]:
    """The words of a RadGraph annotation's entities, in its order."""
    entities = annotation["entities"].values() if annotation else ()
    return [word for entity in entities for word in entity["tokens"].lower().split()]


@dataclass(frozen=True, slots=True)
class EntityTargets:
    """Which words of the vocabulary are entities of which study, packed; not part of a training state."""

    places_E: NDArray[np.int32]
    "indices into the vocabulary, study after study, each once per study"
    starts_S1: NDArray[np.int64]
    vocabulary: int

    @classmethod
    def build(cls, entities: Iterable[Sequence[str]], vocabulary: Sequence[str]) -> EntityTargets:
        """Builds the targets; drops words outside the vocabulary, as the paper does."""
        place = {word: at for at, word in enumerate(vocabulary)}
        rows = [sorted({place[word] for word in words if word in place}) for words in entities]
        return cls(
            places_E=np.array([at for row in rows for at in row], np.int32),
            starts_S1=np.cumsum([0, *map(len, rows)]),
            vocabulary=len(vocabulary),
        )

    def of(self, rows_B: Tensor) -> Tensor:
        """1 where a word is an entity of the study, else 0: (B, V)."""
        is_entity_BV = np.zeros((len(rows_B), self.vocabulary), np.float32)
        for at, row in enumerate(rows_B.tolist()):
            is_entity_BV[at, self.places_E[self.starts_S1[row] : self.starts_S1[row + 1]]] = 1
        return torch.from_numpy(is_entity_BV).to(rows_B.device)


def study_entities(source: str, ids: Sequence[str], reports: Sequence[str], *, section: str) -> list[list[str]]:
    """Entities of every study, from the built-in rules ("lexicon") or from the file `source`, which must cover that section."""
    if source == LEXICON:
        return LexiconEntities().words(reports)
    found = read_entities(Path(source), section=section)
    lacking = [id_ for id_ in ids if id_ not in found]
    if lacking:
        raise InputError(
            f"{source}: {len(lacking)} training studies have no entities, e.g. {lacking[0]}; "
            f"write them with `rayscribe build entities`, or train with --method.entities {LEXICON}"
        )
    return [found[id_] for id_ in ids]


def read_entities(path: Path, *, section: str) -> dict[str, list[str]]:
    """Words by study id. Raises InputError for a record of another section.

    Reads JSON lines as `build entities` writes them; a JSON object by study id of words or of RadGraph's annotations; the
    released code's annotation.json with `tokens`; or CSV with an id and the column `entities` or `tokens`, words separated by
    spaces.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of entities; write one with `rayscribe build entities`")
    found: dict[str, list[str]] = {}
    try:
        for place, id_, value, named in _records(path):
            if named not in (None, section):
                raise InputError(
                    f"{path}, {place}: written for the section {named}, training reads {section}; "
                    f"write them with `rayscribe build entities --section {section}`"
                )
            words = value.split() if isinstance(value, str) else words_of(value) if isinstance(value, dict) else value
            if id_ in (None, "") or not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise InputError(f"{path}, {place}: not an id with its entities, {' or '.join(_NAMES)}")
            if str(id_) in found:
                raise InputError(f"{path}, {place}: duplicate study {id_}")
            found[str(id_)] = [word.lower() for word in words]
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a file of entities ({error!r}); write one with `rayscribe build entities`"
        ) from error
    return found


def _records(path: Path) -> Iterable[tuple[str, Any, Any, Any]]:
    """Place of each record, its id, its entities, and their section if it is stated."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            for number, row in enumerate(csv.DictReader(file), 2):
                yield f"line {number}", *_entry(row)
        elif path.suffix == ".jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", *_entry(json.loads(line))
        else:
            content = json.load(file)
            for name, value in content.items():
                if isinstance(value, list) and value and isinstance(value[0], dict):
                    for number, record in enumerate(value, 1):
                        yield f"{name}, record {number}", *_entry(record)
                else:
                    yield f"record {name!r}", name, value, None


def _entry(record: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return (
        next((record[name] for name in ID_NAMES if name in record), None),
        next((record[name] for name in _NAMES if name in record), None),
        record.get("section"),
    )


def _split(report: str) -> list[str]:
    """Words of a report, cleaned or raw, without punctuation."""
    return [word for part in report.lower().split() if (word := part.strip('.,;:!?()[]"')) and word != "-"]


_GRAMMAR_WORDS = """
    a an the this that these those there here it its they them he she his her one two three both either neither each any
    all some several other another such same own is are was were be been being has have had having do does did can could
    may might will would should cannot not no nor without non and or but if as than then so because although however while
    of in on at to from by for with within into onto over under about above below between through throughout along across
    against after before since until during near per via who which what when where also again still yet only just very
    too more most less least much many few otherwise well"""
_REPORTING_WORDS = """
    seen noted identified visualized visualised demonstrated demonstrate demonstrates show shows shown showing reveal
    reveals appear appears appearing appeared appearance suggest suggests suggesting suggestive suggested consistent
    compatible represent represents representing reflect reflects reflecting likely possible possibly probable probably
    suspicious suspected definite definitely evidence evident view views viewed film films image images imaging study
    studies exam examination examinations radiograph radiographs projection technique comparison compared previous
    previously prior current currently today interval patient patients year old male female date dated history clinical
    obtained performed available provided evaluation assessment limited due secondary related given note please
    finding findings impression indication report reported recommend recommended correlate correlation clinically
    followup follow-up made including included except excluded appreciated redemonstrated redemonstration specifically
    overall grossly significantly approximately somewhat identify known age consider considered versus remains remain
    use using used ap pa lateral frontal"""
_GRAMMAR = frozenset(_GRAMMAR_WORDS.split())
_REPORTING = frozenset(_REPORTING_WORDS.split())
_CLINICAL = frozenset(
    word
    for phrases in (*FINDINGS.values(), *ORGANS.values())
    for word in phrases.replace(";", " ").split()
    if word not in _GRAMMAR
)
