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
from rayscribe.provenance import note_test

if TYPE_CHECKING:
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.tools import Tools


def evaluate_verb(arguments: list[str]) -> None:
    import tyro

    from rayscribe.evaluation.protocol import Protocol

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
        reading: RuleReading = "plain"
        "plain, or chexpert: the built-in rules with the CheXpert labeler's misreadings, for numbers made with its output"
        chexbert: Path | None = None
        "label with this CheXbert checkpoint instead of the built-in rules"
        bert: Path | None = None
        "folder of bert-base-uncased's config and vocabulary, which CheXbert needs"
        predicted_labels: Path | None = None
        "a table of labels of the predictions, made elsewhere"
        reference_labels: Path | None = None
        "a table of labels of the references, made by the same labeler"
        radgraph: Path | None = None
        "folder of a RadGraph model on disk (radgraph or radgraph-xl); adds its F1"
        predicted_graphs: Path | None = None
        "RadGraph's JSON of the predictions by study id, made elsewhere"
        reference_graphs: Path | None = None
        "the same of the references"
        sentences: Path | None = None
        "folder of a sentence-transformers model on disk, or `installed` for the package with all-MiniLM-L6-v2; adds the cosine"
        template_findings: Path | None = None
        "a classifier's findings (`rayscribe classify label`), for a floor that fills them into stock sentences"
        image_floors: bool = True
        "read the images for the floors that need them"

    _evaluate(parsed(Evaluate, arguments, "evaluate"))


def _evaluate(wanted: Any) -> None:
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.predictions import read_predictions
    from rayscribe.evaluation.protocol import check_protocol
    from rayscribe.pages.summary import summary

    _check_pairs(wanted)
    check_protocol(wanted.predictions, wanted.protocol)
    predictions, manifest = read_predictions(wanted.predictions), read_manifest(wanted.data)
    result = _scored(wanted, predictions, manifest, _tools(wanted))
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
        write_text(wanted.html, _page(wanted, predictions, manifest, result))
        print(f"wrote {wanted.html}")


def _check_pairs(wanted: Any) -> None:
    if (wanted.predicted_labels is None) != (wanted.reference_labels is None):
        raise InputError(
            "give both --predicted-labels and --reference-labels; labels of two labelers are not comparable"
        )
    if (wanted.predicted_graphs is None) != (wanted.reference_graphs is None):
        raise InputError("give both --predicted-graphs and --reference-graphs")


def _tools(wanted: Any) -> "Tools":
    """The labeler, models and tables that the options name."""
    from rayscribe.data.label_tables import LabelTables, read_labels
    from rayscribe.evaluation.tools import Tools
    from rayscribe.metrics.radgraph import RadGraph, read_annotations
    from rayscribe.metrics.similarity import SentenceEncoder

    tables = LabelTables.read(wanted.predicted_labels, wanted.reference_labels) if wanted.predicted_labels else None
    tools = Tools(
        labeler=chosen_labeler(wanted.chexbert, wanted.bert, wanted.reading),
        tables=tables,
        template_findings=read_labels(wanted.template_findings) if wanted.template_findings else None,
        image_floors=wanted.image_floors,
    )
    if wanted.predicted_graphs is not None:
        graphs = read_annotations(wanted.predicted_graphs), read_annotations(wanted.reference_graphs)
        tools = replace(tools, graphs=graphs)
    elif wanted.radgraph is not None:
        tools = replace(tools, radgraph=RadGraph.load(wanted.radgraph))
    if wanted.sentences is not None:
        folder = None if wanted.sentences == Path("installed") else wanted.sentences
        tools = replace(tools, sentences=SentenceEncoder.load(folder))
    return tools


def _scored(wanted: Any, predictions: dict[str, str], manifest: "Manifest", tools: "Tools") -> dict[str, Any]:
    """The scores, with a bar that shows the stage."""
    from tqdm import tqdm

    from rayscribe.evaluation.evaluate import STAGES, evaluate

    with tqdm(total=STAGES, unit="stage") as bar:

        def stage(name: str) -> None:
            bar.set_description(name)
            bar.update()

        return evaluate(
            predictions,
            manifest,
            split=wanted.split,
            protocol=wanted.protocol,
            tools=tools,
            stage=stage,
            progress=lambda things: tqdm(things, leave=False),
        )


def _page(wanted: Any, predictions: dict[str, str], manifest: "Manifest", result: dict[str, Any]) -> str:
    from rayscribe.evaluation.protocol import reference_reports, written_reports
    from rayscribe.pages.evaluation import evaluation_page

    references = reference_reports(manifest, wanted.split, wanted.protocol)
    reports = written_reports(predictions, references, wanted.split, wanted.protocol)
    return evaluation_page(result, manifest, reports, references)


def _note_scored(predictions: Path, result: dict[str, Any]) -> None:
    """Every look at the test split is noted in the folder of the model that wrote the reports."""
    meta = predictions.with_name(predictions.name + ".meta.json")
    folder = Path(json.loads(meta.read_text()).get("folder", "")) if meta.exists() else Path()
    if folder.name and folder.is_dir():
        note_test(folder, {"scored": predictions.name, "signature": result["signature"]})


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
            scores: score files, or name=one.json,two.json,three.json for the seeds of one system; the tests are
                against the first; files of different protocols are refused
            html: write a page there
            latex: write a table there
            json: write everything there
        """
        _compare(scores, html, latex, json)

    parsed(compare_scores, arguments, "compare")


def _compare(scores: tuple[str, ...], page: Path | None, latex: Path | None, target: Path | None) -> None:
    from rayscribe.evaluation.compare import compare, read_entry
    from rayscribe.pages.compare import compare_latex, compare_page, compare_text

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
