"""What a DICOMweb service cannot give, and what is done with the rest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from drafts import STUDY, original
from rayscribe.pacs import fetch
from rayscribe.pacs.fetch import Fetcher
from rayscribe.pacs.send import Unreachable
from rayscribe.pacs.spool import opened_spool


class Service:
    """A study of CR images; it gives an error in the place of some, and answers searches in pages of two."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        self.errors, self.asked = errors, list[str]()

    def search_for_studies(self, *, search_filters: dict[str, str], offset: int) -> list[dict[str, Any]]:
        return self._page("0020000D", [STUDY], offset) if search_filters["ModalitiesInStudy"] == "CR" else []

    def search_for_series(self, study: str, *, search_filters: dict[str, str], offset: int) -> list[dict[str, Any]]:
        return self._page("0020000E", [f"{study}.1"], offset)

    def search_for_instances(self, *_: str, search_filters: dict[str, str], offset: int) -> list[dict[str, Any]]:
        return self._page("00080018", [f"{STUDY}.9.{number}" for number in range(5)], offset)

    def retrieve_instance(self, study: str, series: str, instance: str, **_: object) -> pydicom.Dataset:
        self.asked.append(instance[-1])
        if instance[-1] in self.errors:
            raise self.errors[instance[-1]]
        return pydicom.dcmread(io.BytesIO(original(int(instance[-1]))))

    def _page(self, tag: str, uids: list[str], offset: int) -> list[dict[str, Any]]:
        return [{tag: {"Value": [uid]}} for uid in uids[offset : offset + 2]]


def fetcher(service: Service, monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    monkeypatch.setattr(fetch, "web_client", lambda url: service)
    return Fetcher(url="http://127.0.0.1/dicom-web", days=1)


def test_an_image_that_cannot_be_had_keeps_no_other_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service, said = Service({"0": requests.HTTPError("CANARY"), "2": ValueError("CANARY")}), list[str]()
    asking = fetcher(service, monkeypatch)
    with opened_spool(tmp_path) as spool:
        assert asking.fetch(spool, said.append) == 3
        assert said == ["2 images cannot be fetched or kept; they will be requested again"]
        service.errors.clear()
        assert asking.fetch(spool, said.append) == 2 and service.asked == [*"01234", *"02"]
        assert asking.fetch(spool, said.append) == 0 and len(said) == 1


def test_a_service_that_goes_away_is_asked_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service({"3": requests.ConnectionError("CANARY")})
    asking = fetcher(service, monkeypatch)
    with opened_spool(tmp_path) as spool:
        with pytest.raises(Unreachable, match="ConnectionError"):
            asking.fetch(spool, print)
        service.errors.clear()
        assert asking.fetch(spool, print) == 2
