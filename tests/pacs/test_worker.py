"""The worker as a process beside a real archive, with a tiny model: what goes in comes back as a report, once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from archive import Orthanc, chest, free_port, orthanc, pictures, sent, until, worker

from apart import start_command
from conftest import small_config
from drafts import CANARY, CANARY_ID
from rayscribe.errors import DISCLAIMER
from rayscribe.reports.drafting import author_of
from rayscribe.training.run import train_method

pytestmark = pytest.mark.slow

ROOT = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.fixture(scope="module")
def model(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "small"
    config = small_config("r2gen", epochs=6, lr=3e-3)  # enough that no report is empty
    train_method(replace(config, text=replace(config.text, max_length=10)), world, run)
    return run


@pytest.fixture(scope="module")
def drawn(world: Path) -> list[np.ndarray]:
    return pictures(world)


def test_a_study_comes_back_as_one_report(
    rayscribe: Callable[..., str], pacs: Orthanc, model: Path, drawn: list[np.ndarray], tmp_path: Path
) -> None:
    study = f"{ROOT}.1"
    images = [chest(drawn[number], study, number) for number in (0, 1)]
    with worker(tmp_path, model, "--send-to", pacs.aet, "--callers", "MODALITY") as working:
        working.start()
        assert not sent(working.port, images, to="SOMEBODY") and not sent(working.port, images, caller="STRANGER")
        assert sent(working.port, images)
        until(lambda: pacs.reports_of(study), what="a report")
        (report,) = pacs.reports_of(study)
        text = report.to_json()
        assert (report.PatientName, report.PatientID) == (CANARY, CANARY_ID)
        assert DISCLAIMER in text and author_of(model).weights_sha256 in text
        assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
        (cited,) = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        assert {one.ReferencedSOPInstanceUID for one in cited.ReferencedSOPSequence} == {
            image.SOPInstanceUID for image in images
        }
        until(lambda: not working.left(), what="an empty spool")

        # The same again does nothing; an image more is a report more.
        assert sent(working.port, images)
        until(lambda: working.said().count("arrived again") == 2, what="a word on repetition")
        later, belly = chest(drawn[2], study, 2), chest(drawn[3], f"{ROOT}.2", BodyPartExamined="ABDOMEN")
        assert sent(working.port, [belly, later])
        until(lambda: len(pacs.reports_of(study)) == 2, what="a second report")
        until(lambda: not working.left(), what="an empty spool")
        status = rayscribe("worker", "--status", "--spool", working.spool)
        assert "0 studies here, 0 reports to be sent, 2 sent, 1 studies failed" in status
        assert "image 1: DICOM body part ABDOMEN" in status
        assert working.end() == 0
        kept = "".join(path.read_text() for path in working.spool.rglob("*.json"))
        for told in (working.said(), status, kept):
            assert not any(word in told for word in (CANARY, CANARY_ID, "CANARY", ROOT))
            assert not any(text in told for text in _texts(report))


def _texts(report: pydicom.Dataset) -> list[str]:
    found = [str(item.TextValue) for item in report.ContentSequence[-1].ContentSequence if "TextValue" in item]
    assert found
    return found


def test_an_archive_that_is_down_gets_its_reports_later(model: Path, drawn: list[np.ndarray], tmp_path: Path) -> None:
    port = free_port()
    with worker(tmp_path, model, "--send-to", f"ORTHANC@127.0.0.1:{port}") as working:
        working.start()
        for number in range(3):
            assert sent(working.port, [chest(drawn[number], f"{ROOT}.3.{number}")])
        until(lambda: working.said().count("cannot be reached") >= 2, what="a failure to send")
        assert working.end() == 0
        working.start()
        with orthanc(tmp_path / "orthanc", dicom=port) as late:
            until(lambda: len(late.reports()) == 3, what="reports")
            until(lambda: not working.left(), what="an empty spool")


def test_dicomweb_is_asked_for_studies_and_gets_reports(
    pacs: Orthanc, model: Path, drawn: list[np.ndarray], tmp_path: Path
) -> None:
    study, old = f"{ROOT}.4", f"{ROOT}.5"
    assert sent(pacs.dicom, [chest(drawn[0], study, 0), chest(drawn[1], study, 1)], to="ORTHANC")
    assert sent(pacs.dicom, [chest(drawn[0], old, StudyDate="20010101")], to="ORTHANC")
    flags = ("--qido-url", pacs.url, "--stow-url", pacs.url, "--poll", 0.5, "--dicom-port", 0)
    with worker(tmp_path, model, *flags, start=start_command) as working:
        working.start(wait_for="new images by DICOMweb")
        until(lambda: pacs.reports_of(study), what="a report")
        time.sleep(2)  # it is asked again, and nothing is new
        assert len(pacs.reports_of(study)) == 1 and not pacs.reports_of(old)
        assert working.end() == 0
        assert not working.left() and CANARY not in working.said() and ROOT not in working.said()


def test_five_kills_lose_none_of_two_hundred_studies(
    pacs: Orthanc, model: Path, drawn: list[np.ndarray], tmp_path: Path
) -> None:
    studies = [f"{ROOT}.6.{number}" for number in range(200)]
    chosen = random.Random(4711)
    with worker(tmp_path, model, "--send-to", pacs.aet) as working:
        working.start()

        def modality() -> None:
            for number, study in enumerate(studies):
                image = chest(drawn[number % len(drawn)], study)
                while not sent(working.port, [image]):  # as modalities do
                    time.sleep(0.3)
                time.sleep(0.02)

        sending = threading.Thread(target=modality, daemon=True)
        sending.start()
        for _ in range(5):
            enough = working.said().count("is in the archive") + chosen.randrange(5, 40)
            until(lambda enough=enough: working.said().count("is in the archive") >= enough, what="work", every=0.05)
            time.sleep(chosen.uniform(0, 0.3))
            working.kill()
            working.start()
        sending.join(60)
        assert not sending.is_alive()
        ours = {*studies}
        until(lambda: len({uids[0] for uids in pacs.reports()} & ours) == 200, what="200 reports", seconds=180, every=2)
        until(lambda: not working.left(), what="an empty spool")
        assert Counter(uids[0] for uids in pacs.reports() if uids[0] in ours) == Counter(studies)
        assert working.end() == 0
        assert "failed" not in working.said() and CANARY not in working.said()
