"""The folder that holds what the worker has to do, so that a kill at any moment loses nothing.

incoming/STUDY/IMAGE.dcm   images that came and are in no report yet
outgoing/REPORT.dcm        a finished SR; REPORT.json names the images it is of, and is written last
done/STUDY.json            digests of the images that are in a report which the archive has
failed/STUDY.json          why there is no report; the images are in failed/STUDY/
tries/STUDY.json           how often a report of the study was begun; more than a few times means that it ends the process
STUDY, IMAGE and REPORT are digests of UIDs. Images and reports are deleted when the archive has the report; what stays of a
study that went well holds digests alone.
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
    """What a UID is called in the spool and in logs."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStudy:
    """A study that needs a report."""

    study: str
    images: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A report that the archive does not have yet, or has and nobody noted it."""

    report: str
    study: str
    images: tuple[str, ...]
    refusals: int = 0
    after: float = 0.0
    "not to be sent before this time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """The folder, opened by the one worker that has its lock."""

    folder: Path
    lock: threading.RLock = field(default_factory=threading.RLock)
    "Images come in threads of their own."

    def receive(self, study_uid: str, image_uid: str, content: bytes) -> bool:
        """Keeps an image; when this returns, it is on the disk. False where it is in a report already.

        An image of a failed study that comes again means: try again.
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
        """Whether an image is here, in a report, or failed."""
        study, image = digest(study_uid), digest(image_uid)
        is_here = (self.folder / "incoming" / study / f"{image}.dcm").is_file()
        return is_here or image in self._noted("done", study) or image in self._noted("failed", study)

    def ready(self, *, before: float) -> Iterator[PendingStudy]:
        """Studies whose last image came before that time; what a kill left half done is finished on the way."""
        sent = {(one.study, image) for one in self.outgoing() for image in one.images}
        for place in sorted((self.folder / "incoming").iterdir()):
            with self.lock:
                self._clear(place)
                images = [path for path in sorted(place.glob("*.dcm")) if (place.name, path.stem) not in sent]
                times = [path.stat().st_mtime for path in images]
            # A time that lies far ahead is of a clock that was set back since; nothing is waited for until then.
            if images and (max(times) <= before or max(times) > before + _FAR):
                yield PendingStudy(study=place.name, images=tuple(images))

    def begin(self, pending: PendingStudy) -> int:
        """Notes that a report of the study is begun; how often it was begun without an end, this time included."""
        path = self.folder / "tries" / f"{pending.study}.json"
        tries = int(_read(path).get("tries", 0)) + 1
        _write_json(path, {"tries": tries})
        return tries

    def finish_report(self, pending: PendingStudy, report_uid: str, content: bytes) -> None:
        """The SR is to be sent from here on."""
        report = digest(report_uid)
        images = [path.stem for path in pending.images]
        _write(self.folder / "outgoing" / f"{report}.dcm", content)
        _write_json(self.folder / "outgoing" / f"{report}.json", {"study": pending.study, "images": images})
        self.forget_tries(pending.study)

    def outgoing(self) -> list[Outgoing]:
        """What is to be sent, in the order in which it came."""
        found = sorted((self.folder / "outgoing").glob("*.json"), key=lambda path: path.stat().st_mtime)
        return [_outgoing(path) for path in found]

    def content(self, one: Outgoing) -> bytes:
        return (self.folder / "outgoing" / f"{one.report}.dcm").read_bytes()

    def postpone(self, one: Outgoing, *, until: float) -> None:
        """The archive refused it; it is sent again after that time."""
        note = {"study": one.study, "images": one.images, "refusals": one.refusals + 1, "after": until}
        _write_json(self.folder / "outgoing" / f"{one.report}.json", note)

    def finish(self, one: Outgoing) -> None:
        """The archive has it: first the note, then images and report go."""
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
        """No report of these images; the reason names no file and no patient."""
        with self.lock:
            noted = self._noted("failed", pending.study) | {path.stem for path in pending.images}
            _write_json(self.folder / "failed" / f"{pending.study}.json", {"reason": reason, "images": sorted(noted)})
            self.forget_tries(pending.study)
            self._clear(self.folder / "incoming" / pending.study)

    def forget_tries(self, study: str) -> None:
        """The next beginning is the first."""
        (self.folder / "tries" / f"{study}.json").unlink(missing_ok=True)

    def _noted(self, part: str, study: str) -> set[str]:
        return set(_read(self.folder / part / f"{study}.json").get("images", ()))

    def _clear(self, place: Path) -> None:
        """Deletes images that are done, moves those that failed, and the study's folder when it is empty."""
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
        """The note goes last: until then the images count as failed."""
        moved, place = self.folder / "failed" / study, self.folder / "incoming" / study
        place.mkdir(exist_ok=True)
        for path in moved.glob("*.dcm"):
            os.replace(path, place / path.name)
        (self.folder / "failed" / f"{study}.json").unlink()
        if moved.is_dir():
            moved.rmdir()


@contextmanager
def opened_spool(folder: Path) -> Iterator[Spool]:
    """Raises InputError where another worker has it."""
    import fcntl  # not on Windows, where there is no worker

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for part in _PARTS:
        (folder / part).mkdir(exist_ok=True)
        (folder / part).chmod(0o700)  # images of patients lie in it, and `folder` may be older than we are
    with open(folder / "worker.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another worker has this spool; give each its own --spool") from None
        for left in folder.glob("**/.*.part"):  # by a process that was killed
            left.unlink()
        for left in (folder / "outgoing").glob("*.dcm"):  # without its note it is made again
            if not left.with_suffix(".json").is_file():
                left.unlink()
        yield Spool(folder=folder)


def status_lines(folder: Path) -> list[str]:
    """Counts, and why studies failed; also while a worker runs."""
    if not (folder / "incoming").is_dir():
        raise InputError(f"{folder}: no spool of `rayscribe worker`; check the path")
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
    """Empty where there is no such note. Notes are whole or absent."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _write_json(path: Path, plain: dict[str, Any]) -> None:
    _write(path, json.dumps(plain).encode())


def _write(path: Path, content: bytes) -> None:
    """When this returns, the file is on the disk under its name."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """What a folder lists is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
