"""R2GenCMN's encoder-decoder in the published form; searched by `reference_r2gen.reference_beam_search`.

Our own plain code, written from the paper and from the names in the published checkpoints; what R2Gen has too comes from
`reference_r2gen`. The memory is read as published: expanded over the rows of the batch and projected for each, and the values
of the best rows gathered from a tensor that is expanded over queries. At a decoding step it is queried for the whole prefix.

The full-prefix form of `next_token` also computes the layers anew for the whole prefix, as in R2Gen. There the published code
of R2GenCMN keeps the keys and values of self-attention; its memory is queried for the whole prefix all the same.

Shapes: B studies, R rows (studies x beams), N patches, T positions, S rows of the memory, K the best of them, H heads, D width,
E = D / H, C backbone channels, W vocabulary.
"""

from __future__ import annotations

import math

import torch
from reference_r2gen import (
    CHANNELS,
    HEADS,
    LAYERS,
    WIDTH,
    Attention,
    EncoderLayer,
    FeedForward,
    Positions,
    Stack,
    Sublayer,
    UnbiasedNorm,
    VisualExtractor,
    Words,
    visible_positions,
)
from torch import Tensor, nn

MEMORY, TOP = 2048, 32


class CrossModalMemory(nn.Module):
    """`linears` are query, key, value and output. The rows stand outside, in `memory_matrix`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, query_RTD: Tensor, memory_SD: Tensor) -> Tensor:
        rows, positions = query_RTD.shape[:2]
        memory_RSD = memory_SD.expand(rows, -1, -1)
        query_RHTE, key_RHSE, value_RHSE = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in zip(self.linears, (query_RTD, memory_RSD, memory_RSD), strict=False)
        )
        scores_RHTS = query_RHTE @ key_RHSE.transpose(-2, -1) / math.sqrt(query_RHTE.shape[-1])
        best_RHTK = scores_RHTS.topk(TOP, dim=-1)
        value_RHTSE = value_RHSE[:, :, None].expand(-1, -1, positions, -1, -1)
        place_RHTKE = best_RHTK.indices[..., None].expand(-1, -1, -1, -1, value_RHSE.shape[-1])
        gathered_RHTKE = value_RHTSE.gather(3, place_RHTKE)
        weights_RHT1K = best_RHTK.values.softmax(-1)[..., None, :]
        mixed_RHTE = (weights_RHT1K @ gathered_RHTKE).squeeze(3)
        return self.linears[3](mixed_RHTE.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """R2Gen's with ordinary norms."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.src_attn = Attention(width, heads)
        self.feed_forward = FeedForward(width)
        self.sublayer = nn.ModuleList(Sublayer(UnbiasedNorm(width)) for _ in range(3))

    def forward(self, x_RTD: Tensor, encoded_RND: Tensor, mask_R1TT: Tensor) -> Tensor:
        normed_RTD = self.sublayer[0].norm(x_RTD)
        x_RTD = x_RTD + self.self_attn(normed_RTD, normed_RTD, normed_RTD, mask_R1TT)
        x_RTD = x_RTD + self.src_attn(self.sublayer[1].norm(x_RTD), encoded_RND, encoded_RND)
        return x_RTD + self.feed_forward(self.sublayer[2].norm(x_RTD))


class Transformer(nn.Module):
    def __init__(self, vocabulary: int, layers: int, cmn: CrossModalMemory) -> None:
        super().__init__()
        self.encoder = Stack([EncoderLayer(WIDTH, HEADS) for _ in range(layers)], WIDTH)
        self.decoder = Stack([DecoderLayer(WIDTH, HEADS) for _ in range(layers)], WIDTH)
        self.src_embed = nn.Sequential(Positions(WIDTH))
        self.tgt_embed = nn.Sequential(Words(vocabulary, WIDTH), Positions(WIDTH))
        self.cmn = cmn

    def decode(self, tokens_RT: Tensor, encoded_RND: Tensor, memory_SD: Tensor) -> Tensor:
        """Hidden states (R, T, D)."""
        words_RTD = self.tgt_embed(tokens_RT)
        words_RTD = words_RTD + self.cmn(words_RTD, memory_SD)
        return self.decoder(words_RTD, encoded_RND, visible_positions(tokens_RT))


class EncoderDecoder(nn.Module):
    """`cmn` and `model.cmn` are one module under two names, as in the published checkpoints."""

    def __init__(self, vocabulary: int, layers: int, memory: int) -> None:
        super().__init__()
        self.att_embed = nn.Sequential(nn.Linear(CHANNELS, WIDTH), nn.ReLU(), nn.Dropout(0.5))
        self.cmn = CrossModalMemory(WIDTH, HEADS)
        self.model = Transformer(vocabulary, layers, self.cmn)
        self.logit = nn.Linear(WIDTH, vocabulary)
        self.memory_matrix = nn.Parameter(torch.randn(memory, WIDTH) / WIDTH)


class ReferenceCMN(nn.Module):
    """R2GenCMN under its published names. Without images, features (B, N, C) go in."""

    def __init__(self, vocabulary: int, *, layers: int = LAYERS, images: bool = False, memory: int = MEMORY) -> None:
        super().__init__()
        if images:
            self.visual_extractor = VisualExtractor()
        self.encoder_decoder = EncoderDecoder(vocabulary, layers, memory)

    def encode(self, features_BNC: Tensor) -> Tensor:
        part = self.encoder_decoder
        features_BND = part.att_embed(features_BNC)
        features_BND = features_BND + part.cmn(features_BND, part.memory_matrix)
        return part.model.encoder(part.model.src_embed(features_BND))

    def forward(self, features_BNC: Tensor, tokens_BT: Tensor) -> Tensor:
        """Log-probabilities (B, T, W) of the token after each of the given ones."""
        return self._scores(self._decode(tokens_BT, self.encode(features_BNC)))

    def next_token(self, tokens_RT: Tensor, encoded_RND: Tensor) -> Tensor:
        """Log-probabilities (R, W) after the whole prefix: everything is computed anew."""
        return self._scores(self._decode(tokens_RT, encoded_RND)[:, -1])

    def _decode(self, tokens_RT: Tensor, encoded_RND: Tensor) -> Tensor:
        return self.encoder_decoder.model.decode(tokens_RT, encoded_RND, self.encoder_decoder.memory_matrix)

    def _scores(self, hidden: Tensor) -> Tensor:
        return torch.log_softmax(self.encoder_decoder.logit(hidden), dim=-1)
