"""Images from the network: a C-STORE SCP that says success when an image is on the disk, and not before."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pydicom
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when the module is loaded
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    Verification,
)

from rayscribe.data.dicom_decoding import damage
from rayscribe.errors import InputError
from rayscribe.pacs.spool import Spool, digest

IMAGES = (ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation)
SUCCESS, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000


def listening(
    spool: Spool, notify: Callable[[str], None], *, address: str, port: int, ae_title: str, callers: Sequence[str]
) -> Callable[[], None]:
    """Listens in threads of its own; returns what ends that. `callers`: the AE titles that may send, all when empty."""
    entity = AE(ae_title=ae_title)
    for kind in IMAGES:
        entity.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(Verification)
    entity.require_called_aet = True
    entity.require_calling_aet = list(callers)

    def store(event: Any) -> int:
        return kept(spool, notify, str(event.request.AffectedSOPInstanceUID), event.encoded_dataset())

    try:
        server = entity.start_server((address, port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    except OSError as error:
        raise InputError(f"--dicom-port {port}: cannot listen there ({error.strerror}); give another") from None
    assert server is not None
    return server.shutdown


def kept(spool: Spool, notify: Callable[[str], None], image_uid: str, content: bytes) -> int:
    """The status of C-STORE for a DICOM file."""
    study_uid, found_uid = identity_of(content)
    if not study_uid:
        notify("an image without a study was refused")
        return NOT_UNDERSTOOD
    if found_uid != image_uid:
        notify("an image with two identities was refused")
        return MISMATCH
    try:
        is_new = spool.receive(study_uid, image_uid, content)
    except OSError as error:
        notify(f"study {digest(study_uid)[:8]}: an image cannot be kept ({error.strerror}); the sender is told so")
        return OUT_OF_RESOURCES
    if not is_new:
        notify(f"study {digest(study_uid)[:8]}: an image came again; its report is sent already")
    return SUCCESS


def identity_of(content: bytes) -> tuple[str, str]:
    """Study and instance UID of a DICOM file; empty where it has none."""
    try:
        data = pydicom.dcmread(
            io.BytesIO(content), specific_tags=["StudyInstanceUID", "SOPInstanceUID"], stop_before_pixels=True
        )
        return str(data.get("StudyInstanceUID") or ""), str(data.get("SOPInstanceUID") or "")
    except damage():
        return "", ""
