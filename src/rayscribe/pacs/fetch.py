"""Fetches images from a DICOMweb service, for archives that do not send: recent CR and DX images by QIDO-RS and WADO-RS."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

from rayscribe.data.dicom_decoding import damage
from rayscribe.pacs.receive import NOT_UNDERSTOOD, OUT_OF_RESOURCES, SUCCESS, kept
from rayscribe.pacs.send import Unreachable, web_client
from rayscribe.pacs.spool import Spool

AT_ONCE = 50
"Most images to fetch before drafting continues."
_MODALITIES = ("CR", "DX")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """A DICOMweb service that is queried for new studies."""

    url: str
    days: int
    "maximum age of a study, in days before today"

    def fetch(self, spool: Spool, notify: Callable[[str], None]) -> int:
        """Puts new images into the spool and returns their number. Raises Unreachable; the next call resumes."""
        import requests

        broken: tuple[type[Exception], ...] = (requests.RequestException, *damage())
        client, found, lost = web_client(self.url), 0, 0
        try:
            for study, series, instance in self._new(client, spool):
                status = _taken(client, spool, notify, study, series, instance)
                found, lost = found + (status == SUCCESS), lost + (status != SUCCESS)
                if found == AT_ONCE or status == OUT_OF_RESOURCES:
                    break
        except broken as error:
            raise Unreachable(type(error).__name__) from None
        finally:
            if lost:
                notify(f"{lost} images cannot be fetched or kept; they will be requested again")
        return found

    def _new(self, client: Any, spool: Spool) -> Iterator[tuple[str, str, str]]:
        today = date.today()
        dates = f"{today - timedelta(days=self.days):%Y%m%d}-{today:%Y%m%d}"
        for modality in _MODALITIES:
            wanted = {"StudyDate": dates, "ModalitiesInStudy": modality}
            for study_uid in _pages(client.search_for_studies, _STUDY, wanted):
                search = partial(client.search_for_series, study_uid)
                for series_uid in _pages(search, _SERIES, {"Modality": modality}):
                    for uid in _pages(partial(client.search_for_instances, study_uid, series_uid), _INSTANCE, {}):
                        if not spool.knows(study_uid, uid):
                            yield study_uid, series_uid, uid


def _taken(client: Any, spool: Spool, notify: Callable[[str], None], *uids: str) -> int:
    """Same result as `kept`. An image that is missing or damaged does not stop the others."""
    import requests

    try:
        content = _file(client.retrieve_instance(*uids, media_types=(("application/dicom", "*"),)))
    except requests.HTTPError:
        return NOT_UNDERSTOOD
    except requests.RequestException:
        raise  # the service is unreachable
    except damage():
        return NOT_UNDERSTOOD
    return kept(spool, notify, uids[-1], content)


def _pages(search: Callable[..., list[dict[str, Any]]], tag: str, wanted: dict[str, str]) -> list[str]:
    """All UIDs that a search finds. A server may return fewer per page than exist, or repeat a page endlessly."""
    found: dict[str, None] = {}
    offset = 0
    while True:
        page = search(search_filters=wanted, offset=offset)
        uids = [str(one[tag]["Value"][0]) for one in page]
        if found.keys() >= set(uids):
            return list(found)
        found |= dict.fromkeys(uids)
        offset += len(page)


def _file(data: Any) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
