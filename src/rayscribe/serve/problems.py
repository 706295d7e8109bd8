"""Error responses: RFC 9457, application/problem+json.

A problem's text never contains a pixel, a report, a file name on this machine or a patient attribute.
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
    """An error response, raised by a handler."""

    def __init__(self, status: int, detail: str, *, image: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.image, self.retry_after = status, detail, image, retry_after

    def plain(self, request: str = "") -> dict[str, Any]:
        """As a JSON-able dictionary. `request`: its id, which is also in the log."""
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
    """Describes errors that the client can fix; all others become 500, with details in the log only."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InputError):
        found = _IMAGE.match(str(error))
        return Problem(422, str(error), image=int(found[1]) if found else None)
    return Problem(500, "the service failed to handle this request; find its id in the service's log")
