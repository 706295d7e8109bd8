"""Runs in processes of their own, killed or two at once, and what their folders hold."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from apart import call_apart, call_by_two_processes
from rayscribe.config import RunConfig
from rayscribe.methods import run_from_yaml
from rayscribe.settings import to_yaml
from rayscribe.training.folder import RunFolder
from rayscribe.training.run import train_method


def logged(run: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with open(run / name, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "state.pt", weights_only=True)
    return dict(state["task"])


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def train_until_killed(
    folder: Path, step: int, config: RunConfig, data: Path, run: Path, features: Path | None = None
) -> None:
    """Trains in a process of its own, which kills itself without warning at the step."""
    call_until_killed(
        folder, step, train_method, run_from_yaml(to_yaml(config), "config"), data, run, features=features
    )


def call_until_killed(
    folder: Path, step: int, call: Callable[..., object], *arguments: object, **named: object
) -> None:
    code, printed = call_apart(folder, dies_at, step, call, *arguments, **named)
    assert code == -signal.SIGKILL, printed


def dies_at(step: int, call: Callable[..., object], *arguments: object, **named: object) -> None:
    """Calls a function, and kills this process when a run has logged the step."""
    log_step = RunFolder.log_step

    def log_and_die(self: RunFolder, values: Any, seconds: Any) -> None:
        log_step(self, values, seconds)
        if values["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.log_step = log_and_die  # type: ignore[method-assign]
    call(*arguments, **named)


def logs_of_one_and_two_processes(
    config: RunConfig, world: Path, tmp_path: Path
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Trains the runs `one` and `two`."""
    features = tmp_path / "features"
    train_method(config, world, tmp_path / "one", features=features)
    read_again = run_from_yaml(to_yaml(config), "config")
    call_by_two_processes(tmp_path, train_method, read_again, world, tmp_path / "two", features=features)
    return logged(tmp_path / "one"), logged(tmp_path / "two")


def run_by_two_processes(script: str, tmp_path: Path) -> str:
    """Starts the script by torchrun on a free port. Returns what it printed."""
    (tmp_path / "script.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
