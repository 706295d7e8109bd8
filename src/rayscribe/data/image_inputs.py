"""Images that a program holds in memory, as the files that every reader takes: PIL images, arrays, pydicom data sets.

Each becomes the bytes of a lossless file, so an image in memory passes the same checks as one on disk.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom import Dataset, dcmwrite

from rayscribe.data.images import DAMAGE, ImageFile, Upload
from rayscribe.errors import InputError

ImageInput = str | Path | Upload | Image.Image | NDArray[Any] | Dataset
"A path, or an image in memory; arrays are uint8 or uint16, (height, width) or uint8 (height, width, 3)."

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "F", "I;16", "I;16B")
"Of Pillow's pictures, those that a file holds without loss."


def image_file(image: ImageInput, name: str) -> ImageFile:
    """The image as a file. `name`: its place, such as "study 2, image 1", by which messages call an image without a name.

    Raises InputError for whatever cannot be a radiograph.
    """
    if isinstance(image, str | Path):
        return _path(image, name)
    if isinstance(image, Upload):
        return image
    if isinstance(image, Dataset):
        return Upload(name=f"{name}.dcm", content=_dicom_bytes(image, name))
    if isinstance(image, Image.Image):
        return Upload(name=name, content=_png_bytes(image, name))
    if isinstance(image, np.ndarray):
        return Upload(name=name, content=_png_bytes(_picture(image, name), name))
    raise InputError(
        f"{name}: a {type(image).__name__} is no image; give a path, a PIL image, a numpy array or a pydicom data set"
    )


def is_one_image(value: object) -> bool:
    """Whether it is an image, not a sequence of them."""
    return isinstance(value, str | Path | Upload | Image.Image | np.ndarray | Dataset)


def _path(path: str | Path, name: str) -> Path:
    if not str(path):
        raise InputError(f"{name}: the path is empty; give the path of an image file")
    if "\0" in str(path):
        raise InputError(f"{name}: the path {str(path)!r} contains a null character; give the path of an image file")
    return Path(os.path.expanduser(path))


def _picture(pixels: NDArray[Any], name: str) -> Image.Image:
    is_grey, is_colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.size and (
        (pixels.dtype == np.uint8 and (is_grey or is_colour)) or (pixels.dtype == np.uint16 and is_grey)
    ):
        return Image.fromarray(np.ascontiguousarray(pixels))
    raise InputError(
        f"{name}: an array of {pixels.dtype} and shape {pixels.shape}; give uint8 or uint16 of shape (height, width), black "
        "is air; several images are a list of arrays"
    )


def _png_bytes(picture: Image.Image, name: str) -> bytes:
    if picture.mode not in _MODES:
        raise InputError(
            f"{name}: a PIL image of mode {picture.mode}; convert it to L (8-bit grey), I;16 (16-bit grey) or RGB"
        )
    content = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(picture)
        if picture.mode in ("F", "I"):  # PNG has no such pixels
            _check_range(np.asarray(upright), picture.mode, name)
            upright.save(content, "TIFF")
        else:
            upright.save(content, "PNG", compress_level=0)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: damaged, or no picture ({error}); open the file again") from error
    return content.getvalue()


def _check_range(values: NDArray[Any], mode: str, name: str) -> None:
    """Pixels without a fixed range must be grey values: finite, not negative, and not a share of full scale."""
    if not np.isfinite(values).all():
        raise InputError(
            f"{name}: a PIL image of mode {mode} with pixels that are NaN or infinite; replace them by grey values"
        )
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low < 0 or high <= 1:
        raise InputError(
            f"{name}: a PIL image of mode {mode} with pixels from {low:g} to {high:g}; scale them to 0 (black) to 255 or 65535"
        )


def _dicom_bytes(dataset: Dataset, name: str) -> bytes:
    content = io.BytesIO()
    try:
        dcmwrite(content, dataset, enforce_file_format=True)
    except (*DAMAGE, AttributeError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{name}: the data set cannot be written as a DICOM file ({reason}); read it with pydicom.dcmread, or give its path"
        ) from error
    return content.getvalue()
