"""What the experiments share: a plug-in around a run, and a run with its reports for the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rayscribe.api.models import open_reporter
from rayscribe.config import MethodSettings, RunConfig
from rayscribe.inference.split import SplitJob, write_predictions
from rayscribe.methods.compose import PLUS, Plugged
from rayscribe.training.run import train_method


def plugged(config: RunConfig[Any], plug_in: str, settings: MethodSettings) -> RunConfig[Any]:
    """The same run with a plug-in around its training."""
    method = Plugged(host=config.method, plug_in=settings)
    return replace(config, system=f"{config.system}{PLUS}{plug_in}", method=method)


def train_and_write(config: RunConfig[Any], data: Path, run: Path, features: Path) -> None:
    """Trains into `run` and writes `run/predictions.jsonl`; both go on where they were interrupted."""
    train_method(config, data, run, resume=(run / "config.yaml").exists(), features=features)
    job = SplitJob(
        model=run,
        data=data,
        out=run / "predictions.jsonl",
        split="test",
        decoding=config.decoding,
        features=features,
    )
    write_predictions(open_reporter(run), job, progress=tqdm)
