"""The asynchronous routes: accept a study, report its state, cancel or delete it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from rayscribe.serve.forms import form
from rayscribe.serve.jobs import AWAY, Jobs, Repeated
from rayscribe.serve.problems import Problem
from rayscribe.serve.responses import StudyResponse, responses
from rayscribe.serve.runner import Runner
from rayscribe.serve.service import DraftService
from rayscribe.serve.settings import ServeConfig
from rayscribe.serve.uploads import DraftOptions, Sent, options_of, read_form

_REPEAT = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200},
    "description": "a request that is sent again with the same key gets the same study",
}


def add_study_routes(app: FastAPI, service: DraftService, jobs: Jobs, runner: Runner, config: ServeConfig) -> None:
    @app.post(
        "/v1/studies",
        status_code=202,
        responses=responses(StudyResponse, 202),
        openapi_extra=form("images", DraftOptions) | {"parameters": [_REPEAT]},
    )
    async def accept(request: Request) -> Response:
        """Accepts one study; it is on disk when this returns, and is drafted whatever happens to the service."""
        sent = await read_form(request, config)
        options: DraftOptions = options_of(DraftOptions, sent.texts.get("options", ""))
        service.check(options)
        repeat_key = request.headers.get("idempotency-key")
        if repeat_key is not None and not 1 <= len(repeat_key) <= 200:
            raise Problem(400, "Idempotency-Key: between 1 and 200 characters")
        id_ = await run_in_threadpool(_add, jobs, config, sent, options, request.state.owner, repeat_key)
        runner.wake()
        job = await run_in_threadpool(_found, jobs, id_, request.state.owner)
        return JSONResponse(job, 202, {"Location": f"/v1/studies/{id_}"})

    @app.get("/v1/studies/{id}", responses=responses(StudyResponse))
    def look(request: Request, id: str) -> dict[str, Any]:
        """The progress of a study, and its draft once it is done."""
        return _found(jobs, id, request.state.owner)

    @app.delete("/v1/studies/{id}", responses=responses(StudyResponse))
    def cancel(request: Request, id: str) -> dict[str, Any]:
        """Cancels a waiting or running study; deletes one that has ended."""
        _check_id(id)
        try:
            job = jobs.cancel(id, owner=request.state.owner)
        except AWAY:
            raise _away() from None
        if job is None:
            raise _unknown()
        return job.plain()


def _add(jobs: Jobs, config: ServeConfig, sent: Sent, options: DraftOptions, owner: str, repeat_key: str | None) -> str:
    said = options.model_dump_json()
    digest = hashlib.sha256(said.encode())
    for image in sent.images:
        digest.update(hashlib.sha256(image.content).digest())
    try:
        if jobs.queued() >= config.jobs:
            raise Problem(429, f"{config.jobs} studies wait already; try again later", retry_after=10)
        return jobs.add(
            sent.images,
            said,
            owner=owner,
            repeat_key=repeat_key and hashlib.sha256(repeat_key.encode()).hexdigest(),
            digest=digest.hexdigest(),
        )
    except Repeated:
        raise Problem(409, "Idempotency-Key: already used by another request; use a new key") from None
    except AWAY:
        raise _away() from None


def _check_id(id_: str) -> None:
    """Raises Problem for what cannot be an id; PostgreSQL rejects a NUL."""
    if not re.fullmatch(r"[0-9a-f]{32}", id_):
        raise _unknown()


def _found(jobs: Jobs, id_: str, owner: str) -> dict[str, Any]:
    _check_id(id_)
    try:
        job = jobs.find(id_, owner=owner)
    except AWAY:
        raise _away() from None
    if job is None:
        raise _unknown()
    return job.plain()


def _unknown() -> Problem:
    return Problem(404, "no such study; drafts are kept for a while only")


def _away() -> Problem:
    return Problem(503, "the database does not answer, or its disk is full; nothing was accepted", retry_after=5)
