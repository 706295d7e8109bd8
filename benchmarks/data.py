"""How many images a second reach the model: our loader, a plain PIL data set, and cached features.

    .venv/bin/python benchmarks/data.py                 # half a minute; --images 32 for a rougher answer

Files of 512 x 512 pixels, JPEG and PNG, are written to a temporary folder. The plain data set does what R2Gen's does: PIL to
RGB, resize to 256, random crop of 224, float tensor, normalise. Ours stays 8-bit grey until the model; its expansion and
normalisation on the CPU is counted here as well. One process, one thread, CPU seconds.

Shapes: B studies, V views, H height, W width.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from rayscribe.config import ImageConfig, TextConfig
from rayscribe.data.dataset import Row, StudyDataset, collate
from rayscribe.data.features import FeatureCache
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.files import sha256_of
from rayscribe.study import Study

BATCH, PATCHES, CHANNELS = 16, 49, 2048
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96, help="files of each kind")
    parser.add_argument("--repeats", type=int, default=3, help="passes; the median counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("images a CPU second, one thread")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".jpg", ".png"):
            studies = drawn(folder, suffix, arguments.images)
            cache = filled(folder / f"cache{suffix}", studies)
            passes = [partial(plain_pass, studies), partial(our_pass, studies, None), partial(our_pass, studies, cache)]
            plain, ours, cached = rates(passes, images=len(studies), repeats=arguments.repeats)
            print(
                f"| 512 px {suffix[1:]} | ours {ours:.0f} | plain PIL {plain:.0f} | {ours / plain:.1f} times faster "
                f"| cached features {cached:.0f}, {cached / plain:.0f} times faster |",
                flush=True,
            )


def rates(passes: list[Callable[[], None]], *, images: int, repeats: int) -> list[float]:
    """In turns, so that a busy machine slows all of them; the first turn warms up."""
    seconds: list[list[float]] = [[] for _ in passes]
    for _ in range(repeats + 1):
        for one, spent in zip(passes, seconds, strict=True):
            began = time.process_time()
            one()
            spent.append(time.process_time() - began)
    return [images / statistics.median(spent[1:]) for spent in seconds]


def drawn(folder: Path, suffix: str, images: int) -> list[Study]:
    """Smooth noise of a radiograph's kind: soft shapes and some grain, so that the files compress like real ones."""
    generator = np.random.default_rng(0)
    studies = []
    for index in range(images):
        soft = Image.fromarray(generator.integers(0, 256, (16, 16), dtype=np.uint8)).resize((512, 512))
        grain = generator.normal(0, 3, (512, 512))
        pixels = np.clip(np.asarray(soft.filter(ImageFilter.GaussianBlur(8))) + grain, 0, 255).astype(np.uint8)
        path = folder / f"{index}{suffix}"
        Image.fromarray(pixels).save(path, quality=95)
        studies.append(Study(id=str(index), images=(path,), sha256=(sha256_of(path),)))
    return studies


def our_pass(studies: list[Study], cache: FeatureCache | None) -> None:
    """Batches as the training loop gets them; pixels are normalised as in the model."""
    tokenizer = Tokenizer(words=("<unk>", "clear"))
    data = StudyDataset(
        SplitReports(studies, ["clear"] * len(studies)),
        tokenizer,
        text=TextConfig(),
        images=ImageConfig(),
        cache=cache,
        augment=0,
    )
    for start in range(0, len(data), BATCH):
        batch = collate([data[Row(row, 0)] for row in range(start, min(start + BATCH, len(data)))])
        if batch.pixels_BVHW is not None:
            pixels = batch.pixels_BVHW[:, :, None].float().expand(-1, -1, 3, -1, -1)
            _ = (pixels - 255 * MEAN[:, None, None]) / (255 * STD[:, None, None])


def plain_pass(studies: list[Study]) -> None:
    generator = np.random.default_rng(0)
    for start in range(0, len(studies), BATCH):
        torch.stack([plain_image(study.images[0], generator) for study in studies[start : start + BATCH]])


def plain_image(path: Path, generator: np.random.Generator) -> Tensor:
    with Image.open(path) as picture:
        rgb = picture.convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    left, top = generator.integers(0, 33, 2).tolist()
    pixels: NDArray[np.uint8] = np.array(rgb.crop((left, top, left + 224, top + 224)))
    scaled = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
    return (scaled - MEAN[:, None, None]) / STD[:, None, None]


def filled(folder: Path, studies: list[Study]) -> FeatureCache:
    """A cache of random features; what they hold does not matter here."""
    folder.mkdir()
    cache = FeatureCache(folder, PATCHES, CHANNELS)
    features = np.random.default_rng(0).random((len(studies), PATCHES, CHANNELS), dtype=np.float32).astype(np.float16)
    cache.append([study.sha256[0] for study in studies], features)
    return cache


if __name__ == "__main__":
    main()
