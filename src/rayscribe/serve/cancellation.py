"""Runs a request's blocking work in a thread, for as long as the client waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from rayscribe.serve.problems import Problem

_T = TypeVar("_T")


async def run_while_connected(
    request: Request, threads: ThreadPoolExecutor, work: Callable[[threading.Event], _T], *, seconds: float
) -> _T:
    """Returns the result of `work`. If the client disconnects or time runs out, sets its event and raises Problem."""
    stop, end = threading.Event(), time.monotonic() + seconds
    done = asyncio.get_running_loop().run_in_executor(threads, work, stop)
    try:
        while True:
            await asyncio.wait({done}, timeout=min(0.25, max(0.01, end - time.monotonic())))
            if done.done():
                return done.result()
            if time.monotonic() >= end:
                told = f"not done within {seconds:g} seconds; send it to /v1/studies instead"
                raise Problem(503, told, retry_after=10)
            if await request.is_disconnected():
                raise Problem(503, "the client disconnected")
    finally:  # also if the service stops before the request ends
        stop.set()
        done.add_done_callback(_dropped)


def _dropped(done: asyncio.Future[_T]) -> None:
    """Retrieves an exception that no caller awaits, so that asyncio does not report it."""
    if not done.cancelled():
        done.exception()
