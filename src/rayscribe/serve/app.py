"""`create_app` assembles the service. OpenAPI at /openapi.json.

A request: AccessGuard (access.py) -> form (uploads.py) -> DraftService (service.py) -> Batcher (batching.py) -> model -> draft.
An asynchronous study: the same form -> Jobs (jobs.py) -> Runner (runner.py) -> DraftService.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from rayscribe import __version__
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.serve.access import AccessGuard
from rayscribe.serve.jobs import Jobs
from rayscribe.serve.keys import read_keys
from rayscribe.serve.metrics import ServiceMetrics
from rayscribe.serve.pages import add_pages
from rayscribe.serve.problems import Problem, problem_of
from rayscribe.serve.routes import add_routes
from rayscribe.serve.runner import Runner
from rayscribe.serve.service import DraftService
from rayscribe.serve.settings import ServeConfig
from rayscribe.serve.store import ModelStore
from rayscribe.serve.study_routes import add_study_routes

_LOG = logging.getLogger("rayscribe.serve")


def create_app(config: ServeConfig) -> ASGIApp:
    """The application. Raises InputError for models, keys or a database that cannot be used."""
    metrics = ServiceMetrics()
    store = ModelStore(config.models, memory=config.memory_gib * 2**30, note=_note)
    service = DraftService(store, batch=config.batch, note=metrics.batches.observe)
    jobs = Jobs(config.database_url)
    runner = Runner(jobs, service, config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        runner.start()
        yield
        runner.stop()  # first, so that the draft service finishes what the runner has begun
        service.stop()
        jobs.close()

    app = FastAPI(
        title="rayscribe",
        version=__version__,
        description=f"Chest X-rays to draft radiology reports. {DISCLAIMER}",
        lifespan=lifespan,
        docs_url=None,  # their scripts are external
        redoc_url=None,
    )
    add_pages(app)
    add_routes(app, service, jobs, metrics, config)
    add_study_routes(app, service, jobs, runner, config)
    for error in (Problem, InputError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, _told)
    keys = {} if config.keys is None else read_keys(config.keys)
    return AccessGuard(app, config=config, keys=keys, metrics=metrics)


async def _told(request: Request, error: Exception) -> Response:
    headers: Mapping[str, str] = {}
    if isinstance(error, HTTPException):
        headers = error.headers or {}  # the allowed methods
        error = Problem(
            error.status_code, "there is nothing at this address" if error.status_code == 404 else error.detail
        )
    elif isinstance(error, RequestValidationError):
        error = Problem(422, "the request does not match /openapi.json")
    problem = problem_of(error)
    if problem.status == 500:
        _LOG.error("request %s failed", request.state.request, exc_info=error)
    response = problem.response(request.state.request)
    response.headers.update(headers)
    return response


def _note(model: str, event: str) -> None:
    _LOG.info("model %s: %s", model, event)
