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

from rayscribe.config import TrainConfig
from rayscribe.data.dataset import Sampler, StudyDataset, load_batches
from rayscribe.errors import InputError
from rayscribe.progress import Meter
from rayscribe.study import Batch, Pair, rows_of
from rayscribe.task import Task
from rayscribe.training.estimate import AFTER, Pace, frozen_seconds
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """What is fitted, on what, and what happens after every epoch."""

    task: Task[Any]
    data: StudyDataset
    order: Sampler
    validate: Callable[[], dict[str, float]]
    "scores the task on the validation split"
    keep: Callable[[int, dict[str, float]], None]
    "called with epoch and scores whenever they are the best so far"
    notify: Callable[[str], None] = print
    "tells the user how long the run will take"


def fit(fitting: Fitting, config: TrainConfig, *, seed: int, run: RunFolder, processes: Processes) -> Progress:
    """Trains until the epochs or the patience are used up.

    Raises InputError when the loss stops being a number; the last state stays.
    """
    loop = _Loop(fitting, config, seed, run, processes)
    progress = loop.resume()
    while progress.epoch < config.epochs and not _is_patience_used_up(progress, config):
        loop.train_epoch(progress)
        loop.finish_epoch(progress)
    return progress


class _Loop:
    """One run's optimiser and what it works on."""

    def __init__(self, fitting: Fitting, config: TrainConfig, seed: int, run: RunFolder, processes: Processes) -> None:
        self.fitting, self.config, self.seed, self.run, self.processes = fitting, config, seed, run, processes
        self.task = fitting.task
        self.optimizer = build_optimizer(self.task, config)
        self.scaler = torch.amp.GradScaler(enabled=config.precision == "float16" and processes.device.type == "cuda")
        self.module: nn.Module = self.task
        self.saved = time.monotonic()
        self.seconds: list[float] = []

    def train_epoch(self, progress: Progress) -> None:
        """The batches that are left of the epoch."""
        config, processes = self.config, self.processes
        self.task.train()
        self.task.start_epoch(progress.epoch, progress.scores)
        rows = self.fitting.order.rows(
            progress.epoch, accumulate=config.accumulate, rank=processes.rank, processes=processes.count
        )
        batches = load_batches(self.fitting.data, rows[progress.batch :], workers=config.workers)
        epoch, is_first = f"epoch {progress.epoch + 1}/{config.epochs}", processes.rank == 0
        bar = Meter(desc=epoch, unit="batch", total=len(rows), initial=progress.batch, is_shown=is_first)
        while progress.batch < len(rows):
            began = time.monotonic()
            group: list[Batch | Pair[Any, Any]] = [
                next(batches) for _ in range(min(config.accumulate, len(rows) - progress.batch))
            ]
            factor = lr_factor(config, progress.step, progress.epoch + progress.batch / len(rows), progress.drops)
            torch.manual_seed((self.seed * 1_000_003 + progress.step) * processes.count + processes.rank)
            losses = self.step(group, factor)
            progress.batch += len(group)
            progress.step += 1
            bar.describe(epoch, note=f"loss {losses['loss']:.3f}")
            bar.update(len(group))
            place = {"epoch": progress.epoch, "step": progress.step}
            seconds = time.monotonic() - began
            self.run.log_step({**place, **losses, "lr": config.lr * factor}, seconds)
            self.estimate(seconds, group[0], progress, len(rows))
            if time.monotonic() - self.saved > 60 * config.checkpoint_minutes and progress.batch < len(rows):
                self.save(progress)
        bar.close()

    def estimate(self, seconds: float, draw: Batch | Pair[Any, Any], progress: Progress, batches: int) -> None:
        """After the first steps of this process, tells the user how long the rest takes."""
        self.seconds.append(seconds)
        if len(self.seconds) != AFTER or self.processes.rank > 0:
            return
        epochs = self.config.epochs - progress.epoch
        steps_left = -(-(epochs * batches - progress.batch) // self.config.accumulate)
        pace = Pace(seconds=self.seconds, steps_left=steps_left, epochs=epochs, device=self.processes.device)
        if told := pace.sentence(frozen_seconds(pace, self.task.model.backbone, draw, batches)):
            self.fitting.notify(told)

    def finish_epoch(self, progress: Progress) -> None:
        """Validation, and the state after it."""
        _check_weights(self.task, progress)
        self.task.eval()
        progress.scores = self.fitting.validate()
        self.run.log_epoch({"epoch": progress.epoch, "step": progress.step, **progress.scores})
        _wait_on_plateau(progress, self.config)
        score = progress.scores[self.config.metric] * (-1 if self.config.metric == "loss" else 1)
        if score > progress.best and progress.epoch + 1 >= self.config.min_epochs:
            progress.best, progress.best_epoch = score, progress.epoch
            self.fitting.keep(progress.epoch, progress.scores)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self.save(progress)

    def step(self, group: Sequence[Batch | Pair[Any, Any]], factor: float) -> dict[str, float]:
        """One optimiser step over the batches of `group`. Returns the losses and the norm of the gradient."""
        sums = self._backward(group)
        self.scaler.unscale_(self.optimizer)
        parameters = [parameter for one in self.optimizer.param_groups for parameter in one["params"]]
        norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if not (math.isfinite(sums["loss"]) and (math.isfinite(norm) or self.scaler.is_enabled())):
            names = [self.fitting.data.studies[row].id for draw in group for row in rows_of(draw)]
            raise InputError(
                f"the loss is {sums['loss']} and the gradient's norm {norm}; the studies of this step: "
                f"{', '.join(names)}. Look at these studies; {_CALMER}"
            )
        if self.config.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.config.clip_value)
        if self.config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip_norm, torch.tensor(norm))
        for one in self.optimizer.param_groups:
            one["lr"] = one["base_lr"] * factor
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return sums | {"gradient_norm": norm}

    def _backward(self, group: Sequence[Batch | Pair[Any, Any]]) -> dict[str, float]:
        """Gradients of the mean loss; the means of all losses, over all processes."""
        device, module = self.processes.device, self.module
        kind = _PRECISIONS[self.config.precision]
        precision = torch.autocast(device.type, kind, enabled=self.config.precision != "float32")
        sums: dict[str, float] = {}
        for index, batch in enumerate(group):
            waits = isinstance(module, DistributedDataParallel) and index < len(group) - 1
            with module.no_sync() if waits else nullcontext(), precision:  # type: ignore[operator]
                losses = module(batch.to(device))
                self.scaler.scale(losses["loss"] / len(group)).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach()) / len(group)
        # Every process divides by the mean count of the step, so the mean of what they hold is the loss of the step.
        return {name: self.processes.mean(value) for name, value in sums.items()}

    def save(self, progress: Progress) -> None:
        """The training state; none with weights that are no numbers."""
        _check_weights(self.task, progress)
        if self.processes.rank == 0:
            self.run.save_state(
                {
                    "task": self.task.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "progress": asdict(progress),
                }
            )
        self.processes.wait()
        self.saved = time.monotonic()

    def resume(self) -> Progress:
        """Where the run stands, with the state that it was left in."""
        state: dict[str, Any] | None = self.run.load_state(self.processes.device)
        progress = Progress()
        if state is not None:
            try:
                self.task.load_state_dict(state["task"])
            except RuntimeError as error:
                raise InputError(
                    f"{self.run.path}: the training state is of another version of rayscribe; finish the run with that "
                    "one, or start anew"
                ) from error
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            progress = Progress(**state["progress"])
            if self.processes.rank == 0:
                self.run.forget_after(progress.step)
        if self.processes.count > 1:  # after the weights are what they shall be
            self.module = DistributedDataParallel(self.task, find_unused_parameters=self.task.leaves_out_parameters)
        return progress


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
