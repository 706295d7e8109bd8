"""What a user is told when a disk is full, and what is left on it."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayscribe.config import ImageConfig
from rayscribe.data.features import FeatureCache
from rayscribe.data.manifest import read_manifest
from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.files import write_text
from rayscribe.inference import split
from rayscribe.inference.split import SplitJob, write_predictions
from rayscribe.provenance import note_test
from rayscribe.training.folder import RunFolder


class Full(io.StringIO):
    """A file on a disk that is full: what is written fails when it is flushed, as a buffered file's does."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.flush()


@contextmanager
def error_naming(path: Path) -> Iterator[None]:
    with pytest.raises(OSError, match="No space left on device") as caught:
        yield
    assert caught.value.filename == str(path)


def limited(*arguments: object, limit: int) -> subprocess.CompletedProcess[str]:
    """A command that can write no file beyond `limit` bytes; the kernel refuses the rest."""
    return subprocess.run(
        [sys.executable, "-m", "rayscribe", *map(str, arguments)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_table_that_does_not_fit_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    table, out = tmp_path / "reports.csv", tmp_path / "labels.csv"
    table.write_text("id,report\n" + "".join(f"{row},No pleural effusion.\n" for row in range(2000)))
    ended = limited("label", table, "--out", out, limit=10_000)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"rayscribe: {out}: File too large; fix this and repeat")
    assert [path.name for path in tmp_path.iterdir()] == ["reports.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_output_to_a_full_disk_says_so_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "rayscribe", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        "rayscribe: standard output: No space left on device; free some disk space and repeat the command; "
        "an interrupted run continues where it stopped\n"
    )


def test_a_file_that_cannot_be_made_is_named_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, text: str, **_: Any) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", fail)
    with error_naming(tmp_path / "scores.json"):
        write_text(tmp_path / "scores.json", "{}")
    assert not list(tmp_path.iterdir())


def test_predictions_that_do_not_fit_are_named(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Says:
        """A writer of one word."""

        protocol: dict[str, str] = {"section": "findings"}  # noqa: RUF012

        def check(self, *, states: bool, features: bool) -> None: ...

        def studies(self, manifest: Any, split: str) -> Any:
            return manifest.split(split)

        def reporter(self, studies: Any, *, states: Any, features: Any) -> Any:
            return self

        def draft(self, studies: Any, decoding: DecodingConfig) -> list[Draft]:
            return [Draft(reports=["clear ."]) for _ in studies]

    manifest = read_manifest(world)
    assert manifest.split("val")
    monkeypatch.setattr(split, "weights_sha256", lambda folder: "0")
    monkeypatch.setattr(split, "open", lambda *_, **__: Full(), raising=False)
    job = SplitJob(
        model=tmp_path, data=world, out=tmp_path / "predictions.jsonl", split="val", decoding=DecodingConfig()
    )
    with error_naming(job.out):
        write_predictions(Says(), job)  # type: ignore[arg-type]  # what a split needs of a writer


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("name", ["log.csv", "rows.txt", "test-log.jsonl"])
def test_files_that_grow_are_named(tmp_path: Path, name: str) -> None:
    def log() -> None:
        run.log_step({"step": 1, "loss": 0.5}, 0.1)

    def cache() -> None:
        FeatureCache(tmp_path, 2, 3).append(["ab"], np.zeros((1, 2, 3), np.float16))

    def note() -> None:
        note_test(tmp_path, {"out": "predictions.jsonl"})

    run = RunFolder(tmp_path, ImageConfig(), data_digest="0", resume=False, writes=True)
    actions: dict[str, Callable[[], None]] = {"log.csv": log, "rows.txt": cache, "test-log.jsonl": note}
    (tmp_path / name).symlink_to("/dev/full")
    with error_naming(tmp_path / name):
        actions[name]()


def test_a_copy_that_does_not_fit_is_named_by_its_target(
    rayscribe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("rayscribe.release.export_model", lambda model, out, terms_allow_it: copy(model, out))
    told = rayscribe("export", "model", tmp_path / "run", "--out", tmp_path / "copy", code=1)
    assert told.startswith(f"rayscribe: {tmp_path / 'copy'}: No space left on device; free some disk space")
