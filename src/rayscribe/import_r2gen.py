"""A published R2Gen checkpoint (.pth) to a model folder.

Three things differ between the two layouts: query, key and value projections are fused here; all networks of the
conditional norms stand in two wide weights; and the published layer norm divides by the unbiased deviation, so that every
gain takes the factor sqrt((D - 1) / D). See `models/layers.py` for what remains.

Shapes: D width.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rayscribe.build import build_model
from rayscribe.checkpoint import TrainedModel, save_model
from rayscribe.config import BackboneConfig, ModelConfig, RunConfig, TextConfig
from rayscribe.data.dataset import cleaned_report
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.errors import InputError
from rayscribe.tokenizer import Tokenizer

_WORDS = "encoder_decoder.model.tgt_embed.0.lut.weight"
_WAVES = "encoder_decoder.model.tgt_embed.1.pe"
_TRUNK = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
"torchvision's ResNet-101 as a sequence; 2 and 3 have no weights"


def convert(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    threshold: int,
    max_length: int,
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu",
) -> None:
    """Writes the model folder `out`. The checkpoint lacks its vocabulary, which is built again from the manifest."""
    if (out / "model.json").exists():
        raise InputError(f"{out}: holds a model already; give another --out, or delete the folder")
    stored = _read(checkpoint)
    published = {name.removeprefix("module."): tensor for name, tensor in stored["state_dict"].items()}
    config = RunConfig(
        text=TextConfig(cleaning=cleaning, threshold=threshold, max_length=max_length, legacy_ids=True),
        backbone=BackboneConfig(name="resnet101", trainable=True),
        model=_model_config(published, checkpoint),
    )
    manifest = read_manifest(data)
    tokenizer = _vocabulary(manifest, config.text, rows=published[_WORDS].shape[0], checkpoint=checkpoint)
    model = build_model(config, tokenizer.size)
    try:
        model.load_state_dict(converted(published, config.model, model.state_dict()))
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error
    facts = {"imported_from": checkpoint.name, "epoch": stored.get("epoch", "?")}
    about = manifest.provenance | {"digest": manifest.digest()}
    save_model(out, TrainedModel(model=model, tokenizer=tokenizer, config=config, data=about, training=facts))


def converted(published: Mapping[str, Tensor], model: ModelConfig, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names, in the shapes of `wanted`. Raises InputError for names that do not fit."""
    sources = dict(_sources(model)) | {name: [_trunk(name)] for name in wanted if name.startswith("backbone.net.")}
    assert sources.keys() == wanted.keys()
    used = {name for names in sources.values() for name in names}
    faults = [f"{name} is missing" for name in sorted(used - published.keys())]
    faults += [f"{name} is unknown" for name in sorted(published.keys() - used - {_WAVES})]
    if not faults:
        joined = {
            ours: torch.cat([_scaled(name, published[name]) for name in names]) for ours, names in sources.items()
        }
        faults = [
            f"{names[0]} has {joined[ours].numel() // len(names)} numbers, not {wanted[ours].numel() // len(names)}"
            for ours, names in sources.items()
            if joined[ours].numel() != wanted[ours].numel()
        ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"these are not the weights of R2Gen: {'; '.join(faults[:3])}{more} ({len(faults)} in all)")
    return {ours: tensor.reshape(wanted[ours].shape) for ours, tensor in joined.items()}


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{checkpoint}: no such checkpoint; check the path") from error
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError, KeyError, ValueError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{checkpoint}: not a checkpoint that can be read without running its code ({reason})"
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("state_dict"), dict):
        raise InputError(f"{checkpoint}: no state_dict in it; give the file that R2Gen saved as model_best.pth")
    return stored


def _model_config(published: Mapping[str, Tensor], checkpoint: Path) -> ModelConfig:
    """Sizes from the shapes. The number of heads leaves no trace in the weights: 8, as published."""
    part = "encoder_decoder.model"
    try:
        width = published[_WORDS].shape[1]
        return ModelConfig(
            method="r2gen",
            width=width,
            feedforward=published[f"{part}.encoder.layers.0.feed_forward.w_1.weight"].shape[0],
            encoder_layers=_layers(published, f"{part}.encoder.layers."),
            decoder_layers=_layers(published, f"{part}.decoder.layers."),
            memory_slots=published[f"{part}.decoder.layers.0.sublayer.0.norm.mlp_gamma.0.weight"].shape[1] // width,
        )
    except KeyError as error:
        raise InputError(
            f"{checkpoint}: no weights named {error}; only R2Gen's own checkpoints can be imported, not those of its "
            f"baseline or of R2GenCMN ({len(published)} other names)"
        ) from error


def _layers(published: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in published if name.startswith(prefix)})


def _vocabulary(manifest: Manifest, text: TextConfig, *, rows: int, checkpoint: Path) -> Tokenizer:
    reports = [report for study in manifest.split("train") if (report := cleaned_report(study, text))]
    tokenizer = Tokenizer.build(reports, threshold=text.threshold, legacy_ids=True)
    if tokenizer.size == rows:
        return tokenizer
    counts = {}
    for threshold in range(1, 21):
        try:
            counts[threshold] = Tokenizer.build(reports, threshold=threshold, legacy_ids=True).size
        except InputError:  # no word is that frequent
            break
    fitting = [str(threshold) for threshold, size in counts.items() if size == rows]
    advice = (
        f"--threshold {fitting[0]} fits"
        if fitting
        else "no threshold from 1 to 20 fits: the checkpoint is of other reports, another split or another cleaning"
    )
    raise InputError(
        f"{checkpoint}: the weights are for {rows} token ids, but the training reports of the manifest give "
        f"{tokenizer.size} at threshold {text.threshold}; {advice}"
    )


def _scaled(name: str, tensor: Tensor) -> Tensor:
    """A gain, or what is added to one, takes the factor between the biased and the unbiased deviation."""
    if name.endswith(".gamma") or ".mlp_gamma.2." in name:
        width = tensor.shape[0]
        return tensor * math.sqrt((width - 1) / width)
    return tensor[None] if tensor.ndim == 0 else tensor


def _trunk(ours: str) -> str:
    first, rest = ours.removeprefix("backbone.net.").split(".", 1)
    return f"visual_extractor.model.{_TRUNK[first]}.{rest}"


def _sources(model: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """For each of our weights the published ones that it is made of, one after another along the first axis."""
    yield from _linear("stages.0.project", "encoder_decoder.att_embed.0")
    part = "encoder_decoder.model"
    for index in range(model.encoder_layers):
        ours, theirs = f"stages.1.layers.{index}", f"{part}.encoder.layers.{index}"
        yield from _attention(f"{ours}.attention", f"{theirs}.self_attn")
        yield from _feed_forward(ours, theirs)
        yield from _norm(f"{ours}.attention_norm", f"{theirs}.sublayer.0.norm")
        yield from _norm(f"{ours}.feed_forward_norm", f"{theirs}.sublayer.1.norm")
    yield from _norm("stages.1.norm", f"{part}.encoder.norm")
    yield "decoder.embedding.words.weight", [_WORDS]
    for index in range(model.decoder_layers):
        ours, theirs = f"decoder.layers.{index}", f"{part}.decoder.layers.{index}"
        yield from _attention(f"{ours}.self_attention", f"{theirs}.self_attn")
        yield from _attention(f"{ours}.cross_attention", f"{theirs}.src_attn")
        yield from _feed_forward(ours, theirs)
    yield from _norm("decoder.norm", f"{part}.decoder.norm")
    yield from _linear("decoder.head", "encoder_decoder.logit")
    yield from _memory("decoder.norms.memory", f"{part}.rm")
    norms = [f"{part}.decoder.layers.{i}.sublayer.{j}.norm" for i in range(model.decoder_layers) for j in range(3)]
    yield "decoder.norms.gains_SD", [f"{norm}.gamma" for norm in norms]
    yield "decoder.norms.biases_SD", [f"{norm}.beta" for norm in norms]
    networks = [f"{norm}.{kind}" for norm in norms for kind in ("mlp_gamma", "mlp_beta")]
    yield from _linear("decoder.norms.first", *[f"{network}.0" for network in networks])
    yield "decoder.norms.second_weight_SDD", [f"{network}.2.weight" for network in networks]
    yield "decoder.norms.second_bias_S1D", [f"{network}.2.bias" for network in networks]


def _linear(ours: str, *theirs: str) -> Iterator[tuple[str, list[str]]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", [f"{name}.{kind}" for name in theirs]


def _norm(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
    yield f"{ours}.weight", [f"{theirs}.gamma"]
    yield f"{ours}.bias", [f"{theirs}.beta"]


def _attention(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
    yield from _linear(f"{ours}.query", f"{theirs}.linears.0")
    yield from _linear(f"{ours}.key_value", f"{theirs}.linears.1", f"{theirs}.linears.2")
    yield from _linear(f"{ours}.out", f"{theirs}.linears.3")


def _feed_forward(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
    yield from _linear(f"{ours}.feed_forward.0", f"{theirs}.feed_forward.w_1")
    yield from _linear(f"{ours}.feed_forward.3", f"{theirs}.feed_forward.w_2")


def _memory(ours: str, theirs: str) -> Iterator[tuple[str, list[str]]]:
    yield from _linear(f"{ours}.query_key_value", *[f"{theirs}.attn.linears.{index}" for index in range(3)])
    yield from _linear(f"{ours}.out", f"{theirs}.attn.linears.3")
    yield from _linear(f"{ours}.mlp.0", f"{theirs}.mlp.0")
    yield from _linear(f"{ours}.mlp.2", f"{theirs}.mlp.2")
    yield from _linear(f"{ours}.word_gates", f"{theirs}.W")
    yield from _linear(f"{ours}.memory_gates", f"{theirs}.U")
