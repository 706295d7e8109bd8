"""What the tests of the service share: a service in this process, one as a process of its own, forms, problems."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi.testclient import TestClient

from apart import exit_code, run_command, start_apart
from rayscribe.data.manifest import read_manifest
from rayscribe.serve.app import create_app
from rayscribe.serve.settings import ServeConfig


@contextmanager
def service(folders: dict[str, Path], *names: str, **settings: Any) -> Iterator[TestClient]:
    """A client of a service in this process."""
    chosen = tuple(folders[name] for name in names or ("r2gen", "baseline", "findings"))
    app = create_app(ServeConfig(models=chosen, **settings))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


class Process:
    """`rayscribe serve` as a process of its own, on a free port."""

    def __init__(self, folder: Path, *options: object, start: Callable[..., None] = run_command) -> None:
        self.log = folder / f"serve-{time.monotonic_ns()}.log"
        self.log.touch()
        environment = {"XDG_STATE_HOME": str(folder)}
        self.process = start_apart(self.log, start, "serve", "--port", 0, *options, environment=environment)
        self.client = httpx.Client(base_url=self._address(), timeout=60)

    def _address(self) -> str:
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.is_alive():
            if found := re.search(r"http://\S+", self.log.read_text()):
                return found[0]
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def ready(self) -> Process:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                if self.client.get("/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def stop(self) -> int:
        """Its exit code."""
        self.process.terminate()
        return exit_code(self.process, seconds=60)


def views_of(world: Path) -> list[Path]:
    """The images of one drawn study with two views."""
    return list(next(study for study in read_manifest(world).split("test") if len(study.images) > 1).images)


def form(paths: list[Path], field: str = "images") -> list[tuple[str, Any]]:
    return [(field, (path.name, path.read_bytes())) for path in paths]


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem that a client is told, with what every one of them has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == status and told["request"] == answer.headers["x-request-id"]
    return told


def ended(client: Any, id_: str, *, seconds: float = 120, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The asynchronous study when it has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job: dict[str, Any] = client.get(f"/v1/studies/{id_}", headers=headers).json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(job)
