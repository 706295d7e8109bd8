"""Intervals and tests over studies, for every score that is a function of summed per-report rows.

A bootstrap sample is then one product of a weight matrix and the rows, so 10,000 samples take seconds.

Shapes: R reports, K columns of statistics, S samples, G groups (patients).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
Score = Callable[[Floats], dict[str, Floats]]

RESAMPLES = 10_000
_CELLS = 4_000_000  # per block of weights: 32 MB
_ROUNDING = 1e-12  # sums of the same numbers in another order differ by at most this


@dataclass(frozen=True, slots=True)
class Rows:
    """Sufficient statistics: one row per report; the scores of any set of reports follow from the sum of its rows."""

    columns: tuple[str, ...]
    table_RK: Floats
    score: Score
    "sums (S, K) -> scores (S,) by name"

    def scores(self) -> dict[str, float]:
        """The scores of all reports together, by name."""
        return {name: float(value[0]) for name, value in self.score(self.table_RK.sum(0, keepdims=True)).items()}

    def of(self, rows: NDArray[np.bool_] | Ints) -> Rows:
        """The same statistics for a subset of the reports, given as a mask or as indices."""
        return Rows(self.columns, self.table_RK[rows], self.score)


def joined(parts: Sequence[Rows]) -> Rows:
    """Several families of statistics of the same reports as one table, so that they share every resample."""
    edges = np.cumsum([0] + [len(part.columns) for part in parts])

    def score(sums_SK: Floats) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for part, start, end in zip(parts, edges[:-1], edges[1:], strict=True):
            found |= part.score(sums_SK[:, start:end])
        return found

    columns = tuple(name for part in parts for name in part.columns)
    return Rows(columns, np.hstack([part.table_RK for part in parts]), score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A score and its 95 % interval; `deviation` is the standard deviation over the resamples."""

    value: float
    low: float
    high: float
    deviation: float


def intervals(
    rows: Rows, *, groups: Sequence[str] | Sequence[int] | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Every score's 95 % percentile bootstrap interval over studies, or over `groups` (each study's patient) if given."""
    table_GK = _by_group(rows.table_RK, groups)
    samples = _gathered(rows.score(sums) for sums in _bootstrap_sums(table_GK, resamples, seed))
    values = rows.scores()
    return {name: _interval(values[name], sample_S) for name, sample_S in samples.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """First system minus second, on the same studies."""

    difference: float
    low: float
    high: float
    p: float
    "two-sided paired randomisation test, (k + 1) / (n + 1)"
    p_holm: float
    "corrected by Holm over the scores that were compared together"
    detectable: float
    "smallest true difference that this many studies show with power .8 at level .05"


def differences(
    first: Sequence[Rows],
    second: Sequence[Rows],
    *,
    groups: Sequence[str] | Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Every score of `first` minus that of `second`: one `Rows` per seed, over the same studies in the same order.

    A system's score is the mean over its seeds. The test exchanges the two systems study by study, seed k against seed k.
    `names`: the scores that are returned and that Holm's correction counts; None: all. Raises ValueError for unequal seeds.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} seeds against {len(second)}; give both systems the same number")
    tables = [(_by_group(a.table_RK, groups), _by_group(b.table_RK, groups)) for a, b in zip(first, second)]
    score = first[0].score
    observed = _minus(
        _mean([score(a.sum(0, keepdims=True)) for a, _ in tables]),
        _mean([score(b.sum(0, keepdims=True)) for _, b in tables]),
    )
    wanted = list(observed) if names is None else [name for name in names if name in observed]
    both = np.hstack([np.hstack(pair) for pair in tables])
    width = tables[0][0].shape[1]

    def apart(sums_S: Floats) -> dict[str, Floats]:
        parts = [sums_S[:, start : start + width] for start in range(0, sums_S.shape[1], width)]
        return _minus(_mean([score(one) for one in parts[0::2]]), _mean([score(one) for one in parts[1::2]]))

    boots = _gathered(apart(sums) for sums in _bootstrap_sums(both, resamples, seed))
    swapped = np.hstack([np.hstack([b - a, a - b]) for a, b in tables])
    chance = _gathered(apart(both.sum(0) + sums) for sums in _swap_sums(swapped, resamples, seed + 1))
    p = [_p_value(float(observed[name][0]), chance[name]) for name in wanted]
    power = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    found = {}
    for name, raw, corrected in zip(wanted, p, holm(p), strict=True):
        spread = _interval(float(observed[name][0]), boots[name])
        found[name] = Difference(
            difference=spread.value,
            low=spread.low,
            high=spread.high,
            p=raw,
            p_holm=corrected,
            detectable=power * spread.deviation,
        )
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of p-values, in the order given; at most 1."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = running
    return adjusted


def p_text(p: float) -> str:
    """A p-value formatted for tables."""
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _by_group(table_RK: Floats, groups: Sequence[str] | Sequence[int] | None) -> Floats:
    if groups is None:
        return table_RK
    names, place_R = np.unique(np.array(groups), return_inverse=True)
    sums_GK = np.zeros((len(names), table_RK.shape[1]))
    np.add.at(sums_GK, place_R, table_RK)
    return sums_GK


def _bootstrap_sums(table_RK: Floats, resamples: int, seed: int) -> list[Floats]:
    reports, random = len(table_RK), np.random.default_rng(seed)
    sums = []
    for size in _blocks(resamples, reports):
        picks = random.integers(0, reports, (size, reports)) + reports * np.arange(size)[:, None]
        weights = np.bincount(picks.ravel(), minlength=size * reports).reshape(size, reports)
        sums.append(weights.astype(np.float64) @ table_RK)
    return sums


def _swap_sums(changes_RK: Floats, resamples: int, seed: int) -> list[Floats]:
    reports, random = len(changes_RK), np.random.default_rng(seed)
    return [
        random.integers(0, 2, (size, reports)).astype(np.float64) @ changes_RK for size in _blocks(resamples, reports)
    ]


def _blocks(resamples: int, reports: int) -> list[int]:
    size = max(1, min(resamples, _CELLS // reports))
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def _gathered(blocks: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    parts = list(blocks)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _interval(value: float, sample_S: Floats) -> Interval:
    low, high = np.percentile(sample_S, [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high), deviation=float(sample_S.std(ddof=1)))


def _p_value(observed: float, chance_S: Floats) -> float:
    as_far = int((np.abs(chance_S) >= abs(observed) - _ROUNDING).sum())
    return (as_far + 1) / (len(chance_S) + 1)


def _mean(scores: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.mean([one[name] for one in scores], axis=0) for name in scores[0]}


def _minus(first: dict[str, Floats], second: dict[str, Floats]) -> dict[str, Floats]:
    return {name: first[name] - second[name] for name in first}
