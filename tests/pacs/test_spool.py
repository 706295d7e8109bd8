"""The spool, killed at every step it takes, with a full disk, and with studies that cannot be read."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest

from drafts import STUDY, draft, original
from rayscribe.data.images import Upload
from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.errors import InputError
from rayscribe.inference.images import ImageStudy
from rayscribe.pacs.receive import MISMATCH, NOT_UNDERSTOOD, OUT_OF_RESOURCES, SUCCESS, identity_of, kept
from rayscribe.pacs.send import Refused, Unreachable, sender_of
from rayscribe.pacs.spool import Spool, opened_spool, status_lines
from rayscribe.pacs.work import LONGEST, MOST_TRIES, Worker, _frontal_first, delay


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Archive:
    """What was sent, by UID."""

    contents: dict[str, bytes] = field(default_factory=dict)
    faults: list[Exception] = field(default_factory=list)
    calls: int = 0

    def send(self, content: bytes) -> None:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        self.contents[identity_of(content)[1]] = content


@dataclass
class Words:
    """Writes the same words of every study; an error, where it has one."""

    error: Exception | None = None

    def read(self, files: Sequence[Upload]) -> ImageStudy:
        if self.error is not None:
            raise self.error
        assert all(file.content for file in files)
        return ImageStudy(images=[], warnings=[])

    def draft(self, studies: Sequence[ImageStudy], decoding: DecodingConfig) -> list[Draft]:
        return [Draft(reports=["The heart is normal."], warnings=[], diagnosis={}) for _ in studies]


def working(spool: Spool, archive: Archive, writer: object = None, said: list[str] | None = None) -> Worker:
    return Worker(
        spool=spool,
        writer=writer or Words(),  # type: ignore[arg-type]
        author=draft().model,
        sender=archive,
        notify=(said if said is not None else []).append,
        quiet=-10.0,
    )


class Never:
    def is_set(self) -> bool:
        return False


def finished(spool: Spool, archive: Archive) -> None:
    worker = working(spool, archive)
    while worker.step(Never()):  # type: ignore[arg-type]
        pass


@contextmanager
def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Of the operations that change a folder, the one after so many does not happen."""
    taken: list[str] = []

    def stopping(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*given: object, **more: object) -> object:
            if len(taken) >= steps:
                raise Killed(name)
            taken.append(name)
            return real(*given, **more)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stopping("replace", os.replace))
        for name in ("unlink", "mkdir", "rmdir"):
            patched.setattr(Path, name, stopping(name, getattr(Path, name)))
        yield taken


def whole(folder: Path, archive: Archive) -> None:
    with opened_spool(folder) as spool:
        for number in (1, 2):
            assert kept(spool, print, f"{STUDY}.9.{number}", original(number)) == SUCCESS
        finished(spool, archive)


def test_a_kill_at_any_step_loses_nothing_and_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: set[str] = set()
    for steps in range(10_000):
        folder, archive, taken = tmp_path / str(steps), Archive(), []
        try:
            with killed_after(steps, monkeypatch) as taken:
                whole(folder, archive)
        except Killed:
            whole(folder, archive)  # the sender repeats what it got no answer for, and more
        assert len(archive.contents) == 1, (steps, taken)
        reports |= archive.contents.keys()
        left = [path for part in ("incoming", "outgoing", "tries", "failed") for path in (folder / part).rglob("*")]
        assert left == [], (steps, taken)
        if len(taken) < steps:
            break
    assert steps > 20 and len(reports) == 1


def test_a_full_disk_is_said_to_the_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with opened_spool(tmp_path) as spool:

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            assert kept(spool, said.append, f"{STUDY}.9.1", original(1)) == OUT_OF_RESOURCES
        assert not list(tmp_path.rglob("*.dcm")) and not list(tmp_path.rglob("*.part"))
        assert "No space left" in said[0] and STUDY not in said[0]
        assert kept(spool, said.append, f"{STUDY}.9.1", original(1)) == SUCCESS


def test_what_has_no_identity_is_refused(tmp_path: Path) -> None:
    with opened_spool(tmp_path) as spool:
        assert kept(spool, print, "1.2", b"no DICOM") == NOT_UNDERSTOOD
        assert kept(spool, print, "1.2", original(1)) == MISMATCH
        assert not list(tmp_path.rglob("*.dcm"))


def test_a_study_that_cannot_be_drafted_blocks_no_other(tmp_path: Path) -> None:
    archive, said = Archive(), []
    with opened_spool(tmp_path) as spool:
        for error in (InputError("ZZ"), RuntimeError("ZZCANARY"), OSError("ZZCANARY"), ZeroDivisionError("ZZCANARY")):
            kept(spool, print, f"{STUDY}.9.1", original(1))
            worker = working(spool, archive, Words(error), said)
            assert worker.step(Never()) and not worker.step(Never())  # type: ignore[arg-type]
            assert len(list((tmp_path / "failed").rglob("*.dcm"))) == 1
        assert status_lines(tmp_path)[1].endswith("drafting failed (ZeroDivisionError)")
        assert "CANARY" not in "".join(said)
        # Sent again, it is tried again.
        kept(spool, print, f"{STUDY}.9.1", original(1))
        finished(spool, archive)
        assert len(archive.contents) == 1 and status_lines(tmp_path)[0].endswith("1 sent, 0 studies failed")


def test_a_study_that_ends_the_process_is_left_after_some_tries(tmp_path: Path) -> None:
    archive = Archive()
    for _ in range(MOST_TRIES):
        with opened_spool(tmp_path) as spool:
            kept(spool, print, f"{STUDY}.9.1", original(1))
            with pytest.raises(MemoryError):
                working(spool, archive, Words(MemoryError())).step(Never())  # type: ignore[arg-type,arg-type]
    with opened_spool(tmp_path) as spool:
        finished(spool, archive)
    assert not archive.contents and "crashed 5 times" in status_lines(tmp_path)[1]


def test_a_refused_report_waits_and_lets_others_pass(tmp_path: Path) -> None:
    archive, said = Archive(faults=[Refused("status C000")]), []
    with opened_spool(tmp_path) as spool:
        kept(spool, print, f"{STUDY}.9.1", original(1))
        worker = working(spool, archive, said=said)
        while worker.step(Never()):  # type: ignore[arg-type]
            pass
        (pending,) = spool.outgoing()
        assert pending.refusals == 1 and pending.after > 0 and "refused" in said[-1]
        kept(spool, print, "1.2.3.9.2", original(2, study="1.2.3"))
        while worker.step(Never()):  # type: ignore[arg-type]
            pass
        assert len(archive.contents) == 1
        spool.postpone(pending, until=0)
        finished(spool, archive)
        assert len(archive.contents) == 2 and not spool.outgoing()


def test_an_archive_that_is_down_is_asked_less_and_less(tmp_path: Path) -> None:
    archive = Archive(faults=[Unreachable("no association")] * 3)
    with opened_spool(tmp_path) as spool:
        kept(spool, print, f"{STUDY}.9.1", original(1))
        worker = working(spool, archive)
        while worker.step(Never()):  # type: ignore[arg-type]
            pass
        assert archive.calls == 1 and worker.archive.failures == 1
        for _ in range(3):
            worker.archive.after = 0
            worker.send_due(Never())  # type: ignore[arg-type]
        assert len(archive.contents) == 1 and worker.archive.failures == 0
    assert 0.5 <= delay(1) <= 1 and 8 <= delay(5) <= 16 and delay(10_000) <= LONGEST


def test_a_clock_that_is_set_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    archive = Archive(faults=[Refused("status C000")])
    with opened_spool(tmp_path) as spool:
        kept(spool, print, f"{STUDY}.9.1", original(1))
        (image,) = tmp_path.rglob("*.dcm")
        os.utime(image, (later := time.time() + 400 * 86400, later))
        worker = working(spool, archive)
        assert worker.step(Never())  # type: ignore[arg-type]
        (pending,) = spool.outgoing()
        spool.postpone(pending, until=later)
        finished(spool, archive)
    assert len(archive.contents) == 1


def test_a_full_disk_is_no_fault_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened_spool(tmp_path) as spool:
        kept(spool, print, f"{STUDY}.9.1", original(1))
        with monkeypatch.context() as patched:
            patched.setattr(Spool, "finish_report", full)
            for _ in range(MOST_TRIES + 1):
                with pytest.raises(OSError, match="No space"):
                    working(spool, archive).step(Never())  # type: ignore[arg-type]
        finished(spool, archive)
    assert len(archive.contents) == 1


def test_reports_go_in_the_order_in_which_they_came_and_frontal_images_first(tmp_path: Path) -> None:
    with opened_spool(tmp_path) as spool:
        for name, age in (("a", 10), ("b", 20)):
            path = tmp_path / "outgoing" / f"{name}.json"
            path.write_text('{"study": "s", "images": []}')
            os.utime(path, (1e9 - age, 1e9 - age))
        assert [one.report for one in spool.outgoing()] == ["b", "a"]
    paths = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for path, view in zip(paths, ("LL", "PA"), strict=True):
        path.write_bytes(original(1, ViewPosition=view))
    assert _frontal_first(paths) == paths[::-1]


def test_an_end_waits_for_no_queue(tmp_path: Path) -> None:
    archive, stop = Archive(faults=[Unreachable("no association")]), threading.Event()
    with opened_spool(tmp_path) as spool:
        kept(spool, print, f"{STUDY}.9.1", original(1))
        worker = working(spool, archive)
        assert worker.step(stop) and len(spool.outgoing()) == 1
        stop.set()
        worker.archive.succeed()
        assert not worker.step(stop) and archive.calls == 1


def test_others_cannot_look_into_a_spool_that_was_there_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "incoming").mkdir(mode=0o755)
    with opened_spool(tmp_path) as spool:
        kept(spool, print, f"{STUDY}.9.1", original(1))
    assert {place.stat().st_mode & 0o777 for place in tmp_path.iterdir() if place.is_dir()} == {0o700}


def test_a_spool_has_one_worker(tmp_path: Path) -> None:
    with opened_spool(tmp_path), pytest.raises(InputError, match="another worker"), opened_spool(tmp_path):
        pass


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give the destination of reports"),
        ({"send_to": "A@b:1", "stow_url": "http://b"}, "give the destination of reports"),
        ({"send_to": "nowhere"}, "not of the form AET@host:port"),
        ({"send_to": "A@b:99999"}, "not of the form AET@host:port"),
        ({"stow_url": "ftp://b"}, "not of the form http"),
        ({"send_to": "A@b:1", "ae_title": "MUCH TOO LONG FOR ONE"}, "not an AE title"),
    ],
)
def test_flags_are_checked(flags: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sender_of(**({"send_to": None, "stow_url": None, "ae_title": "RAYSCRIBE"} | flags))  # type: ignore[arg-type]


def test_what_the_archive_got_is_a_report_of_the_study(tmp_path: Path) -> None:
    archive = Archive()
    whole(tmp_path, archive)
    (content,) = archive.contents.values()
    path = tmp_path / "sr.dcm"
    path.write_bytes(content)
    assert pydicom.dcmread(path).StudyInstanceUID == STUDY
