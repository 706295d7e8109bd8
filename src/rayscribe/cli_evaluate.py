"""The verbs that score and check: `evaluate`, `compare`, `label`, `audit`. None of them needs a model or torch.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from rayscribe.arguments import parsed
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import write_text


def evaluate(arguments: list[str]) -> None:
    import tyro

    from rayscribe.protocol import Protocol

    @dataclass(frozen=True, kw_only=True)
    class Evaluate:
        """Scores predictions with intervals, floors, tests and alarms."""

        predictions: tyro.conf.Positional[Path]
        "JSONL, CSV or JSON with ids and reports; your own or another system's"
        data: Path
        "the manifest"
        split: str = "test"
        "train, val or test"
        protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)
        json: Path | None = None
        "write the scores there"
        html: Path | None = None
        "write a page there"
        plots: Path | None = None
        "write the page's drawings into this folder, as SVG and PNG"
        chexbert: Path | None = None
        "label with this CheXbert checkpoint instead of the built-in rules"
        bert: Path | None = None
        "folder of bert-base-uncased's config and vocabulary, which CheXbert needs"
        predicted_labels: Path | None = None
        "a table of labels of the predictions, made elsewhere"
        reference_labels: Path | None = None
        "a table of labels of the references, made by the same labeler"
        image_floors: bool = True
        "read the images for the floors that need them"

    wanted = parsed(Evaluate, arguments, "evaluate")
    _evaluate(wanted)


def _evaluate(wanted: Any) -> None:
    from tqdm import tqdm

    from rayscribe.data.manifest import read_manifest
    from rayscribe.evaluate import STAGES, Tools
    from rayscribe.evaluate import evaluate as scored
    from rayscribe.label_tables import LabelTables
    from rayscribe.predictions import read_predictions
    from rayscribe.protocol import check_protocol, reference_reports, written_reports
    from rayscribe.summary import summary

    if (wanted.predicted_labels is None) != (wanted.reference_labels is None):
        raise InputError(
            "give both --predicted-labels and --reference-labels; labels of two labelers are not comparable"
        )
    check_protocol(wanted.predictions, wanted.protocol)
    predictions, manifest = read_predictions(wanted.predictions), read_manifest(wanted.data)
    tables = LabelTables.read(wanted.predicted_labels, wanted.reference_labels) if wanted.predicted_labels else None
    tools = Tools(labeler=_labeler(wanted.chexbert, wanted.bert), tables=tables, image_floors=wanted.image_floors)
    with tqdm(total=STAGES, unit="stage") as bar:

        def stage(name: str) -> None:
            bar.set_description(name)
            bar.update()

        result = scored(predictions, manifest, split=wanted.split, protocol=wanted.protocol, tools=tools, stage=stage)
    print(summary(result))
    if wanted.split == "test":
        _note_scored(wanted.predictions, result)
    if wanted.json is not None:
        write_text(wanted.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {wanted.json}")
    if wanted.plots is not None:
        from rayscribe.pages.plots import write_plots

        print(f"wrote {len(write_plots(result, wanted.plots))} drawings into {wanted.plots}")
    if wanted.html is not None:
        from rayscribe.pages.evaluation import evaluation_page

        references = reference_reports(manifest, wanted.split, wanted.protocol)
        reports = written_reports(predictions, references, wanted.split, wanted.protocol)
        write_text(wanted.html, evaluation_page(result, manifest, reports, references))
        print(f"wrote {wanted.html}")


def _note_scored(predictions: Path, result: dict[str, Any]) -> None:
    """Every look at the test split is noted in the folder of the model that wrote the reports."""
    meta = predictions.with_name(predictions.name + ".meta.json")
    folder = Path(json.loads(meta.read_text()).get("folder", "")) if meta.exists() else Path()
    if folder.name and folder.is_dir():
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "scored": predictions.name,
            "signature": result["signature"],
        }
        with open(folder / "test-log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def compare(arguments: list[str]) -> None:
    import tyro

    def compare_scores(
        scores: tyro.conf.Positional[tuple[str, ...]],
        html: Path | None = None,
        latex: Path | None = None,
        json: Path | None = None,
    ) -> None:
        """Puts score files of one protocol into one table, with tests.

        Args:
            scores: score files, or name=one.json,two.json,three.json for the seeds of one system; the tests are
                against the first; files of different protocols are refused
            html: write a page there
            latex: write a table there
            json: write everything there
        """
        _compare(scores, html, latex, json)

    parsed(compare_scores, arguments, "compare")


def _compare(scores: tuple[str, ...], page: Path | None, latex: Path | None, target: Path | None) -> None:
    from rayscribe.compare import compare as compared
    from rayscribe.compare import read_entry
    from rayscribe.pages.compare import compare_latex, compare_page, compare_text

    result = compared([read_entry(one) for one in scores])
    print(compare_text(result))
    makers: list[tuple[Path | None, Callable[[dict[str, Any]], str]]] = [
        (page, compare_page),
        (latex, compare_latex),
        (target, lambda found: json.dumps(found, indent=1, ensure_ascii=False) + "\n"),
    ]
    for path, make in makers:
        if path is not None:
            write_text(path, make(result))
            print(f"wrote {path}")


def label(arguments: list[str]) -> None:
    import tyro

    def label_reports(
        table: tyro.conf.Positional[Path],
        out: Path,
        column: tuple[str, ...] = ("report",),
        evidence: Path | None = None,
        chexbert: Path | None = None,
        bert: Path | None = None,
    ) -> None:
        """Labels reports: 1 positive, 0 negative, -1 uncertain, blank not mentioned.

        Args:
            table: CSV, TSV, JSONL or Parquet with a text column; a manifest too
            out: the table of labels to write; the other columns are kept, the texts are not
            column: the column of the text; several are read one after the other
            evidence: write every mention there, one JSON line a report: words, place, side, cue (holds report text)
            chexbert: label with this CheXbert checkpoint instead of the built-in rules
            bert: folder of bert-base-uncased's config and vocabulary, which CheXbert needs
        """
        _label(table, out, column, evidence, _labeler(chexbert, bert), rules=chexbert is None)

    parsed(label_reports, arguments, "label")


def _label(
    path: Path, out: Path, columns: tuple[str, ...], evidence: Path | None, labeler: Any, *, rules: bool
) -> None:
    from dataclasses import asdict

    import numpy as np
    from tqdm import tqdm

    from rayscribe.data.table import is_short, read_rows
    from rayscribe.label_tables import write_labels
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
    reports = ["\n".join(str(row[name] or "").strip() for name in columns).strip() for row in rows]
    blocks = range(0, len(reports), 1000)
    labels = np.concatenate(
        [labeler.label(reports[at : at + 1000]) for at in tqdm(blocks, desc="labelling", unit="block")]
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


def audit(arguments: list[str]) -> None:
    import tyro

    def audit_split(
        data: tyro.conf.Positional[Path],
        json: Path | None = None,
        html: Path | None = None,
        resplit: Path | None = None,
        read_images: bool = True,
        seed: int = 0,
    ) -> None:
        """Checks a split: copies, label shift, patients, sections, views, images.

        Args:
            data: the manifest
            json: write what was found there
            html: write a page there
            resplit: write a split without copies across splits and with equal label shares there (a table of id and split)
            read_images: decode every image
            seed: of the new split
        """
        _audit(data, json, html, resplit, read_images, seed)

    parsed(audit_split, arguments, "audit")


def _audit(
    data: Path, target: Path | None, page: Path | None, resplit: Path | None, read_images: bool, seed: int
) -> None:
    from tqdm import tqdm

    from rayscribe.data.audit import audit as audited
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.resplit import stratified_split, write_split
    from rayscribe.metrics.labeler import RuleLabeler
    from rayscribe.pages.audit import audit_page, audit_text

    manifest = read_manifest(data)
    total = len({path for study in manifest.studies for path in study.images})
    result, copies = audited(
        manifest,
        RuleLabeler(),
        read_images=read_images,
        progress=lambda looks: tqdm(looks, total=total, desc="reading images", unit="image"),
    )
    print(audit_text(result))
    if target is not None:
        write_text(target, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {target}")
    if page is not None:
        write_text(page, audit_page(result))
        print(f"wrote {page}")
    if resplit is not None:
        labels = RuleLabeler().label([f"{study.findings}\n{study.impression}" for study in manifest.studies])
        split = stratified_split(manifest.studies, copies, labels, seed=seed)
        write_split(resplit, split)
        print(f"wrote {resplit}\nnext: rayscribe prepare ... --splits {resplit} --out {data.stem}-resplit.parquet")


def _labeler(checkpoint: Path | None, bert: Path | None) -> Any:
    if checkpoint is None:
        from rayscribe.metrics.labeler import RuleLabeler

        return RuleLabeler()
    if bert is None:
        raise InputError("CheXbert needs --bert: a folder with the config.json and vocab.txt of bert-base-uncased")
    from rayscribe.metrics.chexbert import CheXbert

    return CheXbert.load(checkpoint, bert)
