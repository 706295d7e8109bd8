"""The DICOM files that a draft was made from: which header fields an export reads, and nothing else.

Of a patient and a study only these tags are read. pydicom's errors may quote values, so none reaches a message.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rayscribe.data.dicom import quiet_pydicom
from rayscribe.data.dicom_decoding import damage
from rayscribe.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

REFERENCE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
"Type 2 of the Patient and General Study modules: always present, and empty if unknown."


def read_source_images(contents: Sequence[tuple[str, bytes]]) -> list[Dataset]:
    """Headers of one study's files, in order; `contents`: name in messages and bytes of each file.

    Raises InputError for a file that is not DICOM or has no identity, and for files of several studies or patients.
    """
    found = [_header(name, content) for name, content in contents]
    for (name, _), header in zip(contents[1:], found[1:], strict=True):
        if header.StudyInstanceUID != found[0].StudyInstanceUID:
            raise InputError(
                f"{name}: belongs to another DICOM study than {contents[0][0]}; export one study at a time"
            )
        if header.PatientID != found[0].PatientID:
            raise InputError(
                f"{name}: has the study of {contents[0][0]} but another patient id; one of them is mislabelled"
            )
    if len({header.SOPInstanceUID for header in found}) < len(found):
        raise InputError(f"{contents[0][0]}: duplicate image (same SOPInstanceUID); give each once")
    return found


def _header(name: str, content: bytes) -> Dataset:
    import pydicom  # only needed for DICOM

    with quiet_pydicom():
        try:
            data = pydicom.dcmread(
                io.BytesIO(content),
                specific_tags=[*REFERENCE, *PATIENT, *STUDY],
                stop_before_pixels=True,
            )
        except damage():
            raise InputError(
                f"{name}: not a DICOM file, but SR and encapsulated PDF are linked to a DICOM study; "
                "export text, pdf or fhir without it"
            ) from None
        header = pydicom.Dataset()
        for keyword in REFERENCE:
            if not _copied(header, data, keyword) or not pydicom.uid.UID(header[keyword].value).is_valid:
                raise InputError(f"{name}: the DICOM file has no {keyword}, or an invalid one; export it again")
        for keyword in (*PATIENT, *STUDY):
            if not _copied(header, data, keyword):
                setattr(header, keyword, "")
    return header


def _copied(header: Dataset, data: Dataset, keyword: str) -> bool:
    """Copies a value that follows DICOM's rules to `header`; returns whether `data` has one."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    try:
        element = data.get(keyword) and data[keyword]
        if not element or element.VM != 1 or not str(element.value).strip():
            return False
        validate_value(element.VR, str(element.value), RAISE)
        setattr(header, keyword, str(element.value))  # as text, so that it is written in the new file's character set
    except damage():
        return False
    return True
