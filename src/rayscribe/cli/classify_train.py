"""`rayscribe classify train`: a recipe, or the settings of an earlier run, to a classifier's folder.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rayscribe.cli.arguments import choice, parsed
from rayscribe.cli.run_options import Beginning, RunOptions, beginning, frozen_if_asked, short_help, started_of

_USAGE = "rayscribe classify train RECIPE --data data.parquet --run runs/name [options]"
_COHORT = ("cohort.labels", "cohort.findings", "cohort.uncertain", "cohort.views", "cohort.one_per_subject")
_COMMON = (
    *_COHORT,
    *("images.size", "images.rotation", "backbone.name", "backbone.weights", "backbone.trainable"),
    *("train.epochs", "train.patience", "train.metric", "train.batch_size", "train.lr", "train.lr_backbone"),
    *("train.workers", "dropout", "positive_weight", "seed"),
)
"The settings of a network that `--help` explains."
_LINEAR = (
    *_COHORT,
    *("images.size", "backbone.name", "backbone.weights", "backbone.layers", "backbone.beside"),
    *("linear.grid", "linear.views", "linear.components", "linear.strengths", "linear.folds", "seed"),
)
"The same of a linear classifier."


@dataclass(frozen=True, kw_only=True)
class ClassifyTrainOptions(RunOptions):
    """Trains one classifier of all findings, or one per finding. The run folder becomes the classifier's folder."""

    per_finding: bool = False
    "train one model per finding, each in a folder inside the run's; the recipe `binary` does"


def classify_train(arguments: list[str]) -> None:
    """Trains classifiers of findings."""
    from rayscribe.classifiers.config import CLASSIFIERS, LinearConfig, classifier_from_yaml

    early = beginning(arguments)
    if early.recipe is not None:
        choice([early.recipe], tuple(CLASSIFIERS), "recipe", _USAGE)
    base = early.settings(lambda name: CLASSIFIERS[name](), classifier_from_yaml, "classify train")
    if base is None:
        choice(["--help"] if early.asks_help else arguments, tuple(CLASSIFIERS), "recipe", _USAGE)
    base = frozen_if_asked(base, early)
    if early.has("--help") or early.has("-h"):
        usage = _USAGE.replace("RECIPE", early.recipe or "RECIPE")
        common = _LINEAR if isinstance(base, LinearConfig) else _COMMON
        print(short_help(usage, ClassifyTrainOptions, base, common, ()))
        return
    _train(_parsed(base, early))


def _parsed(base: Any, early: Beginning) -> Any:
    import tyro

    kind: Any = type(base)

    @dataclass(frozen=True, kw_only=True)
    class Train(ClassifyTrainOptions):
        """Trains one classifier of all findings, or one per finding. The run folder becomes the classifier's folder."""

        per_finding: bool = early.recipe == "binary"
        "train one model per finding, each in a folder inside the run's; the recipe `binary` does"
        settings: Annotated[kind, tyro.conf.arg(name="")] = field(default_factory=lambda: base)

    return parsed(Train, early.whole_flags(), f"classify train {early.recipe or ''}".strip())


def _train(options: Any) -> None:
    from rayscribe.classifiers.run import train_classifier, train_each
    from rayscribe.training.learner import Place

    started = started_of(options)
    place = Place(
        data=started.data, run=options.run, resume=options.resume, features=started.features, device=options.device
    )
    folders: list[Path] = [place.run]
    if started.per_finding or options.per_finding:
        folders = train_each(options.settings, place)
    else:
        train_classifier(
            options.settings,
            place.data,
            place.run,
            resume=place.resume,
            features=place.features,
            device=place.device,
        )
    print(f"next: rayscribe classify test {' '.join(map(str, folders))} --data {place.data}")
