"""R2GenCMN: Chen et al., "Cross-modal Memory Networks for Radiology Report Generation", ACL-IJCNLP 2021.

Patches and words query a learned memory; the rows that match best respond, and the responses are added to the query (section
2.2 of the paper). One memory with one set of weights serves both, so that image and text meet in it. The plain encoder and
decoder follow; unlike in R2Gen, the patches have sinusoidal positions.

Where paper and released code differ we follow the code, which produced the published numbers: responses are added (in the
paper's text the responses alone are passed on: `--method.no-memory-residual`), and values are projected before the weighting.
`--method.memory-queries` gives the ablations: separate memories, or one for the patches or the words only.

Computes the same numbers as the released code at a fraction of the cost: the weights of the best rows are scattered into a
matrix of zeros, so the product with the values is dense and the backward pass holds no copy of the memory per query
(`benchmarks/memory.py`); the memory is projected once for all patches and once for all words, not once per study; a decoding
step queries for the new words only.

Shapes: B studies, T positions (patches, words, or the beams of one step), R = B x T, S rows of the memory, K the best of them,
N patches, H heads, D width, E = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayscribe.config import RunConfig, TrainConfig
from rayscribe.methods.method import Method, Resources, patch_embedding
from rayscribe.methods.r2gen import RELEASED_ORDER, need_heads, need_own_decoder
from rayscribe.models.layers import Encoded, Linear, waves_PD, xavier_blocks_
from rayscribe.models.report_model import Recall, WordMemory
from rayscribe.settings import need


@dataclass(frozen=True, slots=True, kw_only=True)
class R2GenCmnSettings:
    """The cross-modal memory (section 2.2 of the paper); sizes of the released code."""

    memory_heads: int = 8
    memory_size: int = 2048
    "rows of the cross-modal memory"
    memory_top: int = 32
    "rows that respond to a query, per head"
    memory_queries: Literal["shared", "separate", "visual", "text"] = "shared"
    "one memory for patches and words, one for each, or for one of them only"
    memory_residual: bool = True
    "add responses to the query (released code); false: they replace it (paper)"

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError for a BERT decoder, or for heads or `memory_top` that do not fit."""
        need_own_decoder(run)
        need_heads(run, self.memory_heads)
        fits = 1 <= self.memory_top <= self.memory_size
        need(fits, "--method.memory-top", self.memory_top, f"between 1 and --method.memory-size {self.memory_size}")


class CrossModalMemory(nn.Module):
    """A memory of learned rows; the `top` rows nearest to a query respond, per head."""

    def __init__(self, width: int, *, rows: int, top: int, heads: int, dropout: float, residual: bool) -> None:
        super().__init__()
        self.heads, self.top, self.dropout, self.residual = heads, top, dropout, residual
        self.rows_SD = nn.Parameter(torch.randn(rows, width) / width)
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out = Linear(width, width)
        xavier_blocks_(self.query.weight, 1)
        xavier_blocks_(self.key_value.weight, 2)
        xavier_blocks_(self.out.weight, 1)

    def recall(self) -> Recall:
        """Projects the memory; returns the function that maps (B, T, D) to (B, T, D), each position independently."""
        keys_SD, values_SD = self.key_value(self.rows_SD).chunk(2, dim=-1)
        return partial(self._read, self._split(keys_SD), self._split(values_SD))

    def _read(self, keys_HSE: Tensor, values_HSE: Tensor, x_BTD: Tensor) -> Tensor:
        query_HRE = self._split(self.query(x_BTD).flatten(0, 1)) * keys_HSE.shape[-1] ** -0.5
        scores_HRS = query_HRE @ keys_HSE.transpose(-2, -1)
        best_HRK = scores_HRS.topk(self.top, dim=-1)
        weights_HRK = F.dropout(best_HRK.values.softmax(-1), self.dropout, self.training)
        weights_HRS = torch.zeros_like(scores_HRS, dtype=weights_HRK.dtype).scatter(-1, best_HRK.indices, weights_HRK)
        mixed_HRE = weights_HRS @ values_HSE
        response_BTD = self.out(mixed_HRE.transpose(0, 1).flatten(1)).view_as(x_BTD)
        return x_BTD + response_BTD if self.residual else response_BTD

    def _split(self, x_RD: Tensor) -> Tensor:
        return x_RD.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class CrossModalStage(WordMemory):
    """Patches query the memory, then receive their positions. Also holds the words' memory if that is a separate one."""

    def __init__(self, patches: CrossModalMemory | None, words: CrossModalMemory | None, dropout: float) -> None:
        super().__init__()
        self.patches = patches
        self.words = None if words is patches else words  # a shared memory has one name in the weights
        self.drop = nn.Dropout(dropout)
        self.recall = None if words is None else words.recall

    def forward(self, encoded: Encoded) -> Encoded:
        """Features (B, N, D) to the same shape."""
        features_BND = encoded.features_BND
        if self.patches is not None:
            features_BND = self.patches.recall()(features_BND)
        patches, width = features_BND.shape[1:]
        waves_ND = waves_PD(patches, width, features_BND.device).to(features_BND.dtype)
        return replace(encoded, features_BND=self.drop(features_BND + waves_ND))


def r2gen_cmn_training() -> TrainConfig:
    """The optimiser of R2GenCMN's released IU script (spec 3.4)."""
    return TrainConfig(
        epochs=100,
        patience=50,
        batch_size=16,
        lr=5e-4,  # IU script: lr_ed
        lr_backbone=1e-4,  # IU script: lr_ve
        betas=(0.9, 0.98),  # IU script
        eps=1e-9,
        weight_decay=5e-5,
        amsgrad=True,
        clip_value=None,  # its trainer does not clip, unlike R2Gen's
        schedule="step",
        step_epochs=10,  # IU script; MIMIC: 3
        gamma=0.8,
    )


def r2gen_cmn() -> RunConfig[R2GenCmnSettings]:
    """R2GenCMN on IU X-Ray, as its released script trains it (Chen et al., 2021; spec 3.4)."""
    return RunConfig(system="r2gen_cmn", method=R2GenCmnSettings(), train=r2gen_cmn_training(), seed=7580)  # IU script


def _stages(run: RunConfig[R2GenCmnSettings], channels: int, words: int, resources: Resources) -> list[nn.Module]:
    method, model = run.method, run.model

    def memory() -> CrossModalMemory:
        return CrossModalMemory(
            model.width,
            rows=method.memory_size,
            top=method.memory_top,
            heads=method.memory_heads,
            dropout=model.dropout,
            residual=method.memory_residual,
        )

    embedding = patch_embedding(run, channels, words, resources)
    queries = method.memory_queries
    patches = None if queries == "text" else memory()
    asked_by_words = patches if queries == "shared" else None if queries == "visual" else memory()
    return [*embedding, CrossModalStage(patches, asked_by_words, model.dropout)]


METHOD = Method(
    name="r2gen_cmn",
    settings=R2GenCmnSettings,
    recipes={"r2gen_cmn": r2gen_cmn},
    published=RELEASED_ORDER,
    stages=_stages,
)
