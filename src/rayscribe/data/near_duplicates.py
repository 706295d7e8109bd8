"""Nearly identical reports: MinHash over word triples, candidates by banding, every candidate verified exactly.

Broder (1997); banding after Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.

Shapes: T texts, H hashes of a signature, G shingles of all texts together.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.8
"Reports whose word triples have at least this Jaccard similarity are near duplicates."

_WORDS = 3
_BANDS, _ROWS = 20, 4  # finds a pair of similarity .8 with probability .99998, one of .5 with .72
_PRIME = np.uint64(2_147_483_647)


def near_duplicates(texts: Sequence[str], *, alike: float = ALIKE) -> list[tuple[int, int]]:
    """Index pairs (smaller, larger) of different texts whose Jaccard similarity is at least `alike`, in [0, 1]."""
    shingles = [_shingles(text) for text in texts]
    signatures_TH = _signatures(shingles)
    checked: set[tuple[int, int]] = set()
    found = []
    for band in range(_BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for place, row in enumerate(signatures_TH[:, band * _ROWS : (band + 1) * _ROWS]):
            buckets[row.tobytes()].append(place)
        for pair in _pairs(buckets.values()):
            if pair not in checked:
                checked.add(pair)
                first, second = shingles[pair[0]], shingles[pair[1]]
                if len(first & second) >= alike * len(first | second):
                    found.append(pair)
    return sorted(found)


def _pairs(buckets: Iterable[list[int]]) -> Iterable[tuple[int, int]]:
    for bucket in buckets:
        for number, first in enumerate(bucket):
            for second in bucket[number + 1 :]:
                yield first, second


def _shingles(text: str) -> set[int]:
    """Hashes of the word triples; a shorter text is one shingle. CRC-32, because Python's hash differs between processes."""
    words = text.split()
    if len(words) < _WORDS:
        return {zlib.crc32(text.encode())}
    return {zlib.crc32(" ".join(words[i : i + _WORDS]).encode()) for i in range(len(words) - _WORDS + 1)}


def _signatures(shingles: Sequence[set[int]]) -> NDArray[np.uint64]:
    """The minimum of each of H linear hashes over every text's shingles."""
    random = np.random.default_rng(0)
    flat_G = np.array([one for text in shingles for one in text], np.uint64) % _PRIME
    starts_T = np.cumsum([0] + [len(text) for text in shingles[:-1]])
    signatures_TH = np.empty((len(shingles), _BANDS * _ROWS), np.uint64)
    for column in range(_BANDS * _ROWS):
        factor, offset = random.integers(1, int(_PRIME), 2, dtype=np.uint64)
        signatures_TH[:, column] = np.minimum.reduceat((flat_G * factor + offset) % _PRIME, starts_T)
    return signatures_TH
