"""From images to queries in the reports' space: a frozen image encoder with a linear map, or a CLIP's vision model.

Shapes: S studies, I images, C channels of the encoder, M width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from rayscribe.config import BackboneConfig, ImageConfig
from rayscribe.data.features import cached_features, study_means
from rayscribe.data.images import Grey, evaluation_square, read_checked_image
from rayscribe.errors import InputError
from rayscribe.models.backbones import Backbone
from rayscribe.progress import ProgressBar
from rayscribe.settings import from_plain
from rayscribe.study import Study

ENCODER = "encoder.safetensors"
CLIP_FOLDER = "encoder"
INSTALL_BERT = "install it: pip install 'rayscribe[bert]'"


@dataclass(frozen=True, kw_only=True)
class AlignedEncoder:
    """A frozen timm model; its mean over patches and views, centred and of unit length, then a linear map."""

    backbone: Backbone
    square: ImageConfig
    centre_C: Tensor
    map_CM: Tensor

    @classmethod
    def load(cls, folder: Path, about: dict[str, Any]) -> AlignedEncoder:
        try:
            state = load_file(folder / ENCODER)
            backbone = Backbone(from_plain(BackboneConfig, about["backbone"])).eval()
            backbone.load_state_dict({name: state[name] for name in state if name.startswith(("net.", "beside."))})
            return cls(
                backbone=backbone,
                square=from_plain(ImageConfig, about["images"]),
                centre_C=state["centre"],
                map_CM=state["map"],
            )
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{folder / ENCODER}: does not match retrieval.json ({error}); build the index again"
            ) from error

    @property
    def side(self) -> int:
        return self.square.size

    def studies(
        self, studies: Sequence[Study], *, folder: Path | None, device: torch.device | None, progress: ProgressBar
    ) -> Tensor:
        """Queries of the studies (S, M), by way of the feature cache."""
        self.backbone.to(device or "cpu")
        return self.mapped(study_features(studies, self.backbone, self.square, folder, device, progress))

    def images(self, images: Sequence[Grey]) -> Tensor:
        """The query (M) of one study."""
        squares = np.stack([evaluation_square(image, self.square) for image in images])
        device = self.backbone.gain_C11.device
        features_INC = self.backbone.images(torch.from_numpy(squares).to(device)).float().cpu()
        return self.mapped(features_INC.mean(1).mean(0)[None])[0]

    def mapped(self, means_SC: Tensor) -> Tensor:
        return F.normalize(F.normalize(means_SC - self.centre_C, dim=-1) @ self.map_CM, dim=-1)


def study_features(
    studies: Sequence[Study],
    backbone: Backbone,
    square: ImageConfig,
    folder: Path | None,
    device: torch.device | None,
    progress: ProgressBar,
) -> Tensor:
    """The mean feature of every study (S, C) over patches, then over views."""
    cache = cached_features(studies, backbone, square, folder=folder, device=device, progress=progress)
    return study_means(studies, cache)


@dataclass(frozen=True, kw_only=True)
class ClipEncoder:
    """A CLIP's vision model with its projection; the mean over views of unit vectors, normalised again."""

    model: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path) -> ClipEncoder:
        try:
            from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection  # seconds to import
        except ImportError as error:
            raise InputError(
                f"{folder}: a CLIP index needs the library transformers ({error}); {INSTALL_BERT}"
            ) from error

        place = folder / CLIP_FOLDER
        try:
            model = CLIPVisionModelWithProjection.from_pretrained(place, local_files_only=True, use_safetensors=True)
            processor = CLIPImageProcessor.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{place}: cannot be read ({error}); build the index again") from error
        return cls(model=model.eval(), processor=processor)

    @property
    def side(self) -> int:
        return int(self.model.config.image_size)

    def studies(
        self, studies: Sequence[Study], *, folder: Path | None, device: torch.device | None, progress: ProgressBar
    ) -> Tensor:
        """Queries of the studies (S, M)."""
        self.model.to(device or "cpu")
        found = []
        for study in progress(studies):
            images = [
                read_checked_image(path, sha256, at_least=self.side)
                for path, sha256 in zip(study.images, study.sha256, strict=True)
            ]
            found.append(self.images(images))
        return torch.stack(found)

    @torch.no_grad()
    def images(self, images: Sequence[Grey]) -> Tensor:
        """The query (M) of one study."""
        colours = [np.repeat(image[:, :, None], 3, axis=2) for image in images]
        pixels = self.processor(images=colours, return_tensors="pt")["pixel_values"].to(self.model.device)
        vectors_IM = F.normalize(self.model(pixel_values=pixels).image_embeds.float().cpu(), dim=-1)
        return F.normalize(vectors_IM.mean(0), dim=-1)
