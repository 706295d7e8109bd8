"""A draft as a DICOM Basic Text SR under TID 2000: sections of sentences, observed by a device, partial and unverified.

highdicom builds the content tree and checks its relations. The header is ours: highdicom has no Basic Text SR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code
from pydicom.uid import BasicTextSRStorage

from rayscribe.data.dicom import quiet_pydicom
from rayscribe.errors import DISCLAIMER
from rayscribe.reports.document import Document
from rayscribe.reports.instances import device_uid, new_instance, reference_to, whole_bytes
from rayscribe.reports.lines import STATUS, author_line, edited_line, finding_line

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_CONTAINS = "CONTAINS"
_TITLE = Code("18748-4", "LN", "Diagnostic imaging report")
_LANGUAGE = Code("en", "RFC5646", "English")
_DEVICE = Code("121007", "DCM", "Device")
_COMMENT = Code("121106", "DCM", "Comment")
_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
_FINDING = Code("121071", "DCM", "Finding")
_BESIDE = Code("18782-3", "LN", "Radiology Study observation")
_SECTIONS: dict[str, tuple[Code, Code]] = {
    "findings": (Code("59776-5", "LN", "Findings"), _FINDING),
    "impression": (Code("19005-8", "LN", "Impression"), Code("121073", "DCM", "Impression")),
    "findings+impression": (Code("55112-7", "LN", "Document summary"), _FINDING),
}
"Heading (CID 7001) and the name of each sentence (CID 7002), by the section that the report drafts."


def structured_report(document: Document, source_images: Sequence[Dataset]) -> bytes:
    """The DICOM file. Its UIDs are derived from images, weights and words."""
    with quiet_pydicom():
        data = new_instance(document, source_images, sop_class=BasicTextSRStorage, modality="SR", number=9001)
        data.CompletionFlag, data.VerificationFlag = "PARTIAL", "UNVERIFIED"
        data.CompletionFlagDescription = "Draft by a machine-learning model"
        data.PreliminaryFlag = "PRELIMINARY"
        data.ReferencedPerformedProcedureStepSequence = Items()
        data.PerformedProcedureCodeSequence = Items()
        data.CurrentRequestedProcedureEvidenceSequence = Items([_evidence(source_images)])
        _add_content(data, document, source_images)
        return whole_bytes(data)


def _add_content(data: FileDataset, document: Document, source_images: Sequence[Dataset]) -> None:
    root = sr.ContainerContentItem(name=_TITLE, is_content_continuous=False, template_id="2000")
    content = sr.ContentSequence()
    content.extend(sr.LanguageOfContentItemAndDescendants(sr.CodedConcept.from_code(_LANGUAGE)))
    content.extend(_observer(document))
    comments = (DISCLAIMER, f"{STATUS} {edited_line(document)}", author_line(document), *document.warnings)
    for comment in comments:
        content.append(_text(_COMMENT, comment))
    for section in _sections(document, source_images):
        content.append(section)
    root.ContentSequence = content
    for element in root:
        data.add(element)


def _observer(document: Document) -> sr.ObserverContext:
    """The model, observing as a device; no person is involved."""
    model = document.model
    return sr.ObserverContext(
        observer_type=sr.CodedConcept.from_code(_DEVICE),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=device_uid(document),
            name=model.name,
            manufacturer_name=f"rayscribe {model.rayscribe}",
            model_name=model.system,
            serial_number=model.weights_sha256,
        ),
    )


def _sections(document: Document, source_images: Sequence[Dataset]) -> Iterator[sr.ContainerContentItem]:
    heading, name = _SECTIONS[document.model.section]
    report = sr.ContentSequence([_text(name, sentence.text) for sentence in document.reports[0].sentences])
    for original in source_images:
        report.append(
            sr.ImageContentItem(
                name=_IMAGE,
                referenced_sop_class_uid=original.SOPClassUID,
                referenced_sop_instance_uid=original.SOPInstanceUID,
                relationship_type=_CONTAINS,
            )
        )
    yield _section(heading, report)
    if document.findings:
        lines = [_text(_FINDING, finding_line(finding)) for finding in document.findings]
        yield _section(_BESIDE, sr.ContentSequence(lines))


def _section(heading: Code, content: sr.ContentSequence) -> sr.ContainerContentItem:
    section = sr.ContainerContentItem(name=heading, is_content_continuous=False, relationship_type=_CONTAINS)
    section.ContentSequence = content
    return section


def _text(name: Code, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(name=name, value=value, relationship_type=_CONTAINS)


def _evidence(source_images: Sequence[Dataset]) -> Dataset:
    """The study's images, series by series."""
    study = Dataset()
    study.StudyInstanceUID = source_images[0].StudyInstanceUID
    study.ReferencedSeriesSequence = Items()
    in_series = sorted(source_images, key=lambda original: str(original.SeriesInstanceUID))
    for uid, members in groupby(in_series, key=lambda original: str(original.SeriesInstanceUID)):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = Items([reference_to(original) for original in members])
        study.ReferencedSeriesSequence.append(series)
    return study
