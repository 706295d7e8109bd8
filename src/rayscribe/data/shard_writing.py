"""Writes a manifest's images, reduced in size, into shards: tar files in WebDataset's layout, with a manifest that reads them.

    shards.json          what the shards were made from; another source or size is rejected
    train-000000.tar     000000000.0.png, 000000000.1.png (the images of one study), 000000000.json (its id), ...
    data.parquet         the manifest of the shards, written last

Every shard is a random draw from its split, so that reading a few shards at a time is still a shuffle. Existing shards are
kept, so an interrupted call resumes and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rayscribe.data.images import read_checked_image, shorter_side
from rayscribe.data.manifest import Manifest, write_manifest
from rayscribe.data.shards import SUFFIX, member_bytes
from rayscribe.errors import InputError
from rayscribe.files import whole_file, write_text
from rayscribe.progress import ProgressBar
from rayscribe.study import SPLITS, Study


def write_shards(
    manifest: Manifest,
    out: Path,
    *,
    side: int = 256,
    studies_per_shard: int = 500,
    seed: int = 0,
    progress: ProgressBar = iter,
) -> Manifest:
    """Writes every image losslessly with its shorter side reduced to `side` (never enlarged). Returns the shards' manifest."""
    if side < 32 or studies_per_shard < 1:
        raise InputError(f"--side {side} --studies-per-shard {studies_per_shard}: give at least 32 pixels and 1 study")
    source = {"digest": manifest.digest(), "side": side, "studies_per_shard": studies_per_shard, "seed": seed}
    _claim(out / "shards.json", source)
    parts = list(_parts(manifest, studies_per_shard, seed))
    moved: dict[str, Study] = {}
    for name, first, studies in progress(parts):
        shard = out / f"{name}{SUFFIX}"
        if not shard.exists():
            _write_shard(shard, first, studies, side)
        for number, study in enumerate(studies, start=first):
            paths = tuple(shard / f"{number:09d}.{view}.png" for view in range(len(study.images)))
            sha256 = tuple(hashlib.sha256(member_bytes(path)).hexdigest() for path in paths)
            moved[study.id] = replace(study, images=paths, sha256=sha256)
    provenance = manifest.provenance | {"shards": source}
    found = Manifest(studies=tuple(moved[study.id] for study in manifest.studies), provenance=provenance)
    write_manifest(out / "data.parquet", found)
    return found


def _claim(path: Path, source: dict[str, Any]) -> None:
    """Raises InputError for a folder with other shards."""
    if path.exists():
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error}); write the shards to another --out") from error
        if found != source:
            raise InputError(f"{path.parent}: contains shards of other data or another size; give another --out")
    elif path.parent.exists() and any(path.parent.iterdir()):
        raise InputError(f"{path.parent}: contains files other than shards; give another --out")
    write_text(path, json.dumps(source, indent=2) + "\n")


def _parts(manifest: Manifest, size: int, seed: int) -> Iterator[tuple[str, int, list[Study]]]:
    """For each shard: its name, the number of its first study, its studies."""
    first = 0
    for place, split in enumerate(SPLITS):
        studies = [study for study in manifest.studies if study.split == split]
        order = np.random.default_rng([seed, place]).permutation(len(studies))
        for start in range(0, len(studies), size):
            chosen = [studies[row] for row in order[start : start + size]]
            yield f"{split}-{start // size:06d}", first, chosen
            first += len(chosen)


def _write_shard(shard: Path, first: int, studies: list[Study], side: int) -> None:
    with whole_file(shard) as temporary, tarfile.open(temporary, "w:") as archive, ThreadPoolExecutor() as pool:
        pictures = pool.map(lambda study: _pictures(study, side), studies)
        for number, (study, files) in enumerate(zip(studies, pictures, strict=True), start=first):
            for view, content in enumerate(files):
                _add(archive, f"{number:09d}.{view}.png", content)
            _add(archive, f"{number:09d}.json", json.dumps({"id": study.id, "views": study.views}).encode())


def _pictures(study: Study, side: int) -> list[bytes]:
    files = []
    for path, sha256 in zip(study.images, study.sha256, strict=True):
        buffer = io.BytesIO()
        image = read_checked_image(path, sha256, at_least=side)
        Image.fromarray(shorter_side(image, side)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    about = tarfile.TarInfo(name)  # without time and user: the same images give the same file
    about.size = len(content)
    archive.addfile(about, io.BytesIO(content))
