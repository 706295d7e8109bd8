"""Names to objects, in plain dictionaries. Edit this to add something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rayscribe.config import ModelConfig, RunConfig
from rayscribe.data.conditions import CONDITIONS
from rayscribe.data.entities import EntityTargets
from rayscribe.data.tokenizer import reserved_ids
from rayscribe.methods.distill import DistillTask
from rayscribe.methods.ithn import HardNegativeTask
from rayscribe.methods.jima import CurriculumTask, EntityFusion
from rayscribe.methods.kif_isd import KnowledgeStage
from rayscribe.methods.promptmrg import STATES, Diagnoses, DiagnosisStage, DiagnosisTask, ReportMemory
from rayscribe.methods.r2gen import MemoryNorms, RelationalMemory
from rayscribe.methods.r2gen_cmn import CrossModalMemory, CrossModalStage
from rayscribe.methods.resources import NOTHING, Resources
from rayscribe.models.backbones import Backbone
from rayscribe.models.bert_decoder import BertDecoder
from rayscribe.models.layers import DecoderLayer, WordEmbedding
from rayscribe.models.report_model import Decoder, FixedNorms, PatchEmbedding, PatchEncoder, ReportModel
from rayscribe.study import Batch
from rayscribe.task import HostTask, ReportTask, Task


def build_model(config: RunConfig, vocabulary: int, resources: Resources = NOTHING) -> ReportModel:
    """The model of `config.model.method` for a vocabulary of that many ids."""
    model = config.model
    backbone = Backbone(config.backbone)
    first = _FIRST[model.method](config, backbone.channels, resources)
    if model.decoder == "bert":
        return ReportModel(backbone, first, _bert_decoder(config, vocabulary, backbone.channels))
    words = vocabulary - reserved_ids(config.text.legacy_ids)
    patches = _PATCHES[model.method](config, backbone.channels, words)
    memory = _MEMORIES[model.method](model)
    encoder = PatchEncoder(model.width, model.heads, model.feedforward, model.encoder_layers, model.dropout)
    layers = [
        DecoderLayer(model.width, model.heads, model.feedforward, model.dropout) for _ in range(model.decoder_layers)
    ]
    embedding = WordEmbedding(
        vocabulary,
        model.width,
        model.dropout,
        positions=max(512, config.text.max_length) + len(CONDITIONS),
        states=STATES if config.prompts else 0,
    )
    decoder = Decoder(
        embedding,
        layers,
        _NORMS[model.method](model),
        vocabulary=vocabulary,
        width=model.width,
        memory=memory and memory.recall,
    )
    stages = [patches, encoder] if memory is None else [patches, memory, encoder]
    return ReportModel(backbone, [*first, *stages], decoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What tasks may want to know of the training split."""

    studies: int
    batches_per_epoch: int
    partners: Sequence[Sequence[int]] = ()
    "ITHN: rows of the mined negatives of every study"
    entities: EntityTargets | None = None
    "JIMA: the clinical words of every study"
    batches: Callable[[], Iterable[Batch]] | None = None
    "JIMA: reads this process's share of the studies once, uncropped"
    diagnoses: Diagnoses | None = None
    "PromptMRG, KIF: states of the conditions"
    teacher: tuple[RunConfig, ReportModel] | None = None
    "ISD: the generation before"


def build_task(config: RunConfig, model: ReportModel, training: Training) -> Task[Any]:
    """What is trained: the model's own task, or plug-ins around it."""
    host = _HOSTS[config.model.method](config, model, training)
    if training.teacher is not None:
        taught_as, teacher = training.teacher
        host = DistillTask(host, _HOSTS[taught_as.model.method](taught_as, teacher, training), config.distill)
    if not config.ithn.enabled:
        return host
    return HardNegativeTask(
        host,
        config.ithn,
        studies=training.studies,
        batches_per_epoch=training.batches_per_epoch,
        partners=training.partners,
    )


def _bert_decoder(config: RunConfig, vocabulary: int, channels: int) -> BertDecoder:
    return BertDecoder(
        config.model,
        vocabulary=vocabulary,
        channels=channels,
        states=STATES if config.prompts else 0,
        positions=max(512, config.text.max_length + len(CONDITIONS)),
    )


def _report_task(config: RunConfig, model: ReportModel, training: Training) -> HostTask[Any]:
    return ReportTask(model, label_smoothing=config.train.label_smoothing)


def _curriculum_task(config: RunConfig, model: ReportModel, training: Training) -> HostTask[Any]:
    fusion = model.stages[0]
    assert isinstance(fusion, EntityFusion) and training.entities and training.batches
    return CurriculumTask(
        model,
        fusion,
        config.jima,
        entities=training.entities,
        training=training.batches,
        label_smoothing=config.train.label_smoothing,
    )


def _diagnosis_task(config: RunConfig, model: ReportModel, training: Training) -> HostTask[Any]:
    stage = model.stages[0]
    assert isinstance(stage, DiagnosisStage) and training.diagnoses
    return DiagnosisTask(
        model, stage, config.diagnosis, known=training.diagnoses, label_smoothing=config.train.label_smoothing
    )


def _nothing_first(config: RunConfig, channels: int, resources: Resources) -> list[nn.Module]:
    return []


def _diagnosis(config: RunConfig, channels: int, resources: Resources) -> list[nn.Module]:
    retrieval, memory = resources.retrieval, None
    if retrieval is not None:
        findings_FM = torch.from_numpy(retrieval.findings_FM) if config.kif.query == "findings" else None
        memory = ReportMemory(channels, retrieval.width, findings_FM=findings_FM)
    return [DiagnosisStage(channels, memory)]


def _diagnosis_and_knowledge(config: RunConfig, channels: int, resources: Resources) -> list[nn.Module]:
    assert resources.graph is not None
    return [*_diagnosis(config, channels, resources), KnowledgeStage(channels, resources.graph, config.kif)]


def _patch_embedding(config: RunConfig, channels: int, words: int) -> nn.Module:
    return PatchEmbedding(channels, config.model.width, config.model.patch_dropout)


def _entity_fusion(config: RunConfig, channels: int, words: int) -> nn.Module:
    return EntityFusion(channels, words, config.model.width, config.model.patch_dropout, config.jima)


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


_FIRST: dict[str, Callable[[RunConfig, int, Resources], list[nn.Module]]] = {
    "baseline": _nothing_first,
    "r2gen": _nothing_first,
    "r2gen_cmn": _nothing_first,
    "jima": _nothing_first,
    "promptmrg": _diagnosis,
    "kif": _diagnosis_and_knowledge,
}
_PATCHES: dict[str, Callable[[RunConfig, int, int], nn.Module]] = {
    "baseline": _patch_embedding,
    "r2gen": _patch_embedding,
    "r2gen_cmn": _patch_embedding,
    "jima": _entity_fusion,
    "promptmrg": _patch_embedding,
    "kif": _patch_embedding,
}
_HOSTS: dict[str, Callable[[RunConfig, ReportModel, Training], HostTask[Any]]] = {
    "baseline": _report_task,
    "r2gen": _report_task,
    "r2gen_cmn": _report_task,
    "jima": _curriculum_task,
    "promptmrg": _diagnosis_task,
    "kif": _diagnosis_task,
}
_NORMS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "baseline": _fixed_norms,
    "r2gen": _memory_norms,
    "r2gen_cmn": _fixed_norms,
    "jima": _fixed_norms,
    "promptmrg": _fixed_norms,
    "kif": _fixed_norms,
}
_MEMORIES: dict[str, Callable[[ModelConfig], CrossModalStage | None]] = {
    "baseline": _no_memory,
    "r2gen": _no_memory,
    "r2gen_cmn": _cross_modal,
    "jima": _no_memory,
    "promptmrg": _no_memory,
    "kif": _no_memory,
}
