"""Tiny bases of six families, three studies with short reports, and settings under which they are learned by heart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tiny import tiny_gemma3, tiny_idefics3, tiny_llava, tiny_mllama, tiny_paligemma, tiny_qwen2_vl

from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.vision_llm.config import LlmConfig, LlmTrainConfig, PromptConfig
from rayscribe.vision_llm.lora import LoraSettings

REPORTS = ("The heart is enlarged.", "Lungs are clear.", "Small left pleural effusion.")

FAMILIES: dict[str, Callable[[Path], None]] = {
    "mllama": tiny_mllama,
    "idefics3": tiny_idefics3,
    "llava": tiny_llava,
    "qwen2_vl": tiny_qwen2_vl,
    "gemma3": tiny_gemma3,
    "paligemma": tiny_paligemma,
}


def write_handful(world: Path, path: Path) -> None:
    """Three training studies with a report each, the same images once more as val and as test."""
    manifest = read_manifest(world)
    drawn = manifest.split("train")[:3]
    studies = tuple(
        replace(study, id=f"{split}-{place}", split=split, findings=report, impression="Drawn.", subject="")
        for split in ("train", "val", "test")
        for place, (study, report) in enumerate(zip(drawn, REPORTS, strict=True))
    )
    write_manifest(path, replace(manifest, studies=studies))


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
