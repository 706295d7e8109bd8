"""One vision LLM's settings: recipes return them, the command line changes them, the run folder stores them as YAML.

"Seed system" is Koehler, Hsieh and Tang, "MIMIC-CXR: Chest X-ray Image Classification and Report Generation" (2024): its code
and logs, Llama-3.2-11B-Vision-Instruct tuned on 2,562 studies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from rayscribe.settings import need
from rayscribe.vision_llm.lora import LoraSettings

LLAMA = "meta-llama/Llama-3.2-11B-Vision-Instruct"

INSTRUCTION = (
    "You are an expert radiographer. Describe accurately and in detail what you see in this chest X-ray examination."
)
"Paraphrases the seed system's: an expert radiographer, accurate, in detail. No system prompt, as there."


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """The prompt. It is the same in training and in use; the seed system's differed in two ways."""

    instruction: str = INSTRUCTION
    order: Literal["images-first", "text-first"] = "images-first"
    """order of image and text. The seed system trained with the text first and generated with the image first. In Mllama the
    text before an image sees it too, through the residual stream (transformers, pull request 47845), so images go first"""
    views: Literal["all", "frontal"] = "all"
    "frontal: only frontal images, if a study has any"
    max_views: int = 2
    "images per study at most, frontal ones first"
    findings: str = ""
    """table of a classifier's findings for the studies of train and val (`rayscribe classify label`), included in the prompt.
    `generate` then needs one too (--states)"""

    def __post_init__(self) -> None:
        need(bool(self.instruction.strip()), "--prompt.instruction", self.instruction, "must not be empty")
        need(self.max_views >= 1, "--prompt.max-views", self.max_views, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseConfig:
    """The text that the model learns to write."""

    section: Literal["findings", "impression", "findings+impression"] = "findings"
    cleaning: Literal["none", "r2gen-iu", "r2gen-mimic"] = "none"
    "none: as the radiologist wrote it"
    min_words: int = 0
    "exclude training and validation reports with fewer words; the seed system kept 20 to 65"
    max_words: int = 0
    "exclude training and validation reports with more words; 0: no limit"
    max_new_tokens: int = 128
    "tokens per generated report at most (seed system: 120 to 128)"

    def __post_init__(self) -> None:
        need(self.min_words >= 0, "--text.min-words", self.min_words, "not negative")
        bounded = self.max_words == 0 or self.max_words >= max(1, self.min_words)
        need(bounded, "--text.max-words", self.max_words, "0, or at least --text.min-words")
        need(self.max_new_tokens >= 1, "--text.max-new-tokens", self.max_new_tokens, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureConfig:
    """From a radiograph to the picture that the model's own processor gets."""

    legacy_224: bool = False
    """first fit the image into a black square of 224 x 224, like the seed system's files; false: the original resolution, which
    the processor tiles"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmTrainConfig:
    """Training with `transformers.Trainer`. Defaults are the seed system's SFTConfig."""

    studies_per_step: int = 32
    "studies per optimiser step over all processes; seed system: 8 x 4 accumulated"
    batch_size: int = 8
    "studies at once on one device; the rest of a step is accumulated"
    max_steps: int = 200
    "optimiser steps; seed system: 200, about 2.5 epochs of its data; 0: train for `epochs`"
    epochs: float = 2.0
    "used only if max_steps is 0"
    lr: float = 1e-4
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: int = 5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    "transformers' default, which the seed system kept"
    optimizer: Literal["auto", "adamw_8bit", "adamw_torch"] = "auto"
    "auto: adamw_8bit (seed system) with CUDA, else adamw_torch"
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    "precision of the arithmetic; adapters and their optimiser states are always float32"
    gradient_checkpointing: bool = True
    loss_on: Literal["response", "all"] = "response"
    "all: instruction and headers too, as in the seed system; image tokens and padding never count"
    evaluate_every: int = 10
    "steps between validations; each one keeps a checkpoint"
    patience: int = 5
    "validations without a lower loss before the run stops; the seed system claims early stopping but has none"
    val_studies: int = 0
    "number of validation studies for the loss, drawn once with the seed; 0: all"
    workers: int = 2
    "processes that read images"

    def __post_init__(self) -> None:
        need(self.batch_size >= 1, "--train.batch-size", self.batch_size, "at least 1")
        need(
            self.studies_per_step >= 1 and self.studies_per_step % self.batch_size == 0,
            "--train.studies-per-step",
            self.studies_per_step,
            f"must be a multiple of --train.batch-size {self.batch_size}",
        )
        need(self.max_steps > 0 or self.epochs > 0, "--train.max-steps", self.max_steps, "or --train.epochs above 0")
        need(self.lr > 0, "--train.lr", self.lr, "above 0")
        need(self.warmup_steps >= 0, "--train.warmup-steps", self.warmup_steps, "not negative")
        need(self.weight_decay >= 0, "--train.weight-decay", self.weight_decay, "not negative")
        need(self.val_studies >= 0, "--train.val-studies", self.val_studies, "not negative; 0 uses all")
        need(self.workers >= 0, "--train.workers", self.workers, "not negative")
        need(self.max_steps >= 0, "--train.max-steps", self.max_steps, "not negative; 0 uses --train.epochs")
        need(self.evaluate_every >= 1, "--train.evaluate-every", self.evaluate_every, "at least 1")
        need(self.patience >= 1, "--train.patience", self.patience, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmConfig:
    """Everything that determines a run's result, besides the manifest and the base model's files."""

    base: str = ""
    "model to tune: a folder on disk, or an id on the Hugging Face hub, which is contacted only with --download"
    revision: str = "main"
    "branch, tag or commit of a hub id"
    weights: Literal["nf4", "int8", "bfloat16", "float32"] = "bfloat16"
    "storage of the frozen base; nf4 is QLoRA's: 4 bit with double quantisation, all but lm_head and projector"
    prompt: PromptConfig = field(default_factory=PromptConfig)
    text: ResponseConfig = field(default_factory=ResponseConfig)
    images: PictureConfig = field(default_factory=PictureConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    train: LlmTrainConfig = field(default_factory=LlmTrainConfig)
    seed: int = 3407
    "the seed system's"


def llama32_vision() -> LlmConfig:
    """The seed system's: nf4, LoRA r = alpha = 20 on both towers, 200 steps of 32 studies, lr 1e-4, loss on the response."""
    return LlmConfig(base=LLAMA, weights="nf4")


def compact() -> LlmConfig:
    """For a model of a few hundred million weights with a new projector (`rayscribe llm compose`): unquantised, the projector
    trained in full, a higher learning rate, two epochs. Our own settings, from no paper."""
    return LlmConfig(
        lora=LoraSettings(rank=16, alpha=32, vision=False, projector=True),
        train=LlmTrainConfig(
            batch_size=8,
            studies_per_step=16,
            max_steps=0,
            lr=5e-4,
            schedule="cosine",
            warmup_steps=10,
            gradient_checkpointing=False,
            evaluate_every=50,
        ),
    )


LLM_RECIPES: dict[str, Callable[[], LlmConfig]] = {"llama32_vision": llama32_vision, "compact": compact}
