"""The folder with the worker's pending work, so that a kill at any moment loses nothing.

incoming/STUDY/IMAGE.dcm   received images that are not part of a report yet
outgoing/REPORT.dcm        a finished SR; REPORT.json lists its images, and is written last
done/STUDY.json            digests of the images in reports that the archive has stored
failed/STUDY.json          why there is no report; the images are in failed/STUDY/
tries/STUDY.json           number of attempts at a report of the study; more than a few mean that it crashes the process
STUDY, IMAGE and REPORT are digests of UIDs. Images and reports are deleted once the archive has the report; of a completed
study only digests remain.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayscribe.errors import InputError
from rayscribe.files import whole_file

_FAR = 3600.0
_PARTS = ("incoming", "outgoing", "done", "failed", "tries")


def digest(uid: str) -> str:
    """Name of a UID in the spool and in logs."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStudy:
    """A study that needs a report."""

    study: str
    images: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A report that the archive does not have yet, or has without a record of it."""

    report: str
    study: str
    images: tuple[str, ...]
    refusals: int = 0
    after: float = 0.0
    "earliest time of the next attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """The folder, opened by the only worker that holds its lock."""

    folder: Path
    lock: threading.RLock = field(default_factory=threading.RLock)
    "Images arrive in threads of their own."

    def receive(self, study_uid: str, image_uid: str, content: bytes) -> bool:
        """Stores an image; it is on disk on return. False if it is already part of a report.

        Receiving an image of a failed study again triggers a new attempt.
        """
        study, image = digest(study_uid), digest(image_uid)
        with self.lock:
            if image in self._noted("done", study):
                return False
            if image in self._noted("failed", study):
                self._try_again(study)
            place = self.folder / "incoming" / study
            if not place.is_dir():
                place.mkdir(parents=True)
                _settle(place.parent)
            _write(place / f"{image}.dcm", content)
        return True

    def knows(self, study_uid: str, image_uid: str) -> bool:
        """Whether an image is stored, part of a report, or failed."""
        study, image = digest(study_uid), digest(image_uid)
        is_here = (self.folder / "incoming" / study / f"{image}.dcm").is_file()
        return is_here or image in self._noted("done", study) or image in self._noted("failed", study)

    def ready(self, *, before: float) -> Iterator[PendingStudy]:
        """Studies whose last image arrived before that time; also completes work that a kill interrupted."""
        sent = {(one.study, image) for one in self.outgoing() for image in one.images}
        for place in sorted((self.folder / "incoming").iterdir()):
            with self.lock:
                self._clear(place)
                images = [path for path in sorted(place.glob("*.dcm")) if (place.name, path.stem) not in sent]
                times = [path.stat().st_mtime for path in images]
            # A time far in the future comes from a clock that has since been set back; do not wait for it.
            if images and (max(times) <= before or max(times) > before + _FAR):
                yield PendingStudy(study=place.name, images=tuple(images))

    def begin(self, pending: PendingStudy) -> int:
        """Records the start of an attempt; returns the number of attempts without an end, including this one."""
        path = self.folder / "tries" / f"{pending.study}.json"
        tries = int(_read(path).get("tries", 0)) + 1
        _write_json(path, {"tries": tries})
        return tries

    def finish_report(self, pending: PendingStudy, report_uid: str, content: bytes) -> None:
        """Stores the SR; from then on it is due to be sent."""
        report = digest(report_uid)
        images = [path.stem for path in pending.images]
        _write(self.folder / "outgoing" / f"{report}.dcm", content)
        _write_json(self.folder / "outgoing" / f"{report}.json", {"study": pending.study, "images": images})
        self.forget_tries(pending.study)

    def outgoing(self) -> list[Outgoing]:
        """Reports to send, in order of arrival."""
        found = sorted((self.folder / "outgoing").glob("*.json"), key=lambda path: path.stat().st_mtime)
        return [_outgoing(path) for path in found]

    def content(self, one: Outgoing) -> bytes:
        return (self.folder / "outgoing" / f"{one.report}.dcm").read_bytes()

    def postpone(self, one: Outgoing, *, until: float) -> None:
        """Schedules the next attempt at a report that the archive rejected."""
        note = {"study": one.study, "images": one.images, "refusals": one.refusals + 1, "after": until}
        _write_json(self.folder / "outgoing" / f"{one.report}.json", note)

    def finish(self, one: Outgoing) -> None:
        """Records that the archive has the report, then deletes images and report."""
        with self.lock:
            before = _read(self.folder / "done" / f"{one.study}.json")
            images = sorted({*before.get("images", ()), *one.images})
            reports = sorted({*before.get("reports", ()), one.report})
            _write_json(self.folder / "done" / f"{one.study}.json", {"images": images, "reports": reports})
            for suffix in (".json", ".dcm"):
                (self.folder / "outgoing" / f"{one.report}{suffix}").unlink(missing_ok=True)
            self.forget_tries(one.study)
            self._clear(self.folder / "incoming" / one.study)

    def fail(self, pending: PendingStudy, reason: str) -> None:
        """Records why these images have no report; the reason names no file and no patient."""
        with self.lock:
            noted = self._noted("failed", pending.study) | {path.stem for path in pending.images}
            _write_json(self.folder / "failed" / f"{pending.study}.json", {"reason": reason, "images": sorted(noted)})
            self.forget_tries(pending.study)
            self._clear(self.folder / "incoming" / pending.study)

    def forget_tries(self, study: str) -> None:
        """Resets the number of attempts."""
        (self.folder / "tries" / f"{study}.json").unlink(missing_ok=True)

    def _noted(self, part: str, study: str) -> set[str]:
        return set(_read(self.folder / part / f"{study}.json").get("images", ()))

    def _clear(self, place: Path) -> None:
        """Deletes completed images, moves failed ones, and removes the study's folder once it is empty."""
        if not place.is_dir():
            return
        done, failed = self._noted("done", place.name), self._noted("failed", place.name)
        for path in place.glob("*.dcm"):
            if path.stem in done:
                path.unlink()
            elif path.stem in failed:
                moved = self.folder / "failed" / place.name
                moved.mkdir(exist_ok=True)
                os.replace(path, moved / path.name)
        if not any(place.iterdir()):
            place.rmdir()

    def _try_again(self, study: str) -> None:
        """Makes a failed study pending again. The record goes last: until then the images count as failed."""
        moved, place = self.folder / "failed" / study, self.folder / "incoming" / study
        place.mkdir(exist_ok=True)
        for path in moved.glob("*.dcm"):
            os.replace(path, place / path.name)
        (self.folder / "failed" / f"{study}.json").unlink()
        if moved.is_dir():
            moved.rmdir()


@contextmanager
def opened_spool(folder: Path) -> Iterator[Spool]:
    """Raises InputError if another worker holds the lock."""
    import fcntl  # missing on Windows, where the worker does not run

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for part in _PARTS:
        (folder / part).mkdir(exist_ok=True)
        (folder / part).chmod(0o700)  # it contains patients' images, and `folder` may already have existed
    with open(folder / "worker.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another worker uses this spool; give each its own --spool") from None
        for left in folder.glob("**/.*.part"):  # left by a killed process
            left.unlink()
        for left in (folder / "outgoing").glob("*.dcm"):  # without its record it is made again
            if not left.with_suffix(".json").is_file():
                left.unlink()
        yield Spool(folder=folder)


def status_lines(folder: Path) -> list[str]:
    """Counts, and the reasons of failed studies; also works while a worker runs."""
    if not (folder / "incoming").is_dir():
        raise InputError(f"{folder}: not a spool of `rayscribe worker`; check the path")
    sent = sum(len(_read(path).get("reports", ())) for path in (folder / "done").glob("*.json"))
    counts = {part: len(list((folder / part).glob("*.json"))) for part in ("outgoing", "failed")}
    pending = len([place for place in (folder / "incoming").iterdir() if place.is_dir()])
    lines = [
        f"{pending} studies here, {counts['outgoing']} reports to be sent, {sent} sent, {counts['failed']} studies failed"
    ]
    for path in sorted((folder / "failed").glob("*.json")):
        lines.append(f"failed {path.stem[:8]}: {_read(path).get('reason', '')}")
    return lines


def _outgoing(path: Path) -> Outgoing:
    note = _read(path)
    return Outgoing(
        report=path.stem,
        study=str(note["study"]),
        images=tuple(note["images"]),
        refusals=int(note.get("refusals", 0)),
        after=float(note.get("after", 0)),
    )


def _read(path: Path) -> dict[str, Any]:
    """The content of a record; empty if it does not exist. Records are written atomically."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _write_json(path: Path, plain: dict[str, Any]) -> None:
    _write(path, json.dumps(plain).encode())


def _write(path: Path, content: bytes) -> None:
    """Writes a file; it is on disk under its name on return."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """Syncs a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
