"""A model is a folder that needs nothing else: weights, configuration, vocabulary, provenance, model card.

model.safetensors   all weights, the image encoder included
model.json          configuration, protocol, training provenance, terms of the training data
vocabulary.json     words and ids
retrieval/          PromptMRG, KIF: vectors of the training reports, and the encoder that finds them
graph.json          KIF: the knowledge graph
training-images.txt which images it learned from, so that it is not scored on them
README.md           the model card: what it is, what it is not, how it was trained
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rayscribe import __version__
from rayscribe.config import RunConfig
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import whole_file, write_text
from rayscribe.methods.build import build_model
from rayscribe.methods.resources import Resources
from rayscribe.models.folder import load_weights, read_facts, read_weights, write_weights
from rayscribe.models.report_model import ReportModel
from rayscribe.provenance import terms_of
from rayscribe.settings import from_plain, to_plain

_FORMAT = "rayscribe-model-1"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with all that is needed to use it and to know where it comes from."""

    model: ReportModel
    tokenizer: Tokenizer
    config: RunConfig
    data: dict[str, Any]
    "the manifest's provenance and digest; `terms` says what the training data allow"
    training: dict[str, Any]
    "epoch, step, validation scores; the lineage of teachers, the eldest first"
    resources: Resources = field(default_factory=Resources)


def save_model(folder: Path, trained: TrainedModel) -> None:
    """Every file is replaced as a whole; the weights last, so that an interrupted save leaves a folder that loads."""
    about = {
        "format": _FORMAT,
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "config": to_plain(trained.config),
        "data": trained.data,
        "training": trained.training,
    }
    with whole_file(folder / "vocabulary.json") as temporary:
        trained.tokenizer.save(temporary)
    trained.resources.save(folder)
    write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
    write_text(folder / "README.md", model_card(trained))
    write_weights(folder / "model.safetensors", trained.model, vocabulary_sha256=trained.tokenizer.digest())


def load_model(folder: Path, device: torch.device | str = "cpu") -> TrainedModel:
    """The model in evaluation mode. Raises InputError that says what is missing or what does not fit."""
    about, config = read_about(folder), read_config(folder)
    tokenizer = Tokenizer.load(folder / "vocabulary.json")
    state, metadata = read_weights(folder / "model.safetensors")
    rows = state["decoder.head.bias"].shape[0] if "decoder.head.bias" in state else tokenizer.size
    if rows != tokenizer.size:
        raise InputError(
            f"{folder}: the weights are for {rows} token ids, but vocabulary.json has {tokenizer.size}; "
            "it belongs to another model (the threshold or the training data differ)"
        )
    if metadata.get("vocabulary_sha256") != tokenizer.digest():
        raise InputError(
            f"{folder}: vocabulary.json is not the one that the weights were trained with; copy the whole model folder"
        )
    bare = replace(
        config,
        backbone=replace(config.backbone, weights=""),
        model=replace(config.model, decoder_weights=""),
    )
    resources = Resources.of_model(folder, config)
    model = build_model(bare, tokenizer.size, resources)
    load_weights(model, state, folder / "model.safetensors")
    return TrainedModel(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        config=config,
        data=about["data"],
        training=about["training"],
        resources=resources,
    )


def read_config(folder: Path) -> RunConfig:
    """The settings of a model, without loading weights."""
    try:
        return from_plain(RunConfig, read_about(folder)["config"])
    except (TypeError, KeyError) as error:
        raise InputError(f"{folder / 'model.json'}: {error}; the model was written by another version") from error


def read_about(folder: Path) -> dict[str, Any]:
    """model.json, without loading weights."""
    return read_facts(folder, _FORMAT)


def model_card(trained: TrainedModel) -> str:
    """The text that travels with the weights. It holds no report text."""
    config, data = trained.config, trained.data
    adapter = f", behind it a trained adapter of width {config.jima.adapter}" if config.jima.adapter else ""
    labels = "the built-in rules" if config.diagnosis.labels == "rules" else Path(config.diagnosis.labels).name
    memory = f", {config.diagnosis.reports} retrieved reports a study" if config.retrieves else ""
    diagnosis = f"| diagnosis | 18 conditions, labels of {labels}{memory} |\n" if config.diagnoses else ""
    teachers = trained.training.get("lineage", [])
    eldest = ", ".join(f"{one['system']} {one['weights_sha256'][:12]}" for one in teachers)
    lineage = f"| taught by | {len(teachers)} generations before it: {eldest} |\n" if teachers else ""
    scores = ", ".join(f"{name} {value:.4f}" for name, value in trained.training.get("validation", {}).items())
    return f"""# {config.system} (rayscribe {__version__})

**{DISCLAIMER}**

| | |
|---|---|
| method | {config.system} |
| input | 1 or more chest X-rays of one study, {config.images.size} x {config.images.size}, grey |
| output | a draft of the section: {config.text.section} |
| image encoder | {config.backbone.name}, {"trained" if config.backbone.trainable else "frozen"}, \
started from {Path(config.backbone.weights).name or "random weights"}{adapter} |
| training data | {data.get("source", "not stated")}, {data.get("counts", {})}, digest {data.get("digest", "")[:16]} |
| terms of the data | {terms_of(data)} |
| cleaning, vocabulary | {config.text.cleaning}, {trained.tokenizer.size} ids, threshold {config.text.threshold} |
{diagnosis}{lineage}| selected at | epoch {trained.training.get("epoch", "?")} by validation {config.train.metric} |
| validation scores | {scores or "none"} |
| seed | {config.seed} |

Intended use: research on report generation. The model writes fluent text whether or not the image supports it; it misses
findings and invents others. No part of its output may be used for care without a radiologist who reads the images.

Use it: `rayscribe predict IMAGE... --model THIS_FOLDER`
"""
