"""The service's responses, as /openapi.json describes them. A test validates real responses against these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from rayscribe.reports.document import DRAFT_FORMAT, Document, Finding, Grid, Sentence
from rayscribe.serve.jobs import JobState


@dataclass(frozen=True, kw_only=True)
class DraftResponse(Document):
    """A draft report. Its status is always preliminary."""

    format: Literal["rayscribe-draft-1"] = DRAFT_FORMAT
    status: Literal["preliminary"] = "preliminary"
    disclaimer: str


class ProblemResponse(BaseModel):
    """What is wrong, and how to fix it (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request: str | None = None
    "also in the log and in X-Request-ID"
    image: int | None = None
    "position of the faulty image, counted from 1"


class StudyResponse(BaseModel):
    """An asynchronous study."""

    id: str
    state: JobState
    progress: float
    "between 0 and 1"
    stage: str
    position: int | None
    "number of studies ahead of it in the queue"
    draft: DraftResponse | None
    problem: ProblemResponse | None


class Evidence(BaseModel):
    """Where images support a finding (Grad-CAM): one grid per image, rows from top to bottom, maximum over all grids 1."""

    finding: str
    grids: list[Grid]


class FindingsResponse(BaseModel):
    """A classifier's findings, the most probable first."""

    format: Literal["rayscribe-findings-1"]
    disclaimer: str
    classifier: str
    findings: list[Finding]
    evidence: Evidence | None
    warnings: list[str]


class LabelsResponse(BaseModel):
    """What a text says about the 14 observations, by the built-in rules."""

    sentences: list[Sentence]
    states: dict[str, Literal["positive", "negative", "uncertain"]]
    disclaimer: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {
        "description": str(ProblemResponse.__doc__),
        "content": {"application/problem+json": {"schema": ProblemResponse.model_json_schema()}},
    }
    for code in ("4XX", "5XX")
}


def responses(model: Any, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For `responses`: this model on success, a problem otherwise."""
    return {status: {"model": model}} | PROBLEMS
