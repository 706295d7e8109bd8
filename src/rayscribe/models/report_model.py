"""The report model: backbone, stages, decoder. A method is another stage or other norms, never another model.

Shapes: B studies, V views, N patches of all views, T positions, K beams, W vocabulary, D width, C backbone channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from rayscribe.models.backbones import Backbone
from rayscribe.models.layers import (
    EPS,
    Affine,
    DecoderLayer,
    Encoded,
    EncoderLayer,
    LayerCache,
    Linear,
    WordEmbedding,
    bias_of,
    init_transformer_,
)
from rayscribe.study import Batch

if TYPE_CHECKING:
    from rayscribe.models.bert_decoder import BertDecoder


Recall = Callable[[Tensor], Tensor]
"(B, T, D) to (B, T, D), position by position: passes embedded words through a memory."


@dataclass(frozen=True, slots=True)
class Reading:
    """A study's images and report as the model encodes them, before scores."""

    seen: Encoded
    "the backbone's features (B, N, C)"
    encoded: Encoded
    "after all stages (B, N, D)"
    hidden_BTD: Tensor
    "last states of the decoder, after its norm"


@dataclass(frozen=True, slots=True)
class Output:
    """Result of a forward pass under teacher forcing."""

    logits_BTW: Tensor
    reading: Reading


class ReportModel(nn.Module):
    """Images to token scores. `stages` run in order between the backbone and the decoder, each Encoded -> Encoded."""

    def __init__(self, backbone: Backbone, stages: Sequence[nn.Module], decoder: Decoder | BertDecoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.stages = nn.ModuleList(stages)
        self.decoder = decoder

    def see(self, batch: Batch) -> Encoded:
        """The backbone's features of all views, concatenated (B, N, C)."""
        if batch.maps_BVNC is not None:
            maps_BVNC = batch.maps_BVNC
        else:
            assert batch.pixels_BVHW is not None
            maps_BVNC = self.backbone(batch.pixels_BVHW, batch.has_view_BV)
        patches = maps_BVNC.shape[2]
        return Encoded(
            maps_BVNC.flatten(1, 2).to(self.decoder.head.weight.dtype),
            batch.has_view_BV.repeat_interleave(patches, dim=1),
            batch.extras,
        )

    def encode(self, batch: Batch) -> Encoded:
        """The decoder's input: features (B, N, D) after all stages."""
        return self._staged(self.see(batch))

    def read(self, batch: Batch, seen: Encoded | None = None) -> Reading:
        """Images and report up to the states that are scored; pass `seen` to reuse the backbone's features."""
        seen = seen or self.see(batch)
        encoded = self._staged(seen)
        return Reading(seen, encoded, self.decoder(batch.tokens_BT[:, :-1], encoded))

    def forward(self, batch: Batch) -> Output:
        """Scores under teacher forcing: position t of the output predicts token t + 1."""
        return self.score(self.read(batch))

    def score(self, reading: Reading) -> Output:
        """Scores (B, T, W) of every word at every position."""
        return Output(self.decoder.head(reading.hidden_BTD), reading)

    def _staged(self, encoded: Encoded) -> Encoded:
        for stage in self.stages:
            encoded = stage(encoded)
        return encoded


class PatchEmbedding(nn.Module):
    """Projects backbone channels to the model's width."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.project = Linear(channels, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, encoded: Encoded) -> Encoded:
        """Features (B, N, C) to (B, N, D)."""
        return replace(encoded, features_BND=self.drop(torch.relu(self.project(encoded.features_BND))))


class PatchEncoder(nn.Module):
    """Transformer encoder over the patches of all views; no positional encoding, as in R2Gen."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, EPS)
        init_transformer_(self)

    def forward(self, encoded: Encoded) -> Encoded:
        """Features (B, N, D) to the same shape."""
        features_BND, mask_B11N = encoded.features_BND, encoded.has_patch_BN[:, None, None, :]
        for layer in self.layers:
            features_BND = layer(features_BND, mask_B11N)
        return replace(encoded, features_BND=self.norm(features_BND))


class WordMemory(nn.Module):
    """A stage whose memory also serves embedded words: `recall` projects the memory and returns the function for words."""

    recall: Callable[[], Recall] | None
    "None if the memory serves the patches alone"


class Norms(Protocol):
    """Source of the gains and biases of the decoder's norms: fixed, or driven by a memory of the words so far."""

    def __call__(self, words_BTD: Tensor) -> tuple[list[Affine], Tensor]:
        """Three norms per layer, for all positions at once; and the state after the last position (B, 1, any width)."""

    def start(self, studies: int, beams: int) -> Tensor:
        """The state before the first word (B, K, any width)."""

    def step(self, words_BKD: Tensor, state_BKM: Tensor) -> tuple[list[Affine], Tensor]:
        """The norms of the newest position, and the state after it."""


class FixedNorms(nn.Module):
    """Ordinary layer norms: learned gains and biases, no state."""

    def __init__(self, sublayers: int, width: int) -> None:
        super().__init__()
        self.gains_SD = nn.Parameter(torch.ones(sublayers, width))
        self.biases_SD = nn.Parameter(torch.zeros(sublayers, width))

    def forward(self, words_BTD: Tensor) -> tuple[list[Affine], Tensor]:
        """The same norms at every position, and an empty state (B, 1, 0)."""
        norms = [Affine(gain, bias) for gain, bias in zip(self.gains_SD, self.biases_SD, strict=True)]
        return norms, self.start(words_BTD.shape[0], 1)

    def start(self, studies: int, beams: int) -> Tensor:
        """An empty state (B, K, 0)."""
        return self.gains_SD.new_zeros(studies, beams, 0)

    def step(self, words_BKD: Tensor, state_BKM: Tensor) -> tuple[list[Affine], Tensor]:
        """The same norms as at every position; the state stays empty."""
        return self(words_BKD)[0], state_BKM


@dataclass(slots=True)
class Cache:
    """Everything that decoding keeps between two positions of K beams per study."""

    layers: list[LayerCache]
    visible_BKS: Tensor
    "which cached slots are ancestors of which beam"
    state_BKM: Tensor
    "state of the norms"
    recall: Recall | None
    "of a memory whose keys and values are already projected"
    prompt: int
    "positions in front of the words"
    position: int = field(default=0)
    "position of the newest word"

    def reorder(self, parents_BK: Tensor) -> None:
        """Continues beam k from beam parents[k]. Keys and values stay in place; only the ancestry changes."""
        self.visible_BKS = self.visible_BKS.gather(1, parents_BK[:, :, None].expand_as(self.visible_BKS))
        self.state_BKM = self.state_BKM.gather(1, parents_BK[:, :, None].expand_as(self.state_BKM))


class Decoder(nn.Module):
    """Words so far and patches to scores of the next word.

    A prompt, the states of a diagnosis, precedes the words. It is read, never predicted: no word of the vocabulary names a
    state, and hidden states cover the words alone.

    With a `memory`, embedded words pass through its `Recall`, which is requested once per pass and once per decoded batch. It
    is a function and not a module, because its weights belong to a stage and have one name there.
    """

    def __init__(
        self,
        embedding: WordEmbedding,
        layers: Sequence[DecoderLayer],
        norms: nn.Module,
        *,
        vocabulary: int,
        width: int,
        memory: Callable[[], Recall] | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.norms: Any = norms  # a module that implements `Norms`
        self.norm = nn.LayerNorm(width, EPS)
        self.head = Linear(width, vocabulary)
        self.memory = memory
        init_transformer_(self.embedding)
        init_transformer_(self.layers)

    def _layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.layers))

    def forward(self, tokens_BT: Tensor, encoded: Encoded) -> Tensor:
        """Hidden states (B, T, D) under teacher forcing; `head` turns them into scores."""
        prompt_BOD = self.embedding.prompt(encoded)
        before = prompt_BOD.shape[1]
        words_BTD = self.embedding(tokens_BT, slice(before, before + tokens_BT.shape[1]))
        x_BTD = torch.cat([prompt_BOD, words_BTD], dim=1) if before else words_BTD
        if self.memory is not None:
            x_BTD = self.memory()(x_BTD)
        norms, _ = self.norms(x_BTD)
        for index, layer in enumerate(self._layers()):
            x_BTD = layer(x_BTD, norms[3 * index : 3 * index + 3], encoded)
        return self.norm(x_BTD[:, before:])

    def start(self, encoded: Encoded, *, beams: int, positions: int) -> Cache:
        """A cache for K beams per study that holds the prompt; patches, memory and prompt are projected once, here."""
        studies = encoded.features_BND.shape[0]
        x_BOD = self.embedding.prompt(encoded)
        before = x_BOD.shape[1]
        slots = before + positions * beams
        caches = [
            LayerCache(layer.cross_attention.keys_values(encoded.features_BND), encoded.has_patch_BN, slots)
            for layer in self._layers()
        ]
        visible_BKS = encoded.has_patch_BN.new_zeros(studies, beams, slots)
        visible_BKS[:, :, :before] = True
        recall = None if self.memory is None else self.memory()
        state_BKM = self.norms.start(studies, beams)
        if before:
            x_BOD = recall(x_BOD) if recall is not None else x_BOD
            norms, state_B1M = self.norms(x_BOD)
            state_BKM = state_B1M.expand_as(state_BKM)
            for index, (layer, past) in enumerate(zip(self._layers(), caches, strict=True)):
                x_BOD = layer(x_BOD, norms[3 * index : 3 * index + 3], encoded, past)
        return Cache(caches, visible_BKS, state_BKM, recall, before)

    def step(self, tokens_BK: Tensor, cache: Cache) -> Tensor:
        """Feeds one word to each of K beams; returns the scores (B, K, W) of the next one.

        The beams of a study take the place of positions in training, so all layers see (B, K, D).
        """
        beams = tokens_BK.shape[1]
        start = cache.prompt + cache.position * beams
        own_K = torch.arange(beams, device=tokens_BK.device)
        cache.visible_BKS[:, own_K, start + own_K] = True
        place = cache.prompt + cache.position
        x_BKD = self.embedding(tokens_BK, slice(place, place + 1))
        if cache.recall is not None:
            x_BKD = cache.recall(x_BKD)
        bias_B1KS = bias_of(cache.visible_BKS[:, None, :, : start + beams], x_BKD)
        norms, cache.state_BKM = self.norms.step(x_BKD, cache.state_BKM)
        for index, (layer, past) in enumerate(zip(self._layers(), cache.layers, strict=True)):
            x_BKD = layer.step(x_BKD, norms[3 * index : 3 * index + 3], past, bias_B1KS, start)
        cache.position += 1
        return self.head(self.norm(x_BKD))
