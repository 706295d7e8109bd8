"""A model is a folder that needs nothing else: weights, configuration, vocabulary, provenance, model card.

model.safetensors   all weights, the image encoder included
model.json          configuration, protocol, training provenance, terms of the training data
vocabulary.json     words and ids
(more)              what a method looks up: an index of training reports, a graph
training-images.txt which images it learned from, so that it is not scored on them
README.md           the model card: what it is, what it is not, how it was trained
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayscribe import __version__
from rayscribe.config import RunConfig
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import whole_file, write_text
from rayscribe.methods import find_method, run_from_plain
from rayscribe.methods.build import build_model, without_sources
from rayscribe.methods.fitted import Fitted
from rayscribe.methods.method import CardLine, Method, TrainedModel
from rayscribe.models.backbones import Backbone
from rayscribe.models.folder import (
    FITTED,
    REPORT_MODEL,
    WEIGHTS,
    facts_of,
    load_weights,
    named_tensors,
    read_facts,
    read_weights,
    write_tensors,
    write_weights,
)
from rayscribe.provenance import terms_of
from rayscribe.settings import to_plain

_BACKBONE_PART, _FITTED_PART = "backbone.", "fitted."


def save_model(folder: Path, trained: TrainedModel) -> None:
    """Every file is replaced as a whole; the weights last, so that an interrupted save leaves a folder that loads."""
    about = {
        "format": REPORT_MODEL,
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
    method = find_method(config.system)
    resources = method.resources(config, folder)
    model = build_model(without_sources(config), tokenizer.size, resources)
    load_weights(model, state, folder / "model.safetensors")
    return TrainedModel(
        method=method,
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        config=config,
        data=about["data"],
        training=about["training"],
        resources=resources,
    )


def read_config(folder: Path) -> RunConfig[Any]:
    """The settings of a model, without loading weights."""
    path, about = folder / "model.json", facts_of(folder)
    try:
        return run_from_plain(about["config"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: {error}; the model was written by another version") from error


def read_about(folder: Path) -> dict[str, Any]:
    """model.json, without loading weights."""
    return _whole(folder, read_facts(folder, REPORT_MODEL))


def _whole(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Raises InputError where model.json lacks what every model's has."""
    if lacking := [name for name in ("config", "data", "training") if not isinstance(about.get(name), dict)]:
        raise InputError(f"{folder / 'model.json'}: has no {lacking[0]}; copy the whole model folder")
    return about


def model_card(trained: TrainedModel) -> str:
    """The text that travels with the weights. It holds no report text."""
    config = trained.config
    vocabulary = f"{config.text.cleaning}, {trained.tokenizer.size} ids, threshold {config.text.threshold}"
    selected = ("selected at", f"epoch {trained.training.get('epoch', '?')} by validation {config.train.metric}")
    lines = [("cleaning, vocabulary", vocabulary), *trained.method.card(trained), selected]
    return _card(config, trained.data, trained.training, lines)


def _card(
    config: RunConfig[Any], data: Mapping[str, Any], training: Mapping[str, Any], lines: Sequence[CardLine]
) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in training.get("validation", {}).items())
    rows = "".join(f"| {name} | {value} |\n" for name, value in lines)
    return f"""# {config.system} (rayscribe {__version__})

**{DISCLAIMER}**

| | |
|---|---|
| method | {config.system} |
| input | 1 or more chest X-rays of one study, {config.images.size} x {config.images.size}, grey |
| output | a draft of the section: {config.text.section} |
| image encoder | {config.backbone.described} |
| training data | {data.get("source", "not stated")}, {data.get("counts", {})}, digest {data.get("digest", "")[:16]} |
| terms of the data | {terms_of(data)} |
{rows}| validation scores | {scores or "none"} |
| seed | {config.seed} |

Intended use: research on report generation. The model writes fluent text whether or not the image supports it; it misses
findings and invents others. No part of its output may be used for care without a radiologist who reads the images.

Use it: `rayscribe predict IMAGE... --model THIS_FOLDER`
"""


@dataclass(frozen=True, kw_only=True)
class FittedModel:
    """What a method with a `fit` of its own has learned, with the image encoder that it looks through."""

    method: Method[Any]
    config: RunConfig[Any]
    backbone: Backbone
    fitted: Fitted
    data: dict[str, Any]
    training: dict[str, Any]


def save_fitted(folder: Path, trained: FittedModel) -> None:
    """Every file is replaced as a whole; the weights last, with a digest of the texts that go with them."""
    texts = json.loads(json.dumps(dict(trained.fitted.texts)))  # as they will be read
    # Copies, because tensors of a fit may share memory.
    parts = {f"{_FITTED_PART}{name}": tensor.detach().clone() for name, tensor in trained.fitted.weights.items()}
    parts |= {f"{_BACKBONE_PART}{name}": tensor for name, tensor in named_tensors(trained.backbone).items()}
    about = {
        "format": FITTED,
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "config": to_plain(trained.config),
        "data": trained.data,
        "training": trained.training,
        "texts": texts,
    }
    write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
    write_text(
        folder / "README.md",
        _card(trained.config, trained.data, trained.training, _fitted_lines(trained.data)),
    )
    write_tensors(folder / WEIGHTS, parts, texts_sha256=_texts_digest(texts))


def _fitted_lines(data: Mapping[str, Any]) -> list[CardLine]:
    forgotten = [("forgotten since", f"{data['forgotten']} training studies")] if "forgotten" in data else []
    return [("fitted", "in closed form, without epochs"), *forgotten]


def load_fitted(folder: Path, device: torch.device | str = "cpu") -> FittedModel:
    """The image encoder in evaluation mode, and what was fitted. Raises InputError where parts do not go together."""
    about, config = _whole(folder, read_facts(folder, FITTED)), read_config(folder)
    state, metadata = read_weights(folder / WEIGHTS)
    texts = about.get("texts", {})
    if metadata.get("texts_sha256") != _texts_digest(texts):
        raise InputError(
            f"{folder}: model.json and {WEIGHTS} are not of one run; repeat `rayscribe forget` if it was interrupted, "
            "otherwise copy the whole folder, or train again"
        )
    backbone = Backbone(without_sources(config).backbone)
    own = {name.removeprefix(_BACKBONE_PART): part for name, part in state.items() if name.startswith(_BACKBONE_PART)}
    load_weights(backbone, own, folder / WEIGHTS)
    weights = {name.removeprefix(_FITTED_PART): part for name, part in state.items() if name.startswith(_FITTED_PART)}
    return FittedModel(
        method=find_method(config.system),
        config=config,
        backbone=backbone.to(device).eval(),
        fitted=Fitted(weights=weights, texts=texts),
        data=about["data"],
        training=about["training"],
    )


def _texts_digest(texts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
