"""Two models large enough for their weights and activations to outweigh what surrounds them, and a study for each."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaConfig, MllamaConfig, PretrainedConfig

TOKENS, WORDS = 200, 400
TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 896,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 512, "image_size": 112, "patch_size": 14}


def llama_vision() -> tuple[PretrainedConfig, dict[str, torch.Tensor]]:
    """Llama 3.2 Vision with 4 tiles of 112 pixels."""
    vision = {
        **VISION,
        "num_global_layers": 1,
        "attention_heads": 4,
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 3 * VISION["hidden_size"],
    }
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    text: dict[str, Any] = {**TEXT, "cross_attention_layers": [1, 3], "rope_parameters": rope}
    config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=WORDS)
    study = {
        **_words(image=[WORDS]),
        "pixel_values": torch.randn(1, 1, 4, 3, 112, 112, generator=torch.Generator().manual_seed(1)),
        "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(1, 1, 4, dtype=torch.long),
        "cross_attention_mask": torch.ones(1, TOKENS, 1, 4, dtype=torch.long),
    }
    return config, study


def llava() -> tuple[PretrainedConfig, dict[str, torch.Tensor]]:
    """LLaVA with 64 patches among the words."""
    vision = {**VISION, "model_type": "clip_vision_model", "num_attention_heads": 4}
    config = LlavaConfig(vision_config=vision, text_config={**TEXT, "model_type": "llama"}, image_token_index=WORDS - 1)
    pixels = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    return config, {**_words(image=[WORDS - 1] * 64), "pixel_values": pixels}


def _words(*, image: list[int]) -> dict[str, torch.Tensor]:
    tokens_1T = torch.randint(3, WORDS - 1, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    labels_1T = tokens_1T.clone()
    tokens_1T[0, : len(image)] = torch.tensor(image)
    labels_1T[0, : len(image)] = -100
    return {"input_ids": tokens_1T, "attention_mask": torch.ones_like(tokens_1T), "labels": labels_1T}
