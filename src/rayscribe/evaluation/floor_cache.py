"""What floors compute slowly, kept between evaluations: small pictures by image, and chosen training studies by digest.

One SQLite file in the user's cache folder; it holds no text of a report. Where the folder cannot be written, nothing is kept.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from rayscribe.data.images import read_checked_image, read_image
from rayscribe.errors import InputError
from rayscribe.evaluation.expected_floors import Aim
from rayscribe.evaluation.floor_features import SIDE
from rayscribe.files import cache_folder
from rayscribe.metrics.statistics import Singles
from rayscribe.progress import ProgressBar
from rayscribe.study import Study, is_frontal

Choices = dict[Aim, list[str]]
"Training studies whose reports a floor writes, by aim: one id a query."

_BLOCK = 256  # pictures between commits


@contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The cache, or an empty one in memory where its folder cannot be written. Raises InputError for a damaged file."""
    path = cache_folder() / "floors.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path if os.access(path.parent, os.W_OK) else ":memory:", timeout=60)
    except OSError:
        connection = sqlite3.connect(":memory:")
    with closing(connection):
        try:
            connection.execute("create table if not exists pictures (sha256 text primary key, pixels blob not null)")
            connection.execute("create table if not exists choices (digest text primary key, chosen text not null)")
            yield connection
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: the cache of the floors cannot be used ({error}); delete the file") from error


def small_pictures(studies: Sequence[Study], *, progress: ProgressBar = iter) -> Singles:
    """Each study's first frontal image (its first image if views are unknown) as 32 x 32 pixels of 0 to 255, (R, P).

    Raises InputError for an image that cannot be read, or that changed since the manifest was written.
    """
    shown = [_shown(study) for study in studies]
    known: dict[Path, bytes] = {}
    with _opened() as cache, ThreadPoolExecutor() as pool:
        for path, sha256 in shown:
            for (pixels,) in cache.execute("select pixels from pictures where sha256 = ?", (sha256,)):
                known[path] = pixels
        lacking = {path: sha256 for path, sha256 in shown if path not in known}
        found = zip(lacking.items(), pool.map(_small_picture, lacking, lacking.values()), strict=True)
        for number, ((path, sha256), pixels) in enumerate(progress(found) if lacking else (), start=1):
            known[path] = pixels
            if sha256:
                cache.execute("insert or replace into pictures values (?, ?)", (sha256, pixels))
            if number % _BLOCK == 0:
                cache.commit()
        cache.commit()
    return np.stack([np.frombuffer(known[path], np.uint8).astype(np.float32) for path, _ in shown])


def kept_choices(digest: str, make: Callable[[], Choices]) -> Choices:
    """What `make` returns, computed once a digest."""
    with _opened() as cache:
        for (chosen,) in cache.execute("select chosen from choices where digest = ?", (digest,)):
            stored: Choices = json.loads(chosen)
            return stored
    found = make()
    with _opened() as cache:
        cache.execute("insert or replace into choices values (?, ?)", (digest, json.dumps(found)))
        cache.commit()
    return found


def _shown(study: Study) -> tuple[Path, str]:
    """The image that stands for the study, with its hash, which is empty where the manifest has none."""
    hashes = study.sha256 or ("",) * len(study.images)
    every = list(zip(study.images, hashes, strict=True))
    return next((one for one, view in zip(every, study.views) if is_frontal(view)), every[0])


def _small_picture(path: Path, sha256: str) -> bytes:
    grey = read_checked_image(path, sha256, at_least=SIDE) if sha256 else read_image(path, at_least=SIDE)
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
