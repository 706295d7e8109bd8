"""The verbs that score: `evaluate` and `compare`. Neither needs a model or torch.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rayscribe.cli.arguments import RuleReading, chosen_labeler, parsed
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.progress import Meter, progress_bar

if TYPE_CHECKING:
    from rayscribe.evaluation.scorers import Scorers


def evaluate_verb(arguments: list[str]) -> None:
    import tyro

    from rayscribe.evaluation.protocol import Protocol

    @dataclass(frozen=True, kw_only=True)
    class Evaluate:
        """Scores predictions with intervals, floors, tests and alarms."""

        predictions: tyro.conf.Positional[Path]
        "JSONL, CSV or JSON with ids and reports; your own or another system's; a folder of them for a set of splits"
        data: Path
        "the manifest, or a folder of manifests (`rayscribe resplit`)"
        split: str = "test"
        "train, val or test"
        protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)
        json: Path | None = None
        "write the scores to this file"
        html: Path | None = None
        "write the scores to this page"
        plots: Path | None = None
        "write the page's plots to this folder, as SVG and PNG"
        reading: RuleReading = "plain"
        "plain, or chexpert: misread as the CheXpert labeler does, to compare with numbers made from its output"
        chexbert: Path | None = None
        "label with this CheXbert checkpoint instead of the built-in rules"
        bert: Path | None = None
        "the folder with the config and vocabulary of bert-base-uncased, which CheXbert needs"
        predicted_labels: Path | None = None
        "a table of the predictions' labels, made elsewhere"
        reference_labels: Path | None = None
        "a table of the references' labels, made by the same labeler"
        radgraph: Path | None = None
        "the folder of a RadGraph model (radgraph or radgraph-xl); adds its F1"
        predicted_graphs: Path | None = None
        "RadGraph's JSON for the predictions, by study id, made elsewhere"
        reference_graphs: Path | None = None
        "the same for the references"
        sentences: Path | None = None
        "the folder of a sentence-transformers model, or `installed` for the packaged all-MiniLM-L6-v2; adds its cosine"
        template_findings: Path | None = None
        "a classifier's findings (from `rayscribe classify label`), for a floor that puts them into stock sentences"
        image_floors: bool = True
        "compute the floors that need the images"

    _evaluate(parsed(Evaluate, arguments, "evaluate"))


def _evaluate(options: Any) -> None:
    from rayscribe.data.split_sets import is_split_set
    from rayscribe.pages.split_sets import split_set_text
    from rayscribe.pages.summary import summary

    _check_pairs(options)
    if is_split_set(options.data):
        _check_for_sets(options)
    result = _scored(options, _scorers(options))
    print(split_set_text(result) if "splits" in result else summary(result))
    if options.json is not None:
        write_text(options.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {options.json}")
    if options.plots is not None:
        from rayscribe.pages.plots import write_plots

        print(f"wrote {len(write_plots(result, options.plots))} drawings into {options.plots}")
    if options.html is not None:
        write_text(options.html, _page(options, result))
        print(f"wrote {options.html}")


def _check_pairs(options: Any) -> None:
    if (options.predicted_labels is None) != (options.reference_labels is None):
        raise InputError(
            "give both --predicted-labels and --reference-labels; labels of two labelers are not comparable"
        )
    if (options.predicted_graphs is None) != (options.reference_graphs is None):
        raise InputError("give both --predicted-graphs and --reference-graphs")


def _check_for_sets(options: Any) -> None:
    """Raises InputError for options that belong to one split: a table or a drawing of a set has to say of which."""
    given = {
        "--predicted-labels": options.predicted_labels,
        "--predicted-graphs": options.predicted_graphs,
        "--template-findings": options.template_findings,
        "--plots": options.plots,
    }
    if of_one := [flag for flag, value in given.items() if value is not None]:
        raise InputError(
            f"{', '.join(of_one)}: belongs to one split, and {options.data} is a set of splits; evaluate that split by itself"
        )


def _scorers(options: Any) -> "Scorers":
    """The labeler, models and tables that the options name."""
    from rayscribe.data.label_tables import LabelTables, read_labels
    from rayscribe.evaluation.scorers import Scorers
    from rayscribe.metrics.radgraph import RadGraph, read_annotations
    from rayscribe.metrics.similarity import SentenceEncoder

    tables = LabelTables.read(options.predicted_labels, options.reference_labels) if options.predicted_labels else None
    scorers = Scorers(
        labeler=chosen_labeler(options.chexbert, options.bert, options.reading),
        tables=tables,
        template_findings=read_labels(options.template_findings) if options.template_findings else None,
        image_floors=options.image_floors,
    )
    if options.predicted_graphs is not None:
        graphs = read_annotations(options.predicted_graphs), read_annotations(options.reference_graphs)
        scorers = replace(scorers, graphs=graphs)
    elif options.radgraph is not None:
        scorers = replace(scorers, radgraph=RadGraph.load(options.radgraph))
    if options.sentences is not None:
        folder = None if options.sentences == Path("installed") else options.sentences
        scorers = replace(scorers, sentences=SentenceEncoder.load(folder))
    return scorers


def _scored(options: Any, scorers: "Scorers") -> dict[str, Any]:
    """The scores, with a bar that shows the stage."""
    from rayscribe.api.scoring import evaluate
    from rayscribe.data.split_sets import is_split_set, split_manifests
    from rayscribe.evaluation.evaluate import STAGES

    name, splits = "scoring", len(split_manifests(options.data)) if is_split_set(options.data) else 1
    with Meter(desc=name, unit="stage", total=STAGES * splits) as meter:

        def stage(begun: str) -> None:
            nonlocal name
            name = begun
            meter.describe(name)
            meter.update()

        return evaluate(
            options.predictions,
            options.data,
            split=options.split,
            protocol=options.protocol,
            scorers=scorers,
            stage=stage,
            progress=lambda things: progress_bar(things, desc=name, unit="step", leave=False),
        )


def _page(options: Any, result: dict[str, Any]) -> str:
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.predictions import read_predictions
    from rayscribe.evaluation.protocol import reference_reports, written_reports
    from rayscribe.pages.evaluation import evaluation_page
    from rayscribe.pages.split_sets import split_set_page

    if "splits" in result:
        return split_set_page(result)
    manifest = read_manifest(options.data)
    references = reference_reports(manifest, options.split, options.protocol)
    reports = written_reports(read_predictions(options.predictions), references, options.split, options.protocol)
    return evaluation_page(result, manifest, reports, references)


def compare_verb(arguments: list[str]) -> None:
    import tyro

    def compare_scores(
        scores: tyro.conf.Positional[tuple[str, ...]],
        html: Path | None = None,
        latex: Path | None = None,
        json: Path | None = None,
    ) -> None:
        """Puts score files of one protocol into one table, with tests.

        Args:
            scores: score files, or name=one.json,two.json,three.json for the seeds of one system; every system is tested
                against the first, and files of different protocols are refused; all of one split, or all of a set of splits
            html: write the table to this page
            latex: write the table to this file
            json: write everything to this file
        """
        _compare(scores, html, latex, json)

    parsed(compare_scores, arguments, "compare")


def _compare(scores: tuple[str, ...], page: Path | None, latex: Path | None, target: Path | None) -> None:
    from rayscribe.evaluation.compare import compare, read_entry
    from rayscribe.evaluation.compare_splits import are_sets, compare_splits, read_set_entry
    from rayscribe.pages.compare import compare_latex, compare_page, compare_text

    if are_sets(scores):
        result = compare_splits([read_set_entry(one) for one in scores])
    else:
        result = compare([read_entry(one) for one in scores])
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
