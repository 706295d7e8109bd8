"""What a method that fits without gradient steps is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from rayscribe.data.split_reports import SplitReports
from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.study import Study

Features = NDArray[Any]
"A study's features of the frozen image encoder (V views, N patches, C channels), float16."


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a method with its own `fit` learns from."""

    training: SplitReports
    validation: SplitReports
    features: Callable[[Sequence[Study]], Iterable[Features]]
    "features of studies, computed once and cached; read one study after the other, because all together may be large"
    notify: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What such a `fit` returns and its `reporter` is built from. The image encoder is saved next to it."""

    weights: Mapping[str, Tensor]
    texts: Mapping[str, Any] = field(default_factory=dict)
    "JSON values"
    scores: Mapping[str, float] = field(default_factory=dict)
    "on the validation split"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """A fit without some of its training studies, as if they had never been there."""

    fitted: Fitted
    images: frozenset[str]
    "hashes of images that only these studies had, as `provenance.image_hashes` gives them"
    reports: frozenset[str]
    "reports that only these studies had"
    studies: int
    "how many were forgotten"
    remaining: int
    same_patients: Sequence[str]
    "ids of studies that remain, of the same patients"


class Drafter(Protocol):
    """The reporter of a method with its own `fit`."""

    def draft(self, studies: Sequence[Features], decoding: DecodingConfig) -> list[Draft]:
        """One draft per study, in order."""
