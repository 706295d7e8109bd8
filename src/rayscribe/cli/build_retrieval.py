"""`rayscribe build retrieval`: a manifest to the index of training reports that images resemble.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import BackboneConfig, ImageConfig, TextConfig
from rayscribe.errors import InputError
from rayscribe.files import check_new
from rayscribe.progress import ProgressBar, progress_bar

_USUAL = TextConfig()
_TOP = 21  # reports that a study retrieves as published; see --method.reports


def build_retrieval(arguments: list[str]) -> None:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Build:
        """Which training reports does an image resemble? The index of reports that models retrieve from.

        OUT holds vectors and study ids, no report text; models that use it carry a copy.
        """

        data: tyro.conf.Positional[Path]
        "the manifest"
        out: Path
        "the folder to write"
        by: Literal["aligned", "clip"] = "aligned"
        "TF-IDF of the reports and a linear map from an image encoder's features, fitted here; or a CLIP from disk"
        clip: Path | None = None
        "its folder, as transformers saves one"
        width: int = 512
        "of the aligned space"
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section
        "of the report, as the training will read it"
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning
        "as the training will clean it"
        backbone: BackboneConfig = BackboneConfig(trainable=False)  # noqa: RUF009  # frozen
        "the image encoder of --by aligned"
        images: ImageConfig = ImageConfig()  # noqa: RUF009  # frozen
        "what it is shown"
        features: Path | None = None
        "folder of its feature cache; the user's cache folder when empty"

    _build(parsed(Build, arguments, "build retrieval"))


def _build(options: Any) -> None:
    if options.width < 8:
        raise InputError(f"--width {options.width}: at least 8")
    if (options.by == "clip") != (options.clip is not None):
        raise InputError("--by clip needs --clip FOLDER, and --by aligned none")
    if options.by == "aligned" and not options.backbone.weights:
        raise InputError("--by aligned: name trained weights with --backbone.weights (a file, or `pretrained`)")
    check_new(options.out)
    from rayscribe.data.retrieval import Retrieval
    from rayscribe.methods import recipe_with

    recall = _built(options)
    index = Retrieval.load(options.out)
    held_out = " by maps that were fitted without them" if options.clip is None else ""
    is_narrow = options.clip is None and index.width < options.width
    fewer = f" (not {options.width}: the reports allow no more)" if is_narrow else ""
    print(f"{len(index.ids)} training reports, width {index.width}{fewer}, kind {options.by}")
    print(
        f"own report among the {recall.top} nearest: {recall.found:.1%} of the training images{held_out} "
        f"(chance: {recall.chance:.1%}); wrote {options.out}"
    )
    flags = "" if options.section == _USUAL.section else f" --text.section {options.section}"
    flags += "" if options.cleaning == _USUAL.cleaning else f" --text.cleaning {options.cleaning}"
    name = recipe_with("retrieval")
    command = f"rayscribe train {name} --data {options.data} --method.retrieval {options.out} --run runs/{name}{flags}"
    print(f"next: {command}")


def _built(options: Any) -> Any:
    """Writes the index; returns how many images find their own report."""
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.retrieval_building import AlignedConfig, build_aligned, build_clip

    text = replace(_USUAL, section=options.section, cleaning=options.cleaning)
    bar: ProgressBar = partial(progress_bar, desc="images and reports", unit="block")
    manifest = read_manifest(options.data)
    if options.clip is not None:
        return build_clip(manifest, text, options.clip, options.out, top=_TOP, progress=bar)
    aligned = AlignedConfig(
        encoder=replace(options.backbone, trainable=False),
        images=options.images,
        width=options.width,
        features=options.features,
    )
    return build_aligned(manifest, text, aligned, options.out, top=_TOP, progress=bar)
