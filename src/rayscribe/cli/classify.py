"""`rayscribe classify`: train, test, tune and use classifiers of findings.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rayscribe.cli.arguments import choice, parsed
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import write_text
from rayscribe.progress import ProgressBar, progress_bar

_BAR: ProgressBar = partial(progress_bar, desc="classifying", unit="batch")


def classify(arguments: list[str]) -> None:
    kinds: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "test": _test,
        "tune": _tune,
        "predict": _predict,
        "label": _label,
    }
    kind = choice(arguments, tuple(kinds), "kind", "rayscribe classify KIND [options]")
    kinds[kind](arguments[1:])


def _train(arguments: list[str]) -> None:
    from rayscribe.cli.classify_train import classify_train

    classify_train(arguments)


def _test(arguments: list[str]) -> None:
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Test:
        """Scores classifiers on a split: every finding with its interval over patients, next to floors that need no image."""

        models: tyro.conf.Positional[tuple[Path, ...]]
        "folders of classifiers; several where each finding has its own model"
        data: Path
        "the manifest"
        split: str = "test"
        "train, val or test"
        labels: str | None = None
        "where the labels come from: `rules`, `codes` or a table; by default as in training"
        json: Path | None = None
        "write the scores to this file"
        plots: Path | None = None
        "write ROC, precision-recall and calibration plots to this folder, as SVG and PNG"
        resamples: int = 1000
        "resamples of the bootstrap"
        features: Path | None = None
        "the folder that caches the features of frozen backbones; by default in the user's cache folder"
        device: str | None = None
        "cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none"

    options = parsed(Test, arguments, "classify test")
    if not options.models:
        raise InputError("name at least one classifier; usage: rayscribe classify test MODEL... --data data.parquet")
    from rayscribe.classifiers.scores import score_classifiers, study_logits
    from rayscribe.data.manifest import read_manifest
    from rayscribe.models.device import chosen_device
    from rayscribe.pages.classifier_plots import write_curves
    from rayscribe.pages.classifier_table import score_table
    from rayscribe.settings import need

    need(options.resamples > 0, "--resamples", options.resamples, "at least 1")
    result = score_classifiers(
        options.models,
        read_manifest(options.data),
        split=options.split,
        labels=options.labels,
        resamples=options.resamples,
        infer=partial(
            study_logits,
            features=options.features,
            device=chosen_device(options.device),
            progress=_BAR,
        ),
    )
    print(score_table(result))
    if options.json is not None:
        _write_json(options.json, result)
    if options.plots is not None:
        for path in write_curves(result, options.plots):
            print(f"wrote {path}")


def _tune(arguments: list[str]) -> None:
    import tyro

    from rayscribe.classifiers.config import CLASSIFIERS, NETWORKS, ClassifyConfig
    from rayscribe.classifiers.tune import SearchSpace

    if arguments and arguments[0] in CLASSIFIERS.keys() - NETWORKS.keys():
        raise InputError(
            f"{arguments[0]}: `classify train` chooses its strengths by cross-validation; there is nothing to tune"
        )
    usage = "rayscribe classify tune RECIPE [options] --data data.parquet --run DIR"
    recipe = choice(arguments, tuple(NETWORKS), "recipe", usage)

    def tune(
        data: Path,
        run: Path,
        trials: int = 20,
        space: SearchSpace = SearchSpace(),  # noqa: B008  # frozen
        config: Annotated[ClassifyConfig, tyro.conf.arg(name="")] = NETWORKS[recipe](),  # noqa: B008  # frozen
        features: Path | None = None,
    ) -> None:
        """Searches for the hyper-parameters with the best validation score. Run it again to continue.

        Args:
            data: the manifest
            run: the folder of the search: study.db (Optuna's SQLite file), trial-0, trial-1, ...
            trials: the total number of trials
            space: the values to search
            config: all other settings
            features: the folder that caches the features of frozen backbones; by default in the user's cache folder
        """
        from rayscribe.classifiers.tune import search

        best = search(config, data, run, trials=trials, space=space, features=features, notify=print)
        print(f"best: {best}\nnext: rayscribe classify test {best} --data {data}")

    parsed(tune, arguments[1:], f"classify tune {recipe}")


def _predict(arguments: list[str]) -> None:
    import tyro

    def predict(
        images: tyro.conf.Positional[tuple[Path, ...]],
        model: Path,
        json: bool = False,
        heatmap: Path | None = None,
        finding: str | None = None,
        device: str | None = None,
    ) -> None:
        """Prints the probability of every finding for one study of one or more images.

        Args:
            images: PNG, JPEG or DICOM files of one study
            model: the classifier's folder
            json: print JSON
            heatmap: write the first image to this PNG, with the evidence for --finding drawn over it (Grad-CAM)
            finding: the finding to draw; by default the most probable
            device: cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none
        """
        if not images:
            raise InputError("name at least one image; usage: rayscribe classify predict IMAGE... --model DIR")
        from rayscribe.classifiers.folder import load_classifier
        from rayscribe.classifiers.predict import classified, write_heatmap
        from rayscribe.models.device import chosen_device

        trained = load_classifier(model, chosen_device(device))
        found = classified(trained, images)
        for warning in found.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if json:
            print(_text({"findings": found.probabilities, "present": found.present, "disclaimer": DISCLAIMER}))
        else:
            for name, probability in sorted(found.probabilities.items(), key=lambda item: -item[1]):
                print(f"{probability:.3f}  {name}{'  (called present)' if name in found.present else ''}")
            print(f"\nprobabilities of what the training labels would say, calibrated on validation. {DISCLAIMER}")
        if heatmap is not None:
            name = write_heatmap(heatmap, trained, images, found, finding)
            print(f"wrote {heatmap}: where the image speaks for {name} (Grad-CAM)", file=sys.stderr)

    parsed(predict, arguments, "classify predict")


def _label(arguments: list[str]) -> None:
    def label(
        model: Path,
        data: Path,
        out: Path,
        split: str = "test",
        features: Path | None = None,
        device: str | None = None,
    ) -> None:
        """Writes a table of the findings that the classifier calls present, for `generate --states` and `evaluate`.

        Args:
            model: the classifier's folder
            data: the manifest
            out: the table to write (CSV): the 14 observations; those that the classifier does not know stay blank
            split: train, val or test
            features: the folder that caches the features of frozen backbones; by default in the user's cache folder
            device: cpu, cuda or cuda:N; by default the first GPU, or the CPU if there is none
        """
        from rayscribe.classifiers.cohort import as_in_training
        from rayscribe.classifiers.folder import load_classifier
        from rayscribe.classifiers.scores import study_logits, write_findings
        from rayscribe.data.manifest import read_manifest
        from rayscribe.models.device import chosen_device
        from rayscribe.provenance import check_unseen, note_test

        where = chosen_device(device)
        trained, manifest = load_classifier(model, where), read_manifest(data)
        if split != "train":
            check_unseen(model, manifest.split(split), split)
        if split == "test":
            note_test(model, {"out": out.name, "data_digest": manifest.digest()})
        studies, others = as_in_training(manifest.split(split), trained.config.cohort)
        if others:
            views = trained.config.cohort.views
            print(f"warning: {others} studies have no {views} image, which the model learned from", file=sys.stderr)
        logits_RL = study_logits(trained, studies, features=features, device=where, progress=_BAR)
        for name in write_findings(out, trained, studies, logits_RL):
            print(f"note: {name} is none of the 14 observations and not in the table", file=sys.stderr)
        print(f"wrote {out}: {len(studies)} studies. {DISCLAIMER}")

    parsed(label, arguments, "classify label")


def _write_json(path: Path, result: dict[str, Any]) -> None:
    write_text(path, _text(result) + "\n")
    print(f"wrote {path}")


def _text(result: dict[str, Any]) -> str:
    return json.dumps(_without_nan(result), indent=2)


def _without_nan(value: Any) -> Any:
    """Undefined scores as null, because JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
