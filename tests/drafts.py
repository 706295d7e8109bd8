"""A draft with everything in it, and DICOM originals of an invented patient."""

from __future__ import annotations

import io
from dataclasses import replace

from dicom_files import radiograph, ramp
from rayscribe.data.dicom import quiet_pydicom
from rayscribe.reports.document import Author, Document, Finding, Report
from rayscribe.reports.drafting import sentences_of

CANARY = "ZZCANARY^QUETZAL"
"Name of the patient; it may stand in DICOM headers alone."
CANARY_ID = "ZZID4711"
STUDY = "1.2.826.0.1.3680043.8.498.4711"
TEXT = "The heart is mildly enlarged. No pleural effusion. Größe ≥ 3 cm, ﬁne 肺 & <b>."


def draft(text: str = TEXT, **changes: object) -> Document:
    made = Document(
        model=Author(
            name="chest", system="r2gen", weights_sha256="ab" * 32, rayscribe="0.3.0", section="findings", terms="any"
        ),
        created="2026-01-02T03:04:05+00:00",
        reports=(Report(sentences=sentences_of(text)), Report(sentences=sentences_of("Another one."))),
        images=2,
        findings=(
            Finding(
                name="Cardiomegaly", state="positive", source="classifier", probability=0.931, wording="very likely"
            ),
            Finding(name="Edema", state="uncertain", source="disease head"),
        ),
        warnings=("image 1: looks inverted",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def of_section(section: str) -> Document:
    made = draft()
    return replace(made, model=replace(made.model, section=section))


def original(number: int, *, study: str = STUDY, patient: str = CANARY_ID, **tags: object) -> bytes:
    """A tiny DX file of the invented patient."""
    identity = {"PatientName": CANARY, "PatientID": patient, "StudyInstanceUID": study}
    identity |= {"SeriesInstanceUID": f"{study}.{1 + number % 2}", "SOPInstanceUID": f"{study}.9.{number}"}
    buffer = io.BytesIO()
    with quiet_pydicom():  # some tests write values that break the rules
        data = radiograph(ramp(), **(identity | tags))
        data.file_meta.MediaStorageSOPInstanceUID = f"{study}.9.{number}"
        data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
