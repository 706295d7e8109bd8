"""The forms that the service accepts, as /openapi.json describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def form(images: str, options: type[BaseModel] | None = None, **texts: str) -> dict[str, Any]:
    """For `openapi_extra`: a multipart form of image files and text fields."""
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
