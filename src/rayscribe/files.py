"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from rayscribe.errors import InputError


def cache_folder() -> Path:
    """`$RAYSCRIBE_CACHE`, or `rayscribe/` in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayscribe"
    return Path(os.environ.get("RAYSCRIBE_CACHE") or fallback)


@contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Errors of the system name `path`: those that name no file, as a failed `write` does, and those of `instead_of`."""
    try:
        yield
    except OSError as error:
        if error.filename is None or (instead_of is not None and str(error.filename) == str(instead_of)):
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when it does not.

    Raises InputError where `path` is a folder, and OSError that names `path` where it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path, instead_of=temporary):
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_new(folder: Path) -> None:
    """Raises InputError where the folder holds anything."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; delete it, or give another --out")


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, whose files are moved up when the block ends well.

    Raises InputError where weights cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _part_of(folder) as made:
            yield made
            for path in sorted(made.iterdir()):
                os.replace(path, folder / path.name)
    except SafetensorError as error:
        raise InputError(f"{folder}: cannot be written ({error}); free some disk space and repeat") from error


@contextmanager
def _part_of(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, which is gone at the end, as is what a killed process left."""
    made = folder / f".part.{os.getpid()}"
    for left in folder.glob(".part.*"):
        shutil.rmtree(left, ignore_errors=True)
    made.mkdir()
    try:
        with naming(folder):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


_READY = ".replacing"


@contextmanager
def replaced_together(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, whose files replace those of `folder` when the block ends well: all of them or none.

    A process that is killed while it replaces them leaves the rest to `finish_replacing`.
    """
    with _part_of(folder) as made:
        yield made
        os.replace(made, folder / _READY)
        finish_replacing(folder)


def finish_replacing(folder: Path) -> bool:
    """Moves what `replaced_together` made ready and could not move; whether there was any."""
    ready = folder / _READY
    if not ready.is_dir():
        return False
    with naming(folder):
        for path in sorted(ready.iterdir()):
            os.replace(path, folder / path.name)
        ready.rmdir()
    return True
