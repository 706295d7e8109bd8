"""Greedy, beam search and sampling over any model whose decoder has `start` and `step`.

The default reproduces R2Gen's search: three beams, plain sums of log-probabilities, no blocking, the best finished
hypothesis wins.

Shapes: B studies, K beams, T tokens so far, W vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.models.layers import Encoded

Steps = Callable[[Iterable[int]], Iterable[int]]
"Wraps the indices of the words to come; may report how far the search is, and abort it by raising."


class SteppingDecoder(Protocol):
    """What the search needs from a model."""

    def start(self, encoded: Encoded, *, beams: int, positions: int) -> Any:
        """The state that decoding keeps between two words, with a method `reorder(parents_BK)`."""

    def step(self, tokens_BK: Tensor, cache: Any) -> Tensor:
        """Feeds one word to each of K beams; returns the scores (B, K, W) of the next one."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The reserved ids. In R2Gen's numbering all three are 0."""

    pad: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One report as ids, without begin and end."""

    tokens: tuple[int, ...]
    log_probability: float
    score: float
    "ranking score: the log-probability over the length penalty"


@torch.inference_mode()
def decode(
    decoder: SteppingDecoder,
    encoded: Encoded,
    vocabulary: Vocabulary,
    config: DecodingConfig,
    *,
    max_tokens: int,
    best: int = 1,
    steps: Steps = iter,
) -> list[list[Hypothesis]]:
    """The `best` reports of every study, best first; `max_tokens` counts the words and the end.

    Raises InputError where the model's scores are not numbers.
    """
    max_tokens = config.max_tokens or max_tokens
    search = sample if config.strategy == "sample" else beam_search
    found = search(decoder, encoded, vocabulary, config, max_tokens=max_tokens, best=best, steps=steps)
    if not all(found):
        raise _damaged(sum(not one for one in found), len(found))
    return found


def _damaged(lacking: int, studies: int) -> InputError:
    return InputError(
        f"{lacking} of {studies} studies have no report, because the model's scores are not "
        "numbers; its weights or the image features are damaged"
    )


def beam_search(
    decoder: SteppingDecoder,
    encoded: Encoded,
    vocabulary: Vocabulary,
    config: DecodingConfig,
    *,
    max_tokens: int,
    best: int = 1,
    steps: Steps = iter,
) -> list[list[Hypothesis]]:
    """Keeps the K best beams of every study; a beam that emits the end is set aside and frees its slot.

    A study finishes early only when no live beam can still overtake, so the result equals that of the full search.
    """
    studies, device = encoded.features_BND.shape[0], encoded.features_BND.device
    beams = max(config.beams, best)
    cache = decoder.start(encoded, beams=beams, positions=max_tokens)
    tokens_BK = torch.full((studies, beams), vocabulary.begin, device=device)
    scores_BK = torch.full((studies, beams), -torch.inf, device=device)
    scores_BK[:, 0] = 0.0  # the first step expands one hypothesis
    history_BKT = tokens_BK.new_full((studies, beams, max_tokens), vocabulary.pad)
    finished = _Finished.empty(studies, best, max_tokens, vocabulary.pad, device)
    for step in steps(range(max_tokens)):
        logits_BKW = decoder.step(tokens_BK, cache)
        _forbid_(logits_BKW, history_BKT[:, :, :step], vocabulary, config)
        totals_BKW = scores_BK[:, :, None] + torch.log_softmax(logits_BKW.float(), dim=-1)
        scores_BK, picked_BK = totals_BKW.flatten(1).topk(beams, dim=1)
        width = totals_BKW.shape[-1]
        parents_BK, tokens_BK = picked_BK // width, picked_BK % width
        cache.reorder(parents_BK)
        history_BKT = history_BKT.gather(1, parents_BK[:, :, None].expand_as(history_BKT))
        history_BKT[:, :, step] = tokens_BK
        ends_BK = tokens_BK == vocabulary.end
        if step == max_tokens - 1:
            ends_BK = torch.ones_like(ends_BK)
        if ends_BK.any():
            ranked_BK = scores_BK / _penalty(step + 1, config.length_penalty)
            finished.add(ranked_BK.masked_fill(~ends_BK, -torch.inf), scores_BK, history_BKT)
            scores_BK = scores_BK.masked_fill(ends_BK, -torch.inf)
            reachable_B = _reachable(scores_BK.max(dim=1).values, max_tokens, config.length_penalty)
            if (finished.ranked_BK[:, -1] >= reachable_B).all():
                break
    return finished.hypotheses(vocabulary)


def sample(
    decoder: SteppingDecoder,
    encoded: Encoded,
    vocabulary: Vocabulary,
    config: DecodingConfig,
    *,
    max_tokens: int,
    best: int = 1,
    steps: Steps = iter,
) -> list[list[Hypothesis]]:
    """`best` independent samples per study, most probable first, from the top-k / nucleus part of the distribution.

    Only `config.seed` seeds the generator: the same studies in the same batch give the same samples.
    """
    studies, device = encoded.features_BND.shape[0], encoded.features_BND.device
    generator = torch.Generator(device=device).manual_seed(config.seed)
    cache = decoder.start(encoded, beams=best, positions=max_tokens)
    tokens_BK = torch.full((studies, best), vocabulary.begin, device=device)
    scores_BK = torch.zeros(studies, best, device=device)
    live_BK = torch.ones(studies, best, dtype=torch.bool, device=device)
    history_BKT = tokens_BK.new_full((studies, best, max_tokens), vocabulary.end)
    for step in steps(range(max_tokens)):
        logits_BKW = decoder.step(tokens_BK, cache).float()
        _forbid_(logits_BKW, history_BKT[:, :, :step], vocabulary, config)
        if step == 0 and logits_BKW.isnan().any():
            raise _damaged(int(logits_BKW.isnan().flatten(1).any(1).sum()), studies)
        log_BKW = torch.log_softmax(logits_BKW, dim=-1)
        kept_BKW = _top(logits_BKW / config.temperature, config.top_k, config.top_p, config.min_p)
        drawn = torch.multinomial(kept_BKW.softmax(-1).flatten(0, 1), 1, generator=generator)
        tokens_BK = drawn.unflatten(0, (studies, best)).squeeze(-1)
        scores_BK = scores_BK + log_BKW.gather(-1, tokens_BK[..., None]).squeeze(-1) * live_BK
        history_BKT[:, :, step] = torch.where(live_BK, tokens_BK, vocabulary.end)
        live_BK = live_BK & (tokens_BK != vocabulary.end)
        if not live_BK.any():
            break
    finished = _Finished.empty(studies, best, max_tokens, vocabulary.pad, device)
    finished.add(scores_BK, scores_BK, history_BKT)
    return finished.hypotheses(vocabulary)


@dataclass(slots=True)
class _Finished:
    """The best finished hypotheses of every study so far, best first."""

    ranked_BK: Tensor
    scores_BK: Tensor
    tokens_BKT: Tensor

    @classmethod
    def empty(cls, studies: int, best: int, max_tokens: int, pad: int, device: torch.device) -> _Finished:
        nothing_BK = torch.full((studies, best), -torch.inf, device=device)
        tokens_BKT = torch.full((studies, best, max_tokens), pad, device=device)
        return cls(nothing_BK, nothing_BK.clone(), tokens_BKT)

    def add(self, ranked_BK: Tensor, scores_BK: Tensor, tokens_BKT: Tensor) -> None:
        best = self.ranked_BK.shape[1]
        # On ties the older one stays in front.
        ranked_BC = torch.cat([self.ranked_BK, ranked_BK], dim=1)
        order_BK = ranked_BC.sort(dim=1, descending=True, stable=True).indices[:, :best]
        self.ranked_BK = ranked_BC.gather(1, order_BK)
        self.scores_BK = torch.cat([self.scores_BK, scores_BK], dim=1).gather(1, order_BK)
        tokens_BCT = torch.cat([self.tokens_BKT, tokens_BKT], dim=1)
        self.tokens_BKT = tokens_BCT.gather(1, order_BK[:, :, None].expand(-1, -1, tokens_BCT.shape[2]))

    def hypotheses(self, vocabulary: Vocabulary) -> list[list[Hypothesis]]:
        found = []
        for ranked_K, scores_K, tokens_KT in zip(
            self.ranked_BK.tolist(), self.scores_BK.tolist(), self.tokens_BKT.tolist(), strict=True
        ):
            found.append(
                [
                    Hypothesis(_until_end(tokens, vocabulary), score, ranked)
                    for ranked, score, tokens in zip(ranked_K, scores_K, tokens_KT, strict=True)
                    if ranked > -torch.inf
                ]
            )
        return found


def _until_end(tokens: list[int], vocabulary: Vocabulary) -> tuple[int, ...]:
    stops = [index for index, token in enumerate(tokens) if token in (vocabulary.end, vocabulary.pad)]
    return tuple(tokens[: stops[0]] if stops else tokens)


def _reachable(scores_B: Tensor, max_tokens: int, alpha: float) -> Tensor:
    """The best final score a live beam can still reach: log-probabilities only fall, the penalty only grows."""
    return scores_B / _penalty(max_tokens, alpha)


def _penalty(length: int, alpha: float) -> float:
    """The length penalty of Wu et al. (2016), equation 14; 1 for alpha = 0."""
    return float(((5 + length) / 6) ** alpha)


def _forbid_(logits_BKW: Tensor, history_BKT: Tensor, vocabulary: Vocabulary, config: DecodingConfig) -> None:
    for reserved in (vocabulary.pad, vocabulary.begin):
        if reserved != vocabulary.end:
            logits_BKW[:, :, reserved] = -torch.inf
    if history_BKT.shape[2] < config.min_tokens:
        logits_BKW[:, :, vocabulary.end] = -torch.inf
    size = config.block_ngrams
    if size and history_BKT.shape[2] >= size:
        windows_BKGN = history_BKT.unfold(2, size, 1)
        latest_BK1N = history_BKT[:, :, None, history_BKT.shape[2] - size + 1 :]
        seen_BKG = (windows_BKGN[..., :-1] == latest_BK1N).all(-1)
        # Where the last n - 1 words occurred before, the word that followed them is forbidden.
        penalty = torch.zeros_like(logits_BKW).masked_fill_(
            torch.zeros_like(logits_BKW, dtype=torch.bool).scatter_reduce_(
                2, windows_BKGN[..., -1], seen_BKG, reduce="amax"
            ),
            -torch.inf,
        )
        penalty[:, :, vocabulary.end] = 0.0
        logits_BKW += penalty
        # A report that may neither end nor continue ends.
        logits_BKW[:, :, vocabulary.end].masked_fill_(logits_BKW.isneginf().all(-1), 0.0)


def _top(logits_BKW: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Logits with -inf outside the k best words, outside the smallest set of probability p, and below min_p of the best."""
    if top_k:
        kth = logits_BKW.topk(min(top_k, logits_BKW.shape[-1]), dim=-1).values[..., -1:]
        logits_BKW = logits_BKW.masked_fill(logits_BKW < kth, -torch.inf)
    if top_p < 1:
        ordered, indices = logits_BKW.sort(dim=-1, descending=True)
        probability = ordered.softmax(-1)
        outside = probability.cumsum(-1) - probability >= top_p
        outside[..., 0] = False  # keeps the best word, however small p is
        logits_BKW = logits_BKW.masked_fill(outside.gather(-1, indices.argsort(-1)), -torch.inf)
    if min_p:
        least = logits_BKW.amax(-1, keepdim=True) + math.log(min_p)
        logits_BKW = logits_BKW.masked_fill(logits_BKW < least, -torch.inf)
    return logits_BKW
