"""Features of a frozen backbone, computed once per image and kept memory-mapped in float16.

A cache is a folder of two append-only files, named by backbone, weights and transform:

    features.f16    rows of N x C float16, back to back
    rows.txt        one line per row: sha256 of the image's bytes, CRC-32 of the row

A line is written only after its row is on disk, so a `kill -9` always leaves a valid, shorter cache, and the next run continues
from there. Every row is checked against its CRC when it is read.

Shapes: I images, S studies, N patches, C channels.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rayscribe.config import ImageConfig
from rayscribe.data.images import evaluation_square, read_checked_image
from rayscribe.errors import InputError
from rayscribe.files import cache_folder, naming
from rayscribe.models.backbones import Backbone
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

_BLOCK = 16


def default_folder() -> Path:
    """`features/` in the cache folder."""
    return cache_folder() / "features"


class FeatureCache:
    """Features by the sha256 of an image's bytes, shared by all methods, runs and processes with the same backbone."""

    def __init__(self, folder: Path, patches: int, channels: int) -> None:
        self.folder = folder
        self.shape = (patches, channels)
        self._row_bytes = 2 * patches * channels
        self._checks: dict[str, tuple[int, int]] = {}
        self._rows: NDArray[np.float16] | None = None
        self._load(repair=False)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._checks

    def __len__(self) -> int:
        return len(self._checks)

    def __getitem__(self, sha256: str) -> NDArray[np.float16]:
        """(N, C) float16."""
        position, check = self._checks[sha256]
        if self._rows is None:
            self._rows = np.memmap(self.folder / "features.f16", np.float16, "r").reshape(-1, *self.shape)
        row = self._rows[position]
        if zlib.crc32(row.tobytes()) != check:
            raise InputError(f"{self.folder}: the cached features are damaged; delete the folder to compute them again")
        return row

    def append(self, sha256s: Sequence[str], features_INC: NDArray[np.float16]) -> None:
        """Adds rows; the caller holds the lock."""
        assert features_INC.shape[1:] == self.shape and features_INC.dtype == np.float16
        position = len(self._checks)
        rows, index = self.folder / "features.f16", self.folder / "rows.txt"
        with naming(rows), open(rows, "r+b" if position else "wb") as file:
            file.truncate(position * self._row_bytes)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(features_INC).tobytes())
            file.flush()
            os.fsync(file.fileno())
        checks = [zlib.crc32(row.tobytes()) for row in features_INC]
        with naming(index), open(index, "a") as file:
            file.writelines(f"{sha256} {check}\n" for sha256, check in zip(sha256s, checks, strict=True))
        self._checks |= {s: (position + i, check) for i, (s, check) in enumerate(zip(sha256s, checks, strict=True))}
        self._rows = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lets one process fill the cache at a time; the others wait and then find the rows."""
        with open(self.folder / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._load(repair=True)
            yield

    def _load(self, *, repair: bool) -> None:
        """Reads the index. Only the holder of the lock may `repair` what a killed process left behind."""
        self._checks, self._rows = {}, None
        index, data = self.folder / "rows.txt", self.folder / "features.f16"
        content = index.read_text() if index.exists() and data.exists() else ""
        complete = content[: content.rfind("\n") + 1]  # an incomplete last line was never finished
        whole = data.stat().st_size // self._row_bytes if data.exists() else 0
        if repair and index.exists() and index.read_text() != complete:
            with naming(index):
                index.write_text(complete)
        for position, line in enumerate(complete.splitlines()[:whole]):
            sha256, check = line.split()
            self._checks[sha256] = (position, int(check))


def cached_features(
    studies: Sequence[Study],
    backbone: Backbone,
    images: ImageConfig,
    *,
    folder: Path | None = None,
    device: torch.device | None = None,
    progress: ProgressBar = iter,
) -> FeatureCache:
    """The cache of this backbone and transform, filled for every image of `studies`."""
    key = {"backbone": backbone.fingerprint(), "size": images.size, "transform": "evaluation_square"}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    target = (folder or default_folder()) / f"{backbone.config.name}-{images.size}-{name}"
    target.mkdir(parents=True, exist_ok=True)
    probe = torch.zeros(1, images.size, images.size, dtype=torch.uint8, device=device)
    _, patches, channels = backbone.images(probe).shape
    cache = FeatureCache(target, patches, channels)
    wanted = {sha256: path for study in studies for sha256, path in zip(study.sha256, study.images, strict=True)}
    with cache.lock():
        missing = [(sha256, path) for sha256, path in wanted.items() if sha256 not in cache]
        blocks = [missing[start : start + _BLOCK] for start in range(0, len(missing), _BLOCK)]
        for block in progress(blocks) if blocks else []:
            squares = [
                evaluation_square(read_checked_image(path, sha256, at_least=images.size), images)
                for sha256, path in block
            ]
            features_INC = backbone.images(torch.from_numpy(np.stack(squares)).to(device)).cpu().numpy()
            if not np.isfinite(features_INC).all():
                raise InputError(
                    f"{block[0][1]} or one of the {len(block) - 1} images after it: features exceed the range of float16; "
                    "check --backbone.weights, --backbone.mean and --backbone.std"
                )
            cache.append([sha256 for sha256, _ in block], features_INC)
    return cache


def study_means(studies: Sequence[Study], cache: FeatureCache) -> Tensor:
    """The mean of every study's features over patches, then over views: (S, C), float32."""
    means = [
        torch.stack([torch.tensor(cache[sha256]).float().mean(0) for sha256 in study.sha256]).mean(0)
        for study in studies
    ]
    return torch.stack(means)
