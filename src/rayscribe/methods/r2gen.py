"""R2Gen: Chen et al., "Generating Radiology Reports via Memory-driven Transformer", EMNLP 2020.

A relational memory reads the words so far, one after another (section 2.2 of the paper), and drives the gains and biases of
every layer norm in the decoder (memory-driven conditional layer normalisation, section 2.3). The rest is the baseline.

Differences from the released code, none of which changes what can be learned: memory and decoder share one embedding call,
hence one dropout mask; the nine pairs of MCLN networks are two wide products, because they read the same memory state; the
words are projected before the recurrence.

Shapes: B studies, T positions, K beams, R = rows of both, G memory slots, D width, M = G x D, S = 2 x norms of the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayscribe.config import BackboneConfig, ImageConfig, ModelConfig, RunConfig, TrainConfig
from rayscribe.drafts import DecodingConfig
from rayscribe.methods.method import Method, Published
from rayscribe.models.layers import Affine, Linear, is_for_onednn, linear, xavier_blocks_
from rayscribe.settings import need

RELEASED_ORDER = (
    Published(setting="text.legacy_ids", value=True, source="released code: one id for pad, begin and end"),
    Published(setting="train.bucket", value=False, source="released code: batches of any report length"),
)
"Where R2Gen's released trainer, which later papers reused, differs from our defaults."


@dataclass(frozen=True, slots=True, kw_only=True)
class R2GenSettings:
    """The relational memory (section 2.2 of the paper); sizes of the released code."""

    memory_slots: int = 3
    "rows of the relational memory"
    memory_heads: int = 8

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError for a BERT decoder, no slots, or heads that do not divide the width."""
        need_own_decoder(run)
        need(self.memory_slots >= 1, "--method.memory-slots", self.memory_slots, "at least 1")
        need_heads(run, self.memory_heads)


def need_own_decoder(run: RunConfig[Any]) -> None:
    """Raises InputError for a BERT decoder, whose norms and words are out of reach."""
    need(run.model.decoder == "own", "--model.decoder", run.model.decoder, f"{run.system} needs the decoder `own`")


def need_heads(run: RunConfig[Any], heads: int) -> None:
    """Raises InputError unless a memory's heads divide the model's width."""
    width = run.model.width
    need(heads >= 1 and width % heads == 0, "--method.memory-heads", heads, f"must divide --model.width {width}")


class RelationalMemory(nn.Module):
    """A matrix of slots that attends to itself and to the current word, gated as in an LSTM."""

    def __init__(self, width: int, slots: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width, self.slots, self.heads, self.dropout = width, slots, heads, dropout
        self.query_key_value = Linear(width, 3 * width)
        self.out = Linear(width, width)
        hidden, last = Linear(width, width), Linear(width, width)
        self.mlp = nn.Sequential(hidden, nn.ReLU(), last, nn.ReLU())
        self.word_gates = Linear(width, 2 * width)
        self.memory_gates = Linear(width, 2 * width)
        xavier_blocks_(self.query_key_value.weight, 3)
        for layer in (self.out, hidden, last, self.word_gates, self.memory_gates):
            nn.init.xavier_uniform_(layer.weight)

    def initial(self, rows: int) -> Tensor:
        """The first rows of the identity (R, G, D), not learned."""
        return torch.eye(self.slots, self.width, device=self.out.weight.device, dtype=self.out.weight.dtype).expand(
            rows, -1, -1
        )

    def read_words(self, words_RTD: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of the words for all positions at once: key and value (R, T, 2D), gates (R, T, 2D)."""
        key_value = linear(
            words_RTD, self.query_key_value.weight[self.width :], self.query_key_value.bias[self.width :]
        )
        return key_value, self.word_gates(words_RTD)

    def step(self, memory_RGD: Tensor, word_key_value_RC: Tensor, word_gates_RC: Tensor) -> Tensor:
        """The memory (R, G, D) after one more word."""
        query_RGD, key_value_RGC = self.query_key_value(memory_RGD).split([self.width, 2 * self.width], dim=-1)
        key_value_RQC = torch.cat([key_value_RGC, word_key_value_RC[:, None]], dim=1)
        key_RQD, value_RQD = key_value_RQC.chunk(2, dim=-1)
        read_RHGE = F.scaled_dot_product_attention(
            self._split(query_RGD),
            self._split(key_RQD),
            self._split(value_RQD),
            dropout_p=self.dropout if self.training else 0.0,
        )
        candidate_RGD = memory_RGD + self.out(read_RHGE.transpose(1, 2).flatten(2))
        candidate_RGD = candidate_RGD + self.mlp(candidate_RGD)
        gates_RGC = word_gates_RC[:, None] + self.memory_gates(torch.tanh(memory_RGD))
        take_RGD, keep_RGD = torch.sigmoid(gates_RGC).chunk(2, dim=-1)
        return take_RGD * torch.tanh(candidate_RGD) + keep_RGD * memory_RGD

    def _split(self, x_RQD: Tensor) -> Tensor:
        return x_RQD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MemoryNorms(nn.Module):
    """Gains and biases of the decoder's norms: learned ones plus what two small networks per norm read from the memory."""

    def __init__(self, memory: RelationalMemory, sublayers: int) -> None:
        super().__init__()
        width = memory.width
        self.memory = memory
        self.gains_SD = nn.Parameter(torch.ones(sublayers, width))
        self.biases_SD = nn.Parameter(torch.zeros(sublayers, width))
        networks = 2 * sublayers  # gain of norm 0, bias of norm 0, gain of norm 1, ...
        self.first = Linear(memory.slots * width, networks * width)
        self.second_weight_SDD = nn.Parameter(torch.empty(networks, width, width))
        self.second_bias_S1D = nn.Parameter(torch.full((networks, 1, width), 0.1))
        xavier_blocks_(self.first.weight, networks)
        nn.init.constant_(self.first.bias, 0.1)
        for block in self.second_weight_SDD:
            nn.init.xavier_uniform_(block)

    def forward(self, words_BTD: Tensor) -> tuple[list[Affine], Tensor]:
        """Three norms per layer at all positions, and the last memory (B, 1, M)."""
        key_value_BTC, gates_BTC = self.memory.read_words(words_BTD)
        memory_BGD = self.memory.initial(words_BTD.shape[0])
        states = []
        for key_value_BC, gates_BC in zip(key_value_BTC.unbind(1), gates_BTC.unbind(1), strict=True):
            memory_BGD = self.memory.step(memory_BGD, key_value_BC, gates_BC)
            states.append(memory_BGD.flatten(1))
        return self._norms(torch.stack(states, dim=1)), states[-1][:, None]

    def start(self, studies: int, beams: int) -> Tensor:
        """The initial memory of every beam (B, K, M)."""
        return self.memory.initial(studies * beams).flatten(1).unflatten(0, (studies, beams))

    def step(self, words_BKD: Tensor, state_BKM: Tensor) -> tuple[list[Affine], Tensor]:
        """The norms after one more word per beam, and the new memory (B, K, M)."""
        key_value_BKC, gates_BKC = self.memory.read_words(words_BKD)
        memory_RGD = state_BKM.flatten(0, 1).unflatten(-1, (self.memory.slots, self.memory.width))
        memory_RGD = self.memory.step(memory_RGD, key_value_BKC.flatten(0, 1), gates_BKC.flatten(0, 1))
        state_BKM = memory_RGD.flatten(1).unflatten(0, words_BKD.shape[:2])
        return self._norms(state_BKM), state_BKM

    def _norms(self, state_BTM: Tensor) -> list[Affine]:
        rows = state_BTM.flatten(0, 1)
        networks, width = self.second_weight_SDD.shape[:2]
        hidden_SRD = torch.relu(self.first(rows)).unflatten(-1, (networks, width)).transpose(0, 1)
        if is_for_onednn(rows, self.second_weight_SDD):
            second = zip(hidden_SRD, self.second_weight_SDD, self.second_bias_S1D[:, 0], strict=True)
            shifts_SRD = torch.stack([linear(*one) for one in second])
        else:
            shifts_SRD = torch.baddbmm(self.second_bias_S1D, hidden_SRD, self.second_weight_SDD.transpose(1, 2))
        shifts_SBTD = shifts_SRD.unflatten(1, state_BTM.shape[:2])
        gains = self.gains_SD[:, None, None] + shifts_SBTD[0::2]
        biases = self.biases_SD[:, None, None] + shifts_SBTD[1::2]
        return [Affine(gain, bias) for gain, bias in zip(gains, biases, strict=True)]


def r2gen_training() -> TrainConfig:
    """The optimiser of R2Gen's released IU script (spec 2.4), which later papers start from."""
    return TrainConfig(
        epochs=100,
        patience=50,
        batch_size=16,
        lr=1e-4,  # IU script: lr_ed
        lr_backbone=5e-5,  # IU script: lr_ve
        weight_decay=5e-5,
        amsgrad=True,
        clip_value=0.1,  # by value, in the trainer
        schedule="step",
        step_epochs=50,  # IU script; the paper says x 0.8 every epoch
        gamma=0.1,
    )


def r2gen() -> RunConfig[R2GenSettings]:
    """R2Gen on IU X-Ray, as its released script trains it (Chen et al., 2020; spec 2.4)."""
    return RunConfig(system="r2gen", method=R2GenSettings(), train=r2gen_training(), seed=9223)  # IU script


def demo() -> RunConfig[R2GenSettings]:
    """A small R2Gen that learns from drawn X-rays in a minute on two CPU cores; the sizes are ours.

    No dropout and no patch encoder: with either, 400 studies teach it the wording long before they teach it to look at images.
    """
    return RunConfig(
        system="r2gen",
        method=R2GenSettings(memory_heads=4),
        images=ImageConfig(size=96, resize=104),
        backbone=BackboneConfig(name="test_resnet"),
        model=ModelConfig(
            width=128,
            heads=4,
            feedforward=256,
            encoder_layers=0,
            decoder_layers=1,
            dropout=0.0,
            patch_dropout=0.0,
        ),
        train=TrainConfig(
            epochs=12,
            optimizer="adamw",
            lr=2e-3,
            lr_backbone=2e-3,
            weight_decay=0.01,
            schedule="cosine",
            warmup_steps=20,
            clip_value=None,
            clip_norm=1.0,
        ),
        decoding=DecodingConfig(beams=1),
        seed=0,
    )


def _memory_norms(run: RunConfig[R2GenSettings]) -> nn.Module:
    model, method = run.model, run.method
    memory = RelationalMemory(model.width, method.memory_slots, method.memory_heads, model.dropout)
    return MemoryNorms(memory, 3 * model.decoder_layers)


METHOD = Method(
    name="r2gen",
    settings=R2GenSettings,
    recipes={"r2gen": r2gen, "demo": demo},
    published=RELEASED_ORDER,
    norms=_memory_norms,
)
