"""`rayscribe train`: a recipe, or the settings of an earlier run, to a model folder.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rayscribe.cli.arguments import choice, parsed
from rayscribe.cli.run_options import Beginning, RunOptions, beginning, frozen_if_asked, short_help, started_of

_USAGE = "rayscribe train RECIPE[+PLUG_IN] --data data.parquet --run runs/name [options]"
_COMMON = (
    *("text.section", "text.threshold", "text.max_length", "images.size"),
    *("backbone.name", "backbone.weights", "backbone.trainable"),
    *("model.encoder_layers", "model.dropout"),
    *("train.epochs", "train.patience", "train.metric", "train.batch_size", "train.lr", "train.lr_backbone"),
    *("train.warmup_steps", "train.precision", "train.workers", "decoding.beams", "seed"),
)
"The settings that `--help` explains."
_FITTED = (
    *("text.section", "images.size", "images.resize"),
    *("backbone.name", "backbone.weights", "backbone.layers", "backbone.beside", "seed"),
)
"Those of a method that fits without gradient steps, whose own settings are explained too."


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Trains a model; the run folder is then a model folder."""

    data: Path | None = None
    "the manifest, or a folder of manifests (`rayscribe resplit`): one model each; a resumed run knows its own"
    generations: int = 1
    "train this many models, each taught by the one before; needs a plug-in that learns from an earlier model"
    as_published: bool = False
    "take the paper's own choices where our defaults differ, and print them"


def train_verb(arguments: list[str]) -> None:
    """Trains any method; prepares what it needs beside the manifest."""
    from rayscribe.methods import as_published, find_method

    early = beginning(arguments)
    base = _base(arguments, early)
    switched: list[Any] = []
    if early.has("--as-published"):
        base, switched = as_published(base)
    base = frozen_if_asked(base, early)
    usage = _USAGE.replace("RECIPE[+PLUG_IN]", early.recipe or base.system)
    if early.has("--help") or early.has("-h"):
        print(_help(usage, base))
        return
    options = _parsed(base, early.whole_flags())
    find_method(options.settings.system)
    if options.as_published:
        _print_published(options.settings, switched)
    _train(options)


def _help(usage: str, base: Any) -> str:
    """The settings that matter for this method."""
    from rayscribe.methods import find_method
    from rayscribe.settings import to_plain

    if find_method(base.system).fit is None:
        return short_help(usage, TrainOptions, base, _COMMON, _method_flags(base))
    own = [f"method.{name}" for name in to_plain(base)["method"]]
    return short_help(usage, TrainOptions, base, [*_FITTED, *own], [])


def _base(arguments: list[str], early: Beginning) -> Any:
    """The settings that the flags change."""
    from rayscribe.errors import InputError
    from rayscribe.methods import find_recipe, run_from_yaml
    from rayscribe.methods.version_0_3 import refuse_old_names

    if early.recipe is not None:
        refuse_old_names(early.recipe, early.flags)
    base: Any = early.settings(find_recipe, run_from_yaml, "train")
    if base is None:
        _name_recipes(["--help"] if early.asks_help else arguments)
    if early.recipe is not None and early.resume and find_recipe(early.recipe).system != base.system:
        raise InputError(f"{early.run}: is a run of {base.system}; resume it with --resume and --run alone")
    return base


def _name_recipes(arguments: list[str]) -> None:
    """Prints the recipes for --help; raises InputError otherwise."""
    from rayscribe.methods import broken_methods, plug_ins, recipes

    for fault in broken_methods().values():
        print(f"note: {fault}", file=sys.stderr)
    choice(arguments, [*recipes(), *(f"...+{name}" for name in plug_ins())], "recipe", _USAGE)


def _parsed(base: Any, flags: list[str]) -> Any:
    """All options, with the settings under their own names."""
    import tyro

    from rayscribe.config import RunConfig
    from rayscribe.methods import find_method
    from rayscribe.methods.compose import flat_settings

    kind: Any = RunConfig[flat_settings(find_method(base.system))]  # type: ignore[misc]

    @dataclass(frozen=True, kw_only=True)
    class Train(TrainOptions):
        """Trains a model; the run folder is then a model folder."""

        settings: Annotated[kind, tyro.conf.arg(name="")] = field(default_factory=lambda: base)

    return parsed(Train, flags, f"train {base.system}")


def _method_flags(base: Any) -> list[str]:
    """Of the method's own settings and its plug-ins'."""
    from rayscribe.methods.compose import flag_of
    from rayscribe.settings import to_plain

    def paths(plain: dict[str, Any], at: str) -> list[str]:
        return [
            path
            for name, value in plain.items()
            for path in (paths(value, f"{at}.{name}") if isinstance(value, dict) else [f"{at}.{name}"])
        ]

    return [flag_of(path, base.system, True) for path in paths(to_plain(base)["method"], "method")]


def _print_published(settings: Any, switched: list[Any]) -> None:
    from rayscribe.methods.compose import flag_of, value_at

    kept = [one for one in switched if value_at(settings, one.setting) == one.value]
    for one in kept:
        print(f"as published: {flag_of(one.setting, settings.system, one.value)} ({one.source})")
    if not kept:
        print(f"as published: no setting of {settings.system} differs from ours")


def _train(options: Any) -> None:
    from rayscribe.data.split_sets import is_split_set
    from rayscribe.errors import InputError
    from rayscribe.training.learner import Place
    from rayscribe.training.run import train_generations
    from rayscribe.training.split_sets import train_splits

    started = started_of(options)
    generations = started.generations if options.generations == 1 else options.generations
    if options.resume and 1 != options.generations != started.generations and started.generations > 1:
        raise InputError(f"--generations {options.generations}: {options.run} is a run of {started.generations}")
    if options.resume and started.generations == 1 < options.generations and (options.run / "state.pt").exists():
        raise InputError(f"--generations {options.generations}: {options.run} is a single run")
    place = Place(
        data=started.data, run=options.run, resume=options.resume, features=started.features, device=options.device
    )
    if is_split_set(place.data):
        train_splits(options.settings, place, generations=generations)
        print(f"next: rayscribe generate --model {place.run} --data {place.data} --split test --out predictions/")
        return
    last = train_generations(options.settings, place, generations=generations)
    print(f"next: rayscribe generate --model {last} --data {place.data} --split test --out predictions.jsonl")
