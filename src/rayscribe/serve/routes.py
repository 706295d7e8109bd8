"""The synchronous routes, and those for operators: models, health, metrics."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel, Field
from pydicom.dataset import Dataset
from starlette.responses import JSONResponse, Response

from rayscribe import __version__
from rayscribe.data.images import Upload, read_image
from rayscribe.errors import DISCLAIMER
from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS, STATE_NAMES
from rayscribe.metrics.labeler import states
from rayscribe.reports.document import read_document
from rayscribe.reports.drafting import sentences_of
from rayscribe.reports.exports import KINDS, exported
from rayscribe.reports.source_images import read_source_images
from rayscribe.serve.cancellation import run_while_connected
from rayscribe.serve.forms import form
from rayscribe.serve.jobs import AWAY, Jobs
from rayscribe.serve.metrics import CONTENT_TYPE, ServiceMetrics
from rayscribe.serve.problems import Problem
from rayscribe.serve.responses import PROBLEMS, DraftResponse, FindingsResponse, LabelsResponse, responses
from rayscribe.serve.service import DraftService
from rayscribe.serve.settings import ServeConfig
from rayscribe.serve.uploads import DraftOptions, FindingOptions, options_of, read_form

_LONGEST = 2048
"Longest side of an image on the page, in pixels."


class LabelRequest(BaseModel):
    """A text for the labeler."""

    text: str = Field(max_length=20_000)


def add_routes(app: FastAPI, service: DraftService, jobs: Jobs, metrics: ServiceMetrics, config: ServeConfig) -> None:
    """Adds the synchronous routes, and those for operators."""
    threads = ThreadPoolExecutor(config.queue + (os.cpu_count() or 1), thread_name_prefix="request")
    _add_model_routes(app, service, threads, config)
    _add_file_routes(app, threads, config)
    _add_operator_routes(app, service, jobs, metrics, config)


def _add_model_routes(app: FastAPI, service: DraftService, threads: ThreadPoolExecutor, config: ServeConfig) -> None:
    """Routes that run a model: drafts and findings."""

    @app.post("/v1/reports", responses=responses(DraftResponse), openapi_extra=form("images", DraftOptions))
    async def report(request: Request) -> Response:
        """A draft report of one study."""
        sent = await read_form(request, config)
        options: DraftOptions = options_of(DraftOptions, sent.texts.get("options", ""))
        document = await run_while_connected(
            request,
            threads,
            lambda stop: service.draft(sent.images, options, stop, lambda share, stage: None),
            seconds=config.max_seconds,
        )
        return JSONResponse(document.plain())

    @app.post("/v1/classify", responses=responses(FindingsResponse), openapi_extra=form("images", FindingOptions))
    async def classify(request: Request) -> Response:
        """Probabilities of a classifier's findings, and where the images support one of them."""
        sent = await read_form(request, config)
        options: FindingOptions = options_of(FindingOptions, sent.texts.get("options", ""))
        found = await run_while_connected(
            request, threads, lambda stop: service.findings(sent.images, options), seconds=config.max_seconds
        )
        found["findings"] = [dataclasses.asdict(finding) for finding in found["findings"]]
        return JSONResponse(found)


def _add_file_routes(app: FastAPI, threads: ThreadPoolExecutor, config: ServeConfig) -> None:
    """Routes without a model: an image as models read it, the labels of a text, a draft in another format."""

    @app.post("/v1/images", responses={200: {"content": {"image/png": {}}}, **PROBLEMS}, openapi_extra=form("image"))
    async def image(request: Request) -> Response:
        """One image as the model reads it: 8-bit grey, black = least attenuation."""
        sent = await read_form(request, config, images="image")
        if len(sent.images) != 1:
            raise Problem(400, "send one image at a time")
        shown = await run_while_connected(
            request, threads, lambda stop: _png(sent.images[0]), seconds=config.max_seconds
        )
        return Response(shown, media_type="image/png")

    @app.post("/v1/labels", responses=responses(LabelsResponse))
    def labels(asked: LabelRequest) -> dict[str, Any]:
        """What a text says about the 14 observations, sentence by sentence, by the built-in rules."""
        found = [dataclasses.asdict(sentence) for sentence in sentences_of(asked.text)]
        named = zip(OBSERVATIONS, states(asked.text), strict=True)
        said = {name: STATE_NAMES[state] for name, state in named if state != NOT_MENTIONED}
        return {"sentences": found, "states": said, "disclaimer": DISCLAIMER}

    @app.post(
        "/v1/exports/{kind}",
        responses=PROBLEMS,
        openapi_extra=form("images", draft="JSON: a draft as /v1/reports answers it, edited or not"),
    )
    async def export(request: Request, kind: str) -> Response:
        """A draft in another format: text, json, pdf, fhir, sr or dicom-pdf (the last two with the DICOM originals)."""
        if kind not in KINDS:
            raise Problem(404, f"no such format; choose one of: {', '.join(KINDS)}")
        sent = await read_form(request, config, least=0)
        document = read_document(sent.texts.get("draft", ""), "draft")
        made = await run_while_connected(
            request,
            threads,
            lambda stop: exported(kind, document, _source_images(kind, sent.images)),
            seconds=config.max_seconds,
        )
        named = {"Content-Disposition": f'attachment; filename="draft-report{made.suffix}"'}
        return Response(made.content, media_type=made.media_type, headers=named)


def _add_operator_routes(
    app: FastAPI, service: DraftService, jobs: Jobs, metrics: ServiceMetrics, config: ServeConfig
) -> None:
    """Routes about the service itself: what it offers, and its health."""

    @app.get("/v1/models", responses=PROBLEMS)
    def models() -> dict[str, Any]:
        """The models, formats and limits of this service."""
        return _models(service, config)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process responds, even while every thread waits for the database."""
        return {"status": "alive"}

    @app.get("/readyz", responses=PROBLEMS)
    def ready() -> dict[str, str]:
        """The service can handle requests: the database responds."""
        _waiting(jobs)
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def measured() -> Response:
        """Metrics for Prometheus."""
        metrics.waiting.set(_waiting(jobs))
        metrics.loaded.set(len(service.store.loaded()))
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _models(service: DraftService, config: ServeConfig) -> dict[str, Any]:
    loaded = service.store.loaded()
    chosen = service.store.chosen(None), service.store.chosen(None, classifier=True)
    return {
        "models": [
            {
                "name": one.name,
                "kind": one.kind,
                "system": one.system,
                "findings": one.findings,
                "is_loaded": one.name in loaded,
                "has_evidence": one.has_evidence,
            }
            for one in service.store.entries.values()
        ],
        "default": dict(zip(("model", "classifier"), [one and one.name for one in chosen], strict=True)),
        "limits": {"images": config.max_images, "megabytes": config.max_megabytes},
        "exports": list(KINDS),
        "version": __version__,
        "disclaimer": DISCLAIMER,
    }


def _waiting(jobs: Jobs) -> int:
    try:
        return jobs.queued()
    except AWAY:
        raise Problem(503, "the database does not answer", retry_after=5) from None


def _source_images(kind: str, images: Sequence[Upload]) -> list[Dataset]:
    """DICOM headers for the kinds that name the study: required for an SR, used for FHIR if the images are DICOM files."""
    is_linked = kind in ("sr", "dicom-pdf") or (
        kind == "fhir" and images and all(image.content[128:132] == b"DICM" for image in images)
    )
    return read_source_images([(image.name, image.content) for image in images]) if is_linked else []


def _png(file: Upload) -> bytes:
    picture = Image.fromarray(read_image(file))
    picture.thumbnail((_LONGEST, _LONGEST))
    written = io.BytesIO()
    picture.save(written, "PNG", compress_level=1)
    return written.getvalue()
