"""Tunes a vision LLM with LoRA on a manifest, with `transformers.Trainer`, which supports several GPUs, FSDP and DeepSpeed.

The path: manifest -> studies with a report -> base model -> adapters -> Trainer -> the best adapters in the run folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.errors import InputError
from rayscribe.files import naming
from rayscribe.models.folder import origin_of
from rayscribe.provenance import check_unseen, inherited, write_training_images
from rayscribe.study import Study
from rayscribe.vision_llm.base import base_digest, base_folder, load_base, load_conversation
from rayscribe.vision_llm.checkpointing import recompute_layers
from rayscribe.vision_llm.config import LlmConfig, LlmTrainConfig
from rayscribe.vision_llm.conversation import Collator
from rayscribe.vision_llm.folder import TrainedLlm, save_llm
from rayscribe.vision_llm.llm_run import (
    StopDiverged,
    drawn,
    last_whole,
    prompted_findings,
    run_digest,
    start_run,
    stopped_at,
    write_log,
)
from rayscribe.vision_llm.lora import lora_config
from rayscribe.vision_llm.pictures import Examples, learnable

_LOGGED = {"loss": "loss", "lr": "learning_rate", "val_loss": "eval_loss"}


def train_llm(
    config: LlmConfig,
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    download: bool = False,
    notify: Callable[[str], None] = print,
) -> None:
    """Tunes on the train split, keeps the adapters with the lowest loss on val, and never reads the test split.

    Raises InputError for unusable input. After `kill -9` the same call with `resume` ends with the same adapters.
    """
    is_first = int(os.environ.get("RANK", "0")) == 0
    notify = notify if is_first else _silent
    _check_shares(config.train)
    manifest = read_manifest(data)
    training, validation = (_studies(manifest, split, config, notify) for split in ("train", "val"))
    validation = drawn(validation, config.train.val_studies, config.seed)
    states = prompted_findings(config.prompt, [*training, *validation])
    place = base_folder(config.base, config.revision, download=download)
    base_sha256 = base_digest(place)
    check_unseen(place, [*manifest.split("val"), *manifest.split("test")], "val or test")
    if is_first:
        start_run(run, config, run_digest([manifest.digest(), base_sha256], config.prompt), resume=resume)
        write_training_images(run, training, [str(place)])
    checkpoint = last_whole(run / "checkpoints", may_delete=is_first) if resume else None

    set_seed(config.seed)
    device = _device()
    base = load_base(place, config, device)
    conversation = load_conversation(place, image_token=base.config.image_token_id, order=config.prompt.order)
    model = adapted(base, config)
    trainable, total = model.get_nb_trainable_parameters()
    notify(f"{Path(config.base).name}: {trainable:,} of {total:,} parameters learn; weights {config.weights}")
    steps = total_steps(len(training), config.train)
    if checkpoint is not None and (stopped := stopped_at(checkpoint, config.train.patience)):
        steps = stopped  # the Trainer does not remember that it stopped
    trainer = Trainer(
        model=model,
        args=training_arguments(config, run / "checkpoints", steps, device),
        train_dataset=Examples(training, config, states),
        eval_dataset=Examples(validation, config, states),
        data_collator=Collator(conversation, config.train.loss_on == "all"),
        callbacks=[EarlyStoppingCallback(config.train.patience), StopDiverged(("loss", "eval_loss"), "--train.lr")],
    )
    try:
        with naming(run / "checkpoints"):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except SafetensorError as error:
        raise InputError(f"{run}: cannot be written ({error}); free some disk space and --resume") from error
    if trainer.is_world_process_zero():
        about = inherited(manifest.provenance, origin_of(str(place))) | {"digest": manifest.digest()}
        trained = TrainedLlm(
            model=model, conversation=conversation, config=config, data=about, training={}, base_sha256=base_sha256
        )
        _save(run, trained, trainer, notify)


def _save(run: Path, trained: TrainedLlm, trainer: Trainer, notify: Callable[[str], None]) -> None:
    """Saves the log, and the best adapters, which the Trainer has loaded, with their validation."""
    state = trainer.state
    write_log(run / "log.csv", state.log_history, _LOGGED)
    facts = {"step": state.best_global_step, "validation": {"loss": state.best_metric}, "steps": state.global_step}
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_llm(run, replace(trained, model=model, training=facts))
    notify(
        f"best: step {state.best_global_step} of {state.global_step}, validation loss {state.best_metric:.4f}; {run}"
    )


def adapted(base: Any, config: LlmConfig) -> Any:
    """The base with trainable adapters in float32; all other weights are frozen. Raises InputError if nothing fits."""
    if config.weights in ("nf4", "int8"):
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    if config.weights == "bfloat16" and config.train.precision == "float32" and config.lora.projector:
        raise InputError(
            "--train.precision float32: --weights bfloat16 feeds bfloat16 to a projector that trains in float32; "
            "give --weights float32, or --train.precision bfloat16"
        )
    base.config.use_cache = False
    try:
        model = get_peft_model(base, lora_config(base, config.lora))
    except ValueError as error:
        raise InputError(f"{config.base}: {error}; see --lora") from error
    if config.train.gradient_checkpointing:
        recompute_layers(base)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def total_steps(studies: int, train: LlmTrainConfig) -> int:
    """Optimiser steps of the whole run."""
    return train.max_steps or max(1, math.ceil(train.epochs * math.ceil(studies / train.studies_per_step)))


def _studies(manifest: Manifest, split: str, config: LlmConfig, notify: Callable[[str], None]) -> list[Study]:
    studies = manifest.split(split)
    kept = learnable(studies, config.text)
    if not kept:
        raise InputError(f"no study in split {split} has a report of the requested section and length (--text)")
    notify(
        f"{split}: {len(kept)} studies" + (f", {len(studies) - len(kept)} left out" if len(kept) < len(studies) else "")
    )
    return kept


def _check_shares(train: LlmTrainConfig) -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if train.studies_per_step % (train.batch_size * processes):
        raise InputError(
            f"--train.batch-size {train.batch_size} on each of {processes} devices does not divide --train.studies-per-step "
            f"{train.studies_per_step}; change one of the two"
        )


def training_arguments(config: LlmConfig, folder: Path, steps: int, device: torch.device) -> TrainingArguments:
    train, processes = config.train, int(os.environ.get("WORLD_SIZE", "1"))
    every = min(train.evaluate_every, steps)
    optimizer = train.optimizer
    if optimizer == "auto":
        optimizer = "adamw_8bit" if device.type == "cuda" else "adamw_torch"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        gradient_accumulation_steps=train.studies_per_step // (train.batch_size * processes),
        max_steps=steps,
        learning_rate=train.lr,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=optimizer,
        bf16=train.precision == "bfloat16",
        use_cpu=device.type == "cpu",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        prediction_loss_only=True,
        logging_steps=every,
        logging_nan_inf_filter=False,
        report_to=[],
        seed=config.seed,
        data_seed=config.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=train.workers,
        ddp_find_unused_parameters=False,
    )
    # Without torchrun the Trainer would split every batch over all GPUs, and take several times the studies per step.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _silent(text: str) -> None:
    return None
