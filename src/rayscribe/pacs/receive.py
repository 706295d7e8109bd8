"""Receives images from the network: a C-STORE SCP that reports success only once an image is on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pydicom
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # defined at import time
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
    """Listens in threads of its own; returns a function that stops it. `callers`: AE titles that may send; empty: all."""
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
        raise InputError(
            f"--dicom-port {port}: cannot listen on this port ({error.strerror}); give another one"
        ) from None
    assert server is not None
    return server.shutdown


def kept(spool: Spool, notify: Callable[[str], None], image_uid: str, content: bytes) -> int:
    """Stores a DICOM file and returns the C-STORE status."""
    study_uid, found_uid = identity_of(content)
    if not study_uid:
        notify("rejected an image without a study")
        return NOT_UNDERSTOOD
    if found_uid != image_uid:
        notify("rejected an image with two identities")
        return MISMATCH
    try:
        is_new = spool.receive(study_uid, image_uid, content)
    except OSError as error:
        notify(
            f"study {digest(study_uid)[:8]}: an image cannot be stored ({error.strerror}); the sender receives an error"
        )
        return OUT_OF_RESOURCES
    if not is_new:
        notify(f"study {digest(study_uid)[:8]}: an image arrived again; its report has already been sent")
    return SUCCESS


def identity_of(content: bytes) -> tuple[str, str]:
    """Study and instance UID of a DICOM file; empty if it has none."""
    try:
        data = pydicom.dcmread(
            io.BytesIO(content), specific_tags=["StudyInstanceUID", "SOPInstanceUID"], stop_before_pixels=True
        )
        return str(data.get("StudyInstanceUID") or ""), str(data.get("SOPInstanceUID") or "")
    except damage():
        return "", ""
