"""What a client is told when something is wrong: RFC 9457, application/problem+json.

A problem's text never holds a pixel, a report, a file's name on this machine or an attribute of a patient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from rayscribe.errors import InputError

MEDIA_TYPE = "application/problem+json"
_IMAGE = re.compile(r"image (\d+): ")


class Problem(Exception):
    """An answer that is not the one that was asked for."""

    def __init__(self, status: int, detail: str, *, image: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.image, self.retry_after = status, detail, image, retry_after

    def plain(self, request: str = "") -> dict[str, Any]:
        """For JSON. `request`: its id, which the log has too."""
        told: dict[str, Any] = {
            "type": f"urn:rayscribe:problem:{self.status}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if request:
            told["request"] = request
        if self.image is not None:
            told["image"] = self.image
        return told

    def response(self, request: str = "") -> Response:
        headers: Mapping[str, str] = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Response(json.dumps(self.plain(request)), self.status, dict(headers), MEDIA_TYPE)


def problem_of(error: BaseException) -> Problem:
    """What a user can mend is told; anything else is ours, and is told to nobody but the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InputError):
        found = _IMAGE.match(str(error))
        return Problem(422, str(error), image=int(found[1]) if found else None)
    return Problem(500, "the service failed over this request; its log has the request's id")
