"""The knowledge graph of KIF-ISD as data: 27 chest findings and organs and a root (spec A2.2), or a graph from a file.

The published graph comes from DCL (Li et al., CVPR 2023), which adapted that of Zhang et al. (AAAI 2020). The released code
spells cicatrix with an l. KIF-ISD's authors name a fixed graph as the weak point, so a graph can also be built from the
training split: two nodes are connected if they occur in the same report often enough, more often than by chance (a lift above
a threshold), and significantly so (Dunning's log-likelihood ratio, 1993).

Shapes: N nodes, the root first; R reports.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.conditions import Conditions
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.labels import CONDITIONS, POSITIVE

_BEYOND_DOUBT = 10.83  # chi-square with one degree of freedom, p = .001
_FORMAT = "rayscribe-graph-1"
ROOT = "root"

_ORGAN = 1  # type of the eight organs, all of which are connected
# name, group, type: an organ and its findings form a group; findings of one organ share a type.
_PUBLISHED = (
    (ROOT, 0, 0),
    ("normal", 1, 2),
    ("other finding", 2, 3),
    ("heart", 3, _ORGAN),
    ("cardiomegaly", 3, 4),
    ("spine", 4, _ORGAN),
    ("scoliosis", 4, 5),
    ("pleural", 5, _ORGAN),
    ("effusion", 5, 6),
    ("thickening", 5, 6),
    ("pneumothorax", 5, 6),
    ("bone", 6, _ORGAN),
    ("bone fractures", 6, 7),
    ("lung", 7, _ORGAN),
    ("emphysema", 7, 8),
    ("pneumonia", 7, 8),
    ("edema", 7, 8),
    ("atelectasis", 7, 8),
    ("cicatrix", 7, 8),
    ("opacity", 7, 8),
    ("lesion", 7, 8),
    ("mediastinum", 8, _ORGAN),
    ("hernia", 8, 9),
    ("calcinosis", 8, 9),
    ("foreign object", 9, 10),
    ("airspace", 10, _ORGAN),
    ("airspace disease", 10, 11),
    ("hypoinflation", 10, 11),
)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes with their names and groups, and the edges between them."""

    names: tuple[str, ...]
    "the root first"
    groups: tuple[int, ...]
    "a node's index in the sinusoidal positions; the root's is 0"
    edges_NN: NDArray[np.bool_]
    "symmetric; every node is connected to itself and to the root"
    source: str
    counts: Mapping[str, Any] = field(default_factory=dict)
    "counts that the graph was built from"

    def __post_init__(self) -> None:
        nodes = len(self.names)
        faults = {
            "no two nodes": nodes < 2,
            "not as many groups as names": len(self.groups) != nodes,
            "a duplicate name": len(set(self.names)) != nodes,
            "a node without a name": not all(name.strip() for name in self.names),
            "a negative group": any(group < 0 for group in self.groups),
            "edges that are not between its nodes": self.edges_NN.shape != (nodes, nodes),
        }
        if not any(faults.values()):
            faults["an edge in one direction only"] = bool((self.edges_NN != self.edges_NN.T).any())
            faults["a node that is not connected to itself"] = not self.edges_NN.diagonal().all()
            faults["a node that is not connected to the root, its first"] = not self.edges_NN[0].all()
        if found := [fault for fault, is_there in faults.items() if is_there]:
            raise InputError(f"the graph {self.source} has {found[0]}")

    @cached_property
    def digest(self) -> str:
        """A hash of nodes and edges."""
        return hashlib.sha256(json.dumps(self._plain()).encode()).hexdigest()

    @property
    def density(self) -> float:
        """Share of the pairs of different nodes that are connected, in [0, 1], without the root."""
        rest_MM = self.edges_NN[1:, 1:]
        others = len(rest_MM) * (len(rest_MM) - 1)
        return float(rest_MM.sum() - len(rest_MM)) / others if others else 0.0

    def save(self, path: Path) -> None:
        """Writes JSON; the file is replaced as a whole."""
        about = {"format": _FORMAT, "source": self.source, **self._plain(), "counts": dict(self.counts)}
        write_text(path, json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Graph:
        """Reads what `save` writes. Raises InputError that names the file and what is wrong with it."""
        advice = "write one with `rayscribe build graph`, or take --method.graph published"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise InputError(f"{path}: format {about['format']!r}; this version reads {_FORMAT}")
            names = tuple(map(str, about["names"]))
            edges_NN = np.zeros((len(names), len(names)), bool)
            for first, second in about["edges"]:
                edges_NN[first, second] = edges_NN[second, first] = True
            return cls(
                names=names,
                groups=tuple(map(int, about["groups"])),
                edges_NN=edges_NN,
                source=str(about["source"]),
                counts=about.get("counts", {}),
            )
        except InputError as error:
            raise InputError(f"{path}: {error}; {advice}") from error
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path}: not a graph ({error!r}); {advice}") from error

    def _plain(self) -> dict[str, Any]:
        pairs = np.argwhere(np.triu(self.edges_NN)).tolist()
        return {"names": list(self.names), "groups": list(self.groups), "edges": pairs}


def grouped_edges(groups: Sequence[int], types: Sequence[int]) -> NDArray[np.bool_]:
    """The published edges (N, N): the root connects to all, nodes of equal group or equal type connect."""
    group_N, type_N = np.asarray(groups), np.asarray(types)
    edges_NN = (group_N[:, None] == group_N) | (type_N[:, None] == type_N)
    edges_NN[0] = edges_NN[:, 0] = True
    found: NDArray[np.bool_] = edges_NN
    return found


PUBLISHED = Graph(
    names=tuple(name for name, _, _ in _PUBLISHED),
    groups=tuple(group for _, group, _ in _PUBLISHED),
    edges_NN=grouped_edges([group for _, group, _ in _PUBLISHED], [type_ for _, _, type_ in _PUBLISHED]),
    source="published",
)


def cooccurrence_graph(
    conditions: Conditions,
    entities: Sequence[Sequence[str]],
    *,
    words: int = 40,
    least: int = 5,
    lift: float = 1.5,
) -> Graph:
    """A graph of the conditions that are positive in at least `least` reports, and the `words` most frequent other entities.

    Two nodes are connected if they occur together in at least `least` reports and `lift` times as often as by chance. The root
    connects to all. Groups: 0 root, 1 conditions, 2 words. Raises InputError if nothing is frequent enough.
    """
    positive_RO = conditions.states_RO == POSITIVE
    kept = [place for place in range(len(CONDITIONS)) if positive_RO[:, place].sum() >= least]
    names = [CONDITIONS[place].lower() for place in kept]
    taken = {word for name in names for word in name.split()}
    counts = Counter(word for report in entities for word in set(report) if word not in taken)
    frequent = sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word))[
        :words
    ]
    if not (names or frequent):
        raise InputError(f"no condition and no word occurs in {least} training reports; lower --least")
    places = {word: place for place, word in enumerate(frequent)}
    has_word_RW = np.zeros((len(entities), len(frequent)), bool)
    for row, report in enumerate(entities):
        has_word_RW[row, [places[word] for word in set(report) if word in places]] = True
    has_RN = np.hstack([positive_RO[:, kept], has_word_RW])
    together_NN, lift_NN, doubt_NN = associations(has_RN)
    is_edge_NN = (together_NN >= least) & (lift_NN >= lift) & (doubt_NN > _BEYOND_DOUBT)
    edges_NN = np.eye(len(names) + len(frequent) + 1) > 0
    edges_NN[0] = edges_NN[:, 0] = True
    edges_NN[1:, 1:] |= is_edge_NN
    found = np.argwhere(np.triu(is_edge_NN, 1)).tolist()
    return Graph(
        names=(ROOT, *names, *frequent),
        groups=(0, *[1] * len(names), *[2] * len(frequent)),
        edges_NN=edges_NN,
        source=f"co-occurrence, labels of {conditions.source}",
        counts={
            "reports": len(entities),
            "nodes": has_RN.sum(0).tolist(),
            "edges": [[a + 1, b + 1, int(together_NN[a, b]), round(float(lift_NN[a, b]), 2)] for a, b in found],
        },
    )


def associations(
    has_RN: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """For all pairs of nodes (N, N): reports with both, lift P(a, b) / (P(a) P(b)), log-likelihood ratio of independence."""
    has = has_RN.astype(np.float64)
    reports, counts_N = len(has), has.sum(0)
    both_NN = has.T @ has
    only_NN = counts_N[:, None] - both_NN
    expected_NN = np.outer(counts_N, counts_N) / reports
    lift_NN = np.divide(both_NN, expected_NN, out=np.zeros_like(both_NN), where=expected_NN > 0)
    rest_N = reports - counts_N
    cells = (
        (both_NN, expected_NN),
        (only_NN, np.outer(counts_N, rest_N) / reports),
        (only_NN.T, np.outer(rest_N, counts_N) / reports),
        (reports - both_NN - only_NN - only_NN.T, np.outer(rest_N, rest_N) / reports),
    )
    doubt_NN = 2 * sum((_surprise(seen, chance) for seen, chance in cells), np.zeros_like(both_NN))
    return both_NN.astype(np.int64), lift_NN, doubt_NN


def _surprise(seen: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """seen x ln(seen / chance); 0 where nothing is seen."""
    ratio = np.divide(seen, chance, out=np.ones_like(seen), where=(seen > 0) & (chance > 0))
    found: NDArray[np.float64] = seen * np.log(ratio)
    return found
