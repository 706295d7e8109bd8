"""The tools that scores need besides the reports, and their output: labels, annotations, sentence vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rayscribe.data.label_tables import LabelTables
from rayscribe.errors import InputError
from rayscribe.evaluation.floors import ONE_REPORT, FloorScorers
from rayscribe.labels import Labeler, Labels
from rayscribe.metrics.families import System
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.meteor import MeteorResources
from rayscribe.metrics.radgraph import Annotation, RadGraph
from rayscribe.metrics.similarity import SentenceEncoder
from rayscribe.metrics.statistics import RESAMPLES
from rayscribe.progress import ProgressBar

Annotations = Sequence[Annotation | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorers:
    """The tools that scores need besides the reports."""

    labeler: Labeler = RuleLabeler()  # noqa: RUF009  # stateless
    tables: LabelTables | None = None
    "precomputed labels for the model and the references, in place of the labeler's; floors are then not labelled"
    radgraph: RadGraph | None = None
    "a model on disk; annotates the references, the model's reports and the constant floors"
    graphs: tuple[Mapping[str, Annotation], Mapping[str, Annotation]] | None = None
    "precomputed annotations by study id: of the model's reports and of the references"
    sentences: SentenceEncoder | None = None
    "a model on disk; embeds the references, the model's reports and all floors"
    meteor: MeteorResources | None = None
    "None: from the installed packages"
    template_findings: Mapping[str, Sequence[int]] | None = None
    "a classifier's states of the 14 observations by study id; a floor fills them into stock sentences"
    image_floors: bool = True
    resamples: int = RESAMPLES

    def names(self) -> dict[str, str]:
        """Names of the tools for a signature, by kind; METEOR's is separate."""
        found = {"labeler": self.tables.name if self.tables else self.labeler.name}
        if self.graphs:
            made = hashlib.sha256(json.dumps(sorted(self.graphs[1].items())).encode()).hexdigest()[:12]
            found["radgraph"] = f"annotations made elsewhere (references {made})"
        elif self.radgraph:
            found["radgraph"] = self.radgraph.name
        if self.sentences:
            found["sentences"] = self.sentences.name
        return found

    def for_floors(self) -> FloorScorers:
        """The tools that the floors need."""
        return FloorScorers(
            labeler=self.labeler,
            findings=self.template_findings,
            sentences=self.sentences,
            read_images=self.image_floors,
        )

    def labels(self, ids: Sequence[str], own: Sequence[str], wanted: Sequence[str]) -> tuple[Labels, Labels]:
        """States (R, 14) of the model's reports and of the references."""
        if self.tables:
            return self.tables.pair(ids)
        return self.labeler.label(own), self.labeler.label(wanted)

    def systems(
        self,
        ids: Sequence[str],
        own: tuple[Sequence[str], Labels],
        wanted: tuple[Sequence[str], Labels],
        floors: Mapping[str, Sequence[str]],
        *,
        progress: ProgressBar = iter,
    ) -> tuple[dict[str, System], System]:
        """The model with its floors, and the references, with labels, graphs and vectors; `own`, `wanted`: reports, labels.

        Raises InputError if precomputed annotations lack a study.
        """
        own_graphs, wanted_graphs = self._annotations(ids, own[0], wanted[0])
        systems = {"model": System(reports=own[0], labels=own[1], graphs=own_graphs)}
        for name, texts in floors.items():
            aim = name.partition("/")[2]
            labels = self.labeler.label(texts) if not self.tables and aim in ("", "findings") else None
            graphs = None
            if self.radgraph and name in ONE_REPORT:
                graphs = self.radgraph.annotate(texts[:1]) * len(texts)
            systems[name] = System(reports=texts, labels=labels, graphs=graphs, is_aligned=aim in ("", "bleu4"))
        reference = System(reports=wanted[0], labels=wanted[1], graphs=wanted_graphs)
        if self.sentences is None:
            return systems, reference
        everything = [*systems.values(), reference]
        vectors_RD = self.sentences.embed([text for one in everything for text in one.reports], progress=progress)
        parts = vectors_RD.reshape(len(everything), len(ids), -1)
        *embedded, reference = (replace(one, vectors=part) for one, part in zip(everything, parts))
        return dict(zip(systems, embedded)), reference

    def _annotations(
        self, ids: Sequence[str], own: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Annotations, Annotations]:
        if self.graphs:
            own_graphs, wanted_graphs = self.graphs
            for what, graphs in (("predictions", own_graphs), ("references", wanted_graphs)):
                if missing := [name for name in ids if name not in graphs]:
                    raise InputError(
                        f"the graphs of the {what} lack {len(missing)} of {len(ids)} studies, e.g. {missing[0]}"
                    )
            return [own_graphs[name] for name in ids], [wanted_graphs[name] for name in ids]
        if self.radgraph is None:
            return None, None
        distinct = list(dict.fromkeys([*own, *wanted]))
        known = dict(zip(distinct, self.radgraph.annotate(distinct), strict=True))
        return [known[text] for text in own], [known[text] for text in wanted]
