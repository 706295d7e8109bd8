"""`rayscribe resplit`: a manifest to manifests with other splits, so that a score does not hang on one of them.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayscribe.cli.arguments import parsed
from rayscribe.errors import InputError


def resplit_verb(arguments: list[str]) -> None:
    """Writes split-0.parquet, split-1.parquet, ... into a folder."""
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Resplit:
        """Draws random splits of the old sizes and label shares; patients and copies of an image stay together."""

        data: tyro.conf.Positional[Path]
        "the manifest"
        out: Path
        "the folder to write the manifests to"
        seeds: int = 5
        "number of splits; their seeds are 0, 1, 2, ..."
        no_shared_reports: tyro.conf.FlagCreatePairsOff[bool] = False
        "keep studies with the same report in one split"
        group_near_duplicates: tyro.conf.FlagCreatePairsOff[bool] = False
        "keep studies with nearly the same report in one split, too"

    _resplit(parsed(Resplit, arguments, "resplit"))


def _resplit(options: Any) -> None:
    from rayscribe.data.audit import find_copies
    from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
    from rayscribe.data.resplit import stratified_split
    from rayscribe.data.split_sets import RESPLIT
    from rayscribe.metrics.labeler import RuleLabeler
    from rayscribe.progress import progress_bar

    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: must be at least 1")
    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out}: is not empty; delete it, or give another --out")
    manifest = read_manifest(options.data)
    labels = RuleLabeler().label([f"{study.findings}\n{study.impression}" for study in manifest.studies])
    copies = find_copies(manifest.studies, with_near=options.group_near_duplicates)
    apart = options.no_shared_reports or options.group_near_duplicates
    copies = copies if apart else replace(copies, texts=[])
    for seed in progress_bar(range(options.seeds), desc="splits", unit="split"):
        split = stratified_split(manifest.studies, copies, labels, seed=seed)
        rows = tuple(
            replace(study, split=split[study.id], negatives=(), negative_scores=()) for study in manifest.studies
        )
        about = {key: value for key, value in manifest.provenance.items() if key != "negatives"}
        kept = "near-duplicates" if options.group_near_duplicates else "reports" if apart else "patients"
        about[RESPLIT] = {"seed": seed, "kept_together": kept, "from": manifest.digest()}
        write_manifest(options.out / f"split-{seed}.parquet", Manifest(studies=rows, provenance=about))
    print(f"wrote {options.seeds} manifests to {options.out}")
    print(f"next: rayscribe train consensus --data {options.out} --run runs/consensus")
