"""Mines hard negatives: for every training study the most similar reports or images of other patients, into the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rayscribe.config import BackboneConfig, ImageConfig, TextConfig
from rayscribe.data.features import cached_features
from rayscribe.data.manifest import Manifest
from rayscribe.data.mining import image_vectors, mine
from rayscribe.data.split_reports import cleaned_report
from rayscribe.errors import InputError
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.models.backbones import Backbone
from rayscribe.progress import ProgressBar
from rayscribe.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningConfig:
    """Which studies count as similar."""

    by: Literal["text", "image", "both"] = "text"
    "TF-IDF of the reports, features of an image encoder, or the mean of the two cosines"
    top: int = 5
    "negatives a study"
    different_labels: bool = False
    "only studies whose 14 observations (built-in rules) differ as well"
    text: TextConfig = field(default_factory=TextConfig)
    "section and cleaning of the reports, as the training reads them"
    encoder: BackboneConfig = field(default_factory=lambda: BackboneConfig(trainable=False))
    "image encoder of `image` and `both`; needs trained weights"
    images: ImageConfig = field(default_factory=ImageConfig)
    features: Path | None = None
    "folder of the feature cache; the user's cache folder when None"

    def about(self) -> dict[str, Any]:
        """What decides the negatives, for the manifest's provenance: JSON values."""
        found: dict[str, Any] = {"by": self.by, "top": self.top, "different_labels": self.different_labels}
        if self.by != "text":
            found["backbone"] = {"name": self.encoder.name, "weights": Path(self.encoder.weights).name}
            found["images"] = asdict(self.images)
        return found | {"section": self.text.section, "cleaning": self.text.cleaning}


def with_negatives(
    manifest: Manifest, config: MiningConfig, *, data: Path, progress: Callable[[str], ProgressBar] = lambda name: iter
) -> Manifest:
    """The manifest with `negatives` and `negative_scores` (cosines, the most similar first) for every training study.

    A negative is never the same study or patient, never a report with the same words, never a copy of the image.

    Args:
        manifest: studies with reports
        config: what counts as similar
        data: path of the manifest, for messages
        progress: makes a progress bar of a name

    Raises:
        InputError: fewer than two training studies have the section, no two of them differ, or the encoder is untrained
    """
    if config.top < 1:
        raise InputError(f"--top {config.top}: at least 1")
    if config.by != "text" and not config.encoder.weights:
        raise InputError(f"--by {config.by}: name trained weights with --backbone.weights (a file, or `pretrained`)")
    pairs = [(study, report) for study in manifest.split("train") if (report := cleaned_report(study, config.text))]
    studies, reports = [study for study, _ in pairs], [report for _, report in pairs]
    if len(studies) < 2:
        section = config.text.section
        raise InputError(f"{data}: {len(studies)} training studies have the section {section!r}; nothing to compare")
    labels = None
    if config.different_labels:
        labels = [tuple(map(int, states)) for states in RuleLabeler(as_chexpert=False).label(reports)]
    found = mine(
        studies,
        reports,
        top=config.top,
        images=None if config.by == "text" else _image_vectors(studies, config, progress("image features")),
        with_text=config.by != "image",
        labels=labels,
        progress=progress("mining"),
    )
    if not any(found):
        raise InputError(f"{data}: every two training studies are of one patient, or have the same words or labels")
    mined = {
        study.id: (tuple(studies[row].id for row, _ in one), tuple(round(score, 4) for _, score in one))
        for study, one in zip(studies, found, strict=True)
    }
    return mined_manifest(manifest, mined, config.about())


def mined_manifest(
    manifest: Manifest, mined: dict[str, tuple[tuple[str, ...], tuple[float, ...]]], about: dict[str, Any]
) -> Manifest:
    """`manifest` with these negatives (ids and cosines by study id) in place of its own."""
    nothing: tuple[tuple[str, ...], tuple[float, ...]] = ((), ())
    rows = []
    for study in manifest.studies:
        ids, scores = mined.get(study.id, nothing)
        rows.append(replace(study, negatives=ids, negative_scores=scores))
    return Manifest(studies=tuple(rows), provenance=manifest.provenance | {"negatives": about})


def without_negative(manifest: Manifest, text: TextConfig) -> list[str]:
    """Ids of training studies that have the section and no negative."""
    return [study.id for study in manifest.split("train") if not study.negatives and cleaned_report(study, text)]


def _image_vectors(studies: Sequence[Study], config: MiningConfig, progress: ProgressBar) -> Tensor:
    encoder = Backbone(replace(config.encoder, trainable=False)).eval()
    cache = cached_features(studies, encoder, config.images, folder=config.features, progress=progress)
    return image_vectors(studies, cache)
