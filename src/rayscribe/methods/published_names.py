"""The names in published R2Gen and R2GenCMN checkpoints, and how their weights map to ours.

Query, key and value projections are fused here; all networks of R2Gen's conditional norms are stacked in two wide weights; and
the published layer norm divides by the unbiased deviation, so every gain is multiplied by sqrt((D - 1) / D). See
`models/layers.py` for the rest. R2GenCMN's memory module has two names in its checkpoints.

Shapes: D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from rayscribe.config import ModelConfig, RunConfig
from rayscribe.errors import InputError
from rayscribe.methods.r2gen import R2GenSettings
from rayscribe.methods.r2gen_cmn import R2GenCmnSettings

WORDS = "encoder_decoder.model.tgt_embed.0.lut.weight"
_WAVES = {"encoder_decoder.model.tgt_embed.1.pe", "encoder_decoder.model.src_embed.0.pe"}
"Positions, which are computed here."
_ROWS = "encoder_decoder.memory_matrix"
_CMN, _CMN_AGAIN = "encoder_decoder.cmn.", "encoder_decoder.model.cmn."
_RELATIONAL = "encoder_decoder.model.decoder.layers.0.sublayer.0.norm.mlp_gamma.0.weight"
_TRUNK = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
"torchvision's ResNet-101 as a sequence; 2 and 3 have no weights."

Sources = Iterator[tuple[str, list[str]]]
"Our names, each with the published ones that are concatenated for it along the first axis."


def sizes_of(published: Mapping[str, Tensor]) -> tuple[ModelConfig, R2GenSettings | R2GenCmnSettings]:
    """Sizes and the method's settings, from names and shapes; heads and top are not recoverable: 8 and 32, as published.

    Raises InputError for other models' checkpoints.
    """
    if _ROWS not in published and _RELATIONAL not in published:
        raise InputError(
            f"no weights named {_RELATIONAL} or {_ROWS}; only checkpoints of R2Gen and R2GenCMN can be imported, not those "
            f"of their plain baseline or of other models ({len(published)} other names)"
        )
    part = "encoder_decoder.model"
    try:
        width = published[WORDS].shape[1]
        sizes = ModelConfig(
            width=width,
            feedforward=published[f"{part}.encoder.layers.0.feed_forward.w_1.weight"].shape[0],
            encoder_layers=_layers(published, f"{part}.encoder.layers."),
            decoder_layers=_layers(published, f"{part}.decoder.layers."),
        )
    except KeyError as error:
        raise InputError(
            f"no weights named {error}, which R2Gen and R2GenCMN have; give one of their checkpoints"
        ) from error
    if _ROWS in published:
        return sizes, R2GenCmnSettings(memory_size=published[_ROWS].shape[0], memory_top=32, memory_heads=8)
    return sizes, R2GenSettings(memory_slots=published[_RELATIONAL].shape[1] // width)


def converted(published: Mapping[str, Tensor], run: RunConfig[Any], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names, in the shapes of `wanted`. Raises InputError for names that do not match."""
    published = _with_one_name(published)
    sources = dict(_sources(run)) | {name: [_trunk(name)] for name in wanted if name.startswith("backbone.net.")}
    assert sources.keys() == wanted.keys()
    used = {name for names in sources.values() for name in names}
    faults = [f"{name} is missing" for name in sorted(used - published.keys())]
    faults += [f"{name} is unknown" for name in sorted(published.keys() - used - _WAVES)]
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
        title = "R2GenCMN" if isinstance(run.method, R2GenCmnSettings) else "R2Gen"
        raise InputError(f"these are not the weights of {title}: {'; '.join(faults[:3])}{more} ({len(faults)} in all)")
    return {ours: tensor.reshape(wanted[ours].shape) for ours, tensor in joined.items()}


def _with_one_name(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """R2GenCMN's memory module under the shorter of its two names; either suffices."""
    weights = {name: tensor for name, tensor in published.items() if not name.startswith(_CMN_AGAIN)}
    for name in sorted(published.keys() - weights.keys()):
        short = _CMN + name.removeprefix(_CMN_AGAIN)
        if not torch.equal(weights.setdefault(short, published[name]), published[name]):
            raise InputError(f"{short} and {name} differ, but are one weight in R2GenCMN")
    return weights


def _layers(published: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in published if name.startswith(prefix)})


def _scaled(name: str, tensor: Tensor) -> Tensor:
    """Multiplies gains, and weights added to gains, by the factor between the biased and the unbiased deviation."""
    if name.endswith(".gamma") or ".mlp_gamma.2." in name:
        width = tensor.shape[0]
        return tensor * math.sqrt((width - 1) / width)
    return tensor[None] if tensor.ndim == 0 else tensor


def _trunk(ours: str) -> str:
    first, rest = ours.removeprefix("backbone.net.").split(".", 1)
    return f"visual_extractor.model.{_TRUNK[first]}.{rest}"


def _sources(run: RunConfig[Any]) -> Sources:
    model = run.model
    norms = [
        f"encoder_decoder.model.decoder.layers.{i}.sublayer.{j}.norm"
        for i in range(model.decoder_layers)
        for j in range(3)
    ]
    yield from _linear("stages.0.project", "encoder_decoder.att_embed.0")
    if isinstance(run.method, R2GenCmnSettings):
        yield from _cross_modal_memory("stages.1.patches")
        yield from _encoder("stages.2", model.encoder_layers)
    else:
        yield from _encoder("stages.1", model.encoder_layers)
        yield from _conditional_norms("decoder.norms", norms)
    yield from _decoder("decoder", model.decoder_layers)
    yield "decoder.norms.gains_SD", [f"{norm}.gamma" for norm in norms]
    yield "decoder.norms.biases_SD", [f"{norm}.beta" for norm in norms]


def _encoder(ours: str, layers: int) -> Sources:
    theirs = "encoder_decoder.model.encoder"
    for index in range(layers):
        layer, source = f"{ours}.layers.{index}", f"{theirs}.layers.{index}"
        yield from _attention(f"{layer}.attention", f"{source}.self_attn")
        yield from _feed_forward(layer, source)
        yield from _norm(f"{layer}.attention_norm", f"{source}.sublayer.0.norm")
        yield from _norm(f"{layer}.feed_forward_norm", f"{source}.sublayer.1.norm")
    yield from _norm(f"{ours}.norm", f"{theirs}.norm")


def _decoder(ours: str, layers: int) -> Sources:
    """The decoder's layers without their norms."""
    theirs = "encoder_decoder.model.decoder"
    yield f"{ours}.embedding.words.weight", [WORDS]
    for index in range(layers):
        layer, source = f"{ours}.layers.{index}", f"{theirs}.layers.{index}"
        yield from _attention(f"{layer}.self_attention", f"{source}.self_attn")
        yield from _attention(f"{layer}.cross_attention", f"{source}.src_attn")
        yield from _feed_forward(layer, source)
    yield from _norm(f"{ours}.norm", f"{theirs}.norm")
    yield from _linear(f"{ours}.head", "encoder_decoder.logit")


def _conditional_norms(ours: str, norms: list[str]) -> Sources:
    """R2Gen's relational memory and the networks that read it."""
    theirs = "encoder_decoder.model.rm"
    yield from _linear(f"{ours}.memory.query_key_value", *[f"{theirs}.attn.linears.{index}" for index in range(3)])
    yield from _linear(f"{ours}.memory.out", f"{theirs}.attn.linears.3")
    yield from _linear(f"{ours}.memory.mlp.0", f"{theirs}.mlp.0")
    yield from _linear(f"{ours}.memory.mlp.2", f"{theirs}.mlp.2")
    yield from _linear(f"{ours}.memory.word_gates", f"{theirs}.W")
    yield from _linear(f"{ours}.memory.memory_gates", f"{theirs}.U")
    networks = [f"{norm}.{kind}" for norm in norms for kind in ("mlp_gamma", "mlp_beta")]
    yield from _linear(f"{ours}.first", *[f"{network}.0" for network in networks])
    yield f"{ours}.second_weight_SDD", [f"{network}.2.weight" for network in networks]
    yield f"{ours}.second_bias_S1D", [f"{network}.2.bias" for network in networks]


def _cross_modal_memory(ours: str) -> Sources:
    yield f"{ours}.rows_SD", [_ROWS]
    yield from _attention(ours, _CMN.removesuffix("."))


def _linear(ours: str, *theirs: str) -> Sources:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", [f"{name}.{kind}" for name in theirs]


def _norm(ours: str, theirs: str) -> Sources:
    yield f"{ours}.weight", [f"{theirs}.gamma"]
    yield f"{ours}.bias", [f"{theirs}.beta"]


def _attention(ours: str, theirs: str) -> Sources:
    yield from _linear(f"{ours}.query", f"{theirs}.linears.0")
    yield from _linear(f"{ours}.key_value", f"{theirs}.linears.1", f"{theirs}.linears.2")
    yield from _linear(f"{ours}.out", f"{theirs}.linears.3")


def _feed_forward(ours: str, theirs: str) -> Sources:
    yield from _linear(f"{ours}.feed_forward.0", f"{theirs}.feed_forward.w_1")
    yield from _linear(f"{ours}.feed_forward.3", f"{theirs}.feed_forward.w_2")
