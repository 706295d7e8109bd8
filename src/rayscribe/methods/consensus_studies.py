"""The training studies of consensus as its fit sees them: pooled features, reports, patients and hashes of images.

Shapes: J training studies, B studies, V views, N patches, C channels, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.data.split_reports import SplitReports
from rayscribe.methods.fitted import Features, Fitted
from rayscribe.models.pooling import pooled_features
from rayscribe.provenance import image_hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledViews:
    """Pooled features by view (V matrices of (B, F)), and which studies have each.

    They are rounded to float16, in which a model folder keeps those of its training studies.
    """

    x_VBF: list[NDArray[np.float16]]
    has_view_BV: NDArray[np.bool_]

    @classmethod
    def of(cls, studies: Iterable[Features], *, views: int, grid: int, width: int | None = None) -> PooledViews:
        """Reads one study after the other; views beyond `views` are left out, and missing ones are zero."""
        pooled = [pooled_features(maps_VNC[:views], grid).astype(np.float16) for maps_VNC in studies]
        width = width or pooled[0].shape[1]
        has_view_BV = np.array([[view < len(one) for view in range(views)] for one in pooled])
        x_VBF = []
        for view in range(views):
            x_BF = np.zeros((len(pooled), width), np.float16)
            for row in np.flatnonzero(has_view_BV[:, view]):
                x_BF[row] = pooled[row][view]
            x_VBF.append(x_BF)
        return cls(x_VBF=x_VBF, has_view_BV=has_view_BV)

    def part(self, rows: Sequence[int]) -> PooledViews:
        """These studies, in this order."""
        return PooledViews(x_VBF=[x_BF[rows] for x_BF in self.x_VBF], has_view_BV=self.has_view_BV[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedStudies:
    """All that a fit knows of its training studies, in their order. A model folder keeps it, so that it can forget some."""

    ids: list[str]
    reports: list[str]
    patients: list[str]
    "numbers in place of the patients' names; empty where the patient is not known"
    images: list[list[str]]
    "first digits of the SHA-256 of their images"
    views: PooledViews

    @classmethod
    def of(cls, training: SplitReports, views: PooledViews) -> LearnedStudies:
        """Of a manifest's training studies."""
        return cls(
            ids=training.ids,
            reports=list(training.reports),
            patients=_numbered([study.subject for study in training.studies]),
            images=[sorted(image_hashes([study])) for study in training.studies],
            views=views,
        )

    @classmethod
    def kept_in(cls, fitted: Fitted) -> LearnedStudies | None:
        """Those that `texts` and `weights` describe; None for a folder of a version that did not keep them."""
        texts = fitted.texts
        if not {"patients", "images"} <= texts.keys():
            return None
        count, x_VBF, has_view_VB = len(texts["ids"]), [], []
        for name in sorted(name for name in fitted.weights if name.endswith("_features")):
            rows = fitted.weights[name.replace("_features", "_rows")].numpy()
            x_JF = fitted.weights[name].numpy()
            x_VBF.append(np.zeros((count, x_JF.shape[1]), np.float16))
            x_VBF[-1][rows] = x_JF
            has_view_VB.append(np.isin(np.arange(count), rows))
        return cls(
            ids=list(texts["ids"]),
            reports=list(texts["reports"]),
            patients=list(texts["patients"]),
            images=[list(one) for one in texts["images"]],
            views=PooledViews(x_VBF=x_VBF, has_view_BV=np.stack(has_view_VB, axis=1)),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The features that `kept_in` reads."""
        found: dict[str, torch.Tensor] = {}
        for view, x_JF in enumerate(self.views.x_VBF):
            rows = np.flatnonzero(self.views.has_view_BV[:, view])
            found |= {f"view{view}_rows": torch.from_numpy(rows), f"view{view}_features": torch.from_numpy(x_JF[rows])}
        return found

    def texts(self) -> dict[str, Any]:
        """What `kept_in` reads beside the features."""
        return {"ids": self.ids, "reports": self.reports, "patients": self.patients, "images": self.images}

    def without(self, ids: Collection[str]) -> LearnedStudies:
        """The other studies, as if these had never been there."""
        rows = [row for row, one in enumerate(self.ids) if one not in ids]
        return LearnedStudies(
            ids=[self.ids[row] for row in rows],
            reports=[self.reports[row] for row in rows],
            patients=_numbered([self.patients[row] for row in rows]),
            images=[self.images[row] for row in rows],
            views=self.views.part(rows),
        )

    def of_same_patients(self, ids: Collection[str]) -> list[str]:
        """Other studies of the patients of these."""
        own = {patient for one, patient in zip(self.ids, self.patients, strict=True) if one in ids and patient}
        return [one for one, patient in zip(self.ids, self.patients, strict=True) if patient in own and one not in ids]

    def all_images(self) -> set[str]:
        """Hashes of the images of all studies."""
        return {name for one in self.images for name in one}


def sampled(training: SplitReports, most: int, seed: int) -> SplitReports:
    """At most that many studies, in their order: those whose hash of seed and id is lowest.

    Without a study, the sample is the same one without it, and where there are more studies than `most`, with the next one.
    """
    if len(training.reports) <= most:
        return training
    hashes = [hashlib.sha256(f"{seed} {one}".encode()).digest() for one in training.ids]
    order = sorted(range(len(hashes)), key=hashes.__getitem__)
    picks = sorted(order[:most])
    return SplitReports([training.studies[row] for row in picks], [training.reports[row] for row in picks])


def _numbered(patients: Sequence[str]) -> list[str]:
    """Numbers in the order of appearance, which tell no more than who is the same."""
    numbers: dict[str, str] = {}
    return [numbers.setdefault(one, str(len(numbers))) if one else "" for one in patients]
