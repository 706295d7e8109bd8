"""The stored values of a DICOM file, native or through a decoder, where all of them are there.

Shapes: H height, W width; stored values are integers (H, W).
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_INSTALL = "pip install 'rayscribe[dicom]'"
_PREFERRED = ("pydicom", "pyjpegls", "pylibjpeg", "pillow", "gdcm")


def damage() -> tuple[type[Exception], ...]:
    """What pydicom and its decoders raise over a damaged file."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        *(AttributeError, EOFError, LookupError, NotImplementedError, OSError, OverflowError, RuntimeError),
        *(TypeError, ValueError, struct.error, zlib.error, BytesLengthException, InvalidDicomError),
    )


def stored_values(data: FileDataset, path: Path) -> NDArray[Any]:
    """Integers (H, W). Raises InputError where bytes or the decoder are missing."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit, JPEGLSTransferSyntaxes

    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InputError(f"{path}: the DICOM file lacks TransferSyntaxUID; export it again")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = syntax.name if re.fullmatch(r"[0-9.]{1,64}", syntax) else "(not a UID)"
        raise InputError(f"{path}: DICOM pixels as {name}, which cannot be read; export it uncompressed") from None
    plugins = [name for name in _PREFERRED if name in decoder.available_plugins]
    if syntax in JPEGLSTransferSyntaxes:
        plugins = [name for name in plugins if name != "gdcm"]  # over a damaged one it ends the whole process
    if syntax.is_encapsulated and not plugins:
        raise InputError(f"{path}: no decoder for {syntax.name}; {_INSTALL}")
    if not syntax.is_encapsulated:
        _refuse_few_bytes(data, path)
        return decoder.as_array(data)[0]
    _refuse_cut_frame(data, path)
    if syntax == JPEGExtended12Bit and int(data.BitsStored) > 8:
        return _extended_12_bit(data, path)
    try:
        return decoder.as_array(data, decoding_plugin=plugins[0])[0]
    except damage():
        raise InputError(
            f"{path}: the DICOM pixels ({syntax.name}) cannot be decoded: damaged, or beyond the installed decoders; "
            f"copy it again, {_INSTALL}, or export it uncompressed"
        ) from None


def _refuse_few_bytes(data: FileDataset, path: Path) -> None:
    needed = int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8
    if len(data.PixelData) < needed:
        raise InputError(
            f"{path}: truncated DICOM pixels cannot be decoded ({len(data.PixelData)} of {needed} bytes); copy it again"
        )


def _refuse_cut_frame(data: FileDataset, path: Path) -> None:
    """Decoders fill the rest of a cut JPEG stream with grey; its end marker tells whether it is whole."""
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    if data.file_meta.TransferSyntaxUID == RLELossless:
        return  # pydicom counts the decoded bytes itself
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    if b"\xff\xd9" not in frame.rstrip(b"\0")[-4:]:
        raise InputError(f"{path}: truncated DICOM pixels cannot be decoded (no end of the picture); copy it again")


def _extended_12_bit(data: FileDataset, path: Path) -> NDArray[np.uint16]:
    """pydicom declines 12-bit JPEG Extended for all but a GPL decoder, although GDCM decodes it."""
    from pydicom.encaps import get_frame

    try:
        import gdcm  # of the extra `dicom`
    except ImportError:
        raise InputError(f"{path}: no decoder for JPEG Extended of 12 bits; {_INSTALL}") from None
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(get_frame(data.PixelData, 0, number_of_frames=1))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((int(data.Columns), int(data.Rows), 1))
    image.SetDataElement(pixels)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, int(data.BitsStored), int(data.BitsStored) - 1, 0))
    buffer = image.GetBuffer()
    content = buffer.encode("utf-8", errors="surrogateescape") if isinstance(buffer, str) else buffer
    if len(content) != 2 * data.Rows * data.Columns or not image.GetPixelFormat().GetBitsAllocated() == 16:
        raise InputError(f"{path}: the JPEG Extended pixels of the DICOM file cannot be decoded; copy it again")
    return np.frombuffer(content, dtype="<u2").reshape(data.Rows, data.Columns)
