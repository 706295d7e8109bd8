"""Orthanc as the archive, a modality that sends, and the worker as a process."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from PIL import Image
from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation

from apart import exit_code, run_command, start_apart
from dicom_files import radiograph
from drafts import CANARY, CANARY_ID
from needed_tools import needed_tool
from rayscribe.data.manifest import read_manifest

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(is_true: Callable[[], Any], *, seconds: float = 60, what: str = "it", every: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come in {seconds} s")
        time.sleep(every)


@dataclass(frozen=True)
class Orthanc:
    dicom: int
    http: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def aet(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dicom}"

    @property
    def web(self) -> DICOMwebClient:
        return DICOMwebClient(self.url)

    def reports(self) -> list[tuple[str, str, str]]:
        """Study, series and instance UID of every SR."""
        found = self.web.search_for_instances(search_filters={"Modality": "SR"})
        return [tuple(one[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018")) for one in found]

    def reports_of(self, study: str) -> list[pydicom.Dataset]:
        return [self.web.retrieve_instance(*uids) for uids in self.reports() if uids[0] == study]


@contextmanager
def orthanc(folder: Path, *, dicom: int | None = None) -> Iterator[Orthanc]:
    program, plugin = needed_tool("Orthanc", "/usr/sbin/Orthanc"), needed_tool(PLUGIN)
    found = Orthanc(dicom=dicom or free_port(), http=free_port())
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": found.http,
        "DicomPort": found.dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [plugin],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "SynchronousCMove": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with open(folder / "orthanc.log", "w") as log:
        process = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
        try:
            until(lambda: answers(found.http) and answers(found.dicom), what="Orthanc")
            yield found
        finally:
            process.terminate()
            process.wait(20)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class WorkerProcess:
    """`rayscribe worker` with a spool and a log; started again after a kill."""

    def __init__(self, folder: Path, model: Path, *flags: object, start: Callable[..., None] = run_command) -> None:
        self.spool, self.log, self.port = folder / "spool", folder / "worker.log", free_port()
        common = ["--model", model, "--spool", self.spool, "--dicom-port", self.port, "--quiet", 1]
        self.command = [start, "worker", *common, *flags]
        self.process: BaseProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *, wait_for: str = "listening") -> None:
        before = self.said().count(wait_for)
        self.process = start_apart(self.log, *self.command)  # type: ignore[arg-type]
        until(lambda: self.said().count(wait_for) > before, what=f"{wait_for!r} of the worker")

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.join()

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return exit_code(self.process, seconds=30)

    def left(self) -> list[Path]:
        return [path for part in ("incoming", "outgoing", "tries") for path in (self.spool / part).rglob("*")]


@contextmanager
def worker(
    folder: Path, model: Path, *flags: object, start: Callable[..., None] = run_command
) -> Iterator[WorkerProcess]:
    made = WorkerProcess(folder, model, *flags, start=start)
    try:
        yield made
    finally:
        if made.process is not None and made.process.is_alive():
            made.kill()


def pictures(world: Path) -> list[np.ndarray]:
    studies = read_manifest(world).split("train")[:20]
    return [np.asarray(Image.open(study.images[0]).convert("L")) for study in studies]


def chest(pixels: np.ndarray, study: str, number: int = 1, **tags: object) -> pydicom.FileDataset:
    """A drawn chest of the invented patient, dated today."""
    data = radiograph(
        pixels,
        **{
            "PatientName": CANARY,
            "PatientID": CANARY_ID,
            "StudyDate": time.strftime("%Y%m%d"),
            "BodyPartExamined": "CHEST",
            "StudyInstanceUID": study,
            "SeriesInstanceUID": f"{study}.1",
            "SOPInstanceUID": f"{study}.1.{number}",
            **tags,
        },
    )
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


def file_bytes(data: pydicom.FileDataset) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def sent(port: int, images: Sequence[pydicom.Dataset], *, to: str = "RAYSCRIBE", caller: str = "MODALITY") -> bool:
    """Whether the other side said success for every image."""
    entity = AE(ae_title=caller)
    entity.connection_timeout = entity.acse_timeout = 5
    entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(DigitalXRayImageStorageForPresentation)
    association = entity.associate("127.0.0.1", port, ae_title=to)
    if not association.is_established:
        return False
    try:
        return all(association.send_c_store(image).get("Status") == 0x0000 for image in images)
    except (RuntimeError, ValueError):
        return False
    finally:
        association.release()
