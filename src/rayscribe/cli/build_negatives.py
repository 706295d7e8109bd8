"""`rayscribe build negatives`: a manifest to one that names the most similar other studies of every training study.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import BackboneConfig, ImageConfig, TextConfig
from rayscribe.progress import progress_bar

_USUAL = TextConfig()


def build_negatives(arguments: list[str]) -> None:
    """The negatives that `train RECIPE+ithn` mines by itself, mined in another way or once for several machines."""
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Mine:
        """Finds the most similar other studies of every training study: what the plug-in ITHN learns to tell apart.

        Never the same study or patient, never a report with the same words, never a copy of the image. `train RECIPE+ithn`
        mines by text when the manifest names no negatives; this verb mines by image too.
        """

        data: tyro.conf.Positional[Path]
        "the manifest"
        out: Path
        "the manifest to write: DATA with the negatives"
        by: Literal["text", "image", "both"] = "text"
        "TF-IDF of the reports, features of an image encoder, or the mean of the two cosines"
        top: int = 5
        "negatives to keep for each study"
        different_labels: bool = False
        "keep only studies whose labels differ too (14 observations of the built-in rules)"
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section
        "section of the report that the training will read"
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning
        "cleaning that the training will use"
        backbone: BackboneConfig = BackboneConfig(trainable=False)  # noqa: RUF009  # frozen
        "the image encoder of --by image and --by both"
        images: ImageConfig = ImageConfig()  # noqa: RUF009  # frozen
        "image size of that encoder"
        features: Path | None = None
        "folder of its feature cache; the user's cache folder when empty"

    _mine(parsed(Mine, arguments, "build negatives"))


def _mine(options: Any) -> None:
    from rayscribe.data.manifest import read_manifest, write_manifest
    from rayscribe.data.negatives import MiningConfig, with_negatives, without_negative
    from rayscribe.methods import recipe_with

    config = MiningConfig(
        by=options.by,
        top=options.top,
        different_labels=options.different_labels,
        text=replace(_USUAL, section=options.section, cleaning=options.cleaning),
        encoder=options.backbone,
        images=options.images,
        features=options.features,
    )
    manifest = with_negatives(
        read_manifest(options.data),
        config,
        data=options.data,
        progress=lambda name: partial(progress_bar, desc=name, unit="block"),
    )
    write_manifest(options.out, manifest)
    lacking = without_negative(manifest, config.text)
    count = len(lacking) + sum(bool(study.negatives) for study in manifest.studies)
    print(f"{count} training studies with up to {config.top} negatives each by {config.by}; wrote {options.out}")
    if lacking:
        print(
            f"warning: {len(lacking)} of them have none, e.g. {lacking[0]}; training on this manifest will refuse them"
        )
    flags = "" if options.section == _USUAL.section else f" --text.section {options.section}"
    flags += "" if options.cleaning == _USUAL.cleaning else f" --text.cleaning {options.cleaning}"
    name = recipe_with("candidates")
    print(f"next: rayscribe train {name} --data {options.out} --run runs/{name}{flags}")
