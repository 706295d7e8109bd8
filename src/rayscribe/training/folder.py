"""The folder of one run: configuration, logs, training state. It never overwrites another run.

config.yaml      settings that the run was started with
data.sha256      digest of the manifest that it was started on
log.csv          every step: epoch, step, losses, gradient norm, learning rate, seconds
validation.csv   every epoch: validation scores
training-images.txt  see `provenance.py`
started.json     where the manifest lies, see `started.py`
tensorboard/     the same, if TensorBoard is installed
state.pt         state that `--resume` continues from (read with weights_only)
model.*          the best model so far; see `checkpoint.py`
"""

from __future__ import annotations

import csv
import fcntl
import importlib.util
import pickle
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import torch

from rayscribe.errors import InputError
from rayscribe.files import naming, whole_file, write_text
from rayscribe.provenance import SEEN
from rayscribe.settings import settings_from_yaml, to_yaml
from rayscribe.training.started import STARTED

LOCK = ".lock"
"Locked for as long as a process writes into a run folder."

# What a run that failed before its first step leaves behind.
_BEFORE_TRAINING = {"config.yaml", "data.sha256", "tensorboard", SEEN, STARTED, LOCK}
_OF_VERSION_0_3 = {"retrieval", "graph.json"}  # copied before the first step

Parse = Callable[[str, Path], Any]


class RunFolder:
    """Logs and state of one run. Only the first process of a run writes."""

    def __init__(
        self, path: Path, config: Any, *, data_digest: str, resume: bool, writes: bool, parse: Parse | None = None
    ) -> None:
        """`parse`: see `check_same_run`."""
        self.path, self.writes = path, writes
        self.resumes = resume and (path / "state.pt").exists()
        self._board = None
        if not writes:
            return
        stored, data = path / "config.yaml", path / "data.sha256"
        if resume:
            check_same_run(path, config, data_digest, parse)
        else:
            check_no_run(path)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = locked(path)
        write_text(stored, to_yaml(config))
        write_text(data, data_digest + "\n")
        if not self.resumes:
            self.forget_after(0)
        self._board = self._open_board()

    def log_step(self, values: dict[str, float], seconds: float) -> None:
        self._append("log.csv", values | {"seconds": round(seconds, 3)})
        self._show("train", values)

    def log_epoch(self, values: dict[str, float]) -> None:
        self._append("validation.csv", values)
        self._show("validation", values)

    def save_state(self, state: dict[str, Any]) -> None:
        needed = sum(t.nbytes for t in _tensors(state))
        free = shutil.disk_usage(self.path).free
        if free < 1.1 * needed:
            raise InputError(
                f"{self.path}: the disk is full ({free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed for the training "
                "state); free some space and continue with --resume"
            )
        path = self.path / "state.pt"
        try:
            with whole_file(path) as temporary:
                torch.save(state, temporary)
        except RuntimeError as error:  # torch reports a full disk as a RuntimeError
            raise InputError(
                f"{path}: cannot be written ({error}); free some disk space and continue with --resume"
            ) from error

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        if not self.resumes:
            return None
        path = self.path / "state.pt"
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise InputError(
                f"{path}: damaged training state ({error}); start the run again in a new folder"
            ) from error
        return state

    def forget_after(self, step: int) -> None:
        """Drops the log lines of steps that will be repeated."""
        for name in ("log.csv", "validation.csv"):
            path = self.path / name
            if path.exists():
                with open(path, newline="") as file:
                    rows = list(csv.DictReader(file))
                kept = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) <= step]
                path.unlink()
                for row in kept:
                    self._append(name, row)

    def _append(self, name: str, values: dict[str, Any]) -> None:
        if not self.writes:
            return
        path = self.path / name
        is_new = not path.exists()
        with naming(path), open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(values))
            if is_new:
                writer.writeheader()
            writer.writerow(values)

    def _open_board(self) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter  # a second to import

        return SummaryWriter(str(self.path / "tensorboard"))

    def _show(self, group: str, values: dict[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                if name not in ("epoch", "step"):
                    self._board.add_scalar(f"{group}/{name}", value, values["step"])


def locked(path: Path) -> IO[str]:
    """Holds the run folder for this process; the system lets go when it ends. Raises InputError where another one has it."""
    lock = open(path / LOCK, "w")  # noqa: SIM115  # stays open as long as the run
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(
            f"{path}: another process is training into this folder; wait for it, or give another --run"
        ) from error
    return lock


def check_no_run(path: Path, *, beside: Iterable[str] = ()) -> None:
    """Raises InputError where the folder holds more than a run that failed before its first step leaves behind.

    `beside`: names of entries that do not count.
    """
    if path.exists() and not {entry.name for entry in path.iterdir()} <= _BEFORE_TRAINING | _OF_VERSION_0_3 | {*beside}:
        raise InputError(f"{path}: already holds a run; continue it with --resume, or give another --run folder")


def check_same_run(path: Path, config: Any, data_digest: str, parse: Parse | None = None) -> None:
    """Raises InputError unless the folder's run was started with these settings and on these data.

    `parse` turns the text and path of config.yaml into settings; None: settings of the same class.
    """
    stored, data = path / "config.yaml", path / "data.sha256"
    if not stored.exists():
        raise InputError(f"{path}: no run to resume (no config.yaml); start it without --resume")
    text = stored.read_text()
    if (parse(text, stored) if parse else settings_from_yaml(type(config), text, stored)) != config:
        raise InputError(
            f"{stored}: the run was started with other settings; resume it with the same ones, "
            "or start another run folder"
        )
    if data.exists() and data.read_text().strip() != data_digest:
        raise InputError(
            f"{path}: the run was started on other data; resume it with the same manifest and the same files next to it"
        )


def _tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else []
    return [tensor for value in values for tensor in _tensors(value)]
