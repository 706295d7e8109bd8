"""Images a second of an epoch's reading: one file an image against shards, from a cold page cache.

    python benchmarks/shards.py --studies 2000 --side 1024

Draws noise-like greyscale JPEGs of `--side` pixels, writes shards of their 256-pixel copies and the same copies as single
files, and reads one shuffled epoch of each through the loader. Prints images a second and the ratios; every part is run after
its files were dropped from the page cache.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rayscribe.config import ImageConfig, TextConfig
from rayscribe.data.dataset import Order, StudyDataset, load_batches
from rayscribe.data.manifest import Manifest
from rayscribe.data.shard_writing import write_shards
from rayscribe.data.shards import member_bytes, shard_numbers
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.files import sha256_of
from rayscribe.study import Study


def drawn(folder: Path, studies: int, side: int) -> Manifest:
    """Smooth noise, which a JPEG of a radiograph resembles in size."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    found = []
    for number in range(studies):
        coarse = Image.fromarray(generator.integers(20, 230, (side // 8, side // 8), np.uint8))
        path = folder / f"{number:06d}.jpg"
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
        found.append(Study(id=str(number), images=(path,), sha256=(sha256_of(path),), split="train", views=("",)))
    return Manifest(studies=tuple(found), provenance={})


def single_files(manifest: Manifest, folder: Path) -> Manifest:
    """The shards' members as files of their own."""
    folder.mkdir()
    moved = []
    for study in manifest.studies:
        path, content = folder / f"{study.id}.png", member_bytes(study.images[0])
        path.write_bytes(content)
        moved.append(replace(study, images=(path,), sha256=(hashlib.sha256(content).hexdigest(),)))
    return replace(manifest, studies=tuple(moved))


def drop(paths: Iterable[Path]) -> None:
    """Out of the page cache, where the system allows."""
    os.sync()
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def speed(manifest: Manifest, *, workers: int, epoch: int) -> float:
    """Images a second of one shuffled epoch."""
    studies = manifest.split("train")
    blank, words = [""] * len(studies), Tokenizer(words=())
    data = StudyDataset(SplitReports(studies, blank), words, text=TextConfig(), images=ImageConfig(), augment=0)
    order = Order(lengths=[2] * len(data), batch_size=32, bucket=False, seed=0, shards=shard_numbers(studies))
    rows = order.rows(epoch, accumulate=1, rank=0, processes=1)
    began = time.perf_counter()
    seen = sum(len(batch.rows_B) for batch in load_batches(data, rows, workers=workers))
    assert seen == len(studies)
    return seen / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source_images = drawn(folder / "originals", options.studies, options.side)
        began = time.perf_counter()
        shards = write_shards(source_images, folder / "shards", studies_per_shard=200)
        print(
            f"{options.studies} images of {options.side} pixels; shards written in {time.perf_counter() - began:.1f} s"
        )
        files = single_files(shards, folder / "files")
        kinds = {"originals, one file each": source_images, "256-pixel copies, one file each": files, "shards": shards}
        speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for turn in range(options.rounds):
            for kind, manifest in kinds.items():
                drop(
                    {
                        path.parent if path.parent.suffix == ".tar" else path
                        for s in manifest.studies
                        for path in s.images
                    }
                )
                speeds[kind].append(speed(manifest, workers=options.workers, epoch=turn))
        best = {kind: max(found) for kind, found in speeds.items()}
        for kind, found in speeds.items():
            print(f"{kind}: best {best[kind]:.0f} images/s of {', '.join(f'{one:.0f}' for one in found)}")
        last = best["shards"]
        for kind in list(kinds)[:2]:
            print(f"shards against {kind}: {last / best[kind]:.2f} x")


if __name__ == "__main__":
    main()
