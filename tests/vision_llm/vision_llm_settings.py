"""Settings under which a tiny vision LLM learns three reports by heart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rayscribe.vision_llm.config import LlmConfig, LlmTrainConfig, PromptConfig
from rayscribe.vision_llm.lora import LoraSettings

REPORTS = ("The heart is enlarged.", "Lungs are clear.", "Small left pleural effusion.")


def short(base: Path, **train: object) -> LlmConfig:
    """Settings under which a tiny model learns three reports by heart."""
    settings = LlmTrainConfig(
        studies_per_step=3,
        batch_size=3,
        max_steps=20,
        lr=3e-2,
        warmup_steps=2,
        schedule="constant_with_warmup",
        weight_decay=0.0,
        precision="float32",
        evaluate_every=10,
        workers=0,
    )
    return LlmConfig(
        base=str(base),
        weights="float32",
        prompt=PromptConfig(instruction="Describe it."),
        lora=LoraSettings(rank=16, alpha=32),
        train=replace(settings, **train),  # type: ignore[arg-type]
    )
