"""Two or more score files: raises if their protocols differ, otherwise one table with intervals and tests.

Needs no reports: score files contain per-study statistics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.evaluation.protocol import signature_conflicts
from rayscribe.metrics.families import Families, headline_names, restored, together
from rayscribe.metrics.statistics import RESAMPLES, Rows, differences, holm, intervals

CLAIM_SEEDS = 3
"With fewer seeds, a difference says something about these predictions, nothing about the method."


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One system of the table: one score file per seed."""

    name: str
    paths: tuple[Path, ...]
    results: tuple[dict[str, Any], ...]
    families: tuple[Families, ...]
    "the statistics of each file"


def read_entry(argument: str) -> Entry:
    """Reads `a/scores.json`, or `name=one.json,two.json,three.json` for the seeds of one system. Raises InputError."""
    name, paths = named_files(argument)
    results = tuple(read_scores(path) for path in paths)
    families = tuple(
        restored(str(path), result.get("statistics"), result["signature"].get("meteor", "meteor"))
        for path, result in zip(paths, results)
    )
    return Entry(name=name, paths=paths, results=results, families=families)


def named_files(argument: str) -> tuple[str, tuple[Path, ...]]:
    """The system's name and its files: `a/scores.json`, or `name=one.json,two.json,three.json`."""
    name, equals, listed = argument.partition("=")
    if not equals or Path(argument).exists():
        name, listed = "", argument
    paths = tuple(Path(part) for part in (listed.split(",") if equals else [listed]))
    return name or _short_name(paths[0]), paths


def compare(entries: Sequence[Entry], *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every system's scores with 95 % intervals, and the tests of every later system against the first.

    Raises InputError for fewer than two entries, equal names, or score files that cannot be compared.
    """
    if len(entries) < 2:
        raise InputError("give at least two score files; usage: rayscribe compare a.json b.json ...")
    if len({entry.name for entry in entries}) < len(entries):
        raise InputError(
            "two systems have the same name; give each its own: rayscribe compare first=a.json second=b.json"
        )
    first = entries[0]
    for entry in entries:
        _check_same(first, entry)
    rows = {entry.name: [together(families) for families in entry.families] for entry in entries}
    patients = first.results[0]["statistics"]["patients"]
    systems = {entry.name: _scores(rows[entry.name], entry, patients, resamples) for entry in entries}
    names = headline_names(next(iter(systems.values()))["scores"])
    pairs = {}
    for other in entries[1:]:
        a, b = _as_many(rows[other.name], rows[first.name])
        pairs[other.name] = {
            name: asdict(one)
            for name, one in differences(a, b, groups=patients, names=names, resamples=resamples).items()
        }
    corrected_over_table(pairs)
    floors = first.results[0]["floors"]
    return {
        "disclaimer": DISCLAIMER,
        "signature": first.results[0]["signature"],
        "studies": first.results[0]["studies"],
        "interval": f"95 %, percentile bootstrap over {'patients' if patients else 'studies'}, {resamples} resamples",
        "test": f"paired randomisation against {first.name}, {resamples} draws, (k + 1) / (n + 1), Holm over the table",
        "names": names,
        "systems": systems,
        "floor": _floor(floors, names),
        "against": first.name,
        "differences": pairs,
        "notes": _notes(entries),
    }


def _floor(floors: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """The constant report's scores; without clinical ones if the floors are not labelled."""
    scores = floors["constant"]["scores"] if "constant" in floors else {}
    return {name: scores[name]["value"] for name in names if name in scores}


def read_scores(path: Path) -> dict[str, Any]:
    """A score file: of one split (`scores`), or of a set of splits (`splits`). Raises InputError for any other file."""
    if not path.is_file():
        raise InputError(f"{path}: no such score file; write one with `rayscribe evaluate PREDICTIONS --json {path}`")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); write it again with `rayscribe evaluate`") from error
    is_ours = isinstance(result, dict) and isinstance(result.get("signature"), dict)
    if not is_ours or not {"scores", "splits"} & set(result):
        raise InputError(f"{path}: not a score file; write one with `rayscribe evaluate PREDICTIONS --json FILE`")
    return result


def _short_name(path: Path) -> str:
    return path.parent.name if path.stem == "scores" and path.parent.name else path.stem


def _check_same(first: Entry, other: Entry) -> None:
    for path, result, families in zip(other.paths, other.results, other.families):
        if conflicts := signature_conflicts(first.results[0]["signature"], result["signature"]):
            raise InputError(
                f"{first.paths[0]} and {path} cannot be compared, their protocols differ:\n  "
                + "\n  ".join(conflicts)
                + "\nscore both predictions under one protocol"
            )
        if any(result["statistics"][key] != first.results[0]["statistics"][key] for key in ("ids", "patients")):
            raise InputError(f"{first.paths[0]} and {path} do not score the same studies in the same order")
        if list(families) != list(first.families[0]):
            raise InputError(
                f"{path} has {', '.join(families)}, {first.paths[0]} {', '.join(first.families[0])}; score both again"
            )


def _scores(rows: Sequence[Rows], entry: Entry, patients: Sequence[int] | None, resamples: int) -> dict[str, Any]:
    """Mean over seeds with the interval of that mean over studies; deviation and values of the seeds."""
    seeds = [one.scores() for one in rows]
    found = intervals(_mean_of(rows), groups=patients, resamples=resamples)
    return {
        "files": [str(path) for path in entry.paths],
        "alarms": [alarm for result in entry.results for alarm in result["alarms"]],
        "scores": {
            name: {
                "value": found[name].value,
                "low": found[name].low,
                "high": found[name].high,
                "seeds": [seed[name] for seed in seeds],
                "deviation": float(np.std([seed[name] for seed in seeds], ddof=1)) if len(seeds) > 1 else None,
            }
            for name in found
        },
    }


def _mean_of(rows: Sequence[Rows]) -> Rows:
    """Statistics whose score is the mean of the seeds' scores."""
    width = len(rows[0].columns)

    def score(sums_SK: Any) -> dict[str, Any]:
        parts = [rows[0].score(sums_SK[:, i * width : (i + 1) * width]) for i in range(len(rows))]
        return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}

    columns = tuple(name for one in rows for name in one.columns)
    return Rows(columns, np.hstack([one.table_RK for one in rows]), score)


def _as_many(first: list[Rows], second: list[Rows]) -> tuple[list[Rows], list[Rows]]:
    """The same number of seeds on both sides; a system with one file is compared with every seed of the other."""
    count = max(len(first), len(second))
    if len(first) not in (1, count) or len(second) not in (1, count):
        raise InputError(
            f"{len(first)} seeds against {len(second)}; give both systems the same number, or one of them a single file"
        )
    return first * (count // len(first)), second * (count // len(second))


def corrected_over_table(pairs: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Sets `p_holm` by Holm's correction over all tests of the table, not only over those of one pair."""
    tests = [test for pair in pairs.values() for test in pair.values()]
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected


def _notes(entries: Sequence[Entry]) -> list[str]:
    few = [f"{entry.name} ({len(entry.paths)})" for entry in entries if len(entry.paths) < CLAIM_SEEDS]
    if not few:
        return []
    return [
        f"fewer than {CLAIM_SEEDS} seeds: {', '.join(few)}; the tests are about these predictions, not about the methods"
    ]
