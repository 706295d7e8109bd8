"""The settings of a service. Limits apply to one process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rayscribe.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Serves models over HTTP: a page at /, the interface at /openapi.json."""

    models: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="model")]
    "folder of a report model, a vision LLM or a classifier; may be given several times"
    host: str = "127.0.0.1"
    "address to listen on; other addresses than the loopback need --keys"
    port: int = 8000
    "port to listen on; 0: any free one"
    keys: Path | None = None
    "file of API keys that `rayscribe api-key` writes; it contains hashes only"
    database: str = ""
    "database of asynchronous jobs: a SQLAlchemy URL; empty: SQLite in the user's state folder"
    memory_gib: float = 8.0
    "limit for the weights of all loaded models; the least recently used one is unloaded"
    queue: int = 32
    "requests in progress or waiting; further ones get status 429"
    jobs: int = 1000
    "waiting asynchronous studies; further ones get status 429"
    batch: int = 8
    "studies drafted at a time"
    max_images: int = 8
    "images per study"
    max_megabytes: int = 128
    "megabytes per request"
    max_megapixels: int = 64
    "megapixels per image"
    max_seconds: float = 300.0
    "seconds per request, or per asynchronous study once it starts"
    keep_minutes: float = 60.0
    "minutes to keep the draft of an asynchronous study; its images are deleted as soon as it is done"

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("give at least one model folder: rayscribe serve --model DIR")
        bounds = {
            "queue": self.queue,
            "jobs": self.jobs,
            "batch": self.batch,
            "max-images": self.max_images,
            "max-megabytes": self.max_megabytes,
            "max-megapixels": self.max_megapixels,
            "max-seconds": self.max_seconds,
        }
        for name, bound in bounds.items():
            if bound < 1:
                raise InputError(f"--{name} {bound}: at least 1")
        if self.host not in LOOPBACK and self.keys is None:
            raise InputError(
                f"--host {self.host}: other machines could send images; create a key with `rayscribe api-key NAME --keys FILE` "
                "and give --keys FILE, or stay on 127.0.0.1"
            )

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{_state_folder() / 'jobs.sqlite'}"


def _state_folder() -> Path:
    """The folder, accessible to its owner only."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = base / "rayscribe"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
