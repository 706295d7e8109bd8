"""A vision LLM's run, supervised or by reward: its data, its folder, its checkpoints, its log."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rayscribe.data.conditions import given_states
from rayscribe.errors import InputError
from rayscribe.files import sha256_of, whole_file, write_text
from rayscribe.provenance import SEEN
from rayscribe.settings import to_yaml
from rayscribe.study import Study
from rayscribe.training.folder import check_same_run
from rayscribe.vision_llm.config import PromptConfig
from rayscribe.vision_llm.pictures import PromptStates

_BEFORE_TRAINING = {"config.yaml", "data.sha256", SEEN, "checkpoints", "best"}
_STATE = "trainer_state.json"  # the last file of a checkpoint that the Trainer writes


class StopDiverged(TrainerCallback):
    """Ends a diverged run before transformers saves anything of it: raises if a watched number is not finite."""

    def __init__(self, watched: Sequence[str], flag: str) -> None:
        self.watched, self.flag = watched, flag

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        for name in self.watched:
            value = kwargs["logs"].get(name, 0.0)
            if value is None or not math.isfinite(value):
                raise InputError(
                    f"step {state.global_step}: {name} is {value}; the run has diverged; lower {self.flag} and start again"
                )


def drawn(studies: list[Study], count: int, seed: int) -> list[Study]:
    """This many of the studies, in their order; 0: all of them."""
    if not 0 < count < len(studies):
        return studies
    rows = np.random.default_rng(seed).choice(len(studies), count, replace=False)
    return [studies[row] for row in sorted(rows)]


def prompted_findings(prompt: PromptConfig, studies: Sequence[Study]) -> PromptStates | None:
    """A classifier's findings for these studies; None if the prompt does not include them."""
    return given_states(Path(prompt.findings), [study.id for study in studies]) if prompt.findings else None


def run_digest(parts: Iterable[str], prompt: PromptConfig) -> str:
    """Digest of everything that training reads: the digests of manifest and weights, and the prompt's table."""
    found = [*parts, *([sha256_of(Path(prompt.findings))] if prompt.findings else [])]
    return hashlib.sha256(" ".join(found).encode()).hexdigest()


def start_run(run: Path, config: Any, digest: str, *, resume: bool) -> None:
    """Raises InputError if the folder contains another run, or one that needs `resume`."""
    if resume:
        check_same_run(run, config, digest)
    elif run.exists() and (
        not {entry.name for entry in run.iterdir()} <= _BEFORE_TRAINING or last_whole(run / "checkpoints")
    ):
        raise InputError(f"{run}: already holds a run; continue it with --resume, or give another --run folder")
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", to_yaml(config))
    write_text(run / "data.sha256", digest + "\n")


def last_whole(checkpoints: Path, *, may_delete: bool = False) -> Path | None:
    """The newest complete checkpoint; `may_delete` removes incomplete ones that a killed process left."""
    found = []
    for path in checkpoints.glob("checkpoint-*"):
        try:
            step = json.loads((path / _STATE).read_text())["global_step"]
        except (OSError, ValueError, KeyError):
            if may_delete:
                shutil.rmtree(path)
            continue
        found.append((step, path))
    return max(found)[1] if found else None


def stopped_at(checkpoint: Path, patience: int) -> int | None:
    """The step of a checkpoint at which early stopping ended the run; None if the run was to continue."""
    state = json.loads((checkpoint / _STATE).read_text())
    kept = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    waited = kept.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return int(state["global_step"]) if waited >= patience else None


def write_log(path: Path, history: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Writes the Trainer's history, one line per step; `columns`: the Trainer's names by ours."""
    lines: dict[int, dict[str, Any]] = {}
    for entry in history:
        line = {ours: entry[theirs] for ours, theirs in columns.items() if theirs in entry}
        if line:
            lines.setdefault(entry["step"], {"step": entry["step"]}).update(line)
    with whole_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["step", *columns], restval="")
        writer.writeheader()
        writer.writerows(lines[step] for step in sorted(lines))
