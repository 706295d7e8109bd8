"""Scores of predictions against a manifest split: with protocol, intervals, floors, tests and alarms.

Needs no model and no torch. The path: references and reports -> systems (the model and its floors) -> statistics by report
-> scores with intervals -> alarms. What is computed where: `metrics/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.cleaning import words_only
from rayscribe.data.manifest import Manifest
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.label_tables import LabelTables
from rayscribe.labels import Labeler, Labels
from rayscribe.metrics.alarms import alarms
from rayscribe.metrics.clinical import POLICIES, is_normal, observation_counts, per_observation
from rayscribe.metrics.diversity import against_references, diversity
from rayscribe.metrics.families import Families, System, measured, stored, tested_names, together
from rayscribe.metrics.grounding import finding_grounding, text_grounding
from rayscribe.metrics.imbalance import by_frequency, published_word_bins, word_bins
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.meteor import MeteorResources, find_resources, meteor_name
from rayscribe.metrics.radgraph import Annotation, RadGraph
from rayscribe.metrics.statistics import RESAMPLES, Rows, differences, intervals
from rayscribe.protocol import Protocol, reference_reports, signature, training_reports, written_reports
from rayscribe.split_floors import ONE_REPORT, about_floor, floor_reports
from rayscribe.study import Study
from rayscribe.terms import is_restricted

Stage = Callable[[str], None]
Progress = Callable[[Iterable[Any]], Iterable[Any]]
STAGES = 7
"How often `evaluate` calls its stage, for a progress bar."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What scores are made with beside the reports."""

    labeler: Labeler = RuleLabeler()  # noqa: RUF009  # stateless
    tables: LabelTables | None = None
    "labels made elsewhere take the place of the labeler's for the model and the references; floors are then not labelled"
    radgraph: RadGraph | None = None
    "a model on disk; it annotates the references, the model's reports and the floors of one report"
    graphs: tuple[Mapping[str, Annotation], Mapping[str, Annotation]] | None = None
    "annotations made elsewhere, by study id: of the model's reports and of the references"
    meteor: MeteorResources | None = None
    "found from the installed packages when None"
    template_findings: Mapping[str, Sequence[int]] | None = None
    "what a classifier finds, as states of the 14 observations by study id; a floor fills it into stock sentences"
    image_floors: bool = True
    resamples: int = RESAMPLES


def evaluate(
    predictions: Mapping[str, str],
    manifest: Manifest,
    *,
    split: str,
    protocol: Protocol,
    tools: Tools | None = None,
    stage: Stage = lambda name: None,
    progress: Progress = iter,
) -> dict[str, Any]:
    """The content of scores.json. Every study of the split that has the section must have a prediction.

    `stage` hears what begins; `progress` wraps the two loops that take long on a large split.
    """
    tools = tools or Tools()
    resources = tools.meteor or find_resources()
    references = reference_reports(manifest, split, protocol)
    wanted, own = list(references.values()), written_reports(predictions, references, split, protocol)
    studies = [study for study in manifest.split(split) if study.id in references]
    stage("labelling reports")
    own_labels, wanted_labels = _labels(tools, list(references), own, wanted)
    stage("writing the floors")
    floors, notes = floor_reports(
        manifest,
        studies,
        own,
        protocol,
        tools.labeler,
        findings=tools.template_findings,
        read_images=tools.image_floors,
        progress=progress,
    )
    unknown = len(set(predictions) - set(references))
    if unknown:
        notes.append(
            f"{unknown} predictions are of no study in split {split} that has the section; they are not scored"
        )
    own_graphs, wanted_graphs = _graphs(tools, list(references), own, wanted)
    systems = {"model": System(reports=own, labels=own_labels, graphs=own_graphs)}
    for name, texts in floors.items():
        labels = None if tools.tables else tools.labeler.label(texts)
        graphs = None
        if tools.radgraph and name in ONE_REPORT:
            graphs = tools.radgraph.annotate(texts[:1]) * len(texts)
        systems[name] = System(reports=texts, labels=labels, graphs=graphs)
    stage("aligning words")
    tables = measured(systems, wanted, wanted_labels, resources, reference_graphs=wanted_graphs, progress=progress)
    groups = [study.subject for study in studies] if all(study.subject for study in studies) else None
    stage("resampling")
    again = _Intervals(groups, tools.resamples)
    scores = {name: again(together(families)) for name, families in tables.items()}
    stage("subsets")
    normal, by = _normal(studies, wanted_labels)
    training = training_reports(manifest, protocol)
    subsets = _subsets(together(tables["model"]), normal, _seen(manifest, split, protocol, training), again)
    stage("tests")
    constant = _against(tables, "constant", groups, tools.resamples)
    diverse = diversity(own) | against_references(own, wanted)
    grounding = {
        "text_similarity": text_grounding(own, wanted),
        "shared_findings": finding_grounding(own_labels, wanted_labels),
    }
    stage("imbalance")
    return {
        "disclaimer": DISCLAIMER,
        "alarms": alarms(len(wanted), diverse, grounding, _below(scores)),
        "notes": notes,
        "signature": signature(manifest, split, protocol, references)
        | {"meteor": meteor_name(resources), "labeler": tools.tables.name if tools.tables else tools.labeler.name}
        | _graph_name(tools),
        "interval": f"95 %, percentile bootstrap over {'patients' if groups else 'studies'}, {tools.resamples} resamples",
        "studies": len(wanted),
        "scores": scores["model"],
        "floors": {
            name: about_floor(name, texts, may_quote=not is_restricted(manifest.provenance)) | {"scores": scores[name]}
            for name, texts in floors.items()
        },
        "against_constant": constant,
        "observations": _observations(tables["model"], again),
        "normal_by": by,
        "subsets": subsets,
        "imbalance": _imbalance(own, wanted, training, again),
        "diversity": diverse,
        "grounding": grounding,
        "statistics": stored(list(references), groups, tables["model"]),
    }


@dataclass(frozen=True, slots=True)
class _Intervals:
    """The bootstrap with one set of choices; a score with its bounds."""

    groups: Sequence[str] | None
    resamples: int

    def __call__(self, rows: Rows, keep: NDArray[np.bool_] | None = None) -> dict[str, dict[str, float]]:
        groups = self.groups
        if keep is not None:
            rows = rows.of(keep)
            groups = [group for group, kept in zip(groups, keep) if kept] if groups else None
        found = intervals(rows, groups=groups, resamples=self.resamples)
        return {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in found.items()}


def _labels(tools: Tools, ids: Sequence[str], own: Sequence[str], wanted: Sequence[str]) -> tuple[Labels, Labels]:
    if tools.tables:
        return tools.tables.pair(ids)
    return tools.labeler.label(own), tools.labeler.label(wanted)


def _graphs(
    tools: Tools, ids: Sequence[str], own: Sequence[str], wanted: Sequence[str]
) -> tuple[Sequence[Annotation | None] | None, Sequence[Annotation | None] | None]:
    if tools.graphs:
        own_graphs, wanted_graphs = tools.graphs
        for what, graphs in (("predictions", own_graphs), ("references", wanted_graphs)):
            if missing := [name for name in ids if name not in graphs]:
                raise InputError(
                    f"the graphs of the {what} lack {len(missing)} of {len(ids)} studies, e.g. {missing[0]}"
                )
        return [own_graphs[name] for name in ids], [wanted_graphs[name] for name in ids]
    if tools.radgraph is None:
        return None, None
    distinct = list(dict.fromkeys([*own, *wanted]))
    known = dict(zip(distinct, tools.radgraph.annotate(distinct), strict=True))
    return [known[text] for text in own], [known[text] for text in wanted]


def _graph_name(tools: Tools) -> dict[str, str]:
    if tools.graphs:
        made = json.dumps(sorted(tools.graphs[1].items()))
        return {"radgraph": f"annotations made elsewhere (references {hashlib.sha256(made.encode()).hexdigest()[:12]})"}
    return {"radgraph": tools.radgraph.name} if tools.radgraph else {}


def _normal(studies: Sequence[Study], labels: Labels) -> tuple[NDArray[np.bool_], str]:
    """Which studies are normal, by the source's indexers where they coded every study, else by the labeler."""
    if all(study.problems for study in studies):
        return np.array([study.is_coded_normal for study in studies]), "the source's codes"
    return is_normal(labels), "the labeler's No Finding"


def _seen(manifest: Manifest, split: str, protocol: Protocol, training: Mapping[str, str]) -> NDArray[np.bool_] | None:
    """Studies whose full reference occurs word for word among the training reports; None without training reports."""
    if not training:
        return None
    full = reference_reports(manifest, split, Protocol(section=protocol.section, cleaning=protocol.cleaning))
    known = {words_only(text) for text in training.values()}
    return np.array([words_only(text) in known for text in full.values()])


def _subsets(
    rows: Rows, normal: NDArray[np.bool_], seen: NDArray[np.bool_] | None, again: _Intervals
) -> dict[str, Any]:
    """CIDEr's document frequencies stay those of the whole split."""
    parts = {"normal": normal, "abnormal": ~normal}
    if seen is not None:
        parts |= {"seen": seen, "novel": ~seen}
    return {
        name: {"studies": int(keep.sum()), "scores": again(rows, keep) if keep.any() else {}}
        for name, keep in parts.items()
    }


def _against(
    tables: Mapping[str, Families], floor: str, groups: Sequence[str] | None, resamples: int
) -> dict[str, dict[str, float]]:
    """The headline scores of the model minus those of a floor, with the paired test."""
    if floor not in tables:
        return {}
    shared = [name for name in tables["model"] if name in tables[floor]]
    first, second = (together({name: tables[one][name] for name in shared}) for one in ("model", floor))
    names = tested_names(first.scores())
    found = differences([first], [second], groups=groups, names=names, resamples=resamples)
    return {name: asdict(one) for name, one in found.items()}


def _below(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """The tested scores in which some report that is written for every study does as well."""
    own = scores["model"]
    single = [scores[floor] for floor in ONE_REPORT if floor in scores]
    return [
        name
        for name in tested_names(own)
        if any(name in floor and own[name]["value"] <= floor[name]["value"] for floor in single)
    ]


def _observations(families: Families, again: _Intervals) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for policy in POLICIES:
        counts = observation_counts(families["clinical"], policy)
        f1 = again(per_observation(families["clinical"], policy))
        found[f"uncertain_{policy}"] = {name: counts[name] | {"f1": f1[name]} for name in counts}
    return found


def _imbalance(
    own: Sequence[str], wanted: Sequence[str], training: Mapping[str, str], again: _Intervals
) -> dict[str, Any]:
    if not training:
        return {}
    vocabulary = by_frequency(list(training.values()))
    return {
        "vocabulary": len(vocabulary),
        "scores": again(word_bins(own, wanted, vocabulary)),
        "published": published_word_bins(own, wanted, vocabulary),
    }
