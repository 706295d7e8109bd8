"""Images inside tar files (WebDataset's layout), read in place: a few large files instead of a great many small ones.

A member's path is written as if the tar file were a folder, `train-000003.tar/000003000.0.png`, so a manifest can name it like
any other image, and every command reads it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from rayscribe.errors import InputError
from rayscribe.study import Study

SUFFIX = ".tar"


def is_member(path: Path) -> bool:
    """Whether the path points into a tar file, not into a folder with such a name."""
    return path.parent.suffix == SUFFIX and not path.parent.is_dir()


def member_bytes(path: Path) -> bytes:
    """The image file's bytes. Raises InputError that names the shard, or the member that is missing."""
    shard = path.parent
    try:
        start, size = _places(shard, shard.stat().st_mtime_ns)[path.name]
        with open(shard, "rb") as file:
            content = os.pread(file.fileno(), size, start)
    except FileNotFoundError as error:
        raise InputError(f"{shard}: no such shard; check the path, or write the shards again") from error
    except KeyError as error:
        raise InputError(f"{shard}: contains no {path.name}; write the shards again") from error
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{shard}: damaged shard ({error}); delete it and write the shards again") from error
    if len(content) != size:
        raise InputError(f"{shard}: truncated at {path.name}; delete it and write the shards again")
    return content


def shard_numbers(studies: Sequence[Study]) -> tuple[int, ...]:
    """Shard number of every study; empty if images are single files."""
    if not studies or not all(study.images and is_member(study.images[0]) for study in studies):
        return ()
    numbers: dict[Path, int] = {}
    return tuple(numbers.setdefault(study.images[0].parent, len(numbers)) for study in studies)


@lru_cache(maxsize=1024)
def _places(shard: Path, changed: int) -> dict[str, tuple[int, int]]:
    """Offset and size of every member's bytes; cached until the file changes."""
    with tarfile.open(shard, "r:") as members:
        return {member.name: (member.offset_data, member.size) for member in members if member.isfile()}
