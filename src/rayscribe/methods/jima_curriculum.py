"""How hard a study is for JIMA's two tasks, which studies a task keeps (spec 4.5), and how both tasks draw them.

Shapes: B studies, T target positions, V words of the vocabulary, W ids (V and the reserved ones), S training studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rayscribe.data.dataset import Order, Row
from rayscribe.study import Batch


def report_ranks(logits_BTW: Tensor, batch: Batch, is_entity_BV: Tensor | None) -> tuple[Tensor, Tensor]:
    """Difficulty and performance (B) of every report under teacher forcing.

    The rank of a gold word is 1 + the number of words with a higher probability. Difficulty is the mean rank over the number of
    ids, in (0, 1]; with `is_entity_BV`, the average of the entities' mean and the other words' mean. Performance is the share
    of words with rank 1, in [0, 1].
    """
    gold_BT, keep_BT = batch.tokens_BT[:, 1:], batch.has_token_BT[:, 1:]
    ids = logits_BTW.shape[-1]
    rank_BT = 1 + (logits_BTW > logits_BTW.gather(-1, gold_BT[:, :, None])).sum(-1)
    performance_B = _mean_B(rank_BT == 1, keep_BT)
    if is_entity_BV is None:
        return _mean_B(rank_BT / ids, keep_BT), performance_B
    reserved = ids - is_entity_BV.shape[-1]  # the first ids are not words
    is_entity_BT = F.pad(is_entity_BV, (reserved, 0)).gather(-1, gold_BT)
    parts_2B = torch.stack([_mean_B(rank_BT / ids, keep_BT & kind_BT) for kind_BT in (is_entity_BT, ~is_entity_BT)])
    return parts_2B.nanmean(0), performance_B


def entity_ranks(logits_BV: Tensor, is_entity_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Difficulty and performance (B) of every study's entities, in [0, 1].

    Difficulty is their mean rank over the vocabulary size; a study without entities has 0, the easiest. Performance is
    R-precision, their share among as many most probable words; NaN for a study without entities.
    """
    ascending_BV = logits_BV.sort(dim=-1).values
    words = logits_BV.shape[-1]
    rank_BV = 1 + words - torch.searchsorted(ascending_BV, logits_BV.contiguous(), right=True)
    difficulty_B = _mean_B(rank_BV / words, is_entity_BV).nan_to_num(0)
    return difficulty_B, _mean_B(rank_BV <= is_entity_BV.sum(-1, keepdim=True), is_entity_BV)


def _mean_B(values_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """Mean over the kept values; NaN where none is kept."""
    return (values_BT * keep_BT).sum(-1) / keep_BT.sum(-1)


def next_share(share: float, before: float, now: float, *, floor: float) -> float:
    """The paper's equation 2: as performance grows from `before` to `now`, the share falls; in [`floor`, 1]."""
    change = (now - before) / before if before > 0 else 0.0
    return max(floor, min(1.0, (1 - change) * share))


def chosen_S(difficulty_S: Tensor, share: float, *, order: str, seed: int) -> Tensor:
    """Mask (S) of a share of the studies, at least one: the hardest (`order` "hard"), "easy" or "random" ones."""
    if order == "random":
        difficulty_S = torch.rand(len(difficulty_S), generator=torch.Generator().manual_seed(seed)).to(
            difficulty_S.device
        )
    order_S = difficulty_S.argsort(descending=order == "hard", stable=True)
    is_chosen_S = torch.zeros_like(difficulty_S, dtype=torch.bool)
    is_chosen_S[order_S[: math.ceil(share * len(difficulty_S))]] = True
    return is_chosen_S


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTasks:
    """Batches of the studies that each of two tasks chose for the epoch: (first task's, second task's).

    An epoch visits every study of the larger choice once; those of the smaller one are drawn equally often. Joint steps hold
    one batch of each; alternating steps one batch of one task, in turn.
    """

    order: Order
    "of the first task: batches of similar report length, counted in tokens"
    chosen: Callable[[], tuple[Sequence[int], Sequence[int]]]
    "called at the start of every epoch"
    alternating: bool

    def rows(
        self, epoch: int, *, accumulate: int, rank: int, processes: int
    ) -> list[list[tuple[Row | None, Row | None]]]:
        """The epoch's batches as pairs of rows; None for a task that a step leaves out."""
        second = replace(
            self.order,
            lengths=[2] * len(self.order.lengths),  # one answer per study, whatever the length of its report
            bucket=False,
            seed=self.order.seed + 1,
        )
        orders, chosen = (self.order, second), self.chosen()
        draws = max(map(len, chosen))
        first, other = (
            order.shares(
                order.batches(epoch, _repeated(studies, draws, [order.seed, epoch, 2])),
                epoch,
                accumulate=accumulate,
                rank=rank,
                processes=processes,
            )
            for order, studies in zip(orders, chosen, strict=True)
        )
        if self.alternating:
            return list(chain.from_iterable(zip(_paired(first, None), _paired(None, other))))
        return [list(zip_longest(*pair)) for pair in zip(first, other, strict=True)]


def _repeated(studies: Sequence[int], draws: int, seed: Sequence[int]) -> Sequence[int]:
    """The requested number of draws, with every study drawn equally often, up to one."""
    shuffled = np.random.default_rng(seed).permutation(np.asarray(studies))
    return [int(study) for study in np.resize(shuffled, draws)]


def _paired(
    first: Iterable[list[Row]] | None, second: Iterable[list[Row]] | None
) -> Iterable[list[tuple[Row | None, Row | None]]]:
    """Batches of one task, with the other one empty."""
    for batch in first or second or ():
        yield [(row, None) if second is None else (None, row) for row in batch]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the pass over the training studies measures for one batch."""

    rows_B: Tensor
    difficulty_2B: Tensor
    performance_2B: Tensor
