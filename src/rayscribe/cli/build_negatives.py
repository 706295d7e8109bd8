"""`rayscribe mine-negatives`: a manifest to one that names the most similar other studies of every training study.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import BackboneConfig, ImageConfig, TextConfig
from rayscribe.errors import InputError
from rayscribe.progress import ProgressBar

_USUAL = TextConfig()


def mine_negatives(arguments: list[str]) -> None:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Mine:
        """For every training study, the most similar other ones: what the plug-in ITHN learns to tell apart.

        Never the same study or patient, never a report with the same words, never a copy of the image.
        """

        data: tyro.conf.Positional[Path]
        "the manifest"
        out: Path
        "the manifest to write; it holds everything of DATA, too"
        by: Literal["text", "image", "both"] = "text"
        "TF-IDF of the reports, features of an image encoder, or the mean of the two cosines"
        top: int = 5
        "how many to keep for every study"
        different_labels: bool = False
        "only studies whose labels differ too (14 observations of the built-in rules)"
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section
        "of the report, as the training will read it"
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning
        "as the training will clean it"
        backbone: BackboneConfig = BackboneConfig(trainable=False)  # noqa: RUF009  # frozen
        "the image encoder of --by image and --by both"
        images: ImageConfig = ImageConfig()  # noqa: RUF009  # frozen
        "what it is shown"
        features: Path | None = None
        "folder of its feature cache; the user's cache folder when empty"

    _mine(parsed(Mine, arguments, "mine-negatives"))


def _mine(options: Any) -> None:
    from rayscribe.methods import recipe_with

    backbone, by = options.backbone, options.by
    if options.top < 1:
        raise InputError(f"--top {options.top}: at least 1")
    if by != "text" and not backbone.weights:
        raise InputError(f"--by {by}: name trained weights with --backbone.weights (a file, or `pretrained`)")
    about: dict[str, Any] = {"by": by, "top": options.top, "different_labels": options.different_labels}
    if by != "text":
        about["backbone"] = {"name": backbone.name, "weights": Path(backbone.weights).name}
        about["images"] = asdict(options.images)
    count, lacking = _write(options, about)
    print(f"{count} training studies with up to {options.top} negatives each by {by}; wrote {options.out}")
    name = recipe_with("candidates")
    if lacking:
        print(
            f"warning: {len(lacking)} of them have none, e.g. {lacking[0]}; training on this manifest will refuse them"
        )
    flags = "" if options.section == _USUAL.section else f" --text.section {options.section}"
    flags += "" if options.cleaning == _USUAL.cleaning else f" --text.cleaning {options.cleaning}"
    print(f"next: rayscribe train {name} --data {options.out} --run runs/{name}{flags}")


def _write(options: Any, about: dict[str, Any]) -> tuple[int, list[str]]:
    """Mines and writes. Returns the number of training studies, and those without any negative."""
    from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
    from rayscribe.data.split_reports import cleaned_report

    data, text = options.data, replace(_USUAL, section=options.section, cleaning=options.cleaning)
    manifest = read_manifest(data)
    pairs = [(study, report) for study in manifest.split("train") if (report := cleaned_report(study, text))]
    if len(pairs) < 2:
        raise InputError(f"{data}: {len(pairs)} training studies have the section {text.section!r}; nothing to compare")
    studies, found = [study for study, _ in pairs], _found(options, pairs)
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
    write_manifest(options.out, Manifest(studies=tuple(rows), provenance=provenance))
    return len(studies), [study.id for study, one in zip(studies, found, strict=True) if not one]


def _found(options: Any, pairs: list[tuple[Any, str]]) -> list[list[tuple[int, float]]]:
    """For every training study the rows of the most similar others, and how similar they are."""
    from tqdm import tqdm

    from rayscribe.data.mining import mine
    from rayscribe.metrics.labeler import RuleLabeler

    studies, reports = [study for study, _ in pairs], [report for _, report in pairs]
    labels = None
    if options.different_labels:
        labels = [tuple(map(int, states)) for states in RuleLabeler(as_chexpert=False).label(reports)]
    vectors = None
    if options.by != "text":
        from rayscribe.data.features import cached_features
        from rayscribe.data.mining import image_vectors
        from rayscribe.models.backbones import Backbone

        encoder = Backbone(replace(options.backbone, trainable=False)).eval()
        bar: ProgressBar = partial(tqdm, desc="image features", unit="block")
        cache = cached_features(studies, encoder, options.images, folder=options.features, progress=bar)
        vectors = image_vectors(studies, cache)
    return mine(
        studies,
        reports,
        top=options.top,
        images=vectors,
        with_text=options.by != "image",
        labels=labels,
        progress=partial(tqdm, desc="mining", unit="block"),
    )
