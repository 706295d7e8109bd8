"""What travels from the files to the model: studies, then batches of tensors.

Shapes: B studies, V views, H height, W width, N patches of one view, C channels of the backbone, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

First = TypeVar("First", bound="Batch | Pair[Any, Any] | None")
Second = TypeVar("Second", bound="Batch | Pair[Any, Any] | None")

SPLITS = ("train", "val", "test")
CONTEXT = ("indication", "comparison", "technique", "exam")
"Texts of a study beside findings and impression."
GIVEN_STATES = "states_BO"
"""Extra of a batch: states of the conditions (`labels.CONDITIONS`) that the reference or a classifier gives; UNLABELLED where
nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One examination: its images and what the radiologist wrote."""

    id: str
    images: tuple[Path, ...]
    findings: str = ""
    impression: str = ""
    split: str = ""
    "train, val or test; empty when the source has no split"
    subject: str = ""
    "the patient, where the source says; empty when unknown"
    views: tuple[str, ...] = ()
    "one of frontal (pa or ap, where the source says which), lateral or empty for every image"
    problems: tuple[str, ...] = ()
    "what the source's indexers coded, lower case (Open-i's problems, such as cardiomegaly or normal); empty when unknown"
    indication: str = ""
    "why the examination was asked for; like the three texts below, only floors and the audit read it"
    comparison: str = ""
    "what earlier examination the radiologist compared with"
    technique: str = ""
    "how the images were taken, in the report's words"
    exam: str = ""
    "the examination's title in the report"
    sha256: tuple[str, ...] = ()
    "of every image file's bytes; filled in by `rayscribe prepare`"
    sizes: tuple[tuple[int, int], ...] = ()
    "rows and columns of every image: the original's where the source states them, else the file's, from `rayscribe prepare`"
    negatives: tuple[str, ...] = ()
    "ids of the training studies that are most alike, but another patient's with another report; `rayscribe build negatives`"
    negative_scores: tuple[float, ...] = ()
    "how alike, from the most on"

    @property
    def context(self) -> tuple[str, ...]:
        """The texts of `CONTEXT`, in its order."""
        return self.indication, self.comparison, self.technique, self.exam

    @property
    def is_coded_normal(self) -> bool:
        """Whether the indexers coded the study as normal and nothing else; means nothing where `problems` is empty."""
        return self.problems == ("normal",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Studies as tensors. Masks are fields of their own and are never inferred from ids or zeros."""

    rows_B: Tensor
    "position of every study in its list, to name it in messages"
    has_view_BV: Tensor
    tokens_BT: Tensor
    has_token_BT: Tensor
    pixels_BVHW: Tensor | None = None
    "8-bit grey; expanded to three channels and normalised on the device"
    maps_BVNC: Tensor | None = None
    "features of a frozen backbone, instead of pixels"
    targets_per_batch: float = 0.0
    """Target tokens of the optimiser step, divided by the number of batches that share the step (studies, where what is
    learned is one answer a study). Dividing by it, not by the batch's own count, makes accumulated and data-parallel steps
    equal to one large batch. 0: use the batch's own."""
    studies_per_batch: float = 0.0
    "studies of the step, in the same manner"
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    "what a method reads beside images and words, one row a study; its file says what the names mean"

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            rows_B=self.rows_B.to(device, non_blocking=True),
            has_view_BV=self.has_view_BV.to(device, non_blocking=True),
            tokens_BT=self.tokens_BT.to(device, non_blocking=True),
            has_token_BT=self.has_token_BT.to(device, non_blocking=True),
            pixels_BVHW=None if self.pixels_BVHW is None else self.pixels_BVHW.to(device, non_blocking=True),
            maps_BVNC=None if self.maps_BVNC is None else self.maps_BVNC.to(device, non_blocking=True),
            extras={name: tensor.to(device, non_blocking=True) for name, tensor in self.extras.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Generic[First, Second]):
    """Two draws of one step: studies and a mined negative of each, row by row; or the studies of two tasks, of which a step
    may lack one."""

    first: First
    second: Second

    def to(self, device: torch.device) -> Pair[First, Second]:
        first, second = (None if part is None else part.to(device) for part in (self.first, self.second))
        return Pair(first=first, second=second)  # type: ignore[arg-type]  # `to` keeps the type


def coded_normal(studies: Sequence[Study]) -> list[bool] | None:
    """Which studies the source's indexers coded as normal; None unless they coded every one."""
    return [study.is_coded_normal for study in studies] if all(study.problems for study in studies) else None


def is_frontal(view: str) -> bool:
    """Whether a view of `Study.views` shows the chest from the front or the back."""
    return view in ("frontal", "pa", "ap")


def rows_of(draw: Batch | Pair[Any, Any] | None) -> list[int]:
    """The studies of a draw, to name them in messages."""
    if isinstance(draw, Pair):
        return rows_of(draw.first) + rows_of(draw.second)
    rows: list[int] = [] if draw is None else draw.rows_B.tolist()
    return rows
