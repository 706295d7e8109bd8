"""`rayscribe train` and `rayscribe demo`.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path
from typing import Annotated

from rayscribe.cli.arguments import choice, parsed


def train(arguments: list[str]) -> None:
    import tyro

    from rayscribe.config import RunConfig
    from rayscribe.methods.recipes import RECIPES

    recipe = choice(
        arguments, tuple(RECIPES), "recipe", "rayscribe train RECIPE [options] --data data.parquet --run runs/name"
    )

    def trained(
        data: Path,
        run: Path,
        config: Annotated[RunConfig, tyro.conf.arg(name="")] = RECIPES[recipe](),  # noqa: B008  # frozen
        resume: bool = False,
        features: Path | None = None,
        generations: int = 1,
    ) -> None:
        """Trains a model; the run folder is then a model folder.

        Args:
            data: the manifest of `rayscribe prepare`
            run: the run's folder; never overwritten
            resume: go on with an interrupted run, with the same settings
            features: folder of the feature cache of frozen backbones; the user's cache folder when empty
            generations: train so many times, each time taught by the one before (self-distillation, --distill)
        """
        from rayscribe.training.run import train_generations

        last = train_generations(config, data, run, generations=generations, resume=resume, features=features)
        print(f"next: rayscribe generate --model {last} --data {data} --split test --out predictions.jsonl")

    parsed(trained, arguments[1:], f"train {recipe}")


def demo(arguments: list[str]) -> None:
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
