"""`rayscribe build-retrieval`: a manifest to the index of training reports that images resemble.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import BackboneConfig, TextConfig
from rayscribe.config_methods import DiagnosisConfig
from rayscribe.data.images import ImageConfig
from rayscribe.errors import InputError
from rayscribe.files import check_new

_USUAL = TextConfig()
_TOP = DiagnosisConfig().reports


def build_retrieval(arguments: list[str]) -> None:
    import tyro

    def build(
        data: tyro.conf.Positional[Path],
        out: Path,
        by: Literal["aligned", "clip"] = "aligned",
        clip: Path | None = None,
        width: int = 512,
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section,
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning,
        backbone: BackboneConfig = BackboneConfig(trainable=False),  # noqa: B008  # frozen
        images: ImageConfig = ImageConfig(),  # noqa: B008  # frozen
        features: Path | None = None,
    ) -> None:
        """Which training reports does an image resemble? The index that PromptMRG and KIF retrieve from.

        OUT holds vectors and study ids, no report text; models that use it carry a copy.

        Args:
            data: the manifest
            out: the folder to write
            by: TF-IDF of the reports and a linear map from an image encoder's features, fitted here; or a CLIP from disk
            clip: its folder, as transformers saves one
            width: of the aligned space
            section: of the report, as the training will read it
            cleaning: as the training will clean it
            backbone: the image encoder of --by aligned
            images: what it is shown
            features: folder of its feature cache; the user's cache folder when empty
        """
        from tqdm import tqdm

        text = replace(_USUAL, section=section, cleaning=cleaning)
        if width < 8:
            raise InputError(f"--width {width}: at least 8")
        if (by == "clip") != (clip is not None):
            raise InputError("--by clip needs --clip FOLDER, and --by aligned none")
        if by == "aligned" and not backbone.weights:
            raise InputError("--by aligned: name trained weights with --backbone.weights (a file, or `pretrained`)")
        check_new(out)
        from rayscribe.data.manifest import read_manifest
        from rayscribe.data.retrieval import Retrieval
        from rayscribe.data.retrieval_building import AlignedConfig, build_aligned, build_clip

        bar: Callable[[Iterable[Any]], Iterable[Any]] = partial(tqdm, desc="images and reports", unit="block")
        manifest = read_manifest(data)
        if clip is not None:
            recall = build_clip(manifest, text, clip, out, top=_TOP, progress=bar)
        else:
            encoder = replace(backbone, trainable=False)
            aligned = AlignedConfig(encoder=encoder, images=images, width=width, features=features)
            recall = build_aligned(manifest, text, aligned, out, top=_TOP, progress=bar)
        index = Retrieval.load(out)
        held_out = " by maps that were fitted without them" if clip is None else ""
        fewer = f" (not {width}: the reports allow no more)" if clip is None and index.width < width else ""
        print(f"{len(index.ids)} training reports, width {index.width}{fewer}, kind {by}")
        print(
            f"own report among the {recall.top} nearest: {recall.found:.1%} of the training images{held_out} "
            f"(chance: {recall.chance:.1%}); wrote {out}"
        )
        flags = "" if section == _USUAL.section else f" --text.section {section}"
        flags += "" if cleaning == _USUAL.cleaning else f" --text.cleaning {cleaning}"
        print(f"next: rayscribe train promptmrg --data {data} --diagnosis.retrieval {out} --run runs/promptmrg{flags}")

    parsed(build, arguments, "build-retrieval")
