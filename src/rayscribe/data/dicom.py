"""One chest radiograph from a DICOM file: what is read, and what is rejected and why.

pydicom's warnings and errors may quote values of the file, so none of them reaches a message, a log or a traceback.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.dicom_decoding import damage, stored_values
from rayscribe.data.dicom_grey import grey_of
from rayscribe.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_CHEST = ("CHEST", "THORAX", "LUNG", "RIB", "HEART", "TORSO")
_RADIOGRAPH = ("CR", "DX", "RG")
_MOST_PIXELS = 200_000_000
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
_READ = [
    *("Modality", "BodyPartExamined", "PresentationIntentType", "NumberOfFrames", "PhotometricInterpretation"),
    *_NEEDED,
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
]
"The only tags that are read; the patient's are skipped during parsing."


def read_dicom(content: bytes, path: Path) -> NDArray[np.uint8]:
    """The radiograph as uint8 (H, W), black = least attenuation, square pixels. Raises InputError that names the file.

    `path` is for messages. Applies the modality LUT, then VOI LUT or window, then one inversion if the darkest value means
    white (PS3.3 C.11).
    """
    import pydicom  # only needed for DICOM

    with quiet_pydicom():
        try:
            data = pydicom.dcmread(io.BytesIO(content), specific_tags=list(_READ))
        except damage():
            raise InputError(f"{path}: not a DICOM file, or a damaged one; export it again") from None
        try:
            _refuse(data, path)
            return grey_of(stored_values(data, path), data, path)
        except InputError:
            raise
        except damage() as error:
            raise InputError(
                f"{path}: the DICOM pixels or their window cannot be decoded ({type(error).__name__}); "
                "export it uncompressed"
            ) from None


def dicom_pixels(content: bytes) -> int:
    """Number of pixels that the header announces, over all frames; 0 if it announces none."""
    import pydicom  # only needed for DICOM

    with quiet_pydicom():
        try:
            data = pydicom.dcmread(io.BytesIO(content), specific_tags=["Rows", "Columns", "NumberOfFrames"])
            return int(data.get("Rows") or 0) * int(data.get("Columns") or 0) * int(data.get("NumberOfFrames") or 1)
        except damage():
            return 0


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silences pydicom on every channel: its warnings may contain a patient's name."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _refuse(data: FileDataset, path: Path) -> None:
    modality, part = _code(data, "Modality"), _code(data, "BodyPartExamined")
    if modality not in _RADIOGRAPH:
        raise InputError(f"{path}: DICOM modality {modality or 'missing'}; a chest radiograph is CR or DX")
    if part and not any(name in part.upper() for name in _CHEST):
        raise InputError(f"{path}: DICOM body part {part}; this tool reads chest radiographs only")
    if _code(data, "PresentationIntentType") == "FOR PROCESSING":
        raise InputError(
            f"{path}: a DICOM file FOR PROCESSING holds the detector's raw values; export the image FOR PRESENTATION"
        )
    if "PixelData" not in data:
        raise InputError(f"{path}: the DICOM file holds no pixels; export the image, not the report or the index")
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path}: a DICOM file with several frames; export single radiographs")
    photometric = _code(data, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"{path}: DICOM photometric interpretation {photometric or 'missing'}; MONOCHROME is needed: "
            "export the greyscale original"
        )
    if lacking := [name for name in _NEEDED if data.get(name) is None]:
        raise InputError(f"{path}: the DICOM file lacks {', '.join(lacking)}; export it again")
    if int(data.SamplesPerPixel) != 1:
        raise InputError(
            f"{path}: a colour DICOM file ({int(data.SamplesPerPixel)} samples per pixel); export it in greyscale"
        )
    if int(data.BitsAllocated) not in (8, 16):
        raise InputError(f"{path}: DICOM pixels of {int(data.BitsAllocated)} bits; export it with 8 to 16 bits")
    if not 0 < int(data.BitsStored) == int(data.HighBit) + 1 <= int(data.BitsAllocated):
        raise InputError(
            f"{path}: {int(data.BitsStored)} of {int(data.BitsAllocated)} bits, highest bit {int(data.HighBit)}; "
            "DICOM requires the lowest bits; export it again"
        )
    if int(data.Rows) * int(data.Columns) > _MOST_PIXELS:
        raise InputError(f"{path}: too many pixels for a radiograph; check the file")


def _code(data: FileDataset, name: str) -> str:
    """A coded value such as CR, or empty; anything else is not quoted, because it might be personal."""
    value = str(data.get(name) or "").strip()
    return value if re.fullmatch(r"[A-Za-z0-9_ ]{0,16}", value) else "(not a code)"
