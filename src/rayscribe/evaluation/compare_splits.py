"""Two or more systems over one set of splits: scores over the splits, and the test that knows that the splits overlap.

Every split is compared under its own protocol signature. A system's score in a split is the mean over its seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.evaluation.compare import corrected_over_table, named_files, read_scores
from rayscribe.evaluation.protocol import signature_conflicts
from rayscribe.evaluation.split_sets import alarm_counts, alarm_text
from rayscribe.metrics.families import headline_names
from rayscribe.metrics.resampled_t import OverSplits, over_splits

_SOURCE = "Nadeau and Bengio, 2003"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEntry:
    """One system of the table: the score file of a set of splits for each seed."""

    name: str
    paths: tuple[Path, ...]
    results: tuple[dict[str, Any], ...]

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in order."""
        return list(self.results[0]["splits"])

    def value(self, score: str, split: str) -> float:
        """The score in a split, mean over seeds."""
        return float(np.mean([result["splits"][split]["scores"][score]["value"] for result in self.results]))


def are_sets(arguments: Sequence[str]) -> bool:
    """Whether the arguments of `compare` name score files of sets of splits. Raises InputError where only some do."""
    paths = [path for argument in arguments for path in named_files(argument)[1]]
    sets = {path: "splits" in read_scores(path) for path in paths}
    if len(set(sets.values())) > 1:
        several, single = (next(path for path in paths if sets[path] is kind) for kind in (True, False))
        raise InputError(
            f"{several} holds scores of a set of splits, {single} those of one split; compare like with like"
        )
    return any(sets.values())


def read_set_entry(argument: str) -> SetEntry:
    """Reads `set.json`, or `name=one.json,two.json` for the seeds of one system. Raises InputError."""
    name, paths = named_files(argument)
    return SetEntry(name=name, paths=paths, results=tuple(read_scores(path) for path in paths))


def compare_splits(entries: Sequence[SetEntry]) -> dict[str, Any]:
    """As `compare` for single score files: the systems' scores, and every later system's differences from the first.

    `low`, `high` and p come from the corrected resampled t-test; they are None where no test over splits is possible. Raises
    InputError for fewer than two entries, equal names, or sets that differ in splits, protocol, studies or training studies.
    """
    if len(entries) < 2:
        raise InputError("give at least two score files; usage: rayscribe compare a=set-a.json b=set-b.json ...")
    if len({entry.name for entry in entries}) < len(entries):
        raise InputError(
            "two systems have the same name; give each its own: rayscribe compare first=a.json second=b.json"
        )
    first, others = entries[0], entries[1:]
    for entry in entries:
        _check_same_set(first, entry)
    splits, base = first.splits, first.results[0]
    names = headline_names(base["summary"]["model"])
    share = _test_share(base)
    pairs = {other.name: {name: _difference(other, first, name, share) for name in names} for other in others}
    if share is not None:
        corrected_over_table(pairs)
    constant = base["summary"]["floors"].get("constant", {})
    freedom = f"t with {len(splits) - 1} degrees of freedom ({_SOURCE})"
    return {
        "disclaimer": DISCLAIMER,
        "signature": base["signature"],
        "splits": splits,
        "studies": {split: base["splits"][split]["studies"] for split in splits},
        "training_studies": base["training_studies"],
        "interval": f"95 %, mean of {len(splits)} splits, variance (1 / k + n_test / n_train) s^2, {freedom}"
        if share
        else "none",
        "test": f"corrected resampled t-test over {len(splits)} splits ({_SOURCE}), Holm over the table"
        if share
        else "none over splits",
        "names": names,
        "systems": {entry.name: _system(entry, names, share) for entry in entries},
        "floor": {name: constant[name]["mean"] for name in names if name in constant},
        "against": first.name,
        "differences": pairs,
        "notes": [] if share else [_why_no_test(base)],
    }


def _check_same_set(first: SetEntry, other: SetEntry) -> None:
    base = first.results[0]
    for path, result in zip(other.paths, other.results):
        both = f"{first.paths[0]} and {path}"
        if list(base["splits"]) != list(result["splits"]):
            raise InputError(
                f"{both} are not over the same splits: {', '.join(base['splits'])} against {', '.join(result['splits'])}"
            )
        for split, own in base["splits"].items():
            theirs = result["splits"][split]
            if conflicts := signature_conflicts(own["signature"], theirs["signature"]):
                raise InputError(
                    f"{both} cannot be compared, their protocols differ in {split}:\n  "
                    + "\n  ".join(conflicts)
                    + "\nscore both systems on one set of splits under one protocol"
                )
            if own["statistics"]["ids"] != theirs["statistics"]["ids"]:
                raise InputError(f"{both} do not score the same studies in {split}")
            if headline_names(own["scores"]) != headline_names(theirs["scores"]):
                raise InputError(f"{both} do not have the same scores in {split}; score both again")
        if base["training_studies"] != result["training_studies"]:
            raise InputError(f"{both}: their splits have different training studies; score both on one set of splits")


def _test_share(result: Mapping[str, Any]) -> float | None:
    """Test studies per training study, mean over the splits; None where no test over splits is possible."""
    training: Mapping[str, int] = result["training_studies"]
    if len(training) < 2 or not all(training.values()):
        return None
    return float(np.mean([result["splits"][split]["studies"] / count for split, count in training.items()]))


def _why_no_test(result: Mapping[str, Any]) -> str:
    count = len(result["splits"])
    if count < 2:
        return f"no test over splits is possible with {count}; draw more with `rayscribe resplit`"
    return "no test over splits is possible: it needs the number of training studies, and a manifest has none"


def _system(entry: SetEntry, names: Sequence[str], share: float | None) -> dict[str, Any]:
    """Mean over the splits with the interval of that mean; deviation and value of every split."""
    seeds = {path: alarm_counts(result["splits"]) for path, result in zip(entry.paths, entry.results)}
    scores = {}
    for name in names:
        values = {split: entry.value(name, split) for split in entry.splits}
        tested = _tested(list(values.values()), share)
        scores[name] = {
            "value": float(np.mean(list(values.values()))),
            "low": tested.low if tested else None,
            "high": tested.high if tested else None,
            "deviation": tested.deviation if tested else None,
            "values": values,
        }
    return {
        "files": [str(path) for path in entry.paths],
        "alarms": [alarm_text(alarm) for alarms in seeds.values() for alarm in alarms],
        "scores": scores,
    }


def _difference(system: SetEntry, first: SetEntry, name: str, share: float | None) -> dict[str, Any]:
    values = {split: system.value(name, split) - first.value(name, split) for split in first.splits}
    tested = _tested(list(values.values()), share)
    return {
        "difference": float(np.mean(list(values.values()))),
        "low": tested.low if tested else None,
        "high": tested.high if tested else None,
        "p": tested.p if tested else None,
        "p_holm": tested.p if tested else None,
        "deviation": tested.deviation if tested else None,
        "values": values,
    }


def _tested(values: Sequence[float], share: float | None) -> OverSplits | None:
    return None if share is None else over_splits(values, test_share=share)
