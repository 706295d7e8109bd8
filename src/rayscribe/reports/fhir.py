"""A draft as a FHIR R4 bundle: DiagnosticReport and Observations (preliminary), the model as Device, and a Provenance.

Built and validated with fhir.resources' R4B models; R4B changed none of the elements used here, and no R4 element is missing. A
report's performer cannot be a device, so the Provenance names the model as the author.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from fhir.resources.R4B.bundle import Bundle

from rayscribe.errors import DISCLAIMER
from rayscribe.reports.document import Document, Finding, FindingState
from rayscribe.reports.instances import part_uuid
from rayscribe.reports.lines import created_at, finding_line, finding_words, plain_text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Plain = dict[str, Any]

_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_HL7 = "http://terminology.hl7.org/CodeSystem"
_INTERPRETATION: dict[FindingState, tuple[str, str]] = {
    "positive": ("POS", "Positive"),
    "negative": ("NEG", "Negative"),
    "uncertain": ("IND", "Indeterminate"),
}
_RANK: tuple[FindingState, ...] = ("negative", "uncertain", "positive")
"If a report mentions an observation twice, the state that comes later here wins."


def bundle_of(document: Document, source_images: Sequence[Dataset]) -> bytes:
    """JSON of a Bundle of type collection. Its ids are derived from images, weights and words."""
    links = _links(source_images)
    device = _urn(document, source_images, "device")
    observations = [
        (_urn(document, source_images, "observation", str(number)), one | links | {"device": {"reference": device}})
        for number, one in enumerate(_observations(document))
    ]
    report = _urn(document, source_images, "report")
    resources = [
        (report, _report(document, [urn for urn, _ in observations]) | links | _study(source_images)),
        *observations,
        (device, _device(document)),
        (_urn(document, source_images, "provenance"), _provenance(document, report, device)),
    ]
    bundle = {
        "resourceType": "Bundle",
        "id": str(part_uuid(document, source_images, "fhir", "bundle")),
        "type": "collection",
        "timestamp": created_at(document).isoformat(),
        "entry": [{"fullUrl": urn, "resource": {**one, "id": urn.removeprefix("urn:uuid:")}} for urn, one in resources],
    }
    return (Bundle.model_validate(bundle).model_dump_json(indent=2, exclude_none=True) + "\n").encode()


def _urn(document: Document, source_images: Sequence[Dataset], *roles: str) -> str:
    return f"urn:uuid:{part_uuid(document, source_images, 'fhir', *roles)}"


def _links(source_images: Sequence[Dataset]) -> Plain:
    """The patient, as a logical reference by the id in the images; without an id there is no subject."""
    if not source_images or not source_images[0].PatientID:
        return {}
    return {"subject": {"type": "Patient", "identifier": {"value": str(source_images[0].PatientID)}}}


def _study(source_images: Sequence[Dataset]) -> Plain:
    if not source_images:
        return {}
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{source_images[0].StudyInstanceUID}"}
    return {"imagingStudy": [{"type": "ImagingStudy", "identifier": identifier}]}


def _report(document: Document, observations: list[str]) -> Plain:
    lines = "".join(f"<p>{escape(line)}</p>" for line in plain_text(document).splitlines() if line.strip())
    return {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{lines}</div>'},
        "status": "preliminary",
        "category": [{"coding": [{"system": f"{_HL7}/v2-0074", "code": "RAD", "display": "Radiology"}]}],
        "code": {"coding": [{"system": _LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "issued": created_at(document).isoformat(),
        "conclusion": f"{document.text}\n\n{DISCLAIMER}",
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "data": base64.b64encode(plain_text(document).encode()).decode(),
                "title": "Preliminary draft report",
            }
        ],
    } | ({"result": [{"reference": urn} for urn in observations]} if observations else {})


def _observations(document: Document) -> Iterator[Plain]:
    """The report's findings by the rule labeler, then the findings of a model in addition to it."""
    said: dict[str, FindingState] = {}
    for sentence in document.reports[0].sentences:
        for one in sentence.mentions:
            before = said.get(one.observation, one.state)
            said[one.observation] = max(before, one.state, key=_RANK.index)
    for name, state in said.items():
        yield _observation(name, state, "read in the words of the draft by rules")
    for finding in document.findings:
        yield _observation(finding.name, finding.state, f"{finding.source}, beside the report") | _probability(finding)


def _observation(name: str, state: FindingState, method: str) -> Plain:
    code, display = _INTERPRETATION[state]
    coding = {"system": f"{_HL7}/v3-ObservationInterpretation", "code": code, "display": display}
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [{"coding": [{"system": f"{_HL7}/observation-category", "code": "imaging", "display": "Imaging"}]}],
        "code": {"text": name},
        "valueCodeableConcept": {"text": state},
        "interpretation": [{"coding": [coding]}],
        "method": {"text": method},
        "note": [{"text": DISCLAIMER}],
    }


def _probability(finding: Finding) -> Plain:
    if finding.probability is None:
        return {}
    quantity = {"value": round(finding.probability, 4), "unit": "probability", "system": _UCUM, "code": "1"}
    component = {
        "code": {"text": "probability"},
        "valueQuantity": quantity,
        "interpretation": [{"text": finding_words(finding)}],
    }
    return {"component": [component], "text": _narrative(finding_line(finding))}


def _narrative(line: str) -> Plain:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{escape(line)}. {escape(DISCLAIMER)}</div>'
    return {"status": "generated", "div": div}


def _device(document: Document) -> Plain:
    model = document.model
    return {
        "resourceType": "Device",
        "deviceName": [{"name": model.name, "type": "user-friendly-name"}],
        "modelNumber": model.system,
        "manufacturer": "rayscribe",
        "serialNumber": model.weights_sha256,
        "version": [{"value": model.rayscribe}],
        "note": [{"text": DISCLAIMER}],
    }


def _provenance(document: Document, report: str, device: str) -> Plain:
    author = {"coding": [{"system": f"{_HL7}/provenance-participant-type", "code": "author", "display": "Author"}]}
    return {
        "resourceType": "Provenance",
        "target": [{"reference": report}],
        "recorded": created_at(document).isoformat(),
        "agent": [{"type": author, "who": {"reference": device}}],
    }
