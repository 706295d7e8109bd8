"""Memory and time of fine-tuning a vision language model, before renting a GPU: from its configuration, without weights.

Computed exactly: parameters, adapters, stored weights, gradients, optimiser states (`costs.py`). Estimated: activations (within
a tenth of what small models of three kinds keep on the CPU), caches, FLOPs. Of a GPU's memory only the share `USABLE` is
planned; the rest is for CUDA and fragmentation. Hours assume a utilisation: nothing here was timed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rayscribe.settings import need
from rayscribe.vision_llm import costs
from rayscribe.vision_llm.costs import BF16, FLOAT32, Checkpointing, Precision
from rayscribe.vision_llm.lora import LoraSettings

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 2**30
GPUS = (16, 24, 40, 48, 80)  # GiB
USABLE = 0.92
PEAKS = {"A100": 312e12, "H100": 989e12}  # FLOP/s in bfloat16, dense, SXM modules; NVIDIA's data sheets
LOGGED = 20.0  # seconds per step of 8 x 4 studies on an A100 with 80 GB, the run of Koehler, Hsieh and Tang, 2024
PRECISIONS: tuple[Precision, ...] = ("nf4", "int8", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The training and generation to plan. Batch, accumulation and steps are those of Koehler, Hsieh and Tang, 2024."""

    batch: int = 8
    """studies at once on a GPU"""
    accumulation: int = 4
    steps: int = 200
    tokens: int = 256
    """tokens of instruction and report, padded; includes image tokens in models that put them among the words"""
    images: int = 1
    patches: int | None = None
    """patches per image; required if the model's configuration does not fix it, as in Qwen2-VL"""
    new_tokens: int = 128  # its evaluation
    checkpointing: Checkpointing = "all"
    """none; model: transformers' Trainer, which excludes some vision towers; all: every layer of both towers"""
    float32_rest: bool = True
    """keep unquantised weights in float32, as after peft's `prepare_model_for_kbit_training`; false: bfloat16"""
    utilisation: float = 0.35
    """assumed share of a GPU's peak"""

    def __post_init__(self) -> None:
        counts = {
            "--batch": self.batch,
            "--accumulation": self.accumulation,
            "--steps": self.steps,
            "--tokens": self.tokens,
            "--images": self.images,
            "--new-tokens": self.new_tokens,
        }
        for flag, value in counts.items():
            need(value >= 1, flag, value, "at least 1")
        need(self.patches is None or self.patches >= 1, "--patches", self.patches, "at least 1")
        need(0 < self.utilisation <= 1, "--utilisation", self.utilisation, "a share above 0, up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bytes and FLOPs of one model under one workload; per study if the name says so, else for the model on a GPU."""

    name: str
    work: Workload
    rows: costs.StudyRows
    parameters: int
    trained: int
    stored: dict[Precision, int]
    """bytes of the weights as loaded"""
    weights: dict[Precision, int]
    """bytes of the weights in training; see `Workload.float32_rest`"""
    adapters: int
    """bytes of the trained tensors and their gradients, both float32"""
    optimiser: dict[Literal[8, 32], int]
    unpacked: int
    """bytes of the largest quantised layer in bfloat16, while it is in use"""
    kept_by_study: dict[Checkpointing, int]
    working_by_study: dict[Checkpointing, int] = field(repr=False)
    cache_by_study: int
    forward_flops_by_study: int
    training_flops_by_study: int

    def fixed(self, precision: Precision, *, bits: Literal[8, 32] = 8) -> int:
        """Bytes before the first study."""
        unpacked = 0 if precision == "bf16" else self.unpacked
        return self.weights[precision] + self.adapters + self.optimiser[bits] + unpacked

    def training(self, precision: Precision, *, bits: Literal[8, 32] = 8) -> int:
        """Bytes of a training step at the workload's batch and checkpointing."""
        return self.fixed(precision, bits=bits) + self.work.batch * self._study(self.work.checkpointing)

    def largest_batch(self, precision: Precision, gib: int, *, checkpointing: Checkpointing) -> int:
        """Studies at once on a GPU of `gib` GiB, with 8-bit Adam; 0 if not even one fits."""
        return max(0, int(USABLE * gib * GIB - self.fixed(precision)) // self._study(checkpointing))

    def step_flops(self) -> int:
        return self.training_flops_by_study * self.work.batch * self.work.accumulation

    def hours(self, gpu: str) -> float:
        """Hours of the whole run on one GPU, at the assumed utilisation."""
        return self.work.steps * self.step_flops() / (PEAKS[gpu] * self.work.utilisation) / 3600

    def logged_utilisation(self) -> float:
        """Share of an A100's peak at which this model needs the logged time for a step of 32 studies."""
        return 32 * self.training_flops_by_study / (LOGGED * PEAKS["A100"])

    def _study(self, checkpointing: Checkpointing) -> int:
        return self.kept_by_study[checkpointing] + self.working_by_study[checkpointing]


def llama32_vision_config() -> PretrainedConfig:
    """Configuration of Llama-3.2-11B-Vision and its Instruct: default text and vision towers, tiles of 560 pixels."""
    from transformers import MllamaConfig  # seconds to import

    return MllamaConfig(vision_config={"image_size": 560})


def base_config(folder: Path) -> PretrainedConfig:
    """The configuration in a model's folder; nothing is downloaded."""
    from transformers import AutoConfig  # seconds to import

    return AutoConfig.from_pretrained(folder, local_files_only=True)


def plan(config: PretrainedConfig, lora: LoraSettings, work: Workload) -> Plan:
    """The plan for a configuration; ValueError for a model without two towers."""
    model = costs.meta_model(config)
    rows = costs.rows_of_study(config, tokens=work.tokens, images=work.images, patches=work.patches)
    shapes = costs.trained_shapes(model, lora)
    trained = sum(prod(shape) for shape in shapes)
    rest = FLOAT32 if work.float32_rest else BF16
    modes: tuple[Checkpointing, ...] = ("none", "model", "all")
    activations = {mode: costs.activation_bytes(model, lora, rows, checkpointing=mode, residual=rest) for mode in modes}
    return Plan(
        name=type(model).__name__,
        work=work,
        rows=rows,
        parameters=costs.parameters(model),
        trained=trained,
        stored={precision: costs.weight_bytes(model, precision) for precision in PRECISIONS},
        weights={
            precision: costs.weight_bytes(model, precision, rest=BF16 if precision == "bf16" else rest)
            for precision in PRECISIONS
        },
        adapters=2 * FLOAT32 * trained,
        optimiser={8: costs.optimiser_bytes(shapes, bits=8), 32: costs.optimiser_bytes(shapes, bits=32)},
        unpacked=max(BF16 * prod(layer.weight.shape) for layer in costs.quantised(model).values()),
        kept_by_study={mode: kept for mode, (kept, _) in activations.items()},
        working_by_study={mode: working for mode, (_, working) in activations.items()},
        cache_by_study=costs.cache_bytes(model, rows, new_tokens=work.new_tokens),
        forward_flops_by_study=costs.forward_flops(model, rows),
        training_flops_by_study=costs.training_flops(model, lora, rows, checkpointing=work.checkpointing),
    )


def plan_table(found: Plan) -> str:
    """The plan in Markdown: memory by part, studies that fit on a GPU, duration of a run."""
    work = found.work
    named = {"nf4": "4-bit (nf4, double quantisation)", "int8": "8-bit (int8)", "bf16": "bfloat16"}
    rest = "float32" if work.float32_rest else "bfloat16"
    modes: dict[Checkpointing, str] = {
        "none": "nothing recomputed",
        "model": "recomputed by transformers' own switch",
        "all": "every layer of both towers recomputed",
    }
    memory = [("parameters", f"{found.parameters:,}"), ("of these trained", f"{found.trained:,}")]
    memory += [(f"weights as loaded, {named[name]}", _gib(found.stored[name])) for name in PRECISIONS]
    memory += [
        (f"weights in training, {named[name]}, the rest {rest}", _gib(found.weights[name])) for name in ("nf4", "int8")
    ]
    memory += [
        ("adapters and their gradients, float32", _gib(found.adapters)),
        ("Adam's states, 32-bit", _gib(found.optimiser[32])),
        ("Adam's states, 8-bit", _gib(found.optimiser[8])),
    ]
    memory += [(f"kept for one study, {text}", _gib(found.kept_by_study[mode])) for mode, text in modes.items()]
    memory += [
        ("working set of the layer being recomputed, one study", _gib(found.working_by_study["all"])),
        (f"caches of one study while it writes {work.new_tokens} tokens", _gib(found.cache_by_study)),
    ]
    memory += [
        (f"a step of {work.batch} studies, {named[name]}, {modes[work.checkpointing]}", _gib(found.training(name)))
        for name in PRECISIONS
    ]
    lines = [f"{found.name}: {found.rows.tokens} tokens and {found.rows.patches} patches a study.", ""]
    lines += ["| memory | |", "|---|---:|", *(f"| {label} | {value} |" for label, value in memory), ""]
    lines += ["Most studies at once, with 8-bit Adam (a dash: not one fits):", ""]
    lines += [
        "| weights | layers | " + " | ".join(f"{gib} GB" for gib in GPUS) + " |",
        "|---|---|" + "---:|" * len(GPUS),
    ]
    for name in PRECISIONS:
        for mode, text in modes.items():
            fits = [found.largest_batch(name, gib, checkpointing=mode) for gib in GPUS]
            lines.append(f"| {named[name]} | {text} | " + " | ".join(str(n) if n else "-" for n in fits) + " |")
    tera = found.step_flops() / 1e12
    lines += [
        "",
        f"| a step of {work.batch} x {work.accumulation} studies, {tera:,.0f} TFLOP | seconds | hours for {work.steps} steps |",
        "|---|---:|---:|",
    ]
    for gpu in PEAKS:
        hours = found.hours(gpu)
        label = f"{gpu} at {work.utilisation:.0%} of {PEAKS[gpu] / 1e12:.0f} TFLOP/s (assumed)"
        lines.append(f"| {label} | {hours * 3600 / work.steps:.1f} | {hours:.2f} |")
    share = found.logged_utilisation()
    label = f"the published Llama run's log, A100: {share:.0%} of the peak if its step had been 32 of these studies"
    lines.append(f"| {label} | {LOGGED:.1f} | {LOGGED * work.steps / 3600:.2f} |")
    return "\n".join(lines) + "\n"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:.2f} MiB"
