"""What a model takes from files beside its weights and words: reports to retrieve, a graph. Both are copied into its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayscribe.config import RunConfig
from rayscribe.data.dataset import Neighbours
from rayscribe.data.manifest import Manifest
from rayscribe.data.retrieval import Retrieval
from rayscribe.errors import InputError
from rayscribe.methods.kif_graph import PUBLISHED, Graph
from rayscribe.study import Study

_RETRIEVAL, _GRAPH = "retrieval", "graph.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """None where the method has no use for it."""

    retrieval: Retrieval | None = None
    graph: Graph | None = None

    @classmethod
    def chosen(cls, config: RunConfig) -> Resources:
        """The files that the settings name."""
        retrieval = graph = None
        if config.retrieves:
            if not config.diagnosis.retrieval:
                raise InputError(
                    f"--model.method {config.model.method} looks at similar training reports: make their index with "
                    "`rayscribe build-retrieval DATA --out FOLDER`, then give --diagnosis.retrieval FOLDER "
                    "(or go without them: --diagnosis.no-memory)"
                )
            retrieval = Retrieval.load(Path(config.diagnosis.retrieval))
        if config.model.method == "kif":
            graph = PUBLISHED if config.kif.graph == "published" else Graph.load(Path(config.kif.graph))
        return cls(retrieval=retrieval, graph=graph)

    @classmethod
    def of_model(cls, folder: Path, config: RunConfig) -> Resources:
        """Those in a model's folder."""
        return cls(
            retrieval=Retrieval.load(folder / _RETRIEVAL) if config.retrieves else None,
            graph=Graph.load(folder / _GRAPH) if config.model.method == "kif" else None,
        )

    def save(self, folder: Path) -> None:
        """Into a model's folder."""
        if self.retrieval is not None:
            self.retrieval.save(folder / _RETRIEVAL)
        if self.graph is not None:
            self.graph.save(folder / _GRAPH)

    def digests(self) -> list[str]:
        return [part.digest for part in (self.retrieval, self.graph) if part is not None]

    def check(self, manifest: Manifest, config: RunConfig, data: Path) -> None:
        """Raises InputError where the reports to retrieve are not those that this run trains on."""
        if self.retrieval is None:
            return
        about, folder = self.retrieval.about, config.diagnosis.retrieval
        again = f"build it again: rayscribe build-retrieval {data} --out FOLDER"
        if about["digest"] != manifest.digest():
            raise InputError(f"{folder}: made from another manifest than {data}; {again}")
        for name, value in (("section", config.text.section), ("cleaning", config.text.cleaning)):
            if about[name] != value:
                raise InputError(
                    f"{folder}: of the {name} {about[name]!r}, this run reads {value!r}; {again} --{name} {value}"
                )

    def neighbours(
        self,
        studies: Sequence[Study],
        config: RunConfig,
        *,
        features: Path | None = None,
        device: torch.device | None = None,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> Neighbours | None:
        """The most similar training reports of every study, never its own or its patient's."""
        if self.retrieval is None:
            return None
        vectors_SM = self.retrieval.study_vectors(studies, folder=features, device=device, progress=progress)
        rows_SK = self.retrieval.nearest(vectors_SM, top=config.diagnosis.reports, studies=studies)
        return Neighbours(
            self.retrieval.bank_RM, {study.id: rows_K for study, rows_K in zip(studies, rows_SK, strict=True)}
        )


NOTHING = Resources()
