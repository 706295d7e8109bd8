"""Groups of studies that belong together: connected components, as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rayscribe.metrics.statistics import Ints


def connected(count: int, links: Iterable[Sequence[int]]) -> Ints:
    """The group of each of `count` places (count,), named by one of its members; the places of a link share a group."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, *others in filter(len, links):
        for other in others:
            parent[root(other)] = root(first)
    return np.array([root(place) for place in range(count)], np.int64)


def groups_of(*keys: Sequence[str]) -> Ints:
    """Groups of places that share any of their keys, directly or through others (J,); an empty key joins nobody."""
    links: list[list[int]] = []
    for one in keys:
        places: dict[str, list[int]] = {}
        for place, key in enumerate(one):
            if key:
                places.setdefault(key, []).append(place)
        links += places.values()
    return connected(len(keys[0]), links)
