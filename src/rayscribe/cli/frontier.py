"""`rayscribe frontier`: overlap against findings, what one fit reaches under every aim.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rayscribe.cli.arguments import parsed
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.progress import progress_bar

if TYPE_CHECKING:
    from rayscribe.data.manifest import Manifest
    from rayscribe.evaluation.frontier import PointKind

Sets = dict[tuple["PointKind", str], dict[str, str]]


def frontier_verb(arguments: list[str]) -> None:
    import tyro

    from rayscribe.evaluation.protocol import Protocol

    @dataclass(frozen=True, kw_only=True)
    class Frontier:
        """Draws overlap against findings: a line of one model's aims, with floors and other systems as points."""

        model: Path
        "the folder of a model that can aim, such as `rayscribe train consensus` writes"
        data: Path
        "the manifest"
        out: Path
        "the folder to write frontier.json, frontier.svg and frontier.png to"
        systems: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
        "predictions of another system to draw as a point, as NAME=FILE; may be repeated"
        split: str = "val"
        "train, val or test; a look at test is noted in the model's folder"
        features: Path | None = None
        "the folder that caches the features of frozen backbones; by default in the user's cache folder"
        protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)

    _frontier(parsed(Frontier, arguments, "frontier"))


def _frontier(options: Any) -> None:
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.predictions import read_predictions
    from rayscribe.evaluation.frontier import frontier
    from rayscribe.metrics.labeler import RuleLabeler
    from rayscribe.pages.frontier import frontier_figure, frontier_text
    from rayscribe.pages.plots import save_figure
    from rayscribe.provenance import note_test

    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: is a file; name a folder with --out")
    manifest = read_manifest(options.data)
    systems: Sets = {}
    for argument in options.systems:
        name, equals, path = argument.partition("=")
        if not equals or not name:
            raise InputError(f"--systems {argument}: write NAME=FILE, such as r2gen=predictions.jsonl")
        systems["system", name] = dict(read_predictions(Path(path)))
    sets = _aims(options, manifest) | systems
    if options.split == "test":
        note_test(options.model, {"frontier": str(options.out), "split": options.split})
    bar = partial(progress_bar, desc="small pictures", unit="image")
    result = frontier(manifest, options.split, options.protocol, sets, RuleLabeler(), progress=bar)
    write_text(options.out / "frontier.json", json.dumps(result, indent=1) + "\n")
    save_figure(frontier_figure(result), options.out, "frontier")
    print(frontier_text(result))
    print(f"wrote frontier.json, frontier.svg and frontier.png into {options.out}")


def _aims(options: Any, manifest: "Manifest") -> Sets:
    """The reports of the model under each of its aims."""
    from rayscribe.api.models import open_reporter
    from rayscribe.drafts import DecodingConfig
    from rayscribe.inference.writer import FittedReporter, FittedWriter

    writer = open_reporter(options.model)
    if not isinstance(writer, FittedWriter) or writer.trained.method.aims is None:
        raise InputError(
            f"{options.model}: this model has one aim; train one that has several: rayscribe train consensus"
        )
    drafters = writer.trained.method.aims(writer.trained.config, writer.trained.fitted)
    studies = writer.studies(manifest, options.split)
    reporter = writer.reporter(studies, states=None, features=options.features)
    assert isinstance(reporter, FittedReporter)
    found: Sets = {}
    for name in progress_bar(drafters, desc="aims", unit="aim"):
        drafts = replace(reporter, drafter=drafters[name]).draft(studies, DecodingConfig())
        found["aim", name] = {study.id: draft.reports[0] for study, draft in zip(studies, drafts, strict=True)}
    return found
