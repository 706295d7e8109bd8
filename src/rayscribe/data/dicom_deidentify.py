"""De-identified copies of DICOM images: which files, which bytes, which names.

Text that is burnt into the picture is not removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rayscribe.data.dicom import quiet_pydicom
from rayscribe.data.dicom_decoding import damage
from rayscribe.data.dicom_profile import Pseudonyms, profile_actions, without_patient
from rayscribe.data.dicom_streams import without_comments
from rayscribe.errors import InputError
from rayscribe.files import whole_file

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomInputs:
    """The DICOM files among the inputs, and the number of other files in the folders."""

    files: list[Path]
    others: int


def dicom_files(inputs: Sequence[Path], out: Path) -> DicomInputs:
    """The named files, and all files below the named folders except those in `out`. Raises InputError for a missing input."""
    named = [path for path in inputs if not path.is_dir()]
    if missing := [path for path in named if not path.is_file()]:
        raise InputError(f"{missing[0]}: no such file or folder; check the path")
    below = [path for folder in inputs if folder.is_dir() for path in sorted(folder.rglob("*")) if path.is_file()]
    below = [path for path in below if not path.resolve().is_relative_to(out.resolve())]
    images = [path for path in below if _is_dicom(path)]
    unique = {path.resolve(): path for path in [*named, *images]}
    return DicomInputs(files=list(unique.values()), others=len(below) - len(images))


def deidentified(path: Path, out: Path, pseudonyms: Pseudonyms, *, burnt_in: bool = False) -> Path:
    """Writes the copy to `out`/<new SOP Instance UID>.dcm. Raises InputError that names the file and none of its values.

    `burnt_in`: also accept files that declare text burnt into their picture; the text stays there.
    """
    import pydicom

    profile_actions()  # raises early: a missing package is not the file's fault
    with quiet_pydicom():
        try:
            data = pydicom.dcmread(path)
            _refuse(data, path, burnt_in)
            copy = without_patient(data, pseudonyms)
            copy.file_meta = _meta(data, copy)
            copy.PixelData = _pixels(data, path)
            copy["PixelData"].is_undefined_length = data.file_meta.TransferSyntaxUID.is_encapsulated
            target = out / f"{copy.SOPInstanceUID}.dcm"
            if target.exists():
                raise InputError(f"{path}: its copy {target} already exists; choose another --out, or delete it")
            with whole_file(target) as temporary:
                copy.save_as(temporary, enforce_file_format=True)
        except InputError:
            raise
        except damage() as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise InputError(f"{path}: cannot be read, or its copy written ({error.strerror})") from None
            raise InputError(f"{path}: not a DICOM image, or a damaged one; export it again") from None
    return target


def _is_dicom(path: Path) -> bool:
    """Whether it is DICOM, and not the index of a medium."""
    with open(path, "rb") as file:
        head = file.read(132)
    return path.name != "DICOMDIR" and (head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"))


def _refuse(data: FileDataset, path: Path, burnt_in: bool) -> None:
    needed = ("SOPClassUID", "SOPInstanceUID", "Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel")
    if "PixelData" not in data:
        raise InputError(f"{path}: not an image; reports and documents cannot be de-identified, leave them out")
    if lacking := [name for name in needed if not data.get(name)]:
        raise InputError(f"{path}: the DICOM file lacks {', '.join(lacking)}; export it again")
    if "TransferSyntaxUID" not in data.file_meta:
        raise InputError(f"{path}: the DICOM file lacks TransferSyntaxUID; export it again")
    if data.get("BurnedInAnnotation") == "YES" and not burnt_in:
        raise InputError(
            f"{path}: text is burnt into the picture (BurnedInAnnotation YES) and cannot be removed here; "
            "blank it first, or give --accept-burnt-in"
        )


def _meta(data: FileDataset, copy: Dataset) -> FileMetaDataset:
    """Creates new file meta information, without the names of sender and writer."""
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = copy.SOPClassUID, copy.SOPInstanceUID
    return meta


def _pixels(data: FileDataset, path: Path) -> bytes:
    """Only the picture's own bytes: no trailing data, no comments in the streams, no overlay in unused bits."""
    from pydicom.encaps import encapsulate, generate_frames

    frames = int(data.get("NumberOfFrames") or 1)
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        return encapsulate([without_comments(f) for f in generate_frames(data.PixelData, number_of_frames=frames)])
    bits, samples = int(data.BitsAllocated), int(data.SamplesPerPixel)
    length = (int(data.Rows) * int(data.Columns) * samples * frames * bits + 7) // 8
    content = bytes(data.PixelData[:length])
    if len(content) < length:
        raise InputError(f"{path}: truncated DICOM pixels ({len(content)} of {length} bytes); copy it again")
    unused = bits - int(data.BitsStored)
    if bits in (8, 16) and unused > 0 and int(data.get("HighBit", -1)) == int(data.BitsStored) - 1:
        sign = "i" if data.get("PixelRepresentation") else "u"
        values = np.frombuffer(content, dtype=f"{'<' if syntax.is_little_endian else '>'}{sign}{bits // 8}")
        content = ((values << unused) >> unused).astype(values.dtype).tobytes()  # sign-extends signed values
    return content + b"\0" * (length % 2)
