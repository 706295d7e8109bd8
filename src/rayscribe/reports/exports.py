"""A draft as a file of any supported kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rayscribe.errors import InputError, need_packages
from rayscribe.reports.document import Document, document_json
from rayscribe.reports.lines import created_at, plain_text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_STATES = ("positive", "negative", "uncertain")
_SECTIONS = ("findings", "impression", "findings+impression")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"Characters that XML, DICOM or UTF-8 cannot contain; line feed and tab are allowed."
_LONGEST, _LONGEST_NAME = 50_000, 255
"Most characters in a draft and in a name. Reports have hundreds; a PDF of 10 times as many words takes 100 times as long."


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A complete file."""

    content: bytes
    media_type: str
    suffix: str


Originals = Sequence["Dataset"]
"The study's DICOM headers from `rayscribe.reports.source_images`; empty if the images are not DICOM files."


def exported(kind: str, document: Document, source_images: Originals = ()) -> Exported:
    """`document` as a file of this kind. Raises InputError if something that the kind needs is missing."""
    if kind not in KINDS:
        raise InputError(f"unknown export {kind!r}; choose one of {', '.join(KINDS)}")
    _check(document)
    return KINDS[kind](document, source_images)


def _text(document: Document, source_images: Originals) -> Exported:
    return Exported(content=plain_text(document).encode(), media_type="text/plain; charset=utf-8", suffix=".txt")


def _json(document: Document, source_images: Originals) -> Exported:
    return Exported(content=document_json(document).encode(), media_type="application/json", suffix=".json")


def _pdf(document: Document, source_images: Originals) -> Exported:
    need_packages("clinical", "reportlab")
    from rayscribe.reports.pdf import pdf_of  # reportlab: only needed here

    return Exported(content=pdf_of(document), media_type="application/pdf", suffix=".pdf")


def _dicom_pdf(document: Document, source_images: Originals) -> Exported:
    need_packages("clinical", "reportlab")
    from rayscribe.reports.encapsulated import encapsulated_pdf  # as above

    return Exported(
        content=encapsulated_pdf(document, _linked(source_images, "an encapsulated PDF")),
        media_type="application/dicom",
        suffix=".dcm",
    )


def _fhir(document: Document, source_images: Originals) -> Exported:
    need_packages("clinical", "fhir")
    from rayscribe.reports.fhir import bundle_of  # pydantic models of all of FHIR: seconds to import

    return Exported(content=bundle_of(document, source_images), media_type="application/fhir+json", suffix=".fhir.json")


def _sr(document: Document, source_images: Originals) -> Exported:
    need_packages("clinical", "highdicom")
    from rayscribe.reports.structured import structured_report  # highdicom: seconds to import

    return Exported(
        content=structured_report(document, _linked(source_images, "an SR")),
        media_type="application/dicom",
        suffix=".dcm",
    )


KINDS: dict[str, Callable[[Document, Originals], Exported]] = {
    "text": _text,
    "json": _json,
    "pdf": _pdf,
    "dicom-pdf": _dicom_pdf,
    "fhir": _fhir,
    "sr": _sr,
}


def _linked(source_images: Originals, what: str) -> Originals:
    if not source_images:
        raise InputError(
            f"{what} is linked to its DICOM study; give the study's DICOM files (--images), or export text, pdf or fhir"
        )
    return source_images


def _check(document: Document) -> None:
    """Checks content that `read_document` accepts but a format might not: a draft may come from anywhere."""
    if created_at(document).year < 1900:
        raise InputError("the draft is dated before 1900; write it again")
    sentences = [sentence for report in document.reports for sentence in report.sentences]
    mentions = [one for sentence in sentences for one in sentence.mentions]
    told = asdict(document.model)
    terms = told.pop("terms")
    names: list[Any] = [*told.values(), *(one.observation for one in mentions)]
    names += [text for one in document.findings for text in (one.name, one.source, one.wording)]
    if not all(isinstance(word, str) for word in (*names, terms, *document.warnings)):
        raise InputError("the draft has a non-text value where text belongs; write the draft again")
    if not isinstance(document.images, int) or not isinstance(document.is_edited, bool):
        raise InputError(
            "the draft does not state its number of images or whether it was edited; write the draft again"
        )
    _check_lengths(document, names)
    if document.model.section not in _SECTIONS:
        raise InputError(f"the draft has an unknown section; it must be one of {', '.join(_SECTIONS)}")
    if any(one.state not in _STATES for one in mentions) or any(one.state not in _STATES for one in document.findings):
        raise InputError(f"the draft has an unknown state; a finding is {', '.join(_STATES)}")
    for finding in document.findings:
        probability = finding.probability
        if probability is not None and not (isinstance(probability, int | float) and 0 <= probability <= 1):
            raise InputError("the draft has a probability that is not a number from 0 to 1; write the draft again")
    texts = list(_texts(document.plain()))
    if any(_UNPRINTABLE.search(text) for text in texts):
        raise InputError("the draft contains a control character, which the formats do not allow; delete it")


def _check_lengths(document: Document, names: Sequence[str]) -> None:
    """Rejects values that a format requires but are empty, and lengths that take minutes or overflow the page."""
    model = document.model
    needed = [model.name, model.system, model.weights_sha256, model.rayscribe]
    needed += [finding.name for finding in document.findings]
    needed += [one.observation for sentence in document.reports[0].sentences for one in sentence.mentions]
    if not all(text.strip() for text in (*needed, *(one.text for one in document.reports[0].sentences))):
        raise InputError("the draft has an empty sentence or an empty name; delete it")
    if any(len(name) > _LONGEST_NAME for name in names):
        raise InputError(f"the draft has a name of more than {_LONGEST_NAME} characters; shorten it")
    if len(document.text) + sum(map(len, (*names, *document.warnings))) > _LONGEST:
        raise InputError(f"the draft has more than {_LONGEST} characters; shorten it")


def _texts(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict):
        for value in plain.values():
            yield from _texts(value)
    elif isinstance(plain, list | tuple):
        for value in plain:
            yield from _texts(value)
