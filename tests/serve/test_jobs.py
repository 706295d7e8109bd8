"""Asynchronous studies: accepted means done once, with progress, cancelling, repeating, forgetting."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import ended, form, problem, service, views_of
from sqlalchemy.exc import OperationalError

from rayscribe.api.models import open_reporter
from rayscribe.data.images import Upload
from rayscribe.drafts import Draft
from rayscribe.errors import InputError
from rayscribe.models.decoding import Steps
from rayscribe.serve import jobs as jobs_module
from rayscribe.serve import store
from rayscribe.serve.batching import BatchKey, Cancelled
from rayscribe.serve.jobs import MOST_ATTEMPTS, Jobs
from rayscribe.serve.service import DraftService
from rayscribe.serve.uploads import DraftOptions


@pytest.fixture(scope="module")
def images(world: Path) -> list[Path]:
    return views_of(world)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.sqlite'}"


class Gate:
    """Holds the thread that writes until it is opened, and counts what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached, self.batches = threading.Event(), threading.Event(), list[int]()
        write = DraftService._write

        def held(service: DraftService, key: BatchKey, studies: Sequence[Any], steps: Steps) -> list[Draft]:
            self.reached.set()
            for _ in steps(range(1200)):
                if self.open.wait(0.05):
                    break
            self.batches.append(len(studies))
            return write(service, key, studies, steps)

        monkeypatch.setattr(DraftService, "_write", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def test_an_accepted_study_is_drafted_as_at_once(served: dict[str, Path], images: list[Path], url: str) -> None:
    with service(served, database=url) as client:
        accepted = client.post("/v1/studies", files=form(images))
        assert accepted.status_code == 202 and accepted.headers["location"] == f"/v1/studies/{accepted.json()['id']}"
        job = ended(client, accepted.json()["id"])
        assert job["state"] == "done" and job["progress"] == 1.0, job
        at_once = client.post("/v1/reports", files=form(images)).json()
        assert job["draft"] | {"created": ""} == at_once | {"created": ""}


def test_images_leave_the_disk_when_the_study_ends(
    served: dict[str, Path], images: list[Path], url: str, tmp_path: Path, gate: Gate
) -> None:
    pixels = images[0].read_bytes()[200:400]
    with service(served, database=url) as client:
        id_ = client.post("/v1/studies", files=form(images)).json()["id"]
        assert pixels in (tmp_path / "jobs.sqlite").read_bytes()
        gate.open.set()
        assert ended(client, id_)["state"] == "done"
        assert pixels not in b"".join(path.read_bytes() for path in tmp_path.glob("jobs.sqlite*"))
    assert (tmp_path / "jobs.sqlite").stat().st_mode & 0o077 == 0


def test_a_bad_image_fails_with_its_place(served: dict[str, Path], images: list[Path], url: str) -> None:
    with service(served, database=url) as client:
        files = [*form(images[:1]), ("images", ("x", b"no image"))]
        job = ended(client, client.post("/v1/studies", files=files).json()["id"])
        assert job["state"] == "failed" and job["problem"]["status"] == 422 and job["problem"]["image"] == 2


def test_a_request_that_is_sent_again_is_one_study(served: dict[str, Path], images: list[Path], url: str) -> None:
    with service(served, database=url) as client:

        def sent(key: str, count: int) -> Any:
            return client.post("/v1/studies", files=form(images[:count]), headers={"Idempotency-Key": key})

        first, again, other = sent("a", 1).json()["id"], sent("a", 1).json()["id"], sent("b", 1).json()["id"]
        assert first == again != other
        assert "another request" in problem(sent("a", 2), 409)["detail"]
        problem(sent("k" * 201, 1), 400)


def test_a_waiting_study_has_a_position_and_is_cancelled(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate
) -> None:
    with service(served, database=url, batch=1) as client:
        ids = [client.post("/v1/studies", files=form(images)).json()["id"] for _ in range(3)]
        assert gate.reached.wait(30)
        seen = [client.get(f"/v1/studies/{id_}").json() for id_ in ids]
        assert [one["state"] for one in seen] == ["running", "queued", "queued"]
        assert [one["position"] for one in seen] == [None, 1, 2]
        assert client.delete(f"/v1/studies/{ids[1]}").json()["state"] == "cancelled"
        gate.open.set()
        assert [ended(client, id_)["state"] for id_ in ids] == ["done", "cancelled", "done"]
        assert len(gate.batches) == 2
        assert client.delete(f"/v1/studies/{ids[0]}").json()["state"] == "done"  # and is forgotten
        problem(client.get(f"/v1/studies/{ids[0]}"), 404)


@pytest.mark.slow
def test_a_running_study_tells_how_far_it_is_and_stops_when_cancelled(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate
) -> None:
    with service(served, database=url, batch=1) as client:
        id_ = client.post("/v1/studies", files=form(images)).json()["id"]
        other = client.post("/v1/studies", files=form(images)).json()["id"]
        end, seen = time.monotonic() + 30, set()
        while len(seen) < 3 and time.monotonic() < end:
            seen.add(client.get(f"/v1/studies/{id_}").json()["progress"])
            time.sleep(0.1)
        assert len(seen) >= 3 and max(seen) < 1
        assert client.delete(f"/v1/studies/{id_}").json()["state"] == "cancelled"
        end = time.monotonic() + 30
        while client.get(f"/v1/studies/{other}").json()["state"] == "queued" and time.monotonic() < end:
            time.sleep(0.1)
        assert client.get(f"/v1/studies/{other}").json()["state"] == "running"
        assert not gate.batches  # the first one was stopped, not finished
        gate.open.set()
        assert ended(client, other)["state"] == "done" and ended(client, id_)["state"] == "cancelled"


@pytest.mark.slow
def test_a_study_that_takes_too_long_fails(served: dict[str, Path], images: list[Path], url: str, gate: Gate) -> None:
    with service(served, database=url, max_seconds=2) as client:
        job = ended(client, client.post("/v1/studies", files=form(images)).json()["id"])
        assert job["state"] == "failed" and "2 seconds" in job["problem"]["detail"]
        told = problem(client.post("/v1/reports", files=form(images)), 503)
        assert "/v1/studies" in told["detail"]


def test_too_much_is_refused_and_not_lost(served: dict[str, Path], images: list[Path], url: str, gate: Gate) -> None:
    with service(served, database=url, queue=2, jobs=2, batch=1) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/v1/reports", files=form(images)) for _ in range(2)]
        assert gate.reached.wait(30)
        end = time.monotonic() + 60
        while (refused := client.post("/v1/images", files=form(images[:1], "image"))).status_code != 429:
            assert time.monotonic() < end
        assert problem(refused, 429) and refused.headers["retry-after"] == "1"
        gate.open.set()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        gate.open.clear()
        accepted = []
        while (answer := client.post("/v1/studies", files=form(images))).status_code == 202:
            accepted.append(answer.json()["id"])
        assert 2 <= len(accepted) <= 4 and "studies wait" in problem(answer, 429)["detail"]
        gate.open.set()
        assert all(ended(client, id_)["state"] == "done" for id_ in accepted)


def test_requests_that_wait_are_written_together_and_alike(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate
) -> None:
    with service(served, database=url) as client, ThreadPoolExecutor(6) as pool:
        responses = [pool.submit(client.post, "/v1/reports", files=form(images[: 1 + n % 2])) for n in range(6)]
        assert gate.reached.wait(30)
        time.sleep(1)
        gate.open.set()
        texts = [[one["text"] for one in answer.result().json()["reports"][0]["sentences"]] for answer in responses]
        assert len(gate.batches) == 2 and sum(gate.batches) == 6
        assert texts[0::2] == [texts[0]] * 3 and texts[1::2] == [texts[1]] * 3


def test_sampled_drafts_do_not_depend_on_other_requests(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate
) -> None:
    options = {"options": json.dumps({"decoding": {"strategy": "sample", "seed": 3}})}
    with service(served, database=url) as client, ThreadPoolExecutor(4) as pool:
        responses = [pool.submit(client.post, "/v1/reports", files=form(images), data=options) for _ in range(4)]
        assert gate.reached.wait(30)
        time.sleep(0.5)
        gate.open.set()
        assert len({json.dumps(answer.result().json()["reports"]) for answer in responses}) == 1
        assert gate.batches == [1] * 4


def test_what_is_not_begun_waits_for_the_next_start(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate
) -> None:
    with service(served, database=url, batch=1) as client:
        ids = [client.post("/v1/studies", files=form(images)).json()["id"] for _ in range(3)]
        assert gate.reached.wait(30)
        threading.Timer(0.5, gate.open.set).start()
    states = [
        row[0]
        for row in sqlite3.connect(url.removeprefix("sqlite:///")).execute(
            "SELECT state FROM rayscribe_jobs ORDER BY created"
        )
    ]
    assert states[0] == "done" and "queued" in states and "running" not in states
    with service(served, database=url) as client:
        assert [ended(client, id_)["state"] for id_ in ids] == ["done"] * 3


def test_two_services_with_one_database_do_every_study_once(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate
) -> None:
    gate.open.set()
    with service(served, database=url, batch=2) as one, service(served, database=url, batch=2) as two:
        ids = [one.post("/v1/studies", files=form(images)).json()["id"] for _ in range(12)]
        assert [ended(two, id_)["state"] for id_ in ids] == ["done"] * 12
    assert sum(gate.batches) == 12


def away(*_: Any, **__: Any) -> Any:
    raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database or disk is full"))


@pytest.mark.slow
def test_a_draft_is_held_until_the_database_keeps_it(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    end, read, tried = Jobs.end, Jobs.images, list[str]()

    def late(method: Any, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            tried.append(name)
            return away() if tried.count(name) == 1 else method(*given, **named)

        return call

    monkeypatch.setattr(Jobs, "end", late(end, "end"))
    monkeypatch.setattr(Jobs, "images", late(read, "images"))
    with service(served, database=url) as client:
        job = ended(client, client.post("/v1/studies", files=form(images)).json()["id"])
    assert job["state"] == "done" and tried == ["images", "images", "end", "end"] and gate.batches == [1]


def test_a_stop_does_not_wait_for_a_database_that_stays_away(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    with service(served, database=url) as client:
        tried = threading.Event()
        monkeypatch.setattr(Jobs, "end", lambda *_, **__: (tried.set(), away()))
        id_ = client.post("/v1/studies", files=form(images)).json()["id"]
        assert tried.wait(30)
    monkeypatch.undo()
    later = time.time() + 60
    monkeypatch.setattr(jobs_module.time, "time", lambda: later)  # the claim ran out
    with service(served, database=url) as client:
        assert ended(client, id_)["state"] == "done"


def test_a_study_that_is_cancelled_while_it_is_claimed_does_not_harm_others(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    read = Jobs.images

    def cancelled(jobs: Jobs, id_: str) -> list[Upload]:
        jobs.cancel(id_, owner="")
        return read(jobs, id_)

    with service(served, database=url) as client:
        monkeypatch.setattr(Jobs, "images", cancelled)
        id_ = client.post("/v1/studies", files=form(images)).json()["id"]
        assert ended(client, id_)["state"] == "cancelled"
        monkeypatch.setattr(Jobs, "images", read)
        other = client.post("/v1/studies", files=form(images)).json()["id"]
        assert ended(client, other)["state"] == "done" and gate.batches == [1]


@pytest.mark.slow
def test_a_database_that_is_away_is_told_and_the_service_lives(
    served: dict[str, Path], images: list[Path], url: str, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.sqlite"
    with service(served, database=url) as client:
        id_ = client.post("/v1/studies", files=form(images)).json()["id"]
        assert ended(client, id_)["state"] == "done"
        kept = path.read_bytes()
        path.write_bytes(b"no database" * 1000)
        for answer in (
            client.post("/v1/studies", files=form(images)),
            client.get(f"/v1/studies/{id_}"),
            client.delete(f"/v1/studies/{id_}"),
            client.get("/readyz"),
            client.get("/metrics"),
        ):
            assert "database" in problem(answer, 503)["detail"] and answer.headers["retry-after"]
        assert client.post("/v1/reports", files=form(images)).status_code == 200
        time.sleep(1)
        path.write_bytes(kept)
        assert client.get(f"/v1/studies/{id_}").json()["state"] == "done"
        id_ = client.post("/v1/studies", files=form(images)).json()["id"]
        assert ended(client, id_)["state"] == "done"


def test_a_request_is_a_new_study_when_the_one_before_is_forgotten(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, sent = Jobs(url), {"owner": "", "repeat_key": "k", "digest": "0"}
    first = jobs.add(upload(), "{}", **sent)
    jobs.cancel(first, owner="")
    assert jobs.add(upload(), "{}", **sent) == first
    jobs.cancel(first, owner="")
    assert jobs.add(upload(), "{}", **sent) != first


def test_what_is_asked_for_after_the_end_is_not_waited_for(
    served: dict[str, Path], images: list[Path], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, start = list[DraftService](), DraftService.start
    monkeypatch.setattr(DraftService, "start", lambda service: (services.append(service), start(service)))
    with service(served, database=url):
        pass
    sent = [Upload(name="image 1", content=images[0].read_bytes())]
    with pytest.raises(Cancelled):
        services[0].draft(sent, DraftOptions(), threading.Event(), lambda share, stage: None)


@pytest.mark.slow
def test_studies_that_wait_hold_no_model_in_memory(
    served: dict[str, Path], images: list[Path], url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = weakref.WeakSet[Any]()

    def opened(folder: Path) -> Any:
        writer = open_reporter(folder)
        alive.add(writer.trained.model)  # type: ignore[attr-defined]
        return writer

    monkeypatch.setattr(store, "open_reporter", opened)
    largest = max(path.stat().st_size for name in ("r2gen", "baseline") for path in served[name].glob("*.safetensors"))
    with (
        service(served, "r2gen", "baseline", database=url, memory_gib=1.2 * largest / 2**30) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        names = ["r2gen", "baseline"] * 4
        responses = []
        for name in names:
            options = {"options": json.dumps({"model": name})}
            responses.append(pool.submit(client.post, "/v1/reports", files=form(images), data=options))
            time.sleep(0.3)
        gc.collect()
        assert len(alive) <= 2  # one in the store, one that is written with
        gate.open.set()
        assert [answer.result().json()["model"]["name"] for answer in responses] == names


def upload() -> list[Upload]:
    return [Upload(name="image 1", content=b"x")]


def add(jobs: Jobs) -> str:
    return jobs.add(upload(), "{}", owner="", repeat_key=None, digest="0")


def test_a_claim_that_ran_out_is_another_holders(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, now = Jobs(url), time.time()
    id_ = add(jobs)
    assert jobs.claim("a") is not None and jobs.claim("b") is None
    monkeypatch.setattr(jobs_module.time, "time", lambda: now + 60)
    claimed = jobs.claim("b")
    assert claimed is not None and claimed.id == id_
    held = {id_: (0.5, "writing")}
    assert jobs.renew("a", held) == set() and jobs.renew("b", held) == {id_}
    monkeypatch.setattr(jobs_module.time, "time", lambda: now + 69)
    assert jobs.claim("c") is None and jobs.renew("b", {}) == set()
    monkeypatch.setattr(jobs_module.time, "time", lambda: now + 71)  # nobody works on it
    claimed = jobs.claim("b")
    assert claimed is not None and claimed.id == id_ and claimed.progress == 0.5
    assert not jobs.end(id_, "a", "done", draft='{"of": "a"}')
    assert jobs.end(id_, "b", "done", draft='{"of": "b"}')
    assert not jobs.end(id_, "b", "failed")
    found = jobs.find(id_, owner="")
    assert found is not None and found.draft == {"of": "b"} and jobs.images(id_) == []


def test_a_study_that_ends_the_service_again_and_again_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, now = Jobs(url), time.time()
    id_, other = add(jobs), add(jobs)
    for attempt in range(MOST_ATTEMPTS):
        monkeypatch.setattr(jobs_module.time, "time", lambda at=now + 60 * attempt: at)  # type: ignore[misc]
        claimed = jobs.claim(f"killed-{attempt}")
        assert claimed is not None and claimed.id == id_
    monkeypatch.setattr(jobs_module.time, "time", lambda: now + 600)
    claimed = jobs.claim("last")
    assert claimed is not None and claimed.id == other
    found = jobs.find(id_, owner="")
    assert found is not None and found.state == "failed" and found.problem is not None
    assert f"{MOST_ATTEMPTS} times" in found.problem["detail"]


def test_drafts_are_forgotten_after_a_while(url: str) -> None:
    jobs = Jobs(url)
    done, waits = add(jobs), add(jobs)
    jobs.claim("a")
    jobs.end(done, "a", "done", draft="{}")
    assert jobs.forget(before=time.time() - 60) == 0
    assert jobs.forget(before=time.time() + 1) == 1
    assert jobs.find(done, owner="") is None and jobs.find(waits, owner="") is not None


@pytest.mark.parametrize("database", ["nonsense", "nosuch://x", "sqlite:////nowhere/at/all.sqlite", "sqlite://"])
def test_a_database_that_cannot_be_used_is_told(database: str) -> None:
    with pytest.raises(InputError, match="--database"):
        Jobs(database)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a server of its own, which root may not be."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or os.geteuid():
        if os.environ.get("RAYSCRIBE_NEEDS_TOOLS"):
            pytest.fail("needs Debian's postgresql, and root to start it as another user")
        pytest.skip("needs Debian's postgresql, and root to start it as another user")
    folder = Path(tempfile.mkdtemp(prefix="rayscribe-pg-"))
    shutil.chown(folder, "postgres")

    def run(*command: object) -> None:
        subprocess.run(["runuser", "-u", "postgres", "--", *map(str, command)], check=True, stdout=subprocess.DEVNULL)

    run(programs[-1] / "initdb", "-D", folder / "data", "-A", "trust")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control = [programs[-1] / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
    run(*control, "-o", options, "start")
    yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(folder)


def test_jobs_are_kept_in_postgresql(served: dict[str, Path], images: list[Path], postgresql: str) -> None:
    database = postgresql
    with service(served, database=database, batch=2) as one, service(served, database=database, batch=2) as two:
        ids = [one.post("/v1/studies", files=form(images)).json()["id"] for _ in range(8)]
        jobs = [ended(two, id_) for id_ in ids]
        assert [job["state"] for job in jobs] == ["done"] * 8
        assert len({json.dumps(job["draft"]["reports"]) for job in jobs}) == 1
        assert all(two.delete(f"/v1/studies/{id_}").status_code == 200 for id_ in ids)
