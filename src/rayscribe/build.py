"""Names to objects, in plain dictionaries. Edit this to add something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rayscribe.config import ModelConfig, RunConfig
from rayscribe.methods.ithn import HardNegativeTask
from rayscribe.methods.r2gen import MemoryNorms, RelationalMemory
from rayscribe.methods.r2gen_cmn import CrossModalMemory, CrossModalStage
from rayscribe.models.backbones import Backbone
from rayscribe.models.layers import DecoderLayer, WordEmbedding
from rayscribe.models.report_model import Decoder, FixedNorms, PatchEmbedding, PatchEncoder, ReportModel
from rayscribe.task import ReportTask, Task


def build_model(config: RunConfig, vocabulary: int) -> ReportModel:
    """The model of `config.model.method` for a vocabulary of that many ids."""
    model = config.model
    backbone = Backbone(config.backbone)
    patches = PatchEmbedding(backbone.channels, model.width, model.patch_dropout)
    memory = _MEMORIES[model.method](model)
    encoder = PatchEncoder(model.width, model.heads, model.feedforward, model.encoder_layers, model.dropout)
    layers = [
        DecoderLayer(model.width, model.heads, model.feedforward, model.dropout) for _ in range(model.decoder_layers)
    ]
    embedding = WordEmbedding(vocabulary, model.width, model.dropout, positions=max(512, config.text.max_length))
    decoder = Decoder(
        embedding,
        layers,
        _NORMS[model.method](model),
        vocabulary=vocabulary,
        width=model.width,
        memory=memory and memory.recall,
    )
    stages = [patches, encoder] if memory is None else [patches, memory, encoder]
    return ReportModel(backbone, stages, decoder)


def build_task(config: RunConfig, model: ReportModel, *, studies: int, batches_per_epoch: int) -> Task[Any]:
    """What is trained: the model's own task, or a plug-in around it. `studies` counts the training split."""
    host = ReportTask(model)
    if not config.ithn.enabled:
        return host
    return HardNegativeTask(host, config.ithn, studies=studies, batches_per_epoch=batches_per_epoch)


def _fixed_norms(model: ModelConfig) -> nn.Module:
    return FixedNorms(3 * model.decoder_layers, model.width)


def _memory_norms(model: ModelConfig) -> nn.Module:
    memory = RelationalMemory(model.width, model.memory_slots, model.memory_heads, model.dropout)
    return MemoryNorms(memory, 3 * model.decoder_layers)


def _no_memory(model: ModelConfig) -> None:
    return None


def _cross_modal(model: ModelConfig) -> CrossModalStage:
    def memory() -> CrossModalMemory:
        return CrossModalMemory(
            model.width,
            rows=model.memory_size,
            top=model.memory_top,
            heads=model.memory_heads,
            dropout=model.dropout,
            residual=model.memory_residual,
        )

    queries = model.memory_queries
    patches = None if queries == "text" else memory()
    words = patches if queries == "shared" else None if queries == "visual" else memory()
    return CrossModalStage(patches, words, model.dropout)


_NORMS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "baseline": _fixed_norms,
    "r2gen": _memory_norms,
    "r2gen_cmn": _fixed_norms,
}
_MEMORIES: dict[str, Callable[[ModelConfig], CrossModalStage | None]] = {
    "baseline": _no_memory,
    "r2gen": _no_memory,
    "r2gen_cmn": _cross_modal,
}
