"""The training reports that PromptMRG retrieves for an image (spec A1.2, A1.3): search, storage with the model, attention.

Shapes: B studies, S studies, R training reports, K retrieved reports, M their width, C channels, F names of findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayscribe.config import RunConfig
from rayscribe.data.dataset import Extras
from rayscribe.data.images import Grey
from rayscribe.data.prepared import manifest_key, prepared
from rayscribe.data.retrieval import Retrieval
from rayscribe.data.retrieval_building import AlignedConfig, build_aligned
from rayscribe.errors import InputError
from rayscribe.methods.method import Lookup, Preparation, Resources, Source
from rayscribe.models.backbones import Backbone
from rayscribe.study import Study

RETRIEVED = "retrieved_BKM"
"Extra of a batch: vectors of the K training reports that are most similar to the image, best first."
HEADS = 8  # of the attention to retrieved reports, released code
_HIDDEN = 2048
_LAYERS = 2
_DROPOUT = 0.1


class ReportMemory(nn.Module):
    """The image attends to retrieved reports in the manner of DETR: they attend to each other, then the query to them.

    With `findings` (F, M), the names of findings in the retrieval's space, the query first attends to those; for every study
    separately, in training and afterwards (spec A2.5).
    """

    findings_FM: Tensor

    def __init__(self, channels: int, width: int, *, findings_FM: Tensor | None = None) -> None:
        super().__init__()
        self.width = width
        self.query = nn.Linear(channels, width)
        self.ask = None
        if findings_FM is not None:
            self.ask = nn.MultiheadAttention(width, HEADS, _DROPOUT, batch_first=True)
            self.register_buffer("findings_FM", findings_FM)
        self.reports = MemoryTransformer(width)

    def forward(self, image_BC: Tensor, retrieved_BKM: Tensor) -> Tensor:
        """Image (B, C) and retrieved vectors (B, K, M) to one vector (B, M)."""
        query_B1M = self.query(image_BC)[:, None]
        if self.ask is not None:
            findings_BFM = self.findings_FM.to(query_B1M.dtype).expand(len(query_B1M), -1, -1)
            query_B1M = query_B1M + self.ask(query_B1M, findings_BFM, findings_BFM, need_weights=False)[0]
        return self.reports(retrieved_BKM.to(query_B1M.dtype), query_B1M)


class MemoryTransformer(nn.Module):
    """Two encoder layers over the retrieved reports, two decoder layers that start from zero and receive the query in each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, HEADS, _HIDDEN, _DROPOUT, batch_first=True) for _ in range(_LAYERS)
        )
        self.decoder = nn.ModuleList(QueryLayer(width) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, retrieved_BKM: Tensor, query_B1M: Tensor) -> Tensor:
        """Retrieved vectors (B, K, M) and query (B, 1, M) to one vector (B, M)."""
        for layer in self.encoder:
            retrieved_BKM = layer(retrieved_BKM)
        answer_B1M = torch.zeros_like(query_B1M)
        for layer in self.decoder:
            answer_B1M = layer(answer_B1M, query_B1M, retrieved_BKM)
        answer_B1M = self.norm(answer_B1M)
        return answer_B1M[:, 0]


class QueryLayer(nn.Module):
    """A decoder layer of DETR: the query is added to the attention's queries, not to its values; post-norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(width, HEADS, _DROPOUT, batch_first=True)
        self.reports = nn.MultiheadAttention(width, HEADS, _DROPOUT, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_HIDDEN, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, answer_B1M: Tensor, query_B1M: Tensor, retrieved_BKM: Tensor) -> Tensor:
        """The answer after the layer (B, 1, M)."""
        asks = answer_B1M + query_B1M
        found, _ = self.own(asks, asks, answer_B1M, need_weights=False)
        answer_B1M = self.norms[0](answer_B1M + self.drop(found))
        found, _ = self.reports(answer_B1M + query_B1M, retrieved_BKM, retrieved_BKM, need_weights=False)
        answer_B1M = self.norms[1](answer_B1M + self.drop(found))
        answer_B1M = self.norms[2](answer_B1M + self.drop(self.feed_forward(answer_B1M)))
        return answer_B1M


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The training reports most similar to each study's images, best first."""

    bank_RM: NDArray[np.float16]
    "vectors of all training reports"
    rows: Mapping[str, NDArray[np.int32]]
    "rows of the bank by study id"

    def of(self, study: Study) -> NDArray[np.float16]:
        """Vectors of the study's reports (K, M)."""
        return self.bank_RM[self.rows[study.id]]


@dataclass(frozen=True, slots=True)
class ReportBank:
    """The training reports that a study can retrieve, as part of the model; None in models without retrieval."""

    retrieval: Retrieval | None
    reports: int
    "number of reports per study"

    def digests(self) -> list[str]:
        """Digest of the index; empty without one."""
        return [self.retrieval.digest] if self.retrieval else []

    def save(self, folder: Path) -> None:
        """Writes the index into the folder's `retrieval`."""
        if self.retrieval is not None:
            self.retrieval.save(folder / "retrieval")

    def check(self, run: RunConfig[Any], source: Source) -> None:
        """Raises InputError unless the index was built from the reports that this run trains on."""
        if self.retrieval is None:
            return
        about, folder = self.retrieval.about, self.retrieval.folder
        again = f"build it again: rayscribe build retrieval {source.path} --out FOLDER"
        if about["digest"] != source.manifest.digest():
            raise InputError(f"{folder}: made from another manifest than {source.path}; {again}")
        for name, value in (("section", run.text.section), ("cleaning", run.text.cleaning)):
            if about[name] != value:
                raise InputError(
                    f"{folder}: built for {name} {about[name]!r}, this run reads {value!r}; {again} --{name} {value}"
                )

    def extras(self, studies: Sequence[Study], lookup: Lookup) -> Extras:
        """The vectors of each study's most similar training reports, never its own or its patient's."""
        if self.retrieval is None:
            return {}
        vectors_SM = self.retrieval.study_vectors(
            studies, folder=lookup.features, device=lookup.device, progress=lookup.progress
        )
        rows_SK = self.retrieval.nearest(vectors_SM, top=self.reports, studies=studies)
        rows = {study.id: rows_K for study, rows_K in zip(studies, rows_SK, strict=True)}
        return {RETRIEVED: Neighbours(self.retrieval.bank_RM, rows).of}

    def image_extras(self, studies: Sequence[Sequence[Grey]]) -> dict[str, Tensor]:
        """Vectors (B, K, M) of the most similar training reports, by `RETRIEVED`; empty without an index."""
        if self.retrieval is None:
            return {}
        vectors_BM = torch.stack([self.retrieval.image_vector(images) for images in studies])
        rows_BK = self.retrieval.nearest(vectors_BM, top=self.reports)
        return {RETRIEVED: torch.from_numpy(self.retrieval.bank_RM[rows_BK])}

    def least_side(self) -> int:
        """Shortest image side that the image encoder of the index needs, in pixels; 0 without an index."""
        return self.retrieval.least_images_side() if self.retrieval else 0


def prepared_index(name: str, run: RunConfig[Any], source: Source, preparation: Preparation, *, reports: int) -> Path:
    """The folder of an index of the training reports, by the run's own image encoder as it starts; built once and kept.

    Raises InputError where the encoder has random weights. `name`: of the method.
    """
    if not run.backbone.weights:
        raise InputError(
            f"{name} retrieves training reports by what the image encoder sees, and {run.backbone.name} has random weights: "
            "give --backbone.weights (a file, or `pretrained`), an index of `rayscribe build retrieval` "
            "(--method.retrieval FOLDER), or --method.no-memory to go without retrieved reports"
        )
    encoder = replace(run.backbone, trainable=False)
    config = AlignedConfig(encoder=encoder, images=run.images, features=preparation.features)

    def build(folder: Path) -> None:
        preparation.notify("building the retrieval index: image features, then a linear map to the training reports")
        recall = build_aligned(
            source.manifest, run.text, config, folder, top=reports, progress=preparation.progress("images and reports")
        )
        preparation.notify(
            f"own report among the {recall.top} nearest: {recall.found:.1%} of the training images "
            f"(chance: {recall.chance:.1%})"
        )

    key = {
        "manifest": manifest_key(source.manifest),
        "section": run.text.section,
        "cleaning": run.text.cleaning,
        "encoder": Backbone(encoder).fingerprint(),
        "size": run.images.size,
        "width": config.width,
    }
    path = prepared("retrieval", key, build, features=preparation.features, is_whole=_is_whole)
    preparation.notify(f"retrieval index: {path}")
    return path


def _is_whole(folder: Path) -> bool:
    """Whether an index is as it was written."""
    try:
        Retrieval.load(folder)
    except InputError:
        return False
    return True


def report_bank(name: str, chosen: str, folder: Path | None, *, reports: int) -> ReportBank:
    """The index of a model folder, or of `chosen`; `name`: the method's. Raises InputError if there is none."""
    if folder is None and not chosen:
        raise InputError(
            f"{name} looks at similar training reports: build their index with `rayscribe build retrieval DATA --out "
            "FOLDER`, then give --method.retrieval FOLDER (or go without them: --method.no-memory)"
        )
    return ReportBank(Retrieval.load(folder / "retrieval" if folder else Path(chosen)), reports)


def retrieval_digest(resources: Resources) -> str:
    """Digest of the reports that a model retrieves; empty if it retrieves none."""
    return resources.digests()[0] if resources.least_side() else ""
