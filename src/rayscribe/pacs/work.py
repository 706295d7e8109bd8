"""The worker's steps: from a complete study to a draft, to an SR in the spool, to the archive. Every step is repeatable."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pydicom

from rayscribe.data.dicom_decoding import damage
from rayscribe.data.images import Upload
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.inference.writer import Writer
from rayscribe.pacs.fetch import AT_ONCE, Fetcher
from rayscribe.pacs.receive import identity_of
from rayscribe.pacs.send import Refused, Sender, Unreachable
from rayscribe.pacs.spool import PendingStudy, Spool
from rayscribe.reports.document import Author
from rayscribe.reports.drafting import document_of
from rayscribe.reports.exports import exported
from rayscribe.reports.source_images import read_source_images
from rayscribe.study import is_frontal

MOST_TRIES = 5
"A study that crashed the process this many times is not attempted again."
LONGEST = 300.0
"Longest wait between two attempts, in seconds."
_IDLE = 0.2


@dataclass(slots=True, kw_only=True)
class Patience:
    """Exponential backoff with jitter: the wait doubles on average after every failure."""

    failures: int = 0
    after: float = 0.0

    def fail(self) -> float:
        self.failures += 1
        wait = delay(self.failures)
        self.after = time.monotonic() + wait
        return wait

    def succeed(self) -> None:
        self.failures, self.after = 0, 0.0


def delay(failures: int) -> float:
    """Seconds to wait after this many failures in a row."""
    return min(LONGEST, 2.0 ** min(failures - 1, 20)) * random.uniform(0.5, 1.0)


@dataclass(slots=True, kw_only=True)
class Worker:
    """Drafts and sends the content of a spool, one study at a time."""

    spool: Spool
    writer: Writer
    author: Author
    sender: Sender
    notify: Callable[[str], None]
    quiet: float
    "seconds without a new image after which a study counts as complete"
    fetcher: Fetcher | None = None
    poll: float = 30.0
    started: float = field(default_factory=time.monotonic)
    archive: Patience = field(default_factory=Patience)
    web: Patience = field(default_factory=Patience)

    def run(self, stop: threading.Event) -> None:
        """Works until `stop`; finishes the current study first."""
        disk = Patience()
        while not stop.is_set():
            try:
                is_busy = self.step(stop)
                disk.succeed()
            except OSError as error:
                wait = disk.fail()
                self.notify(f"the spool cannot be used ({error.strerror}); retrying in {wait:.0f} s")
                stop.wait(wait)
                continue
            if not is_busy:
                stop.wait(_IDLE)

    def step(self, stop: threading.Event) -> bool:
        """Sends what is due, fetches new images, drafts one study. Returns whether there was a study to draft."""
        self.send_due(stop)
        self._fetch_due()
        # After a start, give senders time to repeat what they could not send while the worker was down.
        is_early = time.monotonic() < self.started + self.quiet
        if is_early or stop.is_set():
            return False
        pending = next(self.spool.ready(before=time.time() - self.quiet), None)
        if pending is None:
            return False
        self.draft(pending)
        self.send_due(stop)
        return True

    def draft(self, pending: PendingStudy) -> None:
        """Puts one SR into the spool, or a record of why there is none."""
        broken: tuple[type[Exception], ...] = (ArithmeticError, *damage())
        short, tries = pending.study[:8], self.spool.begin(pending)
        if tries > MOST_TRIES:
            self._fail(pending, f"the worker crashed {MOST_TRIES} times while working on the study")
            return
        try:
            report = self._report(pending)
        except InputError as error:
            self._fail(pending, _nameless(str(error), pending.images))
        except broken as error:
            # Whatever a study's bytes do to decoders and model must not stop the others; exception texts may quote values.
            self._fail(pending, f"drafting failed ({type(error).__name__})")
        else:
            _, uid = identity_of(report)
            try:
                self.spool.finish_report(pending, uid, report)
            except OSError:  # a full disk is not the study's fault
                self.spool.forget_tries(pending.study)
                raise
            self.notify(f"study {short}: a draft of {len(pending.images)} images")

    def send_due(self, stop: threading.Event) -> None:
        """Sends every SR that is due, until `stop` or until the archive does not answer."""
        if time.monotonic() < self.archive.after:
            return
        for one in self.spool.outgoing():
            if stop.is_set():
                return
            if 0 < one.after - time.time() <= LONGEST:  # a later time comes from a clock that was set back
                continue
            try:
                self.sender.send(self.spool.content(one))
            except Unreachable as error:
                wait = self.archive.fail()
                self.notify(f"the archive cannot be reached ({error}); retrying in {wait:.0f} s")
                return
            except Refused as error:
                wait = delay(one.refusals + 1)
                self.spool.postpone(one, until=time.time() + wait)
                self.notify(f"study {one.study[:8]}: the archive refused the draft ({error}); retrying in {wait:.0f} s")
            else:
                self.spool.finish(one)
                self.notify(f"study {one.study[:8]}: the draft is in the archive")
            self.archive.succeed()

    def _report(self, pending: PendingStudy) -> bytes:
        paths = _frontal_first(pending.images)
        images = [Upload(name=f"image {place}", content=path.read_bytes()) for place, path in enumerate(paths, 1)]
        (draft,) = self.writer.draft([self.writer.read(images)], DecodingConfig())
        document = document_of(draft, self.author, images=len(images), created=datetime.now(UTC))
        source_images = read_source_images([(image.name, image.content) for image in images])
        return exported("sr", document, source_images).content

    def _fail(self, pending: PendingStudy, reason: str) -> None:
        self.spool.fail(pending, reason)
        self.notify(f"study {pending.study[:8]}: failed: {reason}")

    def _fetch_due(self) -> None:
        if self.fetcher is None or time.monotonic() < self.web.after:
            return
        try:
            found = self.fetcher.fetch(self.spool, self.notify)
            if found:
                self.notify(f"{found} new images by DICOMweb")
        except Unreachable as error:
            self.notify(f"the DICOMweb service cannot be reached ({error}); retrying in {self.web.fail():.0f} s")
        else:
            self.web.succeed()
            self.web.after = time.monotonic() + (self.poll if found < AT_ONCE else 0)


def _frontal_first(paths: Sequence[Path]) -> list[Path]:
    """Frontal images first, as models see a study in training; otherwise sorted by name, which is stable."""
    return sorted(paths, key=lambda path: (not _is_frontal(path), path.name))


def _is_frontal(path: Path) -> bool:
    try:
        data = pydicom.dcmread(path, specific_tags=["ViewPosition"], stop_before_pixels=True)
        return is_frontal(str(data.get("ViewPosition") or "").lower())
    except damage():
        return False


def _nameless(message: str, paths: Sequence[Path]) -> str:
    for number, path in enumerate(_frontal_first(paths), start=1):
        message = message.replace(str(path), f"image {number}")
    return message
