"""From a run's settings to a model: backbone, the method's stages, patch encoder, decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rayscribe.config import RunConfig
from rayscribe.data.tokenizer import reserved_ids
from rayscribe.labels import CONDITIONS
from rayscribe.methods import find_method
from rayscribe.methods.method import Resources
from rayscribe.models.backbones import Backbone
from rayscribe.models.bert_decoder import BertDecoder
from rayscribe.models.layers import DecoderLayer, WordEmbedding
from rayscribe.models.report_model import Decoder, PatchEncoder, ReportModel, WordMemory


def build_model(run: RunConfig[Any], vocabulary: int, resources: Resources | None = None) -> ReportModel:
    """The model of `run.system` for a vocabulary of that many ids, with random weights unless the settings name some.

    `resources`: None loads those that the settings name.
    """
    method, sizes = find_method(run.system), run.model
    resources = resources or method.resources(run, None)
    backbone = Backbone(run.backbone)
    words = vocabulary - reserved_ids(run.text.legacy_ids)
    stages = method.stages(run, backbone.channels, words, resources)
    states = method.prompt(run).states
    if sizes.decoder == "bert":
        bert = BertDecoder(
            sizes,
            vocabulary=vocabulary,
            channels=backbone.channels,
            states=states,
            positions=max(512, run.text.max_length + len(CONDITIONS)),
        )
        return ReportModel(backbone, stages, bert)
    encoder = PatchEncoder(sizes.width, sizes.heads, sizes.feedforward, sizes.encoder_layers, sizes.dropout)
    layers = [
        DecoderLayer(sizes.width, sizes.heads, sizes.feedforward, sizes.dropout) for _ in range(sizes.decoder_layers)
    ]
    embedding = WordEmbedding(
        vocabulary,
        sizes.width,
        sizes.dropout,
        positions=max(512, run.text.max_length) + len(CONDITIONS),
        states=states,
    )
    recall = next((stage.recall for stage in stages if isinstance(stage, WordMemory)), None)
    norms = method.norms(run)
    decoder = Decoder(embedding, layers, norms, vocabulary=vocabulary, width=sizes.width, memory=recall)
    return ReportModel(backbone, [*stages, encoder], decoder)


def without_sources(run: RunConfig[Any]) -> RunConfig[Any]:
    """The same settings without initial weights, for a model whose weights come from its own folder."""
    return replace(run, backbone=run.backbone.without_weights(), model=replace(run.model, decoder_weights=""))
