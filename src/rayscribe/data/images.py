"""One radiograph from PNG, JPEG or DICOM as 8-bit grey on one linear scale, black = least attenuation.

Shapes: H height, W width; all arrays are uint8 (H, W).
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rayscribe.config import ImageConfig
from rayscribe.data.dicom import read_dicom
from rayscribe.data.shards import is_member, member_bytes
from rayscribe.errors import InputError

Grey = NDArray[np.uint8]

DAMAGE = (LookupError, OSError, OverflowError, SyntaxError, TypeError, ValueError, struct.error)
"What Pillow raises for a damaged file, besides its own errors."
_SMALLEST = 32
Image.MAX_IMAGE_PIXELS = 200_000_000  # a digital radiograph has up to 20 million; more is a decompression bomb


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An image file in memory."""

    name: str
    "its name in messages"
    content: bytes


ImageFile = Path | Upload


def read_image(file: ImageFile, *, at_least: int = 0) -> Grey:
    """The radiograph in `file`. Raises InputError that names the file unless it is a readable radiograph.

    `at_least`: a JPEG may be decoded at a smaller scale, with both sides at least this long.
    """
    if isinstance(file, Upload):
        return _image(file.content, Path(file.name), at_least)
    return _image(_content(file), file, at_least)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeImage:
    """An image with facts about its file."""

    grey: Grey
    sha256: str
    "of the file's bytes"
    rows: int
    "of the file, which may have been decoded at a smaller scale"
    columns: int


def read_whole_image(path: Path, *, at_least: int = 0) -> WholeImage:
    """`read_image`, with the SHA-256 of the bytes that it decoded and the size that they state."""
    content = _content(path)
    grey = _image(content, path, at_least)
    rows, columns = grey.shape
    if at_least and not _is_dicom(content, path):
        with Image.open(io.BytesIO(content)) as picture:
            columns, rows = picture.size
    return WholeImage(grey=grey, sha256=hashlib.sha256(content).hexdigest(), rows=rows, columns=columns)


def read_checked_image(path: Path, sha256: str, *, at_least: int = 0) -> Grey:
    """`read_image` of a file whose bytes must still match the manifest's hash. Raises InputError if they do not."""
    content = _content(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path}: the file changed since the manifest was written; run `rayscribe prepare` again")
    return _image(content, path, at_least)


def looks_inverted(image: Grey) -> bool:
    """Whether the border, which is air or black collimation, is much brighter than the centre of the chest."""
    height, width = image.shape
    edge = max(1, min(height, width) // 40)
    border = np.concatenate([image[:edge].ravel(), image[:, :edge].ravel(), image[:, -edge:].ravel()])
    if 2 * np.count_nonzero(border > 200) < border.size:
        return False  # same result as the median, in a tenth of the time
    grey = float(np.median(border))
    middle = image[height // 4 : 3 * height // 4, width // 3 : 2 * width // 3]
    return grey > max(200, 1.5 * float(np.median(middle)))


def evaluation_square(image: Grey, config: ImageConfig) -> Grey:
    """The image stretched to the input square, without keeping the aspect ratio, as in R2Gen."""
    return _resized(image, config.size, config.size)


def training_square(image: Grey, config: ImageConfig, generator: np.random.Generator) -> Grey:
    """A random square from the rotated image, whose shorter side is first scaled to `config.resize`."""
    if config.rotation:
        degrees = float(generator.uniform(-config.rotation, config.rotation))
        image = np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))
    if not config.crop:
        return evaluation_square(image, config)
    image = _shorter(image, config.resize)
    top = int(generator.integers(image.shape[0] - config.size + 1))
    left = int(generator.integers(image.shape[1] - config.size + 1))
    return image[top : top + config.size, left : left + config.size]


def shorter_side(image: Grey, side: int) -> Grey:
    """The image with its shorter side reduced to `side`; a smaller image stays as it is."""
    return image if min(image.shape) <= side else _shorter(image, side)


def _shorter(image: Grey, side: int) -> Grey:
    height, width = image.shape
    scale = side / min(height, width)
    return _resized(image, max(side, round(height * scale)), max(side, round(width * scale)))


def _content(path: Path) -> bytes:
    if is_member(path):
        return member_bytes(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such image; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _image(content: bytes, path: Path, at_least: int) -> Grey:
    if not content:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again")
    image = read_dicom(content, path) if _is_dicom(content, path) else _read_picture(content, path, at_least)
    if min(image.shape) < _SMALLEST:
        raise InputError(f"{path}: {image.shape[1]} x {image.shape[0]} pixels; a radiograph needs at least {_SMALLEST}")
    if image[:: max(1, image.shape[0] // 64), :: max(1, image.shape[1] // 64)].std() < 1:
        raise InputError(f"{path}: the picture is blank (one grey value); export it again")
    return image


def _is_dicom(content: bytes, path: Path) -> bool:
    return content[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _resized(image: Grey, height: int, width: int) -> Grey:
    if image.shape == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _read_picture(content: bytes, path: Path, at_least: int) -> Grey:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF", "BMP")) as picture:
                if at_least:
                    picture.draft(None, (at_least, at_least))
                picture.load()
                ImageOps.exif_transpose(picture, in_place=True)
                return _grey(picture, path)
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a PNG, JPEG or DICOM image; convert it or leave it out") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: too many pixels for a radiograph; check the file") from error
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged or truncated image ({error}); copy it again") from error


def _grey(picture: Image.Image, path: Path) -> Grey:
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))
    if picture.mode.startswith("I") or picture.mode == "F":
        return _to_8_bit(np.asarray(picture).astype(np.float32))
    if picture.mode == "LA":
        return np.asarray(picture.getchannel("L"))
    if picture.mode not in ("P", "RGB", "RGBA"):
        raise InputError(f"{path}: colour mode {picture.mode} is not a radiograph's; export it as 8- or 16-bit grey")
    colours = np.asarray(picture.convert("RGB"))
    sample = colours[:: max(1, colours.shape[0] // 256), :: max(1, colours.shape[1] // 256)].astype(np.int16)
    if ((sample.max(2) - sample.min(2)) > 40).mean() > 0.02:
        raise InputError(f"{path}: a colour picture, not a radiograph; give the greyscale original")
    return np.asarray(picture.convert("RGB").convert("L"))


def _to_8_bit(values: NDArray[np.float32]) -> Grey:
    """Linear scaling. Many 16-bit files use 10, 12 or 14 bits: full scale is the smallest of these that fits the data."""
    highest = float(values.max(initial=0))
    full = next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits), highest)
    return np.clip(np.rint(values * (255 / full)), 0, 255).astype(np.uint8)
