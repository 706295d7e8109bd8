"""`rayscribe mine-negatives`: a manifest to one that names the most similar other studies of every training study.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import BackboneConfig, TextConfig
from rayscribe.data.images import ImageConfig
from rayscribe.errors import InputError

_USUAL = TextConfig()


def mine_negatives(arguments: list[str]) -> None:
    import tyro

    def mine(
        data: tyro.conf.Positional[Path],
        out: Path,
        by: Literal["text", "image", "both"] = "text",
        top: int = 5,
        different_labels: bool = False,
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section,
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning,
        backbone: BackboneConfig = BackboneConfig(trainable=False),  # noqa: B008  # frozen
        images: ImageConfig = ImageConfig(),  # noqa: B008  # frozen
        features: Path | None = None,
    ) -> None:
        """For every training study, the most similar other ones: what `--ithn.enabled` learns to tell apart.

        Never the same study or patient, never a report with the same words, never a copy of the image.

        Args:
            data: the manifest
            out: the manifest to write; it holds everything of DATA, too
            by: TF-IDF of the reports, features of an image encoder, or the mean of the two cosines
            top: how many to keep for every study
            different_labels: only studies whose labels differ too (14 observations of the built-in rules)
            section: of the report, as the training will read it
            cleaning: as the training will clean it
            backbone: the image encoder of --by image and --by both
            images: what it is shown
            features: folder of its feature cache; the user's cache folder when empty
        """
        text = replace(_USUAL, section=section, cleaning=cleaning)
        if top < 1:
            raise InputError(f"--top {top}: at least 1")
        if by != "text" and not backbone.weights:
            raise InputError(f"--by {by}: name trained weights with --backbone.weights (a file, or `pretrained`)")
        about: dict[str, Any] = {"by": by, "top": top, "different_labels": different_labels}
        if by != "text":
            about["backbone"] = {"name": backbone.name, "weights": Path(backbone.weights).name}
            about["images"] = asdict(images)
        encoder = replace(backbone, trainable=False)
        count, lacking = _write(data, out, text, about, encoder, images, features)
        print(f"{count} training studies with up to {top} negatives each by {by}; wrote {out}")
        if lacking:
            print(
                f"warning: {len(lacking)} of them have none, e.g. {lacking[0]}; --ithn.enabled will refuse this manifest"
            )
        flags = "" if section == _USUAL.section else f" --text.section {section}"
        flags += "" if cleaning == _USUAL.cleaning else f" --text.cleaning {cleaning}"
        print(f"next: rayscribe train ithn --data {out} --run runs/ithn{flags}")

    parsed(mine, arguments, "mine-negatives")


def _write(
    data: Path,
    out: Path,
    text: TextConfig,
    about: dict[str, Any],
    backbone: BackboneConfig,
    images: ImageConfig,
    features: Path | None,
) -> tuple[int, list[str]]:
    """Mines and writes. Returns the number of training studies, and those without any negative."""
    from tqdm import tqdm

    from rayscribe.data.dataset import cleaned_report
    from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
    from rayscribe.data.mining import mine
    from rayscribe.metrics.labeler import RuleLabeler

    bar: Callable[[Iterable[Any]], Iterable[Any]] = partial(tqdm, desc="mining", unit="block")
    manifest = read_manifest(data)
    pairs = [(study, report) for study in manifest.split("train") if (report := cleaned_report(study, text))]
    if len(pairs) < 2:
        raise InputError(f"{data}: {len(pairs)} training studies have the section {text.section!r}; nothing to compare")
    studies, reports = [study for study, _ in pairs], [report for _, report in pairs]
    labels = None
    if about["different_labels"]:
        labels = [tuple(map(int, states)) for states in RuleLabeler(as_chexpert=False).label(reports)]
    vectors = None
    if about["by"] != "text":
        from rayscribe.data.features import cached_features
        from rayscribe.data.mining import image_vectors
        from rayscribe.models.backbones import Backbone

        encoder = Backbone(backbone).eval()
        cache = cached_features(
            studies, encoder, images, folder=features, progress=partial(tqdm, desc="image features", unit="block")
        )
        vectors = image_vectors(studies, cache)
    found = mine(
        studies,
        reports,
        top=about["top"],
        images=vectors,
        with_text=about["by"] != "image",
        labels=labels,
        progress=bar,
    )
    if not any(found):
        raise InputError(f"{data}: every two training studies are of one patient, or have the same words or labels")
    mined = {
        study.id: (tuple(studies[row].id for row, _ in one), tuple(round(score, 4) for _, score in one))
        for study, one in zip(studies, found, strict=True)
    }
    nothing: tuple[tuple[str, ...], tuple[float, ...]] = ((), ())
    rows = []
    for study in manifest.studies:
        ids, scores = mined.get(study.id, nothing)
        rows.append(replace(study, negatives=ids, negative_scores=scores))
    provenance = manifest.provenance | {"negatives": about | {"section": text.section, "cleaning": text.cleaning}}
    write_manifest(out, Manifest(studies=tuple(rows), provenance=provenance))
    return len(studies), [study.id for study, one in zip(studies, found, strict=True) if not one]
