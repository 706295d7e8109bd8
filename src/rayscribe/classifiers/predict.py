"""From one study of loose image files to probabilities, and to a heat map of the evidence for a finding.

Shapes: V views, N patches, S the side of a square in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rayscribe.classifiers.folder import TrainedClassifier
from rayscribe.data.images import ImageFile, read_image
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import whole_file
from rayscribe.inference.images import image_batch, read_image_study
from rayscribe.labels import NEGATIVE, POSITIVE
from rayscribe.models.backbones import grid_side
from rayscribe.models.classifier import class_map
from rayscribe.study import Batch

_SIDE = 512
"Side of the picture, in pixels."
_MARGIN = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """A classifier's result for one study."""

    probabilities: dict[str, float]
    "calibrated, by finding"
    present: list[str]
    "findings whose probability reaches its threshold"
    warnings: list[str]
    batch: Batch

    def states(self) -> dict[str, int]:
        """Present or absent by finding, in the form of a prompt."""
        return {name: POSITIVE if name in self.present else NEGATIVE for name in self.probabilities}


def classified(trained: TrainedClassifier, images: Sequence[ImageFile]) -> Classified:
    """Classifies one study. Raises InputError that names the file unless it is a readable radiograph."""
    size = trained.config.images.size
    loose = read_image_study(images, at_least=size, source=trained.data.get("source", ""))
    batch = image_batch([loose], trained.config.images).to(trained.model.weight.device)
    with torch.inference_mode():
        logits_1L = trained.model(batch).double().cpu().numpy()
    if not np.isfinite(logits_1L).all():
        raise InputError("the classifier's scores are not numbers; its weights are damaged")
    probability_L = trained.probabilities(logits_1L)[0]
    return Classified(
        probabilities={name: float(p) for name, p in zip(trained.findings, probability_L, strict=True)},
        present=[
            name
            for name, p, threshold in zip(trained.findings, probability_L, trained.thresholds, strict=True)
            if p >= threshold
        ],
        warnings=loose.warnings,
        batch=batch,
    )


def write_heatmap(
    path: Path, trained: TrainedClassifier, images: Sequence[Path], found: Classified, finding: str | None
) -> str:
    """Writes the first image with the finding's Grad-CAM over it, as PNG; returns the finding's name."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: heat maps are PNG files; end the name in .png")
    if finding is None:
        finding = max(found.probabilities, key=lambda one: found.probabilities[one])
    name, map_VSS = evidence(trained, found, finding)
    heat_SS = map_VSS[0] / max(1e-12, float(map_VSS[0].max()))
    picture = _overlaid(read_image(images[0], at_least=_SIDE), heat_SS)
    text = f"{name}, probability {found.probabilities[name]:.2f}. Grad-CAM: evidence of the model, not the place of a lesion."
    canvas = Image.new("RGB", (_SIDE, _SIDE + _MARGIN), "black")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((6, _SIDE + 4), text, fill="white")
    draw.text((6, _SIDE + 20), DISCLAIMER, fill="white")
    with whole_file(path) as temporary:
        canvas.save(temporary, "PNG")
    return name


def evidence(trained: TrainedClassifier, found: Classified, finding: str) -> tuple[str, NDArray[np.float32]]:
    """The finding's name as the classifier spells it, and where each image supports it (V, S, S), at least 0.

    Raises InputError for a finding that the classifier does not know.
    """
    name = {name.lower(): name for name in trained.findings}.get(finding.lower())
    if name is None:
        raise InputError(f"--finding {finding}: unknown finding; the classifier knows {', '.join(trained.findings)}")
    map_VN = class_map(trained.model, found.batch, trained.findings.index(name))[0].cpu().numpy()
    side = grid_side(map_VN.shape[1])
    return name, map_VN.reshape(-1, side, side)


def _overlaid(grey: NDArray[np.uint8], heat: NDArray[np.floating[Any]]) -> Image.Image:
    """Red where the map is high, semi-transparent so that the image stays readable."""
    base = np.asarray(Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float32)
    smooth = Image.fromarray((255 * heat).astype(np.uint8)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    share = 0.5 * np.asarray(smooth, np.float32)[..., None] / 255
    colour = np.array([255.0, 60.0, 0.0], np.float32)
    return Image.fromarray((base[..., None] * (1 - share) + colour * share).astype(np.uint8))
