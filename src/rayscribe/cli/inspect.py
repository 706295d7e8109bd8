"""The verbs that look and change nothing: `label`, `audit` and `info`.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from rayscribe.cli.arguments import RuleReading, chosen_labeler, parsed
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import write_text
from rayscribe.progress import progress_bar


def label_verb(arguments: list[str]) -> None:
    import tyro

    def label_reports(
        table: tyro.conf.Positional[Path],
        out: Path,
        column: tuple[str, ...] = ("report",),
        reading: RuleReading = "chexpert",
        evidence: Path | None = None,
        chexbert: Path | None = None,
        bert: Path | None = None,
    ) -> None:
        """Labels reports with the 14 CheXpert observations: 1 positive, 0 negative, -1 uncertain, blank not mentioned.

        Args:
            table: a table with a text column (CSV, TSV, JSONL or Parquet); a manifest works too
            out: the table of labels to write; it keeps the other columns and drops the text
            column: the column that holds the text; several are joined
            reading: chexpert: reproduce the CheXpert labeler, misreadings included; plain: read as a radiologist would
            evidence: write every mention to this file, one JSON line per report: words, place, side, cue (contains report text)
            chexbert: label with this CheXbert checkpoint instead of the built-in rules
            bert: the folder with the config and vocabulary of bert-base-uncased, which CheXbert needs
        """
        _label(table, out, column, evidence, chosen_labeler(chexbert, bert, reading), rules=chexbert is None)

    parsed(label_reports, arguments, "label")


def _label(
    path: Path, out: Path, columns: tuple[str, ...], evidence: Path | None, labeler: Any, *, rules: bool
) -> None:
    from dataclasses import asdict

    import numpy as np

    from rayscribe.data.label_tables import write_labels
    from rayscribe.data.table import is_short, read_rows, text_of
    from rayscribe.metrics.labeler import mentions

    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path}: the table has no rows")
    if lacking := [name for name in columns if name not in rows[0]]:
        raise InputError(
            f"{path}: no column {', '.join(lacking)}; the columns are {', '.join(map(str, rows[0]))}. "
            "Name the text with --column"
        )
    if short := [number for number, row in enumerate(rows, start=1) if is_short(row)]:
        raise InputError(
            f"{path}, row {short[0]}: not as many fields as the header has; a text with commas needs quotes"
        )
    if evidence is not None and not rules:
        raise InputError("--evidence needs the built-in rules; CheXbert does not say which words it went by")
    reports = ["\n".join(text_of(row, name) for name in columns).strip() for row in rows]
    blocks = range(0, len(reports), 1000)
    labels = np.concatenate(
        [labeler.label(reports[at : at + 1000]) for at in progress_bar(blocks, desc="labelling", unit="block")]
    )
    write_labels(out, [{key: row[key] for key in row if key not in columns} for row in rows], labels)
    print(f"{len(reports)} reports, labelled by {labeler.name}: {out}. {DISCLAIMER}")
    if evidence is not None:
        lines = [
            json.dumps({"row": number, "mentions": [asdict(one) for one in mentions(report)]}, ensure_ascii=False)
            for number, report in enumerate(reports)
        ]
        write_text(evidence, "\n".join(lines) + "\n")
        print(f"wrote {evidence}")


def audit_verb(arguments: list[str]) -> None:
    import tyro

    def audit_split(
        data: tyro.conf.Positional[Path],
        json: Path | None = None,
        html: Path | None = None,
        resplit: Path | None = None,
        read_images: bool = True,
        seed: int = 0,
    ) -> None:
        """Checks a split: copies, label shift, shared patients, broken images, random splits, what gives the wording away.

        Args:
            data: the manifest
            json: write the results to this file
            html: write the results to this page
            resplit: write a new split to this table, with no copies across splits and equal label shares
            read_images: decode every image, to find the broken ones
            seed: random seed of the new split
        """
        _audit(data, json, html, resplit, read_images, seed)

    parsed(audit_split, arguments, "audit")


def _audit(
    data: Path, target: Path | None, page: Path | None, resplit: Path | None, read_images: bool, seed: int
) -> None:
    from rayscribe.data.audit import audit
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.resplit import stratified_split, write_split
    from rayscribe.evaluation.split_audit import against_random_splits, split_warnings, wording_clues
    from rayscribe.metrics.labeler import RuleLabeler
    from rayscribe.pages.audit import audit_page, audit_text

    manifest = read_manifest(data)
    total = len({path for study in manifest.studies for path in study.images})
    labeler = RuleLabeler()
    result, copies = audit(
        manifest,
        labeler,
        read_images=read_images,
        progress=partial(progress_bar, total=total, desc="reading images", unit="image"),
    )
    result["random_splits"] = against_random_splits(manifest.studies, copies, labeler)
    result["wording"] = wording_clues(
        manifest.studies, copies, read_images=read_images, progress=partial(progress_bar, desc="corners", unit="image")
    )
    result["warnings"] += split_warnings(result["random_splits"], result["wording"])
    print(audit_text(result))
    if target is not None:
        write_text(target, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {target}")
    if page is not None:
        write_text(page, audit_page(result))
        print(f"wrote {page}")
    if resplit is not None:
        labels = labeler.label([f"{study.findings}\n{study.impression}" for study in manifest.studies])
        split = stratified_split(manifest.studies, copies, labels, seed=seed)
        write_split(resplit, split)
        print(f"wrote {resplit}\nnext: rayscribe prepare ... --splits {resplit} --out {data.stem}-resplit.parquet")


def info(arguments: list[str]) -> None:
    import tyro

    def described(path: tyro.conf.Positional[Path | None] = None) -> None:
        """Describes a manifest or a model folder; without a path, the installed versions.

        Args:
            path: a manifest (.parquet) or a model folder
        """
        from rayscribe.cli.info import describe

        print(describe(path))

    parsed(described, arguments, "info")
