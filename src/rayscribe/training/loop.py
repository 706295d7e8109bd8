"""The one training loop, for every method: a plain loop over batches that can be read in one go and resumed anywhere.

Nothing random is carried from step to step: the order of an epoch, the augmentation of an image and the dropout of a step are
functions of the seed and of their number. So a state is weights, optimiser and counters, and a resumed run repeats the
unbroken one bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from rayscribe.config import TrainConfig
from rayscribe.data.dataset import Sampler, StudyDataset, load_batches
from rayscribe.errors import InputError
from rayscribe.study import Batch, Pair, rows_of
from rayscribe.task import Task
from rayscribe.training.folder import RunFolder
from rayscribe.training.processes import Processes

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NOTICEABLE = 1e-4  # share of the loss, as in ReduceLROnPlateau
_CALMER = "then start a new run with a lower --train.lr or with --train.clip-norm 1 (no damaged weights were saved)"


@dataclass(slots=True)
class Progress:
    """Where a run stands. The next thing to do is batch `batch` of epoch `epoch`."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    scores: dict[str, float] = field(default_factory=dict)
    "of the last validation"
    lowest: float = math.inf
    "plateau: the lowest validation loss so far"
    waited: int = 0
    "plateau: epochs since then, or since the rates fell"
    drops: int = 0
    "plateau: how often the rates fell"


def fit(
    task: Task[Any],
    data: StudyDataset,
    order: Sampler,
    *,
    config: TrainConfig,
    seed: int,
    run: RunFolder,
    processes: Processes,
    validate: Callable[[], dict[str, float]],
    keep: Callable[[int, dict[str, float]], None],
) -> Progress:
    """Trains until the epochs or the patience are used up.

    `validate` scores the task on the validation split; `keep` is called with epoch and scores whenever they are the best so
    far. Raises InputError when the loss stops being a number; the last state stays.
    """
    optimizer = build_optimizer(task, config)
    scaler = torch.amp.GradScaler(enabled=config.precision == "float16" and processes.device.type == "cuda")
    progress = _resume(task, optimizer, scaler, run, processes)
    module = task if processes.count == 1 else _parallel(task)
    saved = time.monotonic()
    while progress.epoch < config.epochs and not _is_patience_used_up(progress, config):
        task.train()
        task.start_epoch(progress.epoch, progress.scores)
        rows = order.rows(progress.epoch, accumulate=config.accumulate, rank=processes.rank, processes=processes.count)
        batches = load_batches(data, rows[progress.batch :], workers=config.workers)
        bar = tqdm(
            total=len(rows),
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}/{config.epochs}",
            unit="batch",
            disable=processes.rank > 0,
        )
        while progress.batch < len(rows):
            began = time.monotonic()
            group: list[Batch | Pair[Any, Any]] = [
                next(batches) for _ in range(min(config.accumulate, len(rows) - progress.batch))
            ]
            factor = lr_factor(config, progress.step, progress.epoch + progress.batch / len(rows), progress.drops)
            torch.manual_seed((seed * 1_000_003 + progress.step) * processes.count + processes.rank)
            losses = _step(module, optimizer, scaler, group, config, factor, processes, data)
            progress.batch += len(group)
            progress.step += 1
            bar.update(len(group))
            bar.set_postfix(loss=f"{losses['loss']:.3f}")
            seconds = time.monotonic() - began
            run.log_step({"epoch": progress.epoch, "step": progress.step, **losses, "lr": config.lr * factor}, seconds)
            if time.monotonic() - saved > 60 * config.checkpoint_minutes and progress.batch < len(rows):
                _save(task, optimizer, scaler, progress, run, processes)
                saved = time.monotonic()
        bar.close()
        _check_weights(task, progress)
        task.eval()
        progress.scores = validate()
        run.log_epoch({"epoch": progress.epoch, "step": progress.step, **progress.scores})
        _wait_on_plateau(progress, config)
        score = progress.scores[config.metric] * (-1 if config.metric == "loss" else 1)
        if score > progress.best and progress.epoch + 1 >= config.min_epochs:
            progress.best, progress.best_epoch = score, progress.epoch
            keep(progress.epoch, progress.scores)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        _save(task, optimizer, scaler, progress, run, processes)
        saved = time.monotonic()
    return progress


def _parallel(task: Task[Any]) -> nn.Module:
    return DistributedDataParallel(task, find_unused_parameters=task.leaves_out_parameters)


def lr_factor(config: TrainConfig, step: int, epochs: float, drops: int = 0) -> float:
    """What the learning rates are multiplied with at one step, after that many `epochs` (epochs may differ in length)."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "step":
        return warm * config.gamma ** (int(epochs) // config.step_epochs)
    if config.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * epochs / config.epochs))
    if config.schedule == "plateau":
        return warm * config.gamma**drops
    return warm


def _wait_on_plateau(progress: Progress, config: TrainConfig) -> None:
    """As ReduceLROnPlateau: the rates fall once the validation loss has not fallen for more than `plateau_epochs`."""
    if progress.scores["loss"] < progress.lowest * (1 - _NOTICEABLE):
        progress.lowest, progress.waited = progress.scores["loss"], 0
        return
    progress.waited += 1
    if progress.waited > config.plateau_epochs:
        progress.drops, progress.waited = progress.drops + 1, 0


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    group: Sequence[Batch | Pair[Any, Any]],
    config: TrainConfig,
    factor: float,
    processes: Processes,
    data: StudyDataset,
) -> dict[str, float]:
    """One optimiser step over the batches of `group`. Returns the losses and the norm of the gradient."""
    precision = torch.autocast(
        processes.device.type, _PRECISIONS[config.precision], enabled=config.precision != "float32"
    )
    sums: dict[str, float] = {}
    for index, batch in enumerate(group):
        waits = isinstance(module, DistributedDataParallel) and index < len(group) - 1
        with module.no_sync() if waits else nullcontext(), precision:  # type: ignore[operator]
            losses = module(batch.to(processes.device))
            scaler.scale(losses["loss"] / len(group)).backward()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach()) / len(group)
    # Every process divides by the mean count of the step, so the mean of what they hold is the loss of the step.
    sums = {name: processes.mean(value) for name, value in sums.items()}
    scaler.unscale_(optimizer)
    parameters = [parameter for group_ in optimizer.param_groups for parameter in group_["params"]]
    norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if not (math.isfinite(sums["loss"]) and (math.isfinite(norm) or scaler.is_enabled())):
        names = [data.studies[row].id for draw in group for row in rows_of(draw)]
        raise InputError(
            f"the loss is {sums['loss']} and the gradient's norm {norm}; the studies of this step: {', '.join(names)}. "
            f"Look at these studies; {_CALMER}"
        )
    if config.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, config.clip_value)
    if config.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, config.clip_norm, torch.tensor(norm))
    for group_ in optimizer.param_groups:
        group_["lr"] = group_["base_lr"] * factor
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return sums | {"gradient_norm": norm}


def build_optimizer(task: Task[Any], config: TrainConfig) -> torch.optim.Optimizer:
    """One rate for the image encoder, one for everything else, as in R2Gen."""
    backbone = {id(parameter) for parameter in task.model.backbone.parameters()}
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) in backbone], "lr": config.lr_backbone, "base_lr": config.lr_backbone},
        {"params": [p for p in trained if id(p) not in backbone], "lr": config.lr, "base_lr": config.lr},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(
        [group for group in groups if group["params"]],
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
        fused=True,
    )


def _is_patience_used_up(progress: Progress, config: TrainConfig) -> bool:
    return progress.best_epoch >= 0 and progress.epoch - 1 - progress.best_epoch >= config.patience


def _check_weights(task: Task[Any], progress: Progress) -> None:
    if not all(parameter.isfinite().all() for parameter in task.parameters()):
        raise InputError(f"the weights are no longer numbers after step {progress.step}; {_CALMER}")


def _save(
    task: Task[Any],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    run: RunFolder,
    processes: Processes,
) -> None:
    _check_weights(task, progress)
    if processes.rank == 0:
        run.save_state(
            {
                "task": task.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "progress": asdict(progress),
            }
        )
    processes.wait()


def _resume(
    task: Task[Any],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    run: RunFolder,
    processes: Processes,
) -> Progress:
    state: dict[str, Any] | None = run.load_state(processes.device)
    if state is None:
        return Progress()
    try:
        task.load_state_dict(state["task"])
    except RuntimeError as error:
        raise InputError(
            f"{run.path}: the training state is of another version of rayscribe; finish the run with that one, or start anew"
        ) from error
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    progress = Progress(**state["progress"])
    if processes.rank == 0:
        run.forget_after(progress.step)
    return progress
