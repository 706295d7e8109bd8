"""Sends reports to the archive, by C-STORE or STOW-RS. A report sent twice is stored once: its UID stays the same."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Protocol

from rayscribe.errors import InputError, need_packages

_TARGET = re.compile(r"(?P<title>[^@\\]{1,16})@(?P<host>[^@:\s]+):(?P<port>\d{1,5})")
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")
_SECONDS = 10


class Unreachable(Exception):
    """The archive does not answer, or not as an archive would."""


class Refused(Exception):
    """The archive answers but rejects this report."""


class Sender(Protocol):
    """A connection to an archive."""

    def send(self, content: bytes) -> None:
        """Sends one DICOM file. Raises Unreachable or Refused; otherwise the archive has stored it."""


def sender_of(*, send_to: str | None, stow_url: str | None, ae_title: str) -> Sender:
    """The sender that the worker's flags describe. Raises InputError unless exactly one of them is given, in its form."""
    if (send_to is None) == (stow_url is None):
        raise InputError(
            "give the destination of reports: --send-to AET@host:port, or --stow-url http://host/dicom-web"
        )
    check_title(ae_title)
    if stow_url is not None:
        return StowSender(url=checked_url(stow_url, "--stow-url"))
    found = _TARGET.fullmatch(send_to or "")
    if found is None or not 0 < int(found["port"]) < 65536:
        raise InputError(f"--send-to {send_to}: not of the form AET@host:port, e.g. ORTHANC@localhost:4242")
    return StoreSender(title=found["title"], host=found["host"], port=int(found["port"]), own_title=ae_title)


def check_title(title: str) -> None:
    """Raises InputError unless this is an AE title."""
    if not _AE_TITLE.fullmatch(title) or not title.strip():
        raise InputError(f"{title!r}: not an AE title, which has 1 to 16 letters and no backslash")


def checked_url(url: str, flag: str) -> str:
    """Raises InputError unless this is the URL of a DICOMweb service."""
    need_packages("pacs", "dicomweb_client")
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", url):
        raise InputError(f"{flag} {url}: not of the form http://host:port/dicom-web")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSender:
    """C-STORE to an application entity."""

    title: str
    host: str
    port: int
    own_title: str

    def send(self, content: bytes) -> None:
        import pydicom
        from pynetdicom import AE
        from pynetdicom.sop_class import BasicTextSRStorage  # type: ignore[attr-defined]  # defined at import time

        entity = AE(ae_title=self.own_title)
        entity.connection_timeout = entity.acse_timeout = _SECONDS
        entity.dimse_timeout = entity.network_timeout = 3 * _SECONDS
        entity.add_requested_context(BasicTextSRStorage)
        association = entity.associate(self.host, self.port, ae_title=self.title)
        if not association.is_established:
            raise Unreachable(
                "it rejects us; does it know both AE titles?" if association.is_rejected else "no association"
            )
        try:
            status = association.send_c_store(pydicom.dcmread(io.BytesIO(content)))
        except (RuntimeError, ValueError):  # the other side disconnected, or does not accept SR
            is_up = association.is_established
            raise (Refused("no Basic Text SR there") if is_up else Unreachable("association lost")) from None
        finally:
            association.release()
        if "Status" not in status:
            raise Unreachable("no answer")
        if status.Status != 0x0000 and status.Status & 0xF000 != 0xB000:  # a warning still means that it is stored
            raise Refused(f"status {status.Status:04X}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StowSender:
    """STOW-RS to a DICOMweb service."""

    url: str

    def send(self, content: bytes) -> None:
        import pydicom
        import requests

        try:
            answer = web_client(self.url).store_instances([pydicom.dcmread(io.BytesIO(content))])
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            is_alone = 400 <= status <= 500  # 500: possibly due to this report; try the others
            raise (Refused if is_alone else Unreachable)(f"HTTP {status}") from None
        except (requests.RequestException, ValueError, KeyError) as error:
            raise Unreachable(type(error).__name__) from None
        if answer.get("FailedSOPSequence") or not answer.get("ReferencedSOPSequence"):
            raise Refused("not stored")


def web_client(url: str) -> Any:
    """A client of dicomweb-client."""
    from dicomweb_client import DICOMwebClient

    client = DICOMwebClient(url, timeout=3 * _SECONDS)
    client.set_http_retry_params(retry=False)  # the worker retries, and does other work meanwhile
    return client
