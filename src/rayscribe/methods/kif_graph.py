"""The knowledge graph of KIF-ISD as data: 27 chest findings and organs and a root (spec A2.2), or one from a file.

The published graph comes from DCL (Li et al., CVPR 2023), which adapted that of Zhang et al. (AAAI 2020). The released code
spells cicatrix with an l.

Shapes: N nodes, the root first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.errors import InputError
from rayscribe.files import write_text

_FORMAT = "rayscribe-graph-1"
ROOT = "root"

_ORGAN = 1  # type of the eight organs, which are all connected
# name, group, type: an organ and its findings are a group; findings of one organ have one type.
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
    """Nodes with their names and groups, and which node attends to which."""

    names: tuple[str, ...]
    "the root first"
    groups: tuple[int, ...]
    "a node's place in the sinusoidal positions, the root's is 0"
    edges_NN: NDArray[np.bool_]
    "symmetric; every node is connected to itself and to the root"
    source: str
    counts: Mapping[str, Any] = field(default_factory=dict)
    "what the graph was made from, in numbers"

    def __post_init__(self) -> None:
        nodes = len(self.names)
        faults = {
            "no two nodes": nodes < 2,
            "not as many groups as names": len(self.groups) != nodes,
            "a name that stands twice": len(set(self.names)) != nodes,
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
        """A hash of the nodes and edges."""
        return hashlib.sha256(json.dumps(self._plain()).encode()).hexdigest()

    @property
    def density(self) -> float:
        """Share of the pairs of different nodes that are connected, the root left out."""
        rest_MM = self.edges_NN[1:, 1:]
        others = len(rest_MM) * (len(rest_MM) - 1)
        return float(rest_MM.sum() - len(rest_MM)) / others if others else 0.0

    def save(self, path: Path) -> None:
        """JSON; the file is replaced as a whole."""
        about = {"format": _FORMAT, "source": self.source, **self._plain(), "counts": dict(self.counts)}
        write_text(path, json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Graph:
        """Raises InputError that names the file and what is wrong with it."""
        advice = "write one with `rayscribe build-graph`, or take --kif.graph published"
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
    """The published rule: the root, an equal group or an equal type connects."""
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
