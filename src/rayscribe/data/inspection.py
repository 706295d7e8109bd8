"""What `prepare` finds in every image file, read once on all cores, with a journal so that a killed run can resume.

The journal lies next to the output, one line per image: path, size, modification time, SHA-256, inverted, rows, columns,
fault. It is append-only. An incomplete line is read again, and so is a file whose size or modification time changed or that had
a fault: the cause may have been outside the file, such as a permission or a missing decoder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from rayscribe import __version__
from rayscribe.data.images import looks_inverted, read_whole_image
from rayscribe.errors import InputError
from rayscribe.files import naming

PROCESSES_FROM = 10_000
"Number of images from which processes pay for their start-up; below it, threads are faster (benchmarks/mimic_rehearsal.py)."

_CHUNK = 64  # images per task of a worker and per write to the journal
_AHEAD = 8  # chunks per worker ahead of the journal, which bounds paths and results in memory
_SIDE = 256  # decoding a large JPEG at this size takes less than half the time and still reads it to its end
_HEADER = json.dumps(["rayscribe-journal-2", __version__])


@dataclass(frozen=True, slots=True)
class ImageInspection:
    """Facts about one image file."""

    sha256: str = ""
    fault: str = ""
    missing: bool = False
    inverted: bool = False
    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """An inspection, and the state of the file at that time."""

    inspection: ImageInspection
    size: int
    modified: int


def inspect_images(
    paths: Sequence[str], *, journal: Path | None = None, workers: int | None = None, processes: bool | None = None
) -> Iterator[ImageInspection]:
    """Inspects every path, in the order of `paths`.

    `journal`: where finished inspections are kept and, after an interruption, found again. `workers` and `processes` are for
    benchmarks; the default uses all cores, as processes if there are many images to read.
    """
    names = [os.path.abspath(path) for path in paths]
    known = _read_journal(journal) if journal else {}
    known = {name: known[name] for name in names if name in known and _is_unchanged(name, known[name])}
    fresh = [path for path, name in zip(paths, names) if name not in known]
    entries = _entries(
        fresh,
        workers=workers or os.cpu_count() or 1,
        processes=len(fresh) >= PROCESSES_FROM if processes is None else processes,
    )
    if journal:
        entries = _written(entries, fresh, journal, goes_on=bool(known))
    for name in names:
        yield (known[name] if name in known else next(entries)).inspection
    next(entries, None)  # runs it to its end, which closes the journal


def _entries(paths: Sequence[str], *, workers: int, processes: bool) -> Iterator[_Entry]:
    chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    if not processes:
        with ThreadPoolExecutor(workers) as pool:
            yield from _in_order(pool, chunks, workers)
        return
    # Spawned, because a fork copies the locks of other threads; each worker ends with its parent, even if that is killed.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        yield from _in_order(pool, chunks, workers)


def _in_order(pool: Executor, chunks: Iterator[Sequence[str]], workers: int) -> Iterator[_Entry]:
    running = [pool.submit(_looked, chunk) for chunk in islice(chunks, workers * _AHEAD)]
    try:
        while running:
            done = running.pop(0).result()
            running += [pool.submit(_looked, chunk) for chunk in islice(chunks, 1)]
            yield from done
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed, which would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _looked(paths: Sequence[str]) -> list[_Entry]:
    return [_entry(path) for path in paths]


def _entry(path: str) -> _Entry:
    try:
        state = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _Entry(ImageInspection(missing=True), -1, -1)
    except OSError as error:
        return _Entry(
            ImageInspection(fault=f"{path}: cannot be read ({error.strerror}); check its permissions"), -1, -1
        )
    try:
        found = read_whole_image(Path(path), at_least=_SIDE)
        inspection = ImageInspection(
            sha256=found.sha256, inverted=looks_inverted(found.grey), rows=found.rows, columns=found.columns
        )
    except InputError as error:
        inspection = ImageInspection(fault=str(error))
    return _Entry(inspection, state.st_size, state.st_mtime_ns)


def _is_unchanged(name: str, entry: _Entry) -> bool:
    try:
        state = os.stat(name)
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (entry.size, entry.modified)


def _read_journal(path: Path) -> dict[str, _Entry]:
    """Entries by absolute path; empty if there is no journal, or if another version, whose rules may differ, wrote it."""
    if not path.is_file():
        return {}
    known = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        if file.readline().rstrip("\n") != _HEADER:
            return {}
        for line in file:
            try:
                name, size, modified, sha256, inverted, rows, columns, fault = json.loads(line)
            except ValueError:
                continue  # incomplete: the run was killed
            if not fault:
                inspection = ImageInspection(sha256=sha256, inverted=inverted, rows=rows, columns=columns)
                known[name] = _Entry(inspection, size, modified)
    return known


def _written(entries: Iterator[_Entry], paths: Sequence[str], journal: Path, *, goes_on: bool) -> Iterator[_Entry]:
    """The same entries, each soon written to the journal. Missing files are not recorded; they may appear later."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with naming(journal), open(journal, "a" if goes_on else "w", encoding="utf-8") as file:
        file.write("\n" if goes_on else f"{_HEADER}\n")  # a newline ends an incomplete line
        for number, (path, entry) in enumerate(zip(paths, entries, strict=True), start=1):
            if not entry.inspection.missing:
                _note(file, os.path.abspath(path), entry)
            if number % _CHUNK == 0:
                file.flush()
            yield entry


def _note(file: IO[str], name: str, entry: _Entry) -> None:
    found = entry.inspection
    facts = [found.sha256, found.inverted, found.rows, found.columns, found.fault]
    file.write(json.dumps([name, entry.size, entry.modified, *facts]) + "\n")
