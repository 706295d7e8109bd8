"""Stored DICOM values to grey: padding, lookup tables, window, inversion, square pixels (PS3.3 C.11, C.7.6.3).

Shapes: H height, W width; values are (H, W).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayscribe.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Values = NDArray[Any]
_MOST_OBLONG = 4.0


def grey_of(stored: Values, data: Dataset, path: Path) -> NDArray[np.uint8]:
    """Grey levels, uint8 (H, W), black = least attenuation. Padding is black and does not affect the range."""
    padding = _padding(stored, data)
    grey = np.rint(_shown(_rescaled(stored, data, path), data, path, ~padding) * 255).astype(np.uint8)
    if data.PhotometricInterpretation == "MONOCHROME1" or data.get("PresentationLUTShape") == "INVERSE":
        grey = 255 - grey  # MONOCHROME1 with INVERSE states the same thing twice: one inversion
    grey[padding] = 0
    return _square(grey, data, path)


def _padding(stored: Values, data: Dataset) -> NDArray[np.bool_]:
    first = data.get("PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    last = data.get("PixelPaddingRangeLimit")
    low, high = sorted(_as_stored(int(value), data) for value in (first, first if last is None else last))
    return (stored >= low) & (stored <= high)


def _as_stored(value: int, data: Dataset) -> int:
    """Writers often store a signed file's padding as an unsigned number, and vice versa."""
    bits = int(data.BitsAllocated)
    value %= 1 << bits
    return value - (1 << bits) if data.PixelRepresentation and value >= 1 << (bits - 1) else value


def _rescaled(stored: Values, data: Dataset, path: Path) -> Values:
    """The values after the modality LUT or rescale."""
    if data.get("ModalityLUTSequence"):
        return _looked_up(stored, *_table(data.ModalityLUTSequence[0], data, path))
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    if slope is None or intercept is None:
        return stored
    values = stored * float(slope) + float(intercept)
    return np.rint(values).astype(np.int64) if float(slope).is_integer() and float(intercept).is_integer() else values


def _shown(values: Values, data: Dataset, path: Path, is_picture: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values in [0, 1]: through the first VOI table, or the first window, or over the full range of the picture."""
    if data.get("VOILUTSequence"):
        table, first = _table(data.VOILUTSequence[0], data, path)
        return _stretched(_looked_up(values, table, first), int(table.min()), int(table.max()))
    if data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        return _windowed(values, data, path)
    picture = values[is_picture]
    if not picture.size:
        return np.zeros(values.shape)
    return _stretched(values, float(picture.min()), float(picture.max()))


def _stretched(values: Values, low: float, high: float) -> NDArray[np.float64]:
    return np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)


def _windowed(values: Values, data: Dataset, path: Path) -> NDArray[np.float64]:
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    window = Dataset()  # pydicom derives the output range from the pixels' bits; 8 unsigned bits give 0 to 255
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 8
    window.WindowCenter, window.WindowWidth = data.WindowCenter, data.WindowWidth
    function = data.get("VOILUTFunction") or "LINEAR"
    width = float(np.atleast_1d(np.asarray(data.WindowWidth, dtype=np.float64))[0])
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise InputError(f"{path}: a VOI LUT function unknown to DICOM; export it again")
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise InputError(f"{path}: a DICOM window of width {width:g}; export it again with a window, or without one")
    window.VOILUTFunction = function
    return np.asarray(apply_windowing(values, window), dtype=np.float64) / 255


def _table(item: Dataset, data: Dataset, path: Path) -> tuple[NDArray[np.uint16], int]:
    """A lookup table and the first value that it maps.

    Replaces pydicom's, which expects entries of 8 or 16 bits for the modality table and wraps around after 256 for 8-bit
    entries; this one reads 2 to 16 bits per entry, whatever their number.
    """
    entries, first = int(item.LUTDescriptor[0]) % 65536 or 65536, int(item.LUTDescriptor[1])
    content = item.LUTData
    if isinstance(content, bytes):
        order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
        kind = np.dtype(np.uint8) if len(content) < 2 * entries else np.dtype(f"{order}u2")
        table = np.frombuffer(content, dtype=kind, count=len(content) // kind.itemsize).astype(np.uint16)
    else:
        table = np.asarray(content, dtype=np.int64).astype(np.uint16)
    if len(table) < entries:
        raise InputError(f"{path}: a DICOM lookup table of {len(table)} entries instead of {entries}; export it again")
    return table[:entries], first


def _looked_up(values: Values, table: NDArray[np.uint16], first: int) -> NDArray[np.uint16]:
    """Looks values up; those below the first entry get the first, those beyond the last get the last."""
    return table[np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)]


def _square(grey: NDArray[np.uint8], data: Dataset, path: Path) -> NDArray[np.uint8]:
    """Resamples to square pixels; the coarser side grows."""
    height, width = grey.shape
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    given = next((data.get(name) for name in names if data.get(name)), None)
    if given is None:
        return grey
    down, across = (float(value) for value in given)  # row spacing first; the ratio is vertical : horizontal
    if not (down > 0 and across > 0 and 1 / _MOST_OBLONG <= down / across <= _MOST_OBLONG):
        raise InputError(f"{path}: DICOM pixel spacing of {down:g} by {across:g}; export it with square pixels")
    target = max(width, round(width * across / down)), max(height, round(height * down / across))
    if target == (width, height):
        return grey
    return np.asarray(Image.fromarray(grey).resize(target, Image.Resampling.BILINEAR))
