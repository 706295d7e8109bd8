"""Scores of predictions against a manifest split: with protocol, intervals, floors, tests and alarms.

Needs no model and no torch. The path: references and reports -> systems (the model and its floors) -> statistics per report
-> scores with intervals -> alarms. `metrics/` computes the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rayscribe.data.manifest import Manifest
from rayscribe.errors import DISCLAIMER
from rayscribe.evaluation.breakdown import (
    Bootstrap,
    imbalance_scores,
    normal_studies,
    observation_scores,
    seen_studies,
    subset_scores,
)
from rayscribe.evaluation.floors import ONE_REPORT, WITHOUT_LUNG, about_floor, floor_reports, scores_beside
from rayscribe.evaluation.protocol import (
    Protocol,
    reference_reports,
    signature,
    training_reports,
    without_markers,
    written_reports,
)
from rayscribe.evaluation.scorers import Scorers
from rayscribe.labels import Labels
from rayscribe.metrics.alarms import alarms
from rayscribe.metrics.diversity import against_references, diversity
from rayscribe.metrics.families import Families, measured, stored, tested_names, together
from rayscribe.metrics.grounding import FEWEST_STUDIES, finding_grounding, text_grounding
from rayscribe.metrics.meteor import MeteorResources, find_resources, meteor_name
from rayscribe.metrics.similarity import distribution
from rayscribe.metrics.statistics import differences
from rayscribe.progress import ProgressBar
from rayscribe.provenance import is_restricted
from rayscribe.study import Study

Stage = Callable[[str], None]
STAGES = 8
"Number of calls of `stage` in `evaluate`, for a progress bar."


def evaluate_predictions(
    predictions: Mapping[str, str],
    manifest: Manifest,
    *,
    split: str,
    protocol: Protocol,
    scorers: Scorers | None = None,
    stage: Stage = lambda name: None,
    progress: ProgressBar = iter,
) -> dict[str, Any]:
    """The content of scores.json: scores in the ranges of `metrics/`, with protocol, intervals, floors, tests and alarms.

    `stage` receives the name of each stage as it begins; `progress` wraps the loops that are slow on a large split. Raises
    InputError unless every study of the split that has the section has a prediction.
    """
    scorers = scorers or Scorers()
    resources = scorers.meteor or find_resources()
    part = _split_of(predictions, manifest, split, protocol)
    found = _measured(part, manifest, protocol, scorers, resources, stage=stage, progress=progress)
    stage("resampling")
    again = Bootstrap(part.groups, scorers.resamples)
    scores = scores_beside({name: again(together(families)) for name, families in found.tables.items()})
    stage("subsets")
    normal, by = normal_studies(part.studies, found.wanted_labels)
    training = training_reports(manifest, protocol)
    seen = seen_studies(manifest, split, protocol, training)
    subsets = subset_scores(together(found.tables["model"]), normal, seen, again)
    stage("tests")
    against = {
        floor: _against(found.tables, floor, part.groups, scorers.resamples) for floor in ("constant", "always_normal")
    }
    diverse = diversity(part.own) | against_references(part.own, part.wanted)
    grounding = {
        "text_similarity": text_grounding(part.own, part.wanted),
        "shared_findings": finding_grounding(found.own_labels, found.wanted_labels),
    }
    stage("imbalance")
    made_with = {"meteor": meteor_name(resources)} | scorers.names()
    unit = "patients" if part.groups else "studies"
    return {
        "disclaimer": DISCLAIMER,
        "alarms": alarms(len(part.wanted), diverse, grounding, _below(scores, *ONE_REPORT), _reached(scores)),
        "notes": found.notes + part.notes,
        "signature": signature(manifest, split, protocol, part.references) | made_with,
        "interval": f"95 %, percentile bootstrap over {unit}, {scorers.resamples} resamples",
        "studies": len(part.wanted),
        "scores": scores["model"],
        "floors": _floors(found.floors, scores, may_quote=not is_restricted(manifest.provenance)),
        "against_constant": against["constant"],
        "against_always_normal": _clinical(against["always_normal"]),
        "observations": observation_scores(found.tables["model"], again),
        "normal_by": by,
        "subsets": subsets,
        "imbalance": imbalance_scores(part.own, part.wanted, training, again),
        "diversity": diverse,
        "grounding": grounding,
        "sentence_similarity": _similarities(found.tables),
        "statistics": stored(part.ids, part.groups, found.tables["model"]),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """The scored studies of the split, in the references' order, with both reports of each."""

    studies: list[Study]
    references: dict[str, str]
    "by study id"
    own: list[str]
    "the system's reports"
    groups: list[str] | None
    "the patients; None if some study names none"
    notes: list[str]

    @property
    def ids(self) -> list[str]:
        return list(self.references)

    @property
    def wanted(self) -> list[str]:
        return list(self.references.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Everything measured on the reports of a split, the model's and the floors'."""

    own_labels: Labels
    wanted_labels: Labels
    floors: dict[str, list[str]]
    tables: dict[str, Families]
    notes: list[str]


def _split_of(predictions: Mapping[str, str], manifest: Manifest, split: str, protocol: Protocol) -> _Split:
    references = reference_reports(manifest, split, protocol)
    studies = [study for study in manifest.split(split) if study.id in references]
    return _Split(
        studies=studies,
        references=references,
        own=written_reports(predictions, references, split, protocol),
        groups=[study.subject for study in studies] if all(study.subject for study in studies) else None,
        notes=_notes(predictions, studies, split),
    )


def _notes(predictions: Mapping[str, str], studies: Sequence[Study], split: str) -> list[str]:
    notes = []
    if unknown := len(set(predictions) - {study.id for study in studies}):
        notes.append(
            f"{unknown} predictions are of no study in split {split} that has the section; they are not scored"
        )
    texts = [predictions[study.id] for study in studies]
    if marked := sum(without_markers(text) != text for text in texts):
        notes.append(
            f"{marked} of {len(studies)} predictions have bullets, list numbers, Markdown or end markers such as </s>; "
            "these are not scored"
        )
    nameless = sum(not study.subject for study in studies)
    if 0 < nameless < len(studies):
        notes.append(
            f"the patients of {nameless} of {len(studies)} studies are unknown; the bootstrap resamples studies instead"
        )
    if len(studies) < FEWEST_STUDIES:
        notes.append(
            f"too few studies for the permutation test ({len(studies)}; it needs {FEWEST_STUDIES}): "
            "whether the reports depend on the image is not judged"
        )
    return notes


def _measured(
    part: _Split,
    manifest: Manifest,
    protocol: Protocol,
    scorers: Scorers,
    resources: MeteorResources,
    *,
    stage: Stage,
    progress: ProgressBar,
) -> _Measured:
    """Labels and annotates the reports, writes the floors, and measures them all."""
    stage("labelling reports")
    own_labels, wanted_labels = scorers.labels(part.ids, part.own, part.wanted)
    stage("writing the floors")
    floors, notes = floor_reports(manifest, part.studies, part.own, protocol, scorers.for_floors(), progress=progress)
    stage("annotating reports")
    systems, reference = scorers.systems(
        part.ids, (part.own, own_labels), (part.wanted, wanted_labels), floors, progress=progress
    )
    stage("aligning words")
    tables = measured(systems, reference, resources, progress=progress)
    return _Measured(own_labels=own_labels, wanted_labels=wanted_labels, floors=floors, tables=tables, notes=notes)


def _against(
    tables: Mapping[str, Families], floor: str, groups: Sequence[str] | None, resamples: int
) -> dict[str, dict[str, float]]:
    """The model's headline scores minus those of a floor, with the paired test."""
    if floor not in tables:
        return {}
    shared = [name for name in tables["model"] if name in tables[floor]]
    first, second = (together({name: tables[one][name] for name in shared}) for one in ("model", floor))
    names = tested_names(first.scores())
    found = differences([first], [second], groups=groups, names=names, resamples=resamples)
    return {name: asdict(one) for name, one in found.items()}


def _clinical(tests: Mapping[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The tests of clinical scores; a constant report has no findings, so these scores are tested against always normal."""
    return {name: test for name, test in tests.items() if name.startswith("ce_")}


def _below(scores: Mapping[str, Mapping[str, Mapping[str, float]]], *floors: str) -> list[str]:
    """The tested scores in which some of these floors does as well."""
    own = scores["model"]
    single = [scores[floor] for floor in floors if floor in scores]
    return [
        name
        for name in tested_names(own)
        if any(name in floor and own[name]["value"] <= floor[name]["value"] for floor in single)
    ]


def _reached(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, list[str]]:
    """By the words for each floor that sees no lung, the tested scores in which it does as well."""
    return {words: _below(scores, floor) for floor, words in WITHOUT_LUNG.items()}


def _floors(
    floors: Mapping[str, list[str]], scores: Mapping[str, dict[str, dict[str, float]]], *, may_quote: bool
) -> dict[str, Any]:
    """Each floor's description, with its scores."""
    names = {key.partition("/")[0]: texts for key, texts in floors.items()}
    return {
        name: about_floor(name, texts, may_quote=may_quote) | {"scores": scores[name]} for name, texts in names.items()
    }


def _similarities(tables: Mapping[str, Families]) -> dict[str, Any]:
    """The distribution of sentence similarities of every system that has them."""
    return {
        name: distribution(families["sentences"])
        for name, families in tables.items()
        if "sentences" in families and "/" not in name
    }
