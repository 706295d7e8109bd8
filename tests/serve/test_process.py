"""The service as a process: killed, ended, and searched for what must not be in its logs."""

from __future__ import annotations

import io
import json
import logging
import random
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from serving import Process, ended, form, problem, service, views_of

from apart import start_command
from rayscribe.serve.logs import QuietFormatter
from rayscribe.serve.service import DraftService

CANARY = "Canarybird"


@pytest.fixture(scope="module")
def images(world: Path) -> list[Path]:
    return views_of(world)


@pytest.mark.slow
def test_no_accepted_study_is_lost_or_done_twice_when_the_service_is_killed(
    served: dict[str, Path], images: list[Path], tmp_path: Path
) -> None:
    chance, accepted, sent = random.Random(0), dict[str, str](), 0
    options = ["--model", served["r2gen"], "--database", f"sqlite:///{tmp_path / 'jobs.sqlite'}", "--batch", 2]
    for _ in range(4):
        process = Process(tmp_path, *options).ready()
        for _ in range(8):
            key = f"study {sent}"
            answer = process.client.post("/v1/studies", files=form(images), headers={"Idempotency-Key": key})
            accepted[key] = answer.json()["id"]
            sent += 1
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
    process = Process(tmp_path, *options).ready()
    for key, id_ in accepted.items():  # as a client that did not see its answer
        again = process.client.post("/v1/studies", files=form(images), headers={"Idempotency-Key": key})
        assert again.json()["id"] == id_
    jobs = [ended(process.client, id_, seconds=90) for id_ in accepted.values()]
    assert [job["state"] for job in jobs] == ["done"] * 32
    assert len({json.dumps(job["draft"]["reports"]) for job in jobs}) == 1
    assert process.stop() == 0
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        assert database.execute("SELECT count(*) FROM rayscribe_jobs").fetchone() == (32,)
        assert database.execute("SELECT count(*) FROM rayscribe_job_images").fetchone() == (0,)


@pytest.mark.slow
def test_a_stop_finishes_what_was_begun(served: dict[str, Path], images: list[Path], tmp_path: Path) -> None:
    process = Process(tmp_path, "--model", served["r2gen"]).ready()
    id_ = process.client.post("/v1/studies", files=form(images)).json()["id"]
    while process.client.get(f"/v1/studies/{id_}").json()["state"] == "queued":
        time.sleep(0.01)
    assert process.stop() == 0
    with sqlite3.connect(tmp_path / "rayscribe" / "jobs.sqlite") as database:
        assert database.execute("SELECT state FROM rayscribe_jobs").fetchall() == [("done",)]
    assert (tmp_path / "rayscribe").stat().st_mode & 0o077 == 0


def canary_dicom(path: Path) -> bytes:
    """The file with the canary in every textual attribute that says nothing of pixels."""
    data = pydicom.dcmread(path)
    kept = {"Modality", "PhotometricInterpretation", "BodyPartExamined", "PresentationIntentType", "VOILUTFunction"}
    for element in data:
        if element.VR in ("PN", "LO", "SH", "ST", "LT", "UT") and element.keyword not in kept:
            element.value = CANARY
    for keyword in ("PatientName", "PatientID", "AccessionNumber", "InstitutionName", "PatientComments"):
        assert dictionary_VR(keyword)
        setattr(data, keyword, CANARY)
    data.add_new(0x00091010, "LO", CANARY)
    written = io.BytesIO()
    data.save_as(written)
    assert written.getvalue().count(CANARY.encode()) >= 6
    return written.getvalue()


@pytest.mark.slow
def test_nothing_that_a_client_sends_is_in_logs_measures_or_errors(
    served: dict[str, Path], dicom_samples: Path, tmp_path: Path
) -> None:
    options = ["--model", served["r2gen"], "--model", served["findings"]]
    process = Process(tmp_path, *options, start=start_command).ready()
    client, responses = process.client, []
    original = next(path for path in sorted(dicom_samples.glob("*.dcm")) if b"DICM" in path.read_bytes()[:140])
    whole = canary_dicom(original)
    damaged = whole[: len(whole) // 2]
    tomography = whole.replace(b"CS\x02\x00CR", b"CS\x02\x00CT").replace(b"CS\x02\x00DX", b"CS\x02\x00CT")
    for content in (whole, damaged, tomography, CANARY.encode()):
        sent = [("images", (f"{CANARY}.dcm", content))]
        for path in ("/v1/reports", "/v1/classify", f"/v1/reports?name={CANARY}"):
            responses.append(client.post(path, files=sent, headers={"User-Agent": CANARY, "Referer": CANARY}))
        repeat_key = {"Idempotency-Key": f"{CANARY} {len(responses)}"}
        studies = client.post("/v1/studies", files=sent, headers=repeat_key)
        responses.append(client.get(f"/v1/studies/{studies.json()['id']}"))
        responses.append(client.post("/v1/images", files=[("image", (CANARY, content))]))
    wrong = [{"model": CANARY}, {"decoding": {"strategy": CANARY}}, CANARY, {"best": CANARY}, {CANARY: 1}]
    for options in map(json.dumps, wrong):
        responses.append(client.post("/v1/reports", files=[("images", ("a", whole))], data={"options": options}))
    for path in (f"/{CANARY}", f"/v1/studies/{CANARY}", f"/page/{CANARY}", f"/v1/exports/{CANARY}"):
        responses += [client.get(path), client.delete(path), client.post(path, files=[("draft", (None, CANARY))])]
    responses.append(client.post("/v1/exports/text", files=[("draft", (None, json.dumps({"format": CANARY})))]))
    responses.append(client.post("/v1/labels", json={"text": [CANARY]}))
    measured = client.get("/metrics").text
    assert process.stop() == 0
    told = "\n".join(answer.text for answer in responses if answer.status_code >= 400)
    assert len(told) > 2000 and CANARY not in told
    assert CANARY not in measured and "rayscribe_requests_total" in measured
    log = process.log.read_text()
    assert CANARY not in log and "POST /v1/reports 200" in log and "POST /v1/reports 422" in log
    database = (tmp_path / "rayscribe" / "jobs.sqlite").read_bytes()
    assert CANARY.encode() not in database  # the images are gone, and what named them never was there


def test_a_fault_of_ours_is_told_by_its_number_and_logged_without_words(
    served: dict[str, Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError(f"the patient is {CANARY}") from ValueError(CANARY)

    monkeypatch.setattr(DraftService, "_write", broken)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(QuietFormatter("%(message)s"))
    logger = logging.getLogger("rayscribe.serve")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    with service(served, database=f"sqlite:///{tmp_path / 'jobs.sqlite'}") as client:
        told = problem(client.post("/v1/reports", files=form(images)), 500)
        assert CANARY not in json.dumps(told)
        job = ended(client, client.post("/v1/studies", files=form(images)).json()["id"])
        assert job["state"] == "failed" and CANARY not in json.dumps(job)
        assert client.get("/healthz").status_code == 200
    log = written.getvalue()
    assert CANARY not in log
    assert told["request"] in log and log.count("builtins.RuntimeError") == 2 and "builtins.ValueError" in log
    assert re.search(r"test_process\.py:\d+ in broken", log)


def test_what_libraries_log_and_warn_of_is_not_repeated() -> None:
    program = f"""
import logging.config, warnings
from rayscribe.serve.logs import log_settings
logging.config.dictConfig(log_settings())
logging.captureWarnings(True)
logging.getLogger("pydicom").warning("Invalid value for VR PN: '{CANARY}'")
warnings.warn("the patient is {CANARY}")
try:
    raise ValueError("{CANARY}")
except ValueError:
    logging.getLogger("concurrent.futures").exception("the draft is {CANARY}")
logging.getLogger("rayscribe.serve").info("ours")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert CANARY not in done.stderr and done.stderr.endswith("INFO ours\n")
    assert "WARNING of pydicom: " in done.stderr and "WARNING of py.warnings: " in done.stderr
    assert "builtins.ValueError" in done.stderr


@pytest.mark.slow
def test_a_port_that_is_taken_is_told(served: dict[str, Path], tmp_path: Path) -> None:
    process = Process(tmp_path, "--model", served["r2gen"]).ready()
    port = process.client.base_url.port
    with pytest.raises(AssertionError, match=f"--port {port}: Address already in use"):
        Process(tmp_path, "--model", served["r2gen"], "--port", port)
    process.kill()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nowhere"], "no rayscribe model"),
        (["--keys", "none.txt", "--model", "r2gen"], "none.txt: no such file"),
    ],
)
def test_a_wrong_start_is_one_line(
    rayscribe: Any, served: dict[str, Path], tmp_path: Path, options: list[str], said: str
) -> None:
    chosen = [str(served["r2gen"]) if option == "r2gen" else option for option in options]
    message = rayscribe("serve", *chosen, "--database", f"sqlite:///{tmp_path / 'jobs.sqlite'}", code=1)
    assert said in message and "\n" not in message
