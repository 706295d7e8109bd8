"""Where a decoder looks while it writes: its attention to the patches, averaged over layers and heads.

It shows what the model used, not where a lesion is; attention can change without any change in the words (Jain and Wallace,
2019).

Shapes: B studies, K reports of a study, T words, H heads, N patches, V views, S patches along a side of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayscribe.models.bert_decoder import BertDecoder
from rayscribe.models.layers import Attention, Encoded
from rayscribe.models.report_model import Decoder


@torch.inference_mode()
def attention_during(
    decoder: Decoder | BertDecoder,
    encoded: Encoded,
    has_view_BV: Tensor,
    tokens: Sequence[Sequence[Sequence[int]]],
    *,
    begin: int,
) -> list[list[NDArray[np.float32]]]:
    """Weights (T, V, S, S) of every study's reports: one map per word and view; the maps of one word sum to 1.

    A study has no maps if the patches of its images do not form squares.
    """
    found = []
    for place, reports in enumerate(tokens):
        views = int(has_view_BV[place].sum())
        own = _only(encoded, place)
        patches = own.features_BND.shape[1]
        side = math.isqrt(patches // views)
        is_square = side * side * views == patches
        attention = [_weights_TN(decoder, report, own, begin) for report in reports] if is_square else []
        found.append([attention_TN.reshape(len(attention_TN), views, side, side) for attention_TN in attention])
    return found


def _only(encoded: Encoded, place: int) -> Encoded:
    """One study, without the patches of its missing views."""
    here = slice(place, place + 1)
    return replace(
        encoded,
        features_BND=encoded.features_BND[here, encoded.has_patch_BN[place]],
        has_patch_BN=encoded.has_patch_BN[here, encoded.has_patch_BN[place]],
        extras={name: tensor[here] for name, tensor in encoded.extras.items()},
        prompt_BO=None if encoded.prompt_BO is None else encoded.prompt_BO[here],
    )


def _weights_TN(
    decoder: Decoder | BertDecoder, report: Sequence[int], encoded: Encoded, begin: int
) -> NDArray[np.float32]:
    """The weights at the position that predicted each word, the one before it."""
    tokens_1T = torch.tensor([[begin, *report[:-1]]], device=encoded.features_BND.device)
    layers: list[Tensor] = []
    with _watched(_cross_attentions(decoder), layers):
        decoder(tokens_1T, encoded)
    mean_TN = torch.stack([weights_1HTN.mean(1)[0] for weights_1HTN in layers]).mean(0)
    # Drop the prompt in front of the words.
    return mean_TN[len(mean_TN) - len(report) :].float().cpu().numpy()


def _cross_attentions(decoder: Decoder | BertDecoder) -> list[nn.Module]:
    if isinstance(decoder, BertDecoder):
        return [layer.crossattention.self for layer in decoder.language.bert.encoder.layer]
    return [layer.cross_attention for layer in decoder.layers]  # type: ignore[misc]  # DecoderLayer


@contextmanager
def _watched(attentions: Sequence[nn.Module], weights: list[Tensor]) -> Iterator[None]:
    """Collects the weights (B, H, T, N) of these attentions while the block runs."""

    def keep(attention: nn.Module, given: tuple[Tensor, ...], returned: Any) -> None:
        # BERT's attention returns its weights next to the mixture.
        weights.append(attention.weighed(*given)[1] if isinstance(attention, Attention) else returned[1])

    handles = [attention.register_forward_hook(keep) for attention in attentions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
