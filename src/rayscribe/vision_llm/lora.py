"""Finds the layers of a vision language model that get low-rank adapters, from the model's tree instead of a table of families.

Every transformers model of this kind exposes its towers through `get_encoder("image")` and `get_decoder()`. Within them, linear
layers of the attention or the MLP of a numbered layer are adapted; a tower's head, its patch embedding, the projector between
the towers and the word head are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from rayscribe.settings import need

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

ATTENTION = r"(self_attn|cross_attn|attn|attention)\.(q_proj|k_proj|v_proj|o_proj|out_proj|qkv|proj)"
MLP = r"(mlp|feed_forward)\.(fc1|fc2|gate_proj|up_proj|down_proj)"
ADAPTED = re.compile(rf"\.(?P<layer>\d+)\.({ATTENTION}|{MLP})$")
HAS_ADAPTED = re.compile(rf"(?P<layer>.+\.\d+)\.({ATTENTION}|{MLP})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters of one run. Defaults are those of the fine-tuned Llama 3.2 Vision of Koehler, Hsieh and Tang, 2024."""

    rank: int = 20  # its notebook; a first attempt had 16
    alpha: int = 20  # its notebook: updates are scaled by alpha / rank = 1
    dropout: float = 0.0  # its notebook
    vision: bool = True  # its notebook: both towers, attention and MLP
    """adapters in the vision tower"""
    language: bool = True  # its notebook
    """adapters in the language tower"""
    projector: bool = False  # its notebook leaves the projector as it is
    """train the module between the two towers in full and save it with the adapters; for models with a new projector"""

    def __post_init__(self) -> None:
        need(self.rank >= 1, "--lora.rank", self.rank, "an adapter has at least one dimension")
        need(self.alpha >= 1, "--lora.alpha", self.alpha, "updates are scaled by alpha / rank; at least 1")
        need(0 <= self.dropout < 1, "--lora.dropout", self.dropout, "a share of inputs from 0 to below 1")
        trained = self.vision or self.language or self.projector
        need(trained, "--lora.language", False, "nothing would be trained; keep a tower or the projector")


def towers(model: PreTrainedModel) -> tuple[str, str]:
    """Names of the vision and the language module; ValueError for a model without either."""
    names = {module: name for name, module in model.named_modules()}
    vision, language = names[model.get_encoder(modality="image")], names[model.get_decoder()]
    if not vision or not language:
        raise ValueError(f"{type(model).__name__} has no vision tower next to its language tower")
    return vision, language


def numbered_layers(model: PreTrainedModel) -> list[str]:
    """Names of the towers' layers, with or without adapters in them, those of the vision tower first."""
    inside = (name for tower in towers(model) for name, _ in model.get_submodule(tower).named_modules(prefix=tower))
    return list(dict.fromkeys(match["layer"] for name in inside if (match := HAS_ADAPTED.match(name))))


def targets(model: PreTrainedModel, settings: LoraSettings) -> list[str]:
    """Full names of the linear layers to adapt, in the model's order; ValueError for a tower without any.

    Excludes layers above the one that the model reads (LLaVA reads the last but one) in a vision tower: they would never get
    a gradient, which stops data-parallel training.
    """
    vision, language = towers(model)
    found: list[str] = []
    if settings.vision:
        read = layers_read(model)
        found += [name for name, layer in linear_layers(model, vision) if read is None or layer < read]
    if settings.language:
        found += [name for name, _ in linear_layers(model, language)]
    return found


def linear_layers(model: PreTrainedModel, tower: str) -> list[tuple[str, int]]:
    """Name and layer number of each linear layer of attention and MLP in the tower."""
    found = []
    for name, module in model.get_submodule(tower).named_modules(prefix=tower):
        match = ADAPTED.search(name)
        if match and isinstance(module, nn.Linear):  # 4-bit and 8-bit layers are subclasses of Linear
            found.append((name, int(match["layer"])))
    if not found:
        raise ValueError(f"{type(model).__name__}: no linear layers of attention or MLP in {tower}")
    return found


def layers_read(model: PreTrainedModel) -> int | None:
    """Number of the vision tower's layers that the model uses; None if its configuration does not say."""
    chosen = model.config.to_dict().get("vision_feature_layer")
    depth = model.config.vision_config.to_dict().get("num_hidden_layers")
    if chosen is None or depth is None:
        return None
    # States count from the embeddings' output, 0, to the last layer's, `depth` or -1.
    return max(state % (depth + 1) for state in ([chosen] if isinstance(chosen, int) else chosen))


def projector(model: PreTrainedModel) -> list[str]:
    """Names of the modules between the towers: next to them, or at the end of the vision tower (Qwen2-VL's merger)."""
    vision, language = towers(model)
    parent = vision.rpartition(".")[0]
    beside = {_join(parent, name): module for name, module in model.get_submodule(parent).named_children()}
    others = (model.get_submodule(vision), model.get_submodule(language), model.get_output_embeddings())
    between = [
        name for name, module in beside.items() if module not in others and any(True for _ in module.parameters())
    ]
    if not between:
        adapted = {name for name, _ in linear_layers(model, vision)}
        children = [_join(vision, name) for name, _ in model.get_submodule(vision).named_children()]
        blocks = {child for child in children if any(name.startswith(f"{child}.") for name in adapted)}
        between = [child for child in children if child not in blocks and _linears(model.get_submodule(child))]
    if not between:
        raise ValueError(f"{type(model).__name__} has no linear module between its towers")
    return between


def kept_whole(model: PreTrainedModel) -> list[str]:
    """Names that quantisation skips: the word head and the projector; full names for bitsandbytes' `llm_int8_skip_modules`.

    Full, because a short name does not skip the modules inside it: `multi_modal_projector` skips Llama's, which is one linear
    layer, but neither of the two layers of LLaVA's.
    """
    head = model.get_output_embeddings()
    return [*(name for name, module in model.named_modules() if module is head), *projector(model)]


def lora_config(model: PreTrainedModel, settings: LoraSettings) -> LoraConfig:
    """The settings as peft's. Adapters are initialised from torch's global generator: seed it before `get_peft_model`."""
    from peft import LoraConfig  # imports transformers: seconds
    from peft.utils.constants import DUMMY_TARGET_MODULES

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets(model, settings)
        or DUMMY_TARGET_MODULES,  # peft's placeholder if only the projector is trained
        modules_to_save=projector(model) if settings.projector else None,
        bias="none",
        use_rslora=False,
        task_type="CAUSAL_LM",
    )


def _linears(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Linear) for part in module.modules())


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name
