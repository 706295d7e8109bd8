"""A DICOM image without its patient: the Basic Application Level Confidentiality Profile of PS3.15, and stricter.

Table E.1-1 defines the action for the attributes that it lists. Of unlisted attributes only numbers and a few codes from a
fixed vocabulary are kept; all other text is emptied, because names also occur in attributes that no list contains.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from rayscribe.data.dicom_decoding import damage
from rayscribe.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

Action = Literal["remove", "empty", "replace", "uid"]

_EDITION = "2026c"
_CATEGORIES: dict[str, Action] = {
    # Where an action has several letters, the one for radiographs: no X/D, Z/D, X/Z or X/Z/D attribute is of type 1 in CR, DX.
    "D_TAGS": "replace",
    "Z_TAGS": "empty",
    "X_TAGS": "remove",
    "U_TAGS": "uid",
    "Z_D_TAGS": "empty",
    "X_Z_TAGS": "empty",
    "X_D_TAGS": "remove",
    "X_Z_D_TAGS": "empty",
    "X_Z_U_STAR_TAGS": "empty",
}
_DUMMIES = dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED") | {
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
}
_NUMBERS = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT")
_CODES = (
    *("Modality", "PresentationIntentType", "BodyPartExamined", "PhotometricInterpretation", "PresentationLUTShape"),
    *("VOILUTFunction", "ViewPosition", "PatientOrientation", "Laterality", "ImageLaterality"),
    *("ImageType", "ConversionType", "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionMethod"),
    *("PixelIntensityRelationship", "QualityControlImage", "RecognizableVisualFeatures", "Grid", "DetectorType"),
    *(
        "DetectorConfiguration",
        "FieldOfViewShape",
        "ExposureControlMode",
        "CollimatorShape",
        "PixelSpacingCalibrationType",
    ),
)
_UNITS = {"RescaleType": ("HU", "OD", "US"), "ModalityLUTType": ("HU", "OD", "US")}
_PUBLIC_CODE = {"SCT": r"\d{6,18}", "SRT": r"[A-Z]-[0-9A-F]{5}", "SNM3": r"[A-Z]-[0-9A-F]{5}", "DCM": r"\d{5,6}"}
_BULK = ("PixelData", "LUTData")


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Replacements derived from one secret: the same key gives the same ones; without it they cannot be inverted or guessed."""

    key: bytes

    def uid(self, uid: str) -> str:
        """A UID under 2.25 (PS3.5 B.2) that replaces `uid`."""
        return f"2.25.{int.from_bytes(self._hash('uid', uid)[:16], 'big')}"

    def patient(self, patient: str) -> str:
        return self._hash("patient", patient.strip()).hex()[:16].upper()

    def _hash(self, kind: str, value: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256)


def without_patient(data: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """A new data set without file meta information. The pixel bytes are unchanged; `dicom_deidentify` handles them."""
    from pydicom.dataset import Dataset

    cleaned = _cleaned(data, pseudonyms)
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.LongitudinalTemporalInformationModified = "REMOVED"
    cleaned.DeidentificationMethod = [
        f"rayscribe: PS3.15 basic profile, table E.1-1 of {_EDITION}",
        "private attributes and other text removed; pixels not cleaned",
    ]
    profile = Dataset()
    profile.CodeValue, profile.CodingSchemeDesignator = "113100", "DCM"
    profile.CodeMeaning = "Basic Application Confidentiality Profile"
    cleaned.DeidentificationMethodCodeSequence = [profile]
    return cleaned


@cache
def profile_actions() -> dict[tuple[int, int], Action]:
    """Table E.1-1 by group and element. Raises InputError if the package that contains it is not installed."""
    try:
        from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector  # of the extra `dicom`
    except ImportError:
        raise InputError("`deidentify` needs the table of PS3.15: pip install 'rayscribe[dicom]'") from None
    categories = dicom_anonymization_database_selector(f"dicomfields_{_EDITION}")
    return {
        (tag[0], tag[1]): action
        for category, action in _CATEGORIES.items()
        for tag in categories[category]
        if len(tag) == 2  # the others are curves and overlays, all of which go
    }


def _cleaned(data: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    from pydicom.dataset import Dataset

    cleaned = Dataset()
    for tag in data.keys():  # noqa: SIM118  # iterating decodes values, also those to be removed
        if _goes(tag):
            continue
        try:
            element = data[tag]
        except damage():  # the value breaks the rules of its type
            continue
        _keep(element, cleaned, pseudonyms)
    if "CodeValue" in data and (meant := _public_code(data)):
        cleaned.CodeValue, cleaned.CodingSchemeDesignator = meant
        cleaned.CodeMeaning = "(meaning removed)"
    return cleaned


def _goes(tag: BaseTag) -> bool:
    is_drawing = tag.group & 0xFF00 in (0x5000, 0x6000)  # curves, overlays
    return (
        tag.is_private or is_drawing or tag.element == 0 or profile_actions().get((tag.group, tag.element)) == "remove"
    )


def _keep(element: DataElement, into: Dataset, pseudonyms: Pseudonyms) -> None:
    """Copies what may be kept of an element into the new data set."""
    tag, vr, keyword = element.tag, element.VR, element.keyword
    action = profile_actions().get((tag.group, tag.element))
    if keyword == "PatientID":
        into.PatientID = pseudonyms.patient(str(element.value)) if element.value else ""
    elif vr == "SQ":
        into.add_new(tag, vr, [] if action == "empty" else [_cleaned(item, pseudonyms) for item in element.value])
    elif action == "uid" or vr == "UI":
        into.add_new(tag, "UI", [_uid(uid, pseudonyms) for uid in _values(element)])
    elif action == "replace":
        if vr in _DUMMIES:
            into.add_new(tag, vr, _DUMMIES[vr])
    elif action is None and (vr in _NUMBERS or keyword in _BULK or _is_harmless(element)):
        into.add_new(tag, vr, element.value)
    elif vr not in ("OB", "OD", "OF", "OL", "OV", "OW", "UN"):
        into.add_new(tag, vr, None)


def _uid(uid: object, pseudonyms: Pseudonyms) -> str:
    """UIDs that the standard defines, such as a SOP class, do not identify an instance and are kept."""
    from pydicom.uid import UID

    return str(uid) if UID(str(uid)).name != str(uid) else pseudonyms.uid(str(uid))


def _is_harmless(element: DataElement) -> bool:
    values = [str(value) for value in _values(element)]
    if element.VR in ("DS", "IS"):
        return all(re.fullmatch(r"[0-9+\-.eE ]{0,16}", value) for value in values)
    if element.keyword in _UNITS:
        return all(value in _UNITS[element.keyword] for value in values)
    return element.keyword in _CODES and all(re.fullmatch(r"[A-Z0-9_ ]{0,16}", value) for value in values)


def _public_code(item: Dataset) -> tuple[str, str] | None:
    """A code from a public scheme, such as SNOMED's for a projection; its meaning is free text."""
    value, scheme = str(item.get("CodeValue") or ""), str(item.get("CodingSchemeDesignator") or "")
    is_public = scheme in _PUBLIC_CODE and re.fullmatch(_PUBLIC_CODE[scheme], value)
    return (value, scheme) if is_public else None


def _values(element: DataElement) -> Iterable[Any]:
    if element.value is None or element.value == "":
        return []
    return element.value if element.VM > 1 else [element.value]
