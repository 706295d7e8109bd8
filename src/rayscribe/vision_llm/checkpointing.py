"""Gradient checkpointing in every family: layers of both towers keep only their input and recompute in the backward pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rayscribe.vision_llm.lora import numbered_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def recompute_layers(model: PreTrainedModel) -> int:
    """Turns recomputation on and returns the number of layers; for a model with adapters, pass its `get_base_model()`.

    Leave `gradient_checkpointing=True` of transformers' Trainer off: it does both less and more than this. Less: it reaches
    only layers whose class declares support, and those of Llama 3.2 Vision's vision tower, where nearly all the memory is, do
    not. More: it lets gradients flow to the inputs of both towers, so that a tower without adapters is recomputed too.
    """
    import torch.utils.checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer  # seconds to import

    model.activation_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()
    layers = numbered_layers(model)
    for name in layers:
        layer = model.get_submodule(name)
        if not isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(torch.utils.checkpoint.checkpoint, layer.forward, use_reentrant=False)
    return len(layers)
