"""The forms that the service takes, as /openapi.json describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

PROBLEM: dict[str, Any] = {
    "description": "what is wrong, and what to do about it (RFC 9457)",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "request": {"type": "string", "description": "also in the log and in X-Request-ID"},
                    "image": {"type": "integer", "description": "the place of the image that is at fault, from 1 on"},
                },
            }
        }
    },
}

PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": PROBLEM, "5XX": PROBLEM}


def form(images: str, options: type[BaseModel] | None = None, **texts: str) -> dict[str, Any]:
    """For `openapi_extra`: a multipart form of image files and texts."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    if images == "image":
        files = files["items"]  # type: ignore[assignment]
    fields: dict[str, Any] = {images: files | {"description": "PNG, JPEG or DICOM files of one study"}}
    if options is not None:
        said = ", ".join(f"{name} ({field.annotation})" for name, field in options.model_fields.items())
        fields["options"] = {"type": "string", "description": f"JSON: {said}".replace("<class '", "").replace("'>", "")}
    fields |= {name: {"type": "string", "description": text} for name, text in texts.items()}
    schema = {"type": "object", "properties": fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
