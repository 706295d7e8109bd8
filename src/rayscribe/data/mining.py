"""Negatives for every study: the most similar training studies of other patients with other reports.

Reports are compared by the cosine of TF-IDF vectors (the paper's mining script was not released), images by pooled, centred
features of an image encoder, or both by the mean of the two cosines. Small sets are compared exactly, all pairs. For larger
ones TF-IDF vectors are projected to a few hundred random directions, all pairs are compared there, and the best are ranked
again exactly (`benchmarks/mining.py` measures time, memory and loss).

Shapes: N studies, W words, G words of all reports concatenated, D numbers per vector, B studies of a block, K candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rayscribe.data.cleaning import words_only
from rayscribe.data.features import FeatureCache, study_means
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

_EXACT = 50_000_000  # numbers in a dense matrix: 200 MB
_DIRECTIONS = 128
_CANDIDATES = 32
_BLOCK = 256  # studies per block; 270,000 scores each


@dataclass(frozen=True, slots=True)
class Texts:
    """TF-IDF vectors of unit length, stored as the words of all reports, concatenated."""

    words_G: Tensor
    weights_G: Tensor
    starts_N: Tensor
    vocabulary: int

    @classmethod
    def of(cls, reports: Sequence[str]) -> Texts:
        """Counts times ln((1 + N) / (1 + df)) + 1, to unit length: scikit-learn's default. Full stops are dropped."""
        counts = [Counter(word for word in report.split() if word != ".") for report in reports]
        df = Counter(word for report in counts for word in report)
        places = {word: place for place, word in enumerate(sorted(df))}
        df_W = torch.tensor([df[word] for word in places], dtype=torch.float64)
        idf_W = torch.log((1 + len(reports)) / (1 + df_W)) + 1
        lengths_N = torch.tensor([len(report) for report in counts])
        words_G = torch.tensor([places[word] for report in counts for word in report], dtype=torch.long)
        weights_G = torch.tensor([float(n) for report in counts for n in report.values()]) * idf_W[words_G].float()
        rows_G = torch.arange(len(reports)).repeat_interleave(lengths_N)
        squares_N = torch.zeros(len(reports)).index_add(0, rows_G, weights_G**2)
        weights_G = weights_G / squares_N.sqrt()[rows_G]
        starts_N = torch.cat([torch.zeros(1, dtype=torch.long), lengths_N.cumsum(0)[:-1]])
        return cls(words_G, weights_G, starts_N, len(places))

    def times(self, table_WD: Tensor) -> Tensor:
        """The vectors (N, W) times a matrix."""
        return F.embedding_bag(
            self.words_G, table_WD, self.starts_N, mode="sum", per_sample_weights=self.weights_G.to(table_WD.dtype)
        )

    def part(self, rows: Tensor) -> Texts:
        """A subset of the studies, in the order of `rows`."""
        ends_N = torch.cat([self.starts_N[1:], torch.tensor([len(self.words_G)])])
        lengths = (ends_N - self.starts_N)[rows]
        starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        places = torch.arange(int(lengths.sum())) + (self.starts_N[rows] - starts).repeat_interleave(lengths)
        return Texts(self.words_G[places], self.weights_G[places], starts, self.vocabulary)

    def spread(self) -> Tensor:
        """The vectors as a dense matrix (N, W)."""
        lengths_N = torch.diff(self.starts_N, append=torch.tensor([len(self.words_G)]))
        spread_NW = torch.zeros(len(self.starts_N), self.vocabulary)
        spread_NW[torch.arange(len(self.starts_N)).repeat_interleave(lengths_N), self.words_G] = self.weights_G
        return spread_NW

    @property
    def is_small(self) -> bool:
        return len(self.starts_N) * self.vocabulary <= _EXACT

    def dense(self) -> Tensor:
        """(N, W) if that is small, otherwise (N, D): random signs preserve cosines up to about 1 / sqrt(D)."""
        if self.is_small:
            return self.spread()
        generator = torch.Generator().manual_seed(0)
        signs_WD = torch.randint(0, 2, (self.vocabulary, _DIRECTIONS), generator=generator).float() * 2 - 1
        return F.normalize(self.times(signs_WD), dim=-1)

    def cosines(self, rows_B: Tensor, candidates_BK: Tensor) -> Tensor:
        """Exact cosines (B, K) of studies with their candidates."""
        asked_BW = self.part(rows_B).spread()
        others = self.part(candidates_BK.flatten())
        lengths = torch.diff(others.starts_N, append=torch.tensor([len(others.words_G)]))
        place = torch.arange(len(rows_B)).repeat_interleave(candidates_BK.shape[1]).repeat_interleave(lengths)
        flat = place * self.vocabulary + others.words_G
        sums = F.embedding_bag(
            flat, asked_BW.view(-1, 1), others.starts_N, mode="sum", per_sample_weights=others.weights_G
        )
        return sums.view_as(candidates_BK)


def image_vectors(studies: Sequence[Study], cache: FeatureCache) -> Tensor:
    """Every study's mean feature, centred and of unit length: (N, C)."""
    vectors_NC = study_means(studies, cache)
    return F.normalize(vectors_NC - vectors_NC.mean(0), dim=-1)


def mine(
    studies: Sequence[Study],
    reports: Sequence[str],
    *,
    top: int,
    images: Tensor | None = None,
    with_text: bool = True,
    labels: Sequence[tuple[int, ...]] | None = None,
    progress: ProgressBar = iter,
) -> list[list[tuple[int, float]]]:
    """For every study, up to `top` rows of `studies` with their similarity, the most similar first.

    Excludes studies of the same patient, with the same words in any order, or with the same first image; with `labels` also
    those with equal labels.
    """
    groups = [
        _codes([tuple(sorted(words_only(report).split())) for report in reports]),
        _codes([study.subject or study.id for study in studies]),
        _codes([study.sha256[0] if study.sha256 else study.id for study in studies]),
    ]
    if labels is not None:
        groups.append(_codes(labels))
    texts = Texts.of(reports) if with_text else None
    parts = ([] if texts is None else [texts.dense()]) + ([] if images is None else [images])
    vectors_ND = torch.cat(parts, dim=1) / len(parts) ** 0.5
    ranks_again = texts is not None and not texts.is_small
    wanted = min(len(studies), max(top, _CANDIDATES) if ranks_again else top)
    found: list[list[tuple[int, float]]] = []
    for start in progress(range(0, len(studies), _BLOCK)):
        rows_B = torch.arange(start, min(start + _BLOCK, len(studies)))
        scores_BN = vectors_ND[rows_B] @ vectors_ND.T
        for group_N in groups:
            scores_BN.masked_fill_(group_N[rows_B, None] == group_N, -torch.inf)
        scores_BK, best_BK = scores_BN.topk(wanted, dim=1)
        if ranks_again and texts is not None:
            exact_BK = texts.cosines(rows_B, best_BK)
            if images is not None:
                exact_BK = (exact_BK + (images[rows_B, None] * images[best_BK]).sum(-1)) / 2
            exact_BK.masked_fill_(scores_BK == -torch.inf, -torch.inf)
            scores_BK, order_BK = exact_BK.sort(dim=1, descending=True)
            best_BK = best_BK.gather(1, order_BK)
        for scores, best in zip(scores_BK[:, :top].tolist(), best_BK[:, :top].tolist()):
            found.append([(row, score) for row, score in zip(best, scores) if score > float("-inf")])
    return found


def _codes(values: Sequence[Any]) -> Tensor:
    """Integers that are equal where the values are equal."""
    places: dict[Any, int] = {}
    return torch.tensor([places.setdefault(value, len(places)) for value in values], dtype=torch.int32)
