"""One study from loose image files, outside any manifest: the input of `predict`, classifiers and the service.

Shapes: B studies, V views, H and W the side of the model's square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rayscribe.config import ImageConfig
from rayscribe.data.images import Grey, ImageFile, evaluation_square, looks_inverted, read_image
from rayscribe.study import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStudy:
    """The images of one study, and warnings for the user."""

    images: list[Grey]
    warnings: list[str]
    states: Mapping[str, int] | None = None
    "a classifier's findings by condition, if the model reads them before it writes"


def read_image_study(
    files: Sequence[ImageFile], *, at_least: int, source: str, states: Mapping[str, int] | None = None
) -> ImageStudy:
    """Reads the files of a study; `source`: that of the training data. Raises InputError that names an unreadable file."""
    images = [read_image(file, at_least=at_least) for file in files]
    warnings = [
        f"{file.name}: looks inverted (bright border); check its photometric interpretation"
        for file, image in zip(files, images, strict=True)
        if looks_inverted(image)
    ]
    if "phantom" in source:
        warnings.append("the model was trained on drawn phantoms: its report on a real image is meaningless")
    return ImageStudy(images=images, warnings=warnings, states=states)


def image_batch(studies: Sequence[ImageStudy], config: ImageConfig) -> Batch:
    """The studies as squares of the model's size, (B, V, H, W) without reports; studies with fewer images are padded."""
    views = max(len(study.images) for study in studies)
    pixels_BVHW = np.zeros((len(studies), views, config.size, config.size), np.uint8)
    has_view_BV = torch.zeros(len(studies), views, dtype=torch.bool)
    for place, study in enumerate(studies):
        for view, image in enumerate(study.images):
            pixels_BVHW[place, view] = evaluation_square(image, config)
        has_view_BV[place, : len(study.images)] = True
    return Batch(
        rows_B=torch.arange(len(studies)),
        has_view_BV=has_view_BV,
        tokens_BT=torch.zeros(len(studies), 1, dtype=torch.long),
        has_token_BT=torch.zeros(len(studies), 1, dtype=torch.bool),
        pixels_BVHW=torch.from_numpy(pixels_BVHW),
    )
