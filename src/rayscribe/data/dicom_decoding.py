"""The stored values of a DICOM file, native or decoded, if all of them are present.

Shapes: H height, W width; stored values are integers (H, W).
"""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.dicom_streams import has_many_scans, picture_size
from rayscribe.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_INSTALL = "pip install 'rayscribe[dicom]'"
_PREFERRED = ("pydicom", "pyjpegls", "pylibjpeg", "pillow")
"Order of pydicom's plug-ins; without gdcm, which crashes the process on a damaged stream."


def damage() -> tuple[type[Exception], ...]:
    """Exceptions that pydicom and its decoders raise for a damaged file."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        *(AttributeError, EOFError, LookupError, NotImplementedError, OSError, OverflowError, RuntimeError),
        *(TypeError, ValueError, struct.error, zlib.error, BytesLengthException, InvalidDicomError),
    )


def stored_values(data: FileDataset, path: Path) -> NDArray[Any]:
    """The stored integers (H, W). Raises InputError if bytes or the decoder are missing."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InputError(f"{path}: the DICOM file lacks TransferSyntaxUID; export it again")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        name = syntax.name if re.fullmatch(r"[0-9.]{1,64}", syntax) else "(not a UID)"
        raise InputError(f"{path}: DICOM pixels as {name}, which is not supported; export it uncompressed") from None
    if syntax.is_encapsulated:
        _refuse_other_frame(data, path)
        if syntax in (JPEGLossless, JPEGLosslessSV1) or (syntax == JPEGExtended12Bit and int(data.BitsStored) > 8):
            return _by_gdcm(data, path)
    if not syntax.is_encapsulated:
        _refuse_few_bytes(data, path)
        return decoder.as_array(data)[0]
    plugins = [name for name in _PREFERRED if name in decoder.available_plugins]
    if not plugins:
        raise InputError(f"{path}: no decoder for {syntax.name}; {_INSTALL}")
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


def _refuse_other_frame(data: FileDataset, path: Path) -> None:
    """Raises InputError unless the stream is whole and of the size in the tags.

    Decoders fill a truncated JPEG stream with grey; its end marker tells whether it is whole. A picture with other sides but
    the same area would wrap at the wrong column.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    if data.file_meta.TransferSyntaxUID == RLELossless:  # pydicom checks the number of decoded bytes itself
        if len(frame) > 64 + 2 * int(data.Rows) * int(data.Columns) * int(data.BitsAllocated) // 8:
            raise InputError(f"{path}: the DICOM pixels are longer than the picture; export it again")
        return
    if b"\xff\xd9" not in frame.rstrip(b"\0")[-4:]:
        raise InputError(f"{path}: truncated DICOM pixels cannot be decoded (the picture has no end); copy it again")
    if has_many_scans(frame):
        raise InputError(f"{path}: a JPEG with more scans than any encoder writes; export it again")
    try:
        rows, columns = picture_size(frame)
    except (ValueError, IndexError):
        raise InputError(f"{path}: the DICOM pixels cannot be decoded: damaged; copy it again") from None
    if (rows, columns) != (data.Rows, data.Columns):
        raise InputError(
            f"{path}: {data.Columns} x {data.Rows} pixels by its tags, {columns} x {rows} by its picture; export it again"
        )


def _by_gdcm(data: FileDataset, path: Path) -> NDArray[Any]:
    """JPEG lossless, and 12-bit JPEG Extended, which pydicom decodes only with GPL code. Runs in a process of its own."""
    from pydicom.encaps import get_frame

    syntax, bits = data.file_meta.TransferSyntaxUID, int(data.BitsAllocated)
    if importlib.util.find_spec("gdcm") is None:
        raise InputError(f"{path}: no decoder for {syntax.name}; {_INSTALL}")
    numbers = (int(data.Columns), int(data.Rows), bits, int(data.BitsStored))
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("gdcm_process.py")), str(syntax), *map(str, numbers)],
        input=get_frame(data.PixelData, 0, number_of_frames=1),
        capture_output=True,
        check=False,
    )
    if done.returncode or len(done.stdout) != int(data.Rows) * int(data.Columns) * bits // 8:
        raise InputError(f"{path}: the DICOM pixels ({syntax.name}) cannot be decoded: damaged; copy it again")
    values = np.frombuffer(done.stdout, dtype=f"<{'i' if data.PixelRepresentation else 'u'}{bits // 8}")
    unused = bits - int(data.BitsStored)
    return ((values << unused) >> unused).reshape(data.Rows, data.Columns)  # sign-extends signed values
