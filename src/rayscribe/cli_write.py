"""`rayscribe generate` and `rayscribe predict`: a model's reports for a split, or for one study's images.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayscribe.arguments import parsed
from rayscribe.errors import DISCLAIMER, InputError


def generate(arguments: list[str]) -> None:
    from rayscribe.config import DecodingConfig

    def write(
        model: Path,
        data: Path,
        out: Path,
        split: str = "test",
        decoding: DecodingConfig = DecodingConfig(),  # noqa: B008  # frozen
        features: Path | None = None,
        states: Path | None = None,
    ) -> None:
        """Writes reports for a split, one JSON line a study; can be interrupted.

        Args:
            model: the model folder
            data: the manifest
            out: the predictions file
            split: train, val or test
            decoding: how tokens are chosen; the default is R2Gen's search
            features: folder of the feature cache of frozen backbones; the user's cache folder when empty
            states: PromptMRG, KIF: a table of findings (`rayscribe classify label`) for the prompt; blank: the model's own
        """
        from tqdm import tqdm

        from rayscribe.checkpoint import read_config
        from rayscribe.config import TextConfig
        from rayscribe.generate import generate as write_reports

        count = write_reports(
            model,
            data,
            out,
            split=split,
            decoding=decoding,
            features=features,
            states=states,
            progress=lambda starts: tqdm(starts, desc="generating", unit="batch"),
        )
        print(f"{count} reports in {out}. {DISCLAIMER}")
        text = read_config(model).text
        usual = TextConfig()
        flags = "" if text.section == usual.section else f" --section {text.section}"
        flags += "" if text.cleaning == usual.cleaning else f" --cleaning {text.cleaning}"
        print(f"next: rayscribe evaluate {out} --data {data} --split {split}{flags}")

    parsed(write, arguments, "generate")


def predict(arguments: list[str]) -> None:
    import tyro

    from rayscribe.config import DecodingConfig

    @dataclass(frozen=True, kw_only=True)
    class Predict:
        """Prints a draft report for one study of one or more images."""

        images: tyro.conf.Positional[tuple[Path, ...]]
        "PNG, JPEG or DICOM files of one study"
        model: Path = Path("demo/run")
        "the model folder; the default is what `rayscribe demo` trained"
        json: bool = False
        "print JSON"
        best: int = 1
        "how many alternatives to print, best first"
        classifier: Path | None = None
        "PromptMRG, KIF: the folder of a classifier whose findings stand in the prompt instead of the model's own"
        decoding: DecodingConfig = field(default_factory=DecodingConfig)

    wanted = parsed(Predict, arguments, "predict")
    if not wanted.images:
        raise InputError("name at least one image; usage: rayscribe predict IMAGE... --model DIR")
    from rayscribe.checkpoint import load_model
    from rayscribe.predict import draft_report

    states = None
    if wanted.classifier is not None:
        from rayscribe.classifier_folder import load_classifier
        from rayscribe.heatmap import classified

        states = classified(load_classifier(wanted.classifier), wanted.images).states()
    draft = draft_report(load_model(wanted.model), wanted.images, wanted.decoding, best=wanted.best, states=states)
    if wanted.json:
        answer: dict[str, Any] = {"report": draft.reports[0], "model": str(wanted.model), "disclaimer": DISCLAIMER}
        if draft.diagnosis:
            answer["diagnosis"] = draft.diagnosis
        if draft.warnings:
            answer["warnings"] = draft.warnings
        if wanted.best > 1:
            answer["alternatives"] = draft.reports[1:]
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    for warning in draft.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(draft.reports))
    if told := [f"{name} {state}" for name, state in draft.diagnosis.items() if state != "not mentioned"]:
        print(f"\nread before it was written: {', '.join(told)}")
    print(f"\n{DISCLAIMER}")
