"""Transformer parts shared by every method: pre-norm residual blocks, attention with cached keys and values.

Shapes: B studies, T positions (or the beams of one position), N patches, S cached slots, H heads, D width, E = D / H.
Source of the conventions: R2Gen's released code (Chen et al., EMNLP 2020). Its layer norm divides by the unbiased deviation
plus 1e-6; ours is PyTorch's. The two differ by the constant factor sqrt((D - 1) / D), which `import-r2gen` folds into the
gains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-12  # of the variance: R2Gen adds 1e-6 to the deviation

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Input of the decoder: one feature per patch, and which patches exist.

    A stage replaces what it changes and passes on the rest.
    """

    features_BND: Tensor
    has_patch_BN: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    "those of the batch, and what the stages of a method pass on"
    prompt_BO: Tensor | None = None
    "states in front of the report; a stage fills them in for decoders that read a prompt"


def pooled(features: Encoded) -> Tensor:
    """The mean feature (B, C) over the patches that exist."""
    exists_BN1 = features.has_patch_BN[:, :, None]
    return (features.features_BND.float() * exists_BN1).sum(1) / exists_BN1.sum(1).clamp(min=1)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, by oneDNN where that is faster; identical to PyTorch up to rounding."""
    if not is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether to call oneDNN: float32 on a CPU, without gradients.

    There PyTorch calls MKL, which on AMD processors takes 2 to 3 times as long for the few rows of a decoding step. The
    operator is the one that `torch.compile` emits; it has no gradient.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return _HAS_ONEDNN and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32


class Linear(nn.Linear):
    """PyTorch's linear layer, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b over the last dimension."""
        return linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head attention that projects keys and values separately, so that they can be cached."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out = Linear(width, width)

    def keys_values(self, x_BND: Tensor) -> tuple[Tensor, Tensor]:
        """The projected keys and values, two tensors (B, H, N, E)."""
        keys_BND, values_BND = self.key_value(x_BND).chunk(2, dim=-1)
        return self._split(keys_BND), self._split(values_BND)

    def forward(
        self, x_BTD: Tensor, keys_BHNE: Tensor, values_BHNE: Tensor, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """The mixed values (B, T, D) for x; `mask`, broadcast to (B, H, T, N), is True where a key is visible."""
        mixed_BHTE = F.scaled_dot_product_attention(
            self._split(self.query(x_BTD)),
            keys_BHNE,
            values_BHNE,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.out(mixed_BHTE.transpose(1, 2).flatten(2))

    def weighed(self, x_BTD: Tensor, keys_BHNE: Tensor, values_BHNE: Tensor) -> tuple[Tensor, Tensor]:
        """The same with every key visible; also returns the weights (B, H, T, N), before dropout."""
        query_BHTE = self._split(self.query(x_BTD))
        weights_BHTN = (query_BHTE @ keys_BHNE.transpose(-2, -1) * query_BHTE.shape[-1] ** -0.5).softmax(-1)
        mixed_BHTE = F.dropout(weights_BHTN, self.dropout, self.training) @ values_BHNE
        return self.out(mixed_BHTE.transpose(1, 2).flatten(2)), weights_BHTN

    def step(self, x_BKD: Tensor, keys_BHNE: Tensor, values_BHNE: Tensor, bias: Tensor) -> Tensor:
        """The same for the few positions of one decoding step; `bias` is 0 where a key is visible and -inf elsewhere.

        For three queries, plain products take two thirds of the fused kernel's time on a CPU.
        """
        query_BHKE = self._split(self.query(x_BKD))
        scores_BHKN = (query_BHKE * query_BHKE.shape[-1] ** -0.5) @ keys_BHNE.transpose(-2, -1)
        mixed_BHKE = (scores_BHKN + bias).softmax(-1) @ values_BHNE
        return self.out(mixed_BHKE.transpose(1, 2).flatten(2))

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def bias_of(mask: Tensor, like: Tensor) -> Tensor:
    """Additive bias of attention scores: 0 where the mask is True, -inf elsewhere."""
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, -torch.inf)


def feed_forward(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, linear; from `width` to `hidden` and back."""
    return nn.Sequential(Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Self-attention over patches, then feed-forward; each behind its norm, each with a residual connection."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.feed_forward = feed_forward(width, hidden, dropout)
        self.attention_norm = nn.LayerNorm(width, EPS)
        self.feed_forward_norm = nn.LayerNorm(width, EPS)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor, mask_B11N: Tensor) -> Tensor:
        """Encodes the patches (B, N, D); `mask_B11N` is True where a patch exists."""
        normed_BND = self.attention_norm(x_BND)
        x_BND = x_BND + self.drop(
            self.attention(normed_BND, *self.attention.keys_values(normed_BND), mask=mask_B11N),
        )
        return x_BND + self.drop(self.feed_forward(self.feed_forward_norm(x_BND)))


class LayerCache:
    """Keys and values of one decoder layer. Entries stay where they are written.

    The slots of a prompt come first, one per position for all beams; then slot = prompt + position x beams + beam.
    """

    def __init__(self, cross: tuple[Tensor, Tensor], has_patch_BN: Tensor, slots: int) -> None:
        self.cross = cross[0].contiguous(), cross[1].contiguous()  # contiguous: read at every step
        self.cross_bias = bias_of(has_patch_BN[:, None, None, :], cross[0])
        studies, heads, _, head_width = cross[0].shape
        self.keys_BHSE = cross[0].new_empty(studies, heads, slots, head_width)
        self.values_BHSE = torch.empty_like(self.keys_BHSE)

    def extend(self, keys_BHKE: Tensor, values_BHKE: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Writes slots from `start` on; returns the keys and values of all slots so far (B, H, S, E)."""
        end = start + keys_BHKE.shape[2]
        self.keys_BHSE[:, :, start:end] = keys_BHKE
        self.values_BHSE[:, :, start:end] = values_BHKE
        return self.keys_BHSE[:, :, :end], self.values_BHSE[:, :, :end]


class DecoderLayer(nn.Module):
    """Self-attention, attention to the patches, feed-forward. The gains and biases of the three norms are passed in."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.feed_forward = feed_forward(width, hidden, dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, norms: list[Affine], encoded: Encoded, cache: LayerCache | None = None) -> Tensor:
        """All positions at once (B, T, D), each seeing itself and earlier ones; `cache` stores them in its first slots."""
        attend_self, attend_patches, feed = norms
        normed_BTD = attend_self(x_BTD)
        keys_values = self.self_attention.keys_values(normed_BTD)
        if cache is not None:
            cache.extend(*keys_values, 0)
        x_BTD = x_BTD + self.drop(self.self_attention(normed_BTD, *keys_values, causal=True))
        cross = self.cross_attention.keys_values(encoded.features_BND)
        mask = encoded.has_patch_BN[:, None, None, :]
        x_BTD = x_BTD + self.drop(self.cross_attention(attend_patches(x_BTD), *cross, mask=mask))
        return x_BTD + self.drop(self.feed_forward(feed(x_BTD)))

    def step(self, x_BKD: Tensor, norms: list[Affine], cache: LayerCache, bias_B1KS: Tensor, start: int) -> Tensor:
        """The newest position of K beams (B, K, D); `bias` lets each beam see the cached slots of its ancestors only."""
        attend_self, attend_patches, feed = norms
        normed_BKD = attend_self(x_BKD)
        past = cache.extend(*self.self_attention.keys_values(normed_BKD), start)
        x_BKD = x_BKD + self.self_attention.step(normed_BKD, *past, bias_B1KS)
        x_BKD = x_BKD + self.cross_attention.step(attend_patches(x_BKD), *cache.cross, cache.cross_bias)
        return x_BKD + self.feed_forward(feed(x_BKD))


@dataclass(frozen=True, slots=True)
class Affine:
    """A layer norm whose gain and bias are shared by all positions (D) or differ by position (B, T, D)."""

    gain: Tensor
    bias: Tensor

    def __call__(self, x_BTD: Tensor) -> Tensor:
        """The normalised x, times the gain, plus the bias; same shape as x."""
        width = (x_BTD.shape[-1],)
        if self.gain.ndim == 1:
            return F.layer_norm(x_BTD, width, self.gain, self.bias, EPS)
        return torch.addcmul(self.bias, F.layer_norm(x_BTD, width, eps=EPS), self.gain)


class WordEmbedding(nn.Module):
    """Words scaled by sqrt(D), plus sinusoidal positions (Vaswani et al., 2017); a prompt's states are embedded likewise."""

    positions_PD: Tensor

    def __init__(self, vocabulary: int, width: int, dropout: float, positions: int = 512, states: int = 0) -> None:
        """`states`: number of different states at a prompt's positions; 0: no prompt."""
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.states = nn.Embedding(states, width) if states else None
        self.drop = nn.Dropout(dropout)
        self.register_buffer("positions_PD", waves_PD(positions, width), persistent=False)

    def forward(self, tokens_BT: Tensor, positions: slice) -> Tensor:
        """Embedded words (B, T, D) at these positions."""
        return self._placed(self.words(tokens_BT), positions)

    def prompt(self, encoded: Encoded) -> Tensor:
        """The states embedded from position 0 on (B, O, D); O is 0 if this decoder reads no prompt."""
        if self.states is None:
            return encoded.features_BND.new_zeros(len(encoded.features_BND), 0, self.words.embedding_dim)
        assert encoded.prompt_BO is not None
        return self._placed(self.states(encoded.prompt_BO), slice(0, encoded.prompt_BO.shape[1]))

    def _placed(self, x_BTD: Tensor, positions: slice) -> Tensor:
        return self.drop(x_BTD * math.sqrt(self.words.embedding_dim) + self.positions_PD[positions])


def waves_PD(positions: int, width: int, device: torch.device | None = None) -> Tensor:
    """Alternating sines and cosines, with wavelengths from 2 pi to 20,000 pi (Vaswani et al., 2017)."""
    place_P1 = torch.arange(positions, device=device)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    return torch.stack([torch.sin(place_P1 * rate), torch.cos(place_P1 * rate)], dim=-1).flatten(1)


def xavier_blocks_(weight: Tensor, blocks: int) -> None:
    """Xavier-uniform over each of `blocks` matrices stacked in one weight, as if they were separate layers."""
    for block in weight.chunk(blocks):
        nn.init.xavier_uniform_(block)


def init_transformer_(module: nn.Module) -> None:
    """Xavier-uniform over every weight matrix, fused projections block by block; biases keep PyTorch's default (R2Gen)."""
    for part in module.modules():
        if isinstance(part, Attention):
            xavier_blocks_(part.query.weight, 1)
            xavier_blocks_(part.key_value.weight, 2)
            xavier_blocks_(part.out.weight, 1)
        elif isinstance(part, nn.Sequential):
            for layer in part:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
        elif isinstance(part, nn.Embedding):
            nn.init.xavier_uniform_(part.weight)
