"""Images that a program holds in memory, as the files that every reader takes: PIL images, arrays, pydicom data sets.

Each becomes the bytes of a lossless file, so an image in memory passes the same checks as one on disk.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmwrite

from rayscribe.data.images import DAMAGE, ImageFile, Upload
from rayscribe.errors import InputError

ImageInput = str | Path | Upload | Image.Image | NDArray[Any] | Dataset
"A path, or an image in memory; arrays are uint8 or uint16, (height, width) or uint8 (height, width, 3)."


def image_file(image: ImageInput, number: int) -> ImageFile:
    """The image as a file. `number`: its place in the study, from 1, by which messages call an image without a name.

    Raises InputError for whatever cannot be a radiograph.
    """
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, Upload):
        return image
    name = f"image {number}"
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


def _picture(pixels: NDArray[Any], name: str) -> Image.Image:
    is_grey, is_colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype == np.uint8 and (is_grey or is_colour):
        return Image.fromarray(np.ascontiguousarray(pixels))
    if pixels.dtype == np.uint16 and is_grey:
        return Image.fromarray(np.ascontiguousarray(pixels))
    raise InputError(
        f"{name}: an array of {pixels.dtype} and shape {pixels.shape}; give uint8 or uint16 of shape (height, width), black "
        "is air; several images are a list of arrays"
    )


def _png_bytes(picture: Image.Image, name: str) -> bytes:
    content = io.BytesIO()
    try:
        if picture.mode in ("F", "I"):  # PNG has no such pixels
            picture.save(content, "TIFF")
        else:
            picture.save(content, "PNG", compress_level=0)
    except DAMAGE as error:
        raise InputError(f"{name}: damaged, or no picture ({error}); open the file again") from error
    return content.getvalue()


def _dicom_bytes(dataset: Dataset, name: str) -> bytes:
    content = io.BytesIO()
    try:
        dcmwrite(content, dataset, enforce_file_format=True)
    except (*DAMAGE, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"{name}: the data set cannot be written as a DICOM file ({error}); read it with pydicom.dcmread, or give its path"
        ) from error
    return content.getvalue()
