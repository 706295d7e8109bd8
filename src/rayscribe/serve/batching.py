"""Drafts waiting studies in batches: one thread takes the longest-waiting study and others with the same batch key.

No study waits for a batch to fill. While one batch is drafted others arrive, so batches grow with the load.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.errors import InputError
from rayscribe.inference.images import ImageStudy
from rayscribe.models.decoding import Steps


class Cancelled(Exception):
    """The draft is no longer wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKey:
    """What studies must have in common to share a batch."""

    model: str
    decoding: DecodingConfig
    best: int
    with_states: bool


@dataclass(eq=False, slots=True, kw_only=True)
class DraftRequest:
    """One waiting study."""

    key: BatchKey
    study: ImageStudy
    stop: threading.Event
    "set when the draft is no longer wanted"
    on_progress: Callable[[float], None]
    "receives the completed share of the decoding steps"
    draft: Future[Draft] = field(default_factory=Future)


Write = Callable[[BatchKey, Sequence[ImageStudy], Steps], list[Draft]]


class Batcher:
    """One thread that drafts batches."""

    def __init__(self, write: Write, *, size: int, note: Callable[[int], None]) -> None:
        """`note` receives the number of studies in every batch."""
        self._write, self._size, self._note = write, size, note
        self._queue: deque[DraftRequest] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="writing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once all waiting studies are drafted."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join()

    def submit(self, request: DraftRequest) -> Draft:
        """Returns the draft or re-raises the error of drafting; raises Cancelled after `stop`."""
        with self._changed:
            if self._is_ending:  # no caller waits any more: requests and studies end first
                raise Cancelled
            self._queue.append(request)
            self._changed.notify()
        return request.draft.result()

    def _work(self) -> None:
        while batch := self._next():
            self._note(len(batch))
            with _ErrorsForwarded(batch):
                self._serve(batch)

    def _next(self) -> list[DraftRequest]:
        """The next batch; empty after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_ending)
            if not self._queue:
                return []
            first = self._queue[0]
            # The samples of a batch depend on all its studies, and a draft must not depend on other requests.
            most = 1 if first.key.decoding.strategy == "sample" else self._size
            batch = [request for request in self._queue if request.key == first.key][:most]
            for request in batch:
                self._queue.remove(request)
            return batch

    def _serve(self, batch: Sequence[DraftRequest]) -> None:
        try:
            drafts = self._write(batch[0].key, [request.study for request in batch], _watched(batch))
        except InputError:
            if len(batch) == 1:
                raise
            for request in batch:  # one study's error must not fail the others
                with _ErrorsForwarded([request]):
                    self._serve([request])
            return
        for request, draft in zip(batch, drafts, strict=True):
            request.draft.set_result(draft)


def _watched(batch: Sequence[DraftRequest]) -> Steps:
    def steps(numbers: Iterable[int]) -> Iterator[int]:
        known = list(numbers)
        for number in known:
            if all(request.stop.is_set() for request in batch):
                raise Cancelled
            for request in batch:
                request.on_progress(number / len(known))
            yield number

    return steps


class _ErrorsForwarded:
    """Forwards exceptions of the block to the waiting callers, so that the thread continues."""

    def __init__(self, requests: Sequence[DraftRequest]) -> None:
        self._tickets = requests

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> Any:
        for request in self._tickets:
            if error is not None and not request.draft.done():
                request.draft.set_exception(error)
        return True
