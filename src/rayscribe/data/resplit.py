"""A better split: copies stay together, and every split keeps its old size and has the same share of every label.

Shapes: G groups, L labels, S splits.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rayscribe.data.audit import Copies
from rayscribe.errors import InputError
from rayscribe.files import whole_file
from rayscribe.labels import POSITIVE, Labels
from rayscribe.metrics.groups import connected
from rayscribe.study import SPLITS, Study


def stratified_split(studies: Sequence[Study], copies: Copies, labels: Labels, *, seed: int = 0) -> dict[str, str]:
    """Split by study id. Studies with one patient, one image file, or (nearly) the same report share a split.

    Groups are placed from the largest to the smallest, each where its labels are most needed (iterative stratification,
    Sechidis et al., 2011, with whole groups).
    """
    names = [name for name in SPLITS if any(study.split == name for study in studies)]
    share_S = np.array([sum(study.split == name for study in studies) for name in names]) / len(studies)
    groups = _components(len(studies), copies)
    # The last label is the study itself, which balances the sizes as well.
    positive_RL = np.hstack([labels == POSITIVE, np.ones((len(studies), 1), bool)]).astype(np.float64)
    totals_L = positive_RL.sum(0)
    lacking_SL = share_S[:, None] * totals_L
    weight_L = 1 / np.maximum(1, totals_L)
    order = np.random.default_rng(seed).permutation(len(groups))
    found: dict[str, str] = {}
    for number in sorted(order, key=lambda g: -len(groups[g])):
        members = groups[number]
        needs_L = positive_RL[members].sum(0)
        # Each split's distance to its goal with and without this group; the gain is largest where its labels are most needed.
        before_S = (weight_L * lacking_SL**2 / share_S[:, None]).sum(1)
        after_S = (weight_L * (lacking_SL - needs_L) ** 2 / share_S[:, None]).sum(1)
        place = int((before_S - after_S).argmax())
        lacking_SL[place] -= needs_L
        found |= {studies[member].id: names[place] for member in members}
    return found


def write_split(path: Path, split: dict[str, str]) -> None:
    """Writes a table of id and split for `rayscribe prepare --splits`."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split"])
        writer.writerows(sorted(split.items()))


def read_split(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: no such table of splits; write one with `rayscribe audit DATA --resplit {path}`")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"id", "split"} <= set(rows[0]):
        raise InputError(f"{path}: needs the columns id and split")
    if repeated := [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]:
        raise InputError(f"{path}: duplicate study {repeated[0]}")
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise InputError(f"{path}, line {number}: split {row['split']!r}; there are {', '.join(SPLITS)}")
    return {row["id"]: row["split"] for row in rows}


def _components(studies: int, copies: Copies) -> list[list[int]]:
    """Connected components of studies over all kinds of copies."""
    near = [(copies.texts[first][0], copies.texts[second][0]) for first, second in copies.near]
    groups: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(
        connected(studies, (*copies.texts, *copies.images, *copies.subjects, *near)).tolist()
    ):
        groups[group].append(place)
    return list(groups.values())
