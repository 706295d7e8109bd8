"""`rayscribe generate` and `rayscribe predict`: a model's reports for a split, or for one study's images.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.progress import progress_bar

if TYPE_CHECKING:
    from rayscribe.drafts import Draft
    from rayscribe.inference.split import SplitJob, Written

Preset = Literal["greedy", "koehler"]
"Names of `rayscribe.drafts.PRESETS`."


def generate_verb(arguments: list[str]) -> None:
    from rayscribe.drafts import DecodingConfig

    @dataclass(frozen=True, kw_only=True)
    class Generate:
        """Writes a report for every study of a split, one JSON line each. An interrupted run continues where it stopped."""

        model: Path
        "the model folder; of a set of splits, the folder that `rayscribe train` wrote, with one model each"
        data: Path
        "the manifest, or a folder of manifests (`rayscribe resplit`)"
        out: Path
        "the predictions file to write (JSONL); of a set of splits, the folder for one file each"
        split: str = "test"
        "train, val or test"
        decoding: DecodingConfig = field(default_factory=DecodingConfig)
        preset: Preset | None = None
        "greedy, or koehler (Koehler et al.'s sampling for Llama-3.2-Vision), instead of --decoding"
        features: Path | None = None
        "the folder that caches the features of frozen backbones; by default in the user's cache folder"
        states: Path | None = None
        "a table of findings (from `rayscribe classify label`), for models that read findings before they write"
        base: str | None = None
        "vision LLMs: where the base model is now, if it was moved"
        download: bool = False
        "vision LLMs: download the base model from the Hugging Face hub if it is not on this disk"
        device: str | None = None
        "cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none"

    _generate(parsed(Generate, arguments, "generate"))


def _generate(options: Any) -> None:
    from rayscribe.data.split_sets import is_split_set
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.inference.split import SplitJob

    job = SplitJob(
        model=options.model,
        data=options.data,
        out=options.out,
        split=options.split,
        decoding=_decoding(options.decoding, options.preset),
        features=options.features,
        states=options.states,
    )
    if is_split_set(options.data):
        jobs = _jobs(job)
        for number, (name, one) in enumerate(jobs.items(), 1):
            place = f"split {number} of {len(jobs)}"
            written = _written(one, options, f"{place}, generating")
            print(f"{place}: {name}, {written.reports} reports in {one.out}")
        print(DISCLAIMER)
    else:
        written = _written(job, options, "generating")
        print(f"{written.reports} reports in {options.out}. {DISCLAIMER}")
    usual = {"section": Protocol().section, "cleaning": Protocol().cleaning}
    flags = "".join(f" --{name} {value}" for name, value in written.protocol.items() if value != usual[name])
    flags += " --json set.json" if is_split_set(options.data) else ""
    print(f"next: rayscribe evaluate {options.out} --data {options.data} --split {options.split}{flags}")


def _written(job: "SplitJob", options: Any, desc: str) -> "Written":
    """What the predictions file of a job contains after its run."""
    from rayscribe.api.models import open_reporter
    from rayscribe.inference.split import write_predictions

    writer = open_reporter(job.model, base=options.base, download=options.download, device=options.device)
    return write_predictions(writer, job, progress=partial(progress_bar, desc=desc, unit="batch"))


def _jobs(whole: "SplitJob") -> "dict[str, SplitJob]":
    """The jobs of a set by split. Raises InputError, before anything is written, for models that do not go with the splits."""
    from rayscribe.data.split_sets import split_manifests
    from rayscribe.training.split_sets import models_of_splits

    if whole.out.is_file():
        raise InputError(
            f"{whole.out}: is a file; the predictions of a set of splits are a folder, name one with --out"
        )
    if whole.states is not None:
        raise InputError(
            f"--states {whole.states}: a classifier's findings belong to one split, because it has learned from studies that "
            "other splits test on; generate each split by itself"
        )
    manifests = split_manifests(whole.data)
    return {
        name: replace(whole, model=model, data=manifests[name], out=whole.out / f"{name}.jsonl")
        for name, model in models_of_splits(whole.model, manifests).items()
    }


def predict_verb(arguments: list[str]) -> None:
    import tyro

    from rayscribe.drafts import DecodingConfig

    @dataclass(frozen=True, kw_only=True)
    class Predict:
        """Drafts a report for one study of one or more images."""

        images: tyro.conf.Positional[tuple[Path, ...]]
        "PNG, JPEG or DICOM files of one study"
        model: Path = Path("demo/run")
        "the model folder; the default is what `rayscribe demo` trained"
        raw: bool = False
        "print the words as the model wrote them, not as sentences"
        json: bool = False
        "print JSON"
        out: Path | None = None
        "also write the draft to this file (JSON), for `rayscribe export`"
        best: int = 1
        "print this many alternatives, best first"
        classifier: Path | None = None
        "the folder of a classifier, for models that read its findings before they write"
        base: str | None = None
        "vision LLMs: where the base model is now, if it was moved"
        download: bool = False
        "vision LLMs: download the base model from the Hugging Face hub if it is not on this disk"
        device: str | None = None
        "cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none"
        decoding: DecodingConfig = field(default_factory=DecodingConfig)
        preset: Preset | None = None
        "greedy, or koehler (Koehler et al.'s sampling for Llama-3.2-Vision), instead of --decoding"

    options = parsed(Predict, arguments, "predict")
    if not options.images:
        raise InputError("name at least one image; usage: rayscribe predict IMAGE... --model DIR")
    _predict(options)


def _predict(options: Any) -> None:
    from rayscribe.api.models import open_reporter

    if options.out is not None:
        _check_target(options.out, options.images)
    states = None
    if options.classifier is not None:
        from rayscribe.classifiers.folder import load_classifier
        from rayscribe.classifiers.predict import classified
        from rayscribe.models.device import chosen_device

        trained = load_classifier(options.classifier, chosen_device(options.device))
        states = classified(trained, options.images).states()
    writer = open_reporter(options.model, base=options.base, download=options.download, device=options.device)
    study = writer.read(options.images, states=states)
    (draft,) = writer.draft([study], _decoding(options.decoding, options.preset), best=options.best)
    if options.json:
        print(json.dumps(_answer(draft, options), indent=2, ensure_ascii=False))
    else:
        _print_draft(draft, options)
    if options.out is not None:
        _write_draft(draft, options.model, options.images, options.out)
        print(f"wrote {options.out}", file=sys.stderr if options.json else sys.stdout)  # JSON stays JSON


def _check_target(out: Path, images: tuple[Path, ...]) -> None:
    """Raises InputError where the draft would replace an image, or a file that is no draft."""
    if any(out.resolve() == image.resolve() for image in images):
        raise InputError(f"{out}: is one of the images; name another file with --out")
    if out.is_file():
        from rayscribe.reports.document import read_document

        try:
            read_document(out.read_bytes(), str(out))
        except InputError as error:
            raise InputError(f"{out}: exists and is no draft; name another file with --out") from error


def _print_draft(draft: "Draft", options: Any) -> None:
    for warning in draft.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    texts = _texts(draft, options)
    print("\n".join(texts if len(texts) == 1 else [f"{place}. {text}" for place, text in enumerate(texts, start=1)]))
    if draft.studies:
        positive = [
            f"{name} {draft.probabilities[name]:.2f}" for name, state in draft.diagnosis.items() if state == "positive"
        ]
        print(f"\nFindings above their thresholds, with probabilities: {', '.join(positive) or 'none'}")
        print(f"Expected scores: {', '.join(f'{name} {value:.2f}' for name, value in draft.expected.items())}")
        print(
            f"Training studies that speak for it: {', '.join(f'{one.id} ({one.share:.0%})' for one in draft.studies)}"
        )
    elif told := [f"{name} {state}" for name, state in draft.diagnosis.items() if state != "not mentioned"]:
        print(f"\nThe model wrote this from the findings: {', '.join(told)}")
    print(f"\n{DISCLAIMER}")


def _answer(draft: "Draft", options: Any) -> dict[str, Any]:
    """What `--json` prints."""
    first, *others = _texts(draft, options)
    answer: dict[str, Any] = {"report": first, "raw": draft.reports[0]}
    answer |= {"model": str(options.model), "disclaimer": DISCLAIMER}
    if draft.diagnosis:
        answer["diagnosis"] = draft.diagnosis
    if draft.studies:
        answer["probabilities"] = {name: round(value, 4) for name, value in draft.probabilities.items()}
        answer["expected"] = {name: round(value, 4) for name, value in draft.expected.items()}
        answer["studies"] = [{"id": one.id, "share": round(one.share, 4)} for one in draft.studies]
    if draft.warnings:
        answer["warnings"] = draft.warnings
    if options.best > 1:
        answer["alternatives"] = others
    return answer


def _texts(draft: "Draft", options: Any) -> list[str]:
    """The n-best as sentences, or with `--raw` as the model wrote them."""
    from rayscribe.reports.drafting import readable_report

    return draft.reports if options.raw else [readable_report(report) for report in draft.reports]


def _write_draft(draft: "Draft", model: Path, images: tuple[Path, ...], out: Path) -> None:
    from rayscribe.files import write_text
    from rayscribe.reports.document import document_json
    from rayscribe.reports.drafting import author_of, document_of, without_names

    document = document_of(
        without_names(draft, images), author_of(model), images=len(images), created=datetime.now(UTC)
    )
    write_text(out, document_json(document))


def _decoding(given: Any, preset: Preset | None) -> Any:
    """Of --decoding a preset takes the seed alone."""
    from rayscribe.drafts import PRESETS, DecodingConfig

    if preset is None:
        return given
    if given != DecodingConfig(seed=given.seed):
        raise InputError(f"--preset {preset} replaces --decoding; give one of them (--decoding.seed goes with both)")
    return replace(PRESETS[preset], seed=given.seed)
