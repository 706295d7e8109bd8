"""The cost of a vision language model in bytes and FLOPs, counted over its module tree on torch's meta device, without weights.

Exact: parameters, and bytes of weights in the three precisions as bitsandbytes and torch store them. Estimated by a stated
formula: activations, caches, FLOPs. Rows are the inputs of a linear layer: tokens in the language tower, patches in the vision
tower, states in the projector and in the keys and values of cross-attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from rayscribe.vision_llm.lora import (
    ADAPTED,
    LoraSettings,
    kept_whole,
    layers_read,
    linear_layers,
    projector,
    targets,
    towers,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Precision = Literal["nf4", "int8", "bf16"]
Checkpointing = Literal["none", "model", "all"]  # model: with transformers' Trainer; all: with `recompute_layers`
BF16, FLOAT32 = 2, 4
NF4_TABLES = 4 * (16 + 256 + 1)  # per layer: the codes of weights and of their scales, and the scales' mean
LOGIT = BF16 + 3 * FLOAT32  # the model's logit, the loss's copy, its log-softmax, its gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRows:
    """Rows that one study passes through the model."""

    tokens: int
    """in the language tower, image tokens included in families that put them there (all but Llama 3.2 Vision)"""
    patches: int
    states: int
    images: int = 1
    """patches attend to those of their own image"""
    mask: int = 0
    """values in the vision tower's attention mask, if it has one"""


def meta_model(config: PretrainedConfig) -> PreTrainedModel:
    """The model of the configuration, without weights."""
    from transformers import AutoModelForImageTextToText  # seconds to import

    with torch.device("meta"):  # a copy, because from_config writes the type into its argument
        return AutoModelForImageTextToText.from_config(deepcopy(config), dtype=torch.bfloat16)


def rows_of_study(config: PretrainedConfig, *, tokens: int, images: int = 1, patches: int | None = None) -> StudyRows:
    """Rows of a study with this many images; `patches` per image are required if the configuration does not fix them."""
    vision: dict[str, Any] = config.to_dict()["vision_config"]
    tiles = vision.get("max_num_tiles", 1)  # Llama 3.2 Vision pads every image to this many tiles
    if patches is None:
        if "image_size" not in vision:
            raise ValueError(f"{config.model_type}: the number of patches depends on the image size; give `patches`")
        patches = (vision["image_size"] // vision["patch_size"]) ** 2
    if "max_num_tiles" in vision:
        states = tiles * (patches + 1)  # plus the class token
        seen = tiles * 8 * ceil((patches + 1) / 8)
        return StudyRows(
            tokens=tokens, patches=images * seen, states=images * states, images=images, mask=images * seen**2
        )
    return StudyRows(tokens=tokens, patches=images * patches, states=images * patches, images=images)


def parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def quantised(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers stored in 4 or 8 bits: all but the word head and the modules between the towers."""
    whole = {part for name in kept_whole(model) for part in model.get_submodule(name).modules()}
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    return {name: module for name, module in layers if module not in whole}


def weight_bytes(model: PreTrainedModel, precision: Precision, *, rest: int = BF16) -> int:
    """Bytes of the stored weights; those that are not quantised take `rest` each. Buffers are excluded.

    nf4: half a byte per weight, one for the scale of 64, four for the scale of 256 scales, and a layer's tables. int8: one byte
    per weight and four for the scale of a row.
    """
    layers = quantised(model) if precision != "bf16" else {}
    sizes = [prod(layer.weight.shape) for layer in layers.values()]
    total = rest * (parameters(model) - sum(sizes))
    if precision == "nf4":
        blocks = [ceil(size / 64) for size in sizes]
        return total + sum(
            ceil(size / 2) + block + FLOAT32 * ceil(block / 256) + NF4_TABLES
            for size, block in zip(sizes, blocks, strict=True)
        )
    return total + sum(sizes) + sum(FLOAT32 * layer.out_features for layer in layers.values())


def trained_shapes(model: PreTrainedModel, lora: LoraSettings) -> list[tuple[int, ...]]:
    """Shapes of all trained tensors: two per adapter, and the projector's if it is trained."""
    shapes: list[tuple[int, ...]] = []
    for name in targets(model, lora):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        shapes += [(lora.rank, layer.in_features), (layer.out_features, lora.rank)]
    if lora.projector:
        shapes += [
            tuple(weight.shape) for name in projector(model) for weight in model.get_submodule(name).parameters()
        ]
    return shapes


def optimiser_bytes(shapes: list[tuple[int, ...]], *, bits: Literal[8, 32]) -> int:
    """Adam's two states: float32, or bytes with one scale per 256 (bitsandbytes keeps tensors below 4,096 in float32)."""
    sizes = [prod(shape) for shape in shapes]
    return sum(2 * (FLOAT32 * n if bits == 32 or n < 4096 else n + FLOAT32 * ceil(n / 256)) for n in sizes)


def activation_bytes(
    model: PreTrainedModel,
    lora: LoraSettings,
    study: StudyRows,
    *,
    checkpointing: Checkpointing,
    residual: int = FLOAT32,
) -> tuple[int, int]:
    """Bytes that a study keeps for the backward pass: sum over layers, and the largest recomputed layer's working set.

    A recomputed layer keeps its input, of `residual` bytes per value. Any other layer keeps the input and the output of each
    linear layer in bfloat16, and states of the residual stream: two in the vision tower (a LayerNorm keeps its input), three
    more in float32 in the language tower (an RMSNorm keeps more, a gate is kept too). In addition: `LOGIT` bytes per logit, the
    projector's outputs, a mask, and the input of each tower's last norm. Attention keeps no matrix (sdpa, not eager).
    """
    kept = model.get_output_embeddings().out_features * study.tokens * LOGIT + study.mask * residual
    between = [part for name in projector(model) for part in model.get_submodule(name).modules()]
    kept += sum(BF16 * part.out_features * study.states for part in between if isinstance(part, nn.Linear))
    largest, last = 0, {}
    for layer in _layers(model):
        if not _backward(layer, lora, checkpointing):
            continue
        values = layer.width * (study.patches if layer.sees else study.tokens)
        last[layer.sees] = values * residual
        working = sum(BF16 * (linear.in_features + linear.out_features) * n for linear, n in layer.linears(study))
        working += values * (2 * residual + (0 if layer.sees else 3 * FLOAT32))
        if checkpointing == "all" or (checkpointing == "model" and layer.recomputes):
            kept, largest = kept + values * residual, max(largest, working)
        else:
            kept += working
    return kept + sum(last.values()), largest


def cache_bytes(model: PreTrainedModel, study: StudyRows, *, new_tokens: int) -> int:
    """Bytes of a study's keys and values in bfloat16 while a report of `new_tokens` is written."""
    longest = replace(study, tokens=study.tokens + new_tokens)
    return sum(
        BF16 * linear.out_features * n
        for layer in _layers(model)
        for name, (linear, n) in zip(layer.names, layer.linears(longest), strict=True)
        if not layer.sees and name.endswith((".k_proj", ".v_proj"))
    )


def forward_flops(model: PreTrainedModel, study: StudyRows) -> int:
    """FLOPs of a study's forward pass: two per weight and row, four per pair of query and key and per channel."""
    return sum(product + attention for product, attention, _ in _flops(model, study))


def training_flops(
    model: PreTrainedModel, lora: LoraSettings, study: StudyRows, *, checkpointing: Checkpointing
) -> int:
    """FLOPs of a study's forward and backward pass with frozen weights.

    Backward costs a product once (for its input only, as the weights are frozen) and attention twice; a recomputed layer costs
    its forward pass again; a vision tower without adapters costs its forward pass only. Adapters cost four forward passes.
    """
    total = 0
    for product, attention, layer in _flops(model, study):
        if layer is not None and not _backward(layer, lora, checkpointing):
            total += product + attention
            continue
        again = layer is not None and (checkpointing == "all" or (checkpointing == "model" and layer.recomputes))
        total += (2 + again) * product + (3 + again) * attention
    adapted = set(targets(model, lora))
    for layer in _layers(model):
        for name, (linear, n) in zip(layer.names, layer.linears(study), strict=True):
            total += 8 * lora.rank * (linear.in_features + linear.out_features) * n * (name in adapted)
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """One numbered layer of a tower."""

    names: list[str]
    modules: list[nn.Linear]
    sees: bool
    recomputes: bool
    """whether its class supports transformers' gradient checkpointing"""
    is_read: bool
    """whether the model uses its output, not that of a layer below it"""

    @property
    def width(self) -> int:
        return self.modules[0].in_features

    def linears(self, study: StudyRows) -> list[tuple[nn.Linear, int]]:
        """Each linear layer with its rows."""
        crossed = [name.endswith((".cross_attn.k_proj", ".cross_attn.v_proj")) for name in self.names]
        own = study.patches if self.sees else study.tokens
        return [(module, study.states if cross else own) for module, cross in zip(self.modules, crossed, strict=True)]


def _backward(layer: _Layer, lora: LoraSettings, checkpointing: Checkpointing) -> bool:
    """Whether gradients reach the layer: in a frozen vision tower none do, unless transformers' checkpointing requires them."""
    return layer.is_read and (not layer.sees or lora.vision or checkpointing == "model")


def _layers(model: PreTrainedModel) -> list[_Layer]:
    """All numbered layers, those of the vision tower first."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # seconds to import

    vision, language = towers(model)
    read = layers_read(model)
    groups: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for tower in (vision, language):
        for name, number in linear_layers(model, tower):
            match = ADAPTED.search(name)
            assert match is not None
            groups.setdefault(name[: match.end("layer")], []).append(name)
            numbers[name[: match.end("layer")]] = number
    found = []
    for group, names in groups.items():
        sees = group.startswith(f"{vision}.")
        layer = _Layer(
            names=names,
            modules=[module for name in names if isinstance(module := model.get_submodule(name), nn.Linear)],
            sees=sees,
            recomputes=isinstance(model.get_submodule(group), GradientCheckpointingLayer),
            is_read=not sees or read is None or numbers[group] < read,
        )
        found.append(layer)
    return found


def _flops(model: PreTrainedModel, study: StudyRows) -> Iterator[tuple[int, int, _Layer | None]]:
    """FLOPs of products and of attention, layer by layer; then of modules outside layers: head, projector, patches."""
    for layer in _layers(model):
        pairs = layer.linears(study)
        product = sum(2 * linear.in_features * linear.out_features * n for linear, n in pairs)
        _, queries = pairs[0]
        crossed = any(".cross_attn." in name for name in layer.names)
        keys = study.states if crossed else queries // study.images if layer.sees else queries
        width = next(
            linear.in_features
            for name, linear in zip(layer.names, layer.modules, strict=True)
            if name.endswith((".o_proj", ".out_proj", ".proj"))
        )
        yield product, 4 * queries * keys * width, layer
    yield 2 * prod(model.get_output_embeddings().weight.shape) * study.tokens, 0, None
    yield sum(2 * parameters(model.get_submodule(name)) for name in projector(model)) * study.states, 0, None
