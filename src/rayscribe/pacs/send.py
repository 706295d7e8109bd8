"""Reports to the archive, by C-STORE or by STOW-RS. A report that is sent twice is one report there: its UID is the same."""

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
    """The archive does not answer, or not as an archive does."""


class Refused(Exception):
    """The archive answers and does not take this report."""


class Sender(Protocol):
    """The way to an archive."""

    def send(self, content: bytes) -> None:
        """One DICOM file. Raises Unreachable or Refused; otherwise the archive has it."""


def sender_of(*, send_to: str | None, stow_url: str | None, ae_title: str) -> Sender:
    """From the worker's flags. Raises InputError unless exactly one of them is given, in its form."""
    if (send_to is None) == (stow_url is None):
        raise InputError("say where reports go: --send-to AET@host:port, or --stow-url http://host/dicom-web")
    check_title(ae_title)
    if stow_url is not None:
        return StowSender(url=checked_url(stow_url, "--stow-url"))
    found = _TARGET.fullmatch(send_to or "")
    if found is None or not 0 < int(found["port"]) < 65536:
        raise InputError(f"--send-to {send_to}: not of the form AET@host:port, e.g. ORTHANC@localhost:4242")
    return StoreSender(title=found["title"], host=found["host"], port=int(found["port"]), own_title=ae_title)


def check_title(title: str) -> None:
    """Raises InputError for what is no AE title."""
    if not _AE_TITLE.fullmatch(title) or not title.strip():
        raise InputError(f"{title!r}: not an AE title, which has 1 to 16 letters and no backslash")


def checked_url(url: str, flag: str) -> str:
    """Raises InputError for what is no URL of a DICOMweb service."""
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
        from pynetdicom.sop_class import BasicTextSRStorage  # type: ignore[attr-defined]  # made when it is loaded

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
        except (RuntimeError, ValueError):  # the other side went away, or takes no SR
            is_up = association.is_established
            raise (Refused("no Basic Text SR there") if is_up else Unreachable("association lost")) from None
        finally:
            association.release()
        if "Status" not in status:
            raise Unreachable("no answer")
        if status.Status != 0x0000 and status.Status & 0xF000 != 0xB000:  # a warning means that it is kept
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
            is_alone = 400 <= status <= 500  # 500: of this report, as far as we can know; the others are tried
            raise (Refused if is_alone else Unreachable)(f"HTTP {status}") from None
        except (requests.RequestException, ValueError, KeyError) as error:
            raise Unreachable(type(error).__name__) from None
        if answer.get("FailedSOPSequence") or not answer.get("ReferencedSOPSequence"):
            raise Refused("not stored")


def web_client(url: str) -> Any:
    """Of dicomweb-client."""
    from dicomweb_client import DICOMwebClient

    client = DICOMwebClient(url, timeout=3 * _SECONDS)
    client.set_http_retry_params(retry=False)  # the worker does that, and does other things meanwhile
    return client
