"""What all DICOM objects of a draft share: patient and study, the software, and reproducible identities.

The same draft of the same images has the same UIDs, so an object that is sent twice is stored once in the archive.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rayscribe import __version__
from rayscribe.reports.document import Document
from rayscribe.reports.lines import created_at, finding_line
from rayscribe.reports.source_images import PATIENT, STUDY

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_NAMESPACE = uuid.UUID("6b0d5a0e-3f0e-5c39-9a52-7a2f4f3d1c58")
_SERIES = "Machine-learning draft, not for clinical use"


def part_uuid(document: Document, source_images: Sequence[Dataset], *roles: str) -> uuid.UUID:
    """The UUID of one part of a draft's output, from the images' UIDs, the weights, the words, and the part's roles."""
    images = sorted(str(original.SOPInstanceUID) for original in source_images)
    said = [document.text, *map(finding_line, document.findings), str(document.is_edited)]
    parts = [*roles, *images, document.model.weights_sha256, document.model.section, *said]
    return uuid.uuid5(_NAMESPACE, hashlib.sha256("\0".join(parts).encode()).hexdigest())


def device_uid(document: Document) -> str:
    """The UID of the model as a device: equal weights have equal UIDs."""
    return _uid(uuid.uuid5(_NAMESPACE, f"device {document.model.weights_sha256}"))


def new_instance(
    document: Document, source_images: Sequence[Dataset], *, sop_class: str, modality: str, number: int
) -> FileDataset:
    """An empty DICOM object in a series of its own, in the originals' study."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    made, instance = created_at(document).astimezone(), _uid(part_uuid(document, source_images, sop_class))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*PATIENT, *STUDY):
        setattr(data, keyword, source_images[0].get(keyword, ""))
    data.SOPClassUID, data.SOPInstanceUID = sop_class, instance
    data.StudyInstanceUID = source_images[0].StudyInstanceUID
    data.SeriesInstanceUID = _uid(part_uuid(document, source_images, sop_class, "series"))
    data.Modality, data.SeriesNumber, data.InstanceNumber, data.SeriesDescription = modality, number, 1, _SERIES
    data.InstanceCreationDate = data.ContentDate = f"{made:%Y%m%d}"
    data.InstanceCreationTime = data.ContentTime = f"{made:%H%M%S}"
    data.Manufacturer, data.ManufacturerModelName = "rayscribe", _short(document.model.name)
    data.SoftwareVersions = _short(__version__)
    data.DeviceSerialNumber = _short(document.model.weights_sha256)
    return data


def whole_bytes(data: FileDataset) -> bytes:
    """The bytes of a DICOM file."""
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(value: uuid.UUID) -> str:
    return f"2.25.{value.int}"


def _short(text: str) -> str:
    """Shortened to an LO value: 64 characters, without backslash."""
    return text.replace("\\", "/").replace("\n", " ")[:64]


def reference_to(original: Dataset) -> Dataset:
    """A reference to an image: its class and UID."""
    import pydicom  # only needed for DICOM

    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID = original.SOPClassUID
    reference.ReferencedSOPInstanceUID = original.SOPInstanceUID
    return reference
