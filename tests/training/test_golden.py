"""A committed loss curve per recipe: a change that moves training shows here first.

After a change that is meant to move it: `python tests/training/test_golden.py` writes the curves again; say why in the commit.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from conftest import plugged, small_config
from rayscribe.cli.main import run as run_verb
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import check
from rayscribe.methods.ithn import IthnSettings
from rayscribe.training.run import train_method

GOLDEN = Path(__file__).parent / "golden"
CONFIGS = {
    "baseline": small_config("baseline"),
    "r2gen": small_config("r2gen"),
    "r2gen_cmn": small_config("r2gen_cmn"),
    "jima": small_config("jima"),
    "promptmrg": small_config("promptmrg"),
    "kif": small_config("kif"),
    "ithn": plugged(small_config("r2gen_cmn"), "ithn", IthnSettings(width=16)),
}


def curve(name: str, folder: Path) -> list[float]:
    """The losses of the first two epochs on 60 drawn studies."""
    write_phantom(folder / "phantom", PhantomConfig(studies=60, size=64))
    checked = check(read_iu_xray(folder / "phantom"), source={"source": "phantom"}, missing_is_fault=True)
    write_manifest(folder / "drawn.parquet", checked.manifest)
    run_verb(["build", "negatives", str(folder / "drawn.parquet"), "--out", str(folder / "world.parquet")])
    train_method(CONFIGS[name], folder / "world.parquet", folder / "run")
    with open(folder / "run" / "log.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_losses_are_the_committed_ones(name: str, tmp_path: Path) -> None:
    golden = [float(line) for line in (GOLDEN / f"{name}.txt").read_text().split()]
    # Other processors and releases of torch round differently, and steps amplify it.
    assert curve(name, tmp_path) == pytest.approx(golden, rel=0.02)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CONFIGS:
        with tempfile.TemporaryDirectory() as scratch:
            losses = curve(name, Path(scratch))
        (GOLDEN / f"{name}.txt").write_text("".join(f"{loss:.5f}\n" for loss in losses))
