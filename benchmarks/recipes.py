"""What a recipe takes on this machine: seconds a step and peak memory, with the image encoder trained and frozen.

    python benchmarks/recipes.py DATA.parquet [--steps 4] [--recipes r2gen ...]

Each run is a process of its own on a few studies of DATA, in the recipe's own sizes, with an encoder of random weights (time
and memory do not depend on them). Hours are the steps of the recipe's epochs on all of DATA; validation is not counted.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import resource
import statistics
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rayscribe.config import with_frozen_encoder
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.split_reports import cleaned_report
from rayscribe.methods import find_recipe
from rayscribe.models.backbones import Backbone
from rayscribe.training.run import train_method

RECIPES = ("baseline", "r2gen", "r2gen_cmn", "jima", "promptmrg", "kif", "r2gen_cmn+ithn")
FROZEN_ENCODER = "mobilenetv2_100"


def run(name: str, is_frozen: bool, data: Path, folder: Path, queue: Any) -> None:
    """One epoch in this process; puts seconds a step and the peak memory in GiB."""
    config = find_recipe(name)
    if is_frozen:
        config = with_frozen_encoder(replace(config, backbone=replace(config.backbone, name=FROZEN_ENCODER)))
    weights = folder / f"{config.backbone.name}.safetensors"
    if not weights.exists():
        net = Backbone(replace(config.backbone, trainable=False)).net
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, weights)
    epochs, settings = 1, config.method
    if name == "jima":
        settings = replace(settings, adapter=512 if is_frozen else 0)
        epochs += settings.warmup  # a curriculum must begin within the run, which is stopped before it does
    config = replace(
        config,
        method=settings,
        backbone=replace(config.backbone, weights=str(weights)),
        train=replace(config.train, epochs=epochs, patience=1, workers=0),
    )
    run_folder = folder / f"{name}-{is_frozen}"
    steps = run_folder / "log.csv"
    stop = StopAfterOneEpoch(run_folder)
    with suppress(StopAfterOneEpoch.Stopped):
        train_method(config, data, run_folder, features=folder / "features", notify=stop)
    with open(steps, newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put((statistics.median(seconds[1:]), peak))


class StopAfterOneEpoch:
    """Ends a run at its first word about validation."""

    class Stopped(Exception):
        pass

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, text: str) -> None:
        if text.startswith("validation"):
            raise self.Stopped


def small(data: Manifest, studies: int, path: Path) -> None:
    """The first training studies and two of validation."""
    held = [study for study in data.split("train") if cleaned_report(study, find_recipe("r2gen").text)][:studies]
    write_manifest(path, Manifest(studies=(*held, *data.split("val")[:2]), provenance=data.provenance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    options = parser.parse_args()
    manifest = read_manifest(options.data)
    context = multiprocessing.get_context("spawn")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print("recipe            encoder           s/step   hours   GiB")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in options.recipes:
            config = find_recipe(name)
            for is_frozen in (True, False):
                data = folder / "small.parquet"
                small(manifest, config.train.batch_size * options.steps, data)
                queue = context.Queue()
                process = context.Process(target=run, args=(name, is_frozen, data, folder, queue))
                process.start()
                process.join()
                if process.exitcode:
                    raise SystemExit(f"{name}: failed")
                seconds, peak = queue.get()
                steps = config.train.epochs * -(-len(manifest.split("train")) // config.train.batch_size)
                encoder = f"frozen {FROZEN_ENCODER}" if is_frozen else config.backbone.name
                print(f"{name:17} {encoder:23} {seconds:6.2f} {seconds * steps / 3600:7.1f} {peak:5.1f}", flush=True)


if __name__ == "__main__":
    main()
