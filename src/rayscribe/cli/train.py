"""`rayscribe train` and `rayscribe demo`.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rayscribe.cli.arguments import choice, parsed


def train_verb(arguments: list[str]) -> None:
    import tyro

    from rayscribe.config import RunConfig
    from rayscribe.methods import as_published, broken_methods, find_method, plug_ins, recipe, recipes
    from rayscribe.methods.compose import flag_of, flat_settings, value_at
    from rayscribe.methods.method import Published
    from rayscribe.methods.version_0_3 import refuse_old_names

    usage = "rayscribe train RECIPE[+PLUG_IN] [options] --data data.parquet --run runs/name"
    if not arguments or arguments[0].startswith("-"):
        known = [*recipes(), *(f"...+{name}" for name in plug_ins())]
        for fault in broken_methods().values():
            print(f"note: {fault}", file=sys.stderr)
        choice(arguments, known, "recipe", usage)
    refuse_old_names(arguments[0], arguments[1:])
    base = recipe(arguments[0])
    switched: list[Published] = []
    if any(argument.replace("_", "-") == "--as-published" for argument in arguments):
        base, switched = as_published(base)
    kind: Any = RunConfig[flat_settings(find_method(base.system))]  # type: ignore[misc]

    @dataclass(frozen=True, kw_only=True)
    class Train:
        """Trains a model; the run folder is then a model folder."""

        data: Path
        "the manifest of `rayscribe prepare`"
        run: Path
        "the run's folder; never overwritten"
        config: Annotated[kind, tyro.conf.arg(name="")] = field(default_factory=lambda: base)
        resume: bool = False
        "go on with an interrupted run, with the same settings"
        features: Path | None = None
        "folder of the feature cache of frozen backbones; the user's cache folder when empty"
        generations: int = 1
        "train so many times, each time taught by the one before; needs a plug-in that learns from an earlier model"
        as_published: tyro.conf.FlagCreatePairsOff[bool] = False
        "the paper's own choices where our defaults differ; says which"

    options = parsed(Train, arguments[1:], f"train {arguments[0]}")
    if options.as_published:
        kept = [one for one in switched if value_at(options.config, one.setting) == one.value]
        for one in kept:
            print(f"as published: {flag_of(one.setting, base.system, one.value)} ({one.source})")
        if not kept:
            print(f"as published: no setting of {base.system} differs from ours")
    _train(options)


def _train(options: Any) -> None:
    from rayscribe.training.learner import Place
    from rayscribe.training.run import train_generations

    place = Place(data=options.data, run=options.run, resume=options.resume, features=options.features)
    last = train_generations(options.config, place, generations=options.generations)
    print(f"next: rayscribe generate --model {last} --data {options.data} --split test --out predictions.jsonl")


def demo_verb(arguments: list[str]) -> None:
    def drawn(out: Path = Path("demo"), studies: int = 600, seed: int = 0) -> None:
        """Draws X-rays, trains a model, writes and scores reports; makes a page.

        Args:
            out: the folder; the page is OUT/index.html, the model OUT/run
            studies: how many studies to draw
            seed: of the drawing and the training
        """
        from rayscribe.cli.demo import run_demo

        run_demo(out, studies=studies, seed=seed)

    parsed(drawn, arguments, "demo")
