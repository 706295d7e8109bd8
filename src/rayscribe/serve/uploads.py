"""A client's request, within the service's limits: image bytes that stay in memory, and options."""

from __future__ import annotations

import asyncio
import io
import json
import warnings
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from rayscribe.data.dicom import dicom_pixels
from rayscribe.data.dicom_streams import has_many_scans
from rayscribe.data.images import DAMAGE, Upload
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.serve.problems import Problem
from rayscribe.serve.settings import ServeConfig

_DEFLATED = b"1.2.840.10008.1.2.1.99"
"Transfer syntax of a file with a compressed data set."
_MOST_TEXT = 4 * 2**20  # a draft with its evidence


class DraftOptions(BaseModel):
    """How a draft is written."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    "name of a report model; empty: the first one"
    classifier: str | None = None
    "name of a classifier whose findings go with the draft; empty: the first one"
    best: int = Field(default=1, ge=1, le=16)
    "number of alternatives, best first"
    decoding: dict[str, Any] = Field(default_factory=dict)
    "fields of DecodingConfig"

    def decoded(self) -> DecodingConfig:
        """The decoding settings. Raises Problem for an unknown or an invalid one."""
        known = [field.name for field in fields(DecodingConfig)]
        if set(self.decoding) - set(known):
            raise Problem(422, f"decoding: unknown setting; choose from: {', '.join(known)}")
        wanted = {"beams": max(3, self.best)} | self.decoding
        try:
            decoding = TypeAdapter(DecodingConfig).validate_python(wanted)
        except ValidationError as error:
            raise Problem(422, f"decoding: {_first(error)}") from None
        if decoding.beams > 16:
            raise Problem(422, "decoding: beams: at most 16")
        if decoding.strategy == "beam" and self.best > decoding.beams:
            raise Problem(422, f"best: at most decoding.beams, {decoding.beams}")
        return decoding


class FindingOptions(BaseModel):
    """How a study is classified."""

    model_config = ConfigDict(extra="forbid")

    classifier: str | None = None
    "name of a classifier; empty: the first one"
    evidence: str | None = None
    "a finding for which to return the evidence in the images (Grad-CAM)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A parsed form."""

    images: list[Upload]
    texts: dict[str, str]


async def read_form(request: Request, config: ServeConfig, *, images: str = "images", least: int = 1) -> Sent:
    """The files of the field `images` and the texts of the others. Raises Problem for whatever exceeds the limits."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(415, f"send multipart/form-data with a field `{images}` for every image")
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=config.max_images, max_fields=4, max_part_size=_MOST_TEXT
    )
    parser.spool_max_size = config.max_megabytes * 1_000_000 + 1  # no part of an image is written to disk
    try:
        async with asyncio.timeout(config.max_seconds):
            form = await parser.parse()
    except TimeoutError:
        raise Problem(408, f"the request did not arrive within {config.max_seconds:g} seconds") from None
    except ClientDisconnect:
        raise Problem(400, "the client disconnected") from None
    except MultiPartException as error:
        limit = f"; at most {config.max_images} images of one study" if "Too many files" in error.message else ""
        raise Problem(400, f"the form cannot be read{limit}") from None
    except UnicodeError:  # undecodable character set
        raise Problem(400, "the form cannot be read; send its texts as UTF-8") from None
    try:
        sent = await _sent(form, images, least)
    finally:
        await form.close()
    for file in sent.images:  # in a thread, because parsing a DICOM header may take long
        await run_in_threadpool(check_pixels, file, config.max_megapixels)
    return sent


async def _sent(form: FormData, images: str, least: int) -> Sent:
    files: list[Upload] = []
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name == images:
            # The client's file name may be a patient's name and is ignored.
            files.append(Upload(name=f"image {len(files) + 1}", content=await value.read()))
        elif isinstance(value, str):
            texts[name] = value
        elif name in ("draft", "options"):  # sent as a file, for example by `curl -F draft=@draft.json` does
            texts[name] = _text(name, await value.read())
        else:
            raise Problem(400, f"files belong in the field `{images}`")
    if len(files) < least:
        raise Problem(400, f"no image; send each in a field `{images}`")
    return Sent(images=files, texts=texts)


def _text(name: str, content: bytes) -> str:
    if len(content) > _MOST_TEXT:
        raise Problem(413, f"{name}: at most {_MOST_TEXT // 2**20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Problem(400, f"{name}: not UTF-8") from None


def check_pixels(file: Upload, max_megapixels: int) -> None:
    """Raises Problem if the header announces too many pixels, before any of them is decoded."""
    place = int(file.name.split()[-1])
    if file.content[128:132] == b"DICM":
        if _DEFLATED in file.content:  # a few bytes may inflate to any number
            raise Problem(422, f"{file.name}: a deflated DICOM file; export it uncompressed", image=place)
        pixels = dicom_pixels(file.content)
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(file.content), formats=("PNG", "JPEG", "TIFF", "BMP")) as picture:
                    pixels = picture.width * picture.height
                    if picture.format == "JPEG" and has_many_scans(file.content):
                        raise Problem(
                            422,
                            f"{file.name}: a JPEG with more scans than any encoder writes; export it again",
                            image=place,
                        )
        except Image.DecompressionBombError:
            pixels = Image.MAX_IMAGE_PIXELS or 0
        except DAMAGE:
            return  # its faults are reported when it is read
    if pixels > max_megapixels * 1_000_000:
        raise Problem(413, f"{file.name}: more than {max_megapixels} million pixels; check the file", image=place)


def options_of(kind: type[BaseModel], text: str) -> Any:
    """The parsed options. Raises Problem that names the field, without its value."""
    try:
        return kind.model_validate(json.loads(text or "{}"))
    except ValidationError as error:
        if any(fault["type"] == "extra_forbidden" for fault in error.errors()):
            raise Problem(422, f"options: unknown option; choose from: {', '.join(kind.model_fields)}") from None
        raise Problem(422, f"options: {_first(error)}") from None
    except (ValueError, RecursionError):
        raise Problem(422, "options: not JSON, or too deep") from None


def _first(error: ValidationError) -> str:
    """The first error, without the value that was sent."""
    fault = error.errors(include_input=False, include_url=False)[0]
    cause = fault.get("ctx", {}).get("error")
    said = str(cause) if isinstance(cause, InputError) else fault["msg"]
    return ": ".join([*(str(part)[:40] for part in fault["loc"]), said])
