"""Runs in processes of their own, killed or two at once, and what their folders hold."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import torch

from rayscribe.config import RunConfig
from rayscribe.settings import to_yaml
from rayscribe.training.run import train

# Trains in a process of its own, which kills itself without warning at the given step.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from rayscribe.settings import from_yaml
from rayscribe.training.run import train
from rayscribe.training.folder import RunFolder
config, data, run, step, features = sys.argv[1:]
log_step = RunFolder.log_step
def log_and_die(self, values, seconds):
    log_step(self, values, seconds)
    if values["step"] == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
RunFolder.log_step = log_and_die
train(from_yaml(Path(config).read_text(), config), Path(data), Path(run), features=Path(features))
"""


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


def logs_of_one_and_two_processes(
    config: RunConfig, world: Path, tmp_path: Path
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Trains the runs `one` and `two`."""
    features = tmp_path / "features"
    train(config, world, tmp_path / "one", features=features)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    script = (
        "import sys, torch\nfrom pathlib import Path\ntorch.set_num_threads(1)\n"
        "from rayscribe.settings import from_yaml\nfrom rayscribe.training.run import train\n"
        f"train(from_yaml(Path({str(tmp_path / 'config.yaml')!r}).read_text(), 'config'), Path({str(world)!r}), "
        f"Path({str(tmp_path / 'two')!r}), features=Path({str(features)!r}))\n"
    )
    run_by_two_processes(script, tmp_path)
    return logged(tmp_path / "one"), logged(tmp_path / "two")


def run_by_two_processes(script: str, tmp_path: Path) -> str:
    """Starts the script as torchrun does, on a free port, and returns what it printed."""
    (tmp_path / "script.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
