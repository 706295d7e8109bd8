"""Hands asynchronous studies from the database to the draft service, a few at a time."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from rayscribe.reports.document import document_json
from rayscribe.serve.batching import Cancelled
from rayscribe.serve.jobs import AWAY, CLAIM_SECONDS, Job, Jobs
from rayscribe.serve.problems import Problem, problem_of
from rayscribe.serve.service import DraftService
from rayscribe.serve.settings import ServeConfig
from rayscribe.serve.uploads import DraftOptions, options_of

_T = TypeVar("_T")

_LOG = logging.getLogger("rayscribe.serve")
_RENEW_SECONDS = CLAIM_SECONDS / 20


class Runner:
    """One thread claims jobs; a pool as large as a batch waits for their drafts."""

    def __init__(self, jobs: Jobs, service: DraftService, config: ServeConfig) -> None:
        self._jobs, self._service, self._config = jobs, service, config
        self._me = uuid.uuid4().hex
        self._pool = ThreadPoolExecutor(config.batch, thread_name_prefix="job")
        self._free = threading.Semaphore(config.batch)
        self._arrived = threading.Semaphore(0)
        self._ending = threading.Event()
        self._stops: dict[str, threading.Event] = {}
        self._progress: dict[str, tuple[float, str]] = {}
        self._ends: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, name="claiming", daemon=True)
        self._renewed, self._forgotten = 0.0, 0.0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Signals that a job was added."""
        self._arrived.release()

    def stop(self) -> None:
        """Finishes the studies in progress; waiting ones stay in the database for the next start."""
        self._ending.set()
        self.wake()
        self._thread.join()
        self._pool.shutdown()

    def _work(self) -> None:
        while not (self._ending.is_set() and not self._stops):
            try:
                self._look_after()
                job = None if self._ending.is_set() else self._next()
            except AWAY as error:  # nothing is lost: the claims expire
                self._wait(error)
                continue
            if job is not None:
                self._begin(job)
            else:
                self._arrived.acquire(timeout=0.1 if self._ending.is_set() else 0.5)

    def _next(self) -> Job | None:
        if not self._free.acquire(blocking=False):
            return None
        job = self._jobs.claim(self._me)
        if job is None:
            self._free.release()
        return job

    def _begin(self, job: Job) -> None:
        stop = self._stops[job.id] = threading.Event()
        self._ends[job.id] = time.monotonic() + self._config.max_seconds
        self._progress[job.id] = 0.0, "begun"
        done = self._pool.submit(self._draft, job, stop)
        done.add_done_callback(lambda future: self._finish(job, future))

    def _draft(self, job: Job, stop: threading.Event) -> str:
        def on_progress(share: float, stage: str) -> None:
            self._progress[job.id] = share, stage

        options: DraftOptions = options_of(DraftOptions, job.options)
        images = self._asked(lambda: self._jobs.images(job.id))
        if not images:  # cancelled since it was claimed
            raise Cancelled
        return document_json(self._service.draft(images, options, stop, on_progress))

    def _finish(self, job: Job, done: Future[str]) -> None:
        with suppress(Cancelled):
            self._asked(lambda: self._keep(job, done))
        for table in (self._stops, self._progress, self._ends):
            table.pop(job.id, None)
        self._free.release()
        self._arrived.release()

    def _keep(self, job: Job, done: Future[str]) -> None:
        error = done.exception()
        if error is None:
            self._jobs.end(job.id, self._me, "done", draft=done.result())
        elif not isinstance(error, Cancelled):
            problem = problem_of(error)
            if problem.status >= 500:
                _LOG.error("job %s failed", job.id, exc_info=error)
            self._jobs.end(job.id, self._me, "failed", problem=problem.plain())
        elif time.monotonic() >= self._ends[job.id]:
            told = f"the study was not written within {self._config.max_seconds:g} seconds"
            self._jobs.end(job.id, self._me, "failed", problem=Problem(503, told).plain())

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """The database's result, retried until it responds, so that no draft is lost or written twice.

        Raises Cancelled if the service stops first; the claim then expires.
        """
        while True:
            try:
                return ask()
            except AWAY as error:
                if self._ending.is_set():
                    raise Cancelled from None
                self._wait(error)

    def _wait(self, error: BaseException) -> None:
        _LOG.warning("the database does not answer (%s); trying again", type(error).__name__)
        time.sleep(0.2 if self._ending.is_set() else 1.0)

    def _look_after(self) -> None:
        """At most twice a second: renews claims, stops cancelled and late studies, deletes old drafts."""
        now = time.monotonic()
        if self._stops and now - self._renewed > _RENEW_SECONDS:
            self._renewed = now
            mine = self._jobs.renew(self._me, dict(self._progress))
            for id_, stop in list(self._stops.items()):
                if id_ not in mine or now >= self._ends.get(id_, now):
                    stop.set()
        if now - self._forgotten > 30:
            self._forgotten = now
            self._jobs.forget(before=time.time() - 60 * self._config.keep_minutes)
