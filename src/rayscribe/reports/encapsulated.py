"""A draft as a PDF inside a DICOM object, for viewers that do not show SR."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EncapsulatedPDFStorage

from rayscribe.data.dicom import quiet_pydicom
from rayscribe.reports.document import Document
from rayscribe.reports.instances import new_instance, reference_to, whole_bytes
from rayscribe.reports.pdf import pdf_of


def encapsulated_pdf(document: Document, source_images: Sequence[Dataset]) -> bytes:
    """The DICOM file (Encapsulated PDF Storage), in the study of the originals."""
    content = pdf_of(document)
    with quiet_pydicom():
        data = new_instance(document, source_images, sop_class=EncapsulatedPDFStorage, modality="DOC", number=9002)
        data.ConversionType = "WSD"
        data.BurnedInAnnotation = "NO"  # the page names no patient
        data.RecognizableVisualFeatures = "NO"
        data.AcquisitionDateTime = ""
        data.VerificationFlag = "UNVERIFIED"
        data.DocumentTitle = "Preliminary draft report, not for clinical use"
        data.ConceptNameCodeSequence = Items([_title()])
        data.SourceInstanceSequence = Items([reference_to(original) for original in source_images])
        data.MIMETypeOfEncapsulatedDocument = "application/pdf"
        data.EncapsulatedDocumentLength = len(content)
        data.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
        return whole_bytes(data)


def _title() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "18748-4", "LN", "Diagnostic imaging report"
    return code
