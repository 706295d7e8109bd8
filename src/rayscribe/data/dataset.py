"""From studies to batches: texts to ids, images or cached features to tensors, in an order fixed by the seed.

Shapes: B studies, V views, H height, W width, N patches, C channels, T tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from rayscribe.config import ImageConfig, TextConfig
from rayscribe.data.cleaning import swap_sides
from rayscribe.data.features import FeatureCache
from rayscribe.data.images import evaluation_square, read_checked_image, training_square
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.study import Batch, Pair, Study

_OPEN = 8  # shards read at a time: shuffles some thousand studies that fit in memory
_POOL = 16  # batches whose studies are sorted by length together: little padding, still a shuffle


@dataclass(frozen=True, slots=True)
class Row:
    """One draw of a study: which study, and in which epoch, because augmentation depends on both."""

    study: int
    epoch: int
    targets_per_batch: float = 0.0
    visit: int = 0
    "how often this epoch drew the study before; augmentation depends on this as well"
    counts: bool = True
    "false: padding for a process that would otherwise have no study; its tokens are masked out"
    studies_per_batch: float = 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """One study as arrays."""

    row: Row
    tokens: list[int]
    images: NDArray[np.uint8] | NDArray[np.float16]
    "pixels (V, H, W), or cached features (V, N, C)"
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    "what a method reads besides images and words"


Index = Row | tuple["Index", "Index"] | None
"One draw of a sampler: a study, two draws for one step, or nothing."
Drawn = Item | tuple["Drawn", "Drawn"] | None


Extras = Mapping[str, Callable[[Study], NDArray[Any]]]
"By name, arrays that a method reads per study besides images and words; the shape is the same for all studies."


class StudyDataset(Dataset[Drawn]):
    """Studies by `Row`, or pairs of them. With a cache, images are cached features; otherwise pixels."""

    def __init__(
        self,
        split: SplitReports,
        tokenizer: Tokenizer,
        *,
        text: TextConfig,
        images: ImageConfig,
        cache: FeatureCache | None = None,
        extras: Extras | None = None,
        augment: int | None = None,
    ) -> None:
        """`augment`: seed of random crops, rotations and flips; None prepares images as for evaluation."""
        self.studies, self.reports, self.tokenizer = split.studies, split.reports, tokenizer
        self.text, self.images, self.cache, self.augment = text, images, cache, augment
        self.extras = extras or {}

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: Index) -> Drawn:
        if isinstance(index, tuple):
            return self[index[0]], self[index[1]]
        return None if index is None else self.item(index)

    def item(self, row: Row) -> Item:
        study, report = self.studies[row.study], self.reports[row.study]
        is_training = self.augment is not None
        visit = [row.visit] if row.visit else []
        generator = np.random.default_rng([self.augment or 0, row.epoch, row.study, *visit])
        flipped = is_training and self.images.flip and self.cache is None and bool(generator.integers(2))
        if flipped:
            report = swap_sides(report)
        tokens = self.tokenizer.encode(report, max_length=self.text.max_length)
        extras = {name: of(study) for name, of in self.extras.items()}
        if self.cache is not None:
            return Item(row, tokens, np.stack([self.cache[sha256] for sha256 in study.sha256]), extras)
        squares = []
        for path, sha256 in zip(study.images, study.sha256, strict=True):
            if is_training:
                image = read_checked_image(path, sha256, at_least=self.images.resize)
                square = training_square(image, self.images, generator)
            else:
                image = read_checked_image(path, sha256, at_least=self.images.size)
                square = evaluation_square(image, self.images)
            squares.append(square[:, ::-1] if flipped else square)
        return Item(row, tokens, np.stack(squares), extras)


def collate(items: Sequence[Item]) -> Batch:
    """Pads tokens and views; masks mark what is real."""
    views, tokens = max(len(item.images) for item in items), max(len(item.tokens) for item in items)
    images = np.zeros((len(items), views, *items[0].images.shape[1:]), items[0].images.dtype)
    has_view_BV = torch.zeros(len(items), views, dtype=torch.bool)
    tokens_BT = torch.zeros(len(items), tokens, dtype=torch.long)
    has_token_BT = torch.zeros(len(items), tokens, dtype=torch.bool)
    for index, item in enumerate(items):
        images[index, : len(item.images)] = item.images
        has_view_BV[index, : len(item.images)] = True
        tokens_BT[index, : len(item.tokens)] = torch.tensor(item.tokens)
        has_token_BT[index, : len(item.tokens)] = item.row.counts
    stacked = torch.from_numpy(images)
    return Batch(
        rows_B=torch.tensor([item.row.study for item in items]),
        has_view_BV=has_view_BV,
        tokens_BT=tokens_BT,
        has_token_BT=has_token_BT,
        pixels_BVHW=stacked if stacked.dtype == torch.uint8 else None,
        maps_BVNC=stacked if stacked.dtype == torch.float16 else None,
        targets_per_batch=items[0].row.targets_per_batch,
        studies_per_batch=items[0].row.studies_per_batch,
        extras={name: torch.from_numpy(np.stack([item.extras[name] for item in items])) for name in items[0].extras},
    )


class Sampler(Protocol):
    """The studies of an epoch's batches; a function of the epoch, so that a run can be resumed."""

    def rows(self, epoch: int, *, accumulate: int, rank: int, processes: int) -> Sequence[list[Any]]:
        """One process's share of every batch, in order: lists of `Index`. All processes get the same number of batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order in which an epoch visits the studies; a function of seed and epoch alone, so that a run can be resumed."""

    lengths: Sequence[int]
    "number of tokens of each study, begin and end included"
    batch_size: int
    "over all processes"
    bucket: bool
    seed: int
    shards: Sequence[int] = ()
    "shard of each study; an epoch then reads a few shards at a time, each exactly once"

    def batches(self, epoch: int, among: Sequence[int] | None = None) -> list[list[int]]:
        """The studies of every batch; each study once, or as often as it occurs in `among`."""
        generator = np.random.default_rng([self.seed, epoch])
        studies = np.arange(len(self.lengths)) if among is None else np.asarray(among)
        order = studies[generator.permutation(len(studies))].tolist()
        if self.shards:
            order = self._by_shards(order, generator)
        if not self.bucket:
            return self._cut(order)
        pool = _POOL * self.batch_size
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        batches = [batch for one in pools for batch in self._cut(sorted(one, key=lambda study: self.lengths[study]))]
        if self.shards:  # shuffle within pools only, so that shards stay together
            return [one[i] for one in self._in_pools(batches) for i in generator.permutation(len(one))]
        return [batches[index] for index in generator.permutation(len(batches))]

    @staticmethod
    def _in_pools(batches: list[list[int]]) -> list[list[list[int]]]:
        return [batches[start : start + _POOL] for start in range(0, len(batches), _POOL)]

    def _by_shards(self, order: list[int], generator: np.random.Generator) -> list[int]:
        """The shuffled studies of a few shards, then those of the next few; the grouping changes every epoch."""
        turn = generator.permutation(max(self.shards) + 1) // _OPEN
        return sorted(order, key=lambda study: int(turn[self.shards[study]]))

    def rows(self, epoch: int, *, accumulate: int, rank: int, processes: int) -> list[list[Row]]:
        """One process's share of every batch, in order. All processes get the same number of batches, none of them empty."""
        return self.shares(self.batches(epoch), epoch, accumulate=accumulate, rank=rank, processes=processes)

    def shares(
        self, batches: Sequence[list[int]], epoch: int, *, accumulate: int, rank: int, processes: int
    ) -> list[list[Row]]:
        """The same for given batches."""
        shares = []
        visits: Counter[int] = Counter()
        for start in range(0, len(batches), accumulate):
            step = batches[start : start + accumulate]
            # Position t predicts token t + 1, so a report of L ids has L - 1 targets.
            targets = sum(self.lengths[study] - 1 for batch in step for study in batch)
            parts = len(step) * processes
            tokens, studies = targets / parts, sum(map(len, step)) / parts
            for batch in step:
                rows = []
                for study in batch:
                    rows.append(Row(study, epoch, tokens, visits[study], studies_per_batch=studies))
                    visits[study] += 1
                shares.append(rows[rank::processes] or [replace(rows[0], counts=False)])
        return shares

    def _cut(self, order: list[int]) -> list[list[int]]:
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]


def collated(drawn: Sequence[Any]) -> Batch | Pair[Any, Any] | None:
    """Collates a sampler's draw with its structure: studies to a batch, pairs to a pair, nothing to nothing."""
    if isinstance(drawn[0], tuple):
        first, second = zip(*drawn)
        return Pair(first=collated(first), second=collated(second))
    items = [item for item in drawn if item is not None]
    return collate(items) if items else None


def load_batches(dataset: StudyDataset, rows: Sequence[list[Any]], *, workers: int) -> Iterator[Batch | Pair[Any, Any]]:
    """The batches of these rows, read ahead by `workers` processes if the images are files."""
    # Each item seeds its own generator, so neither the workers nor their number change the result.
    return iter(
        DataLoader(
            dataset,
            batch_sampler=rows,  # a sampler may yield any index that the data set accepts
            collate_fn=collated,
            num_workers=0 if dataset.cache is not None else workers,
            pin_memory=torch.cuda.is_available(),
        )
    )
