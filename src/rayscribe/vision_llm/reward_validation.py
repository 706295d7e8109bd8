"""Validation during reward training: the reward on val, and the best adapters.

transformers' checkpoints store the state of the run: a validation is a line in its log, at its step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rayscribe.drafts import DecodingConfig
from rayscribe.files import whole_file
from rayscribe.vision_llm.conversation import on_device
from rayscribe.vision_llm.folder import TrainedLlm
from rayscribe.vision_llm.pictures import Examples
from rayscribe.vision_llm.reporter import GENERATION_BATCH, generation_settings
from rayscribe.vision_llm.reward import RewardConfig, mean_parts, report_parts

VALIDATION = "val_"
"Prefix of a validation's rewards in the log."


class Validation(TrainerCallback):
    """Validates before the first step, every `every` steps and after the last one; each validation keeps a checkpoint.

    `best` stores the adapters of the best step in a file of their own, so that those that a killed run wrote after its last
    checkpoint never replace any that are still needed.
    """

    def __init__(
        self,
        trained: TrainedLlm,
        examples: Examples,
        settings: RewardConfig,
        *,
        tokens: int | None,
        every: int,
        best: Path,
        notify: Callable[[str], None],
    ) -> None:
        self.trained, self.examples, self.settings = trained, examples, settings
        self.tokens, self.every, self.best, self.notify = tokens, every, best, notify

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self._validate(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._validate(state)
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        kept = self._file(best_validation(state)["step"])
        for path in self.best.glob("step-*.safetensors"):
            if path != kept:
                path.unlink()

    def restore(self, state: TrainerState) -> dict[str, Any]:
        """Loads the best step's adapters into the model and returns its validation."""
        found = best_validation(state)
        adapters = load_file(self._file(found["step"]))
        with torch.no_grad():
            for name, parameter in learned(self.trained.model).items():
                parameter.copy_(adapters[name])
        return found

    def _validate(self, state: TrainerState) -> None:
        reports, cut = greedy_reports(self.trained, self.examples, tokens=self.tokens)
        references = [self.examples[row].response for row in range(len(self.examples))]
        means = mean_parts(report_parts(reports, references, self.settings, cut=cut), self.settings)
        line = {"step": state.global_step} | {f"{VALIDATION}{name}": value for name, value in means.items()}
        state.log_history.append(line)
        if best_validation(state) is line:
            with whole_file(self._file(state.global_step)) as temporary:
                save_file(
                    {name: parameter.detach().contiguous() for name, parameter in learned(self.trained.model).items()},
                    temporary,
                )
        parts = ", ".join(f"{name} {value:.4f}" for name, value in means.items() if name != "reward")
        self.notify(f"step {state.global_step}: validation reward {means['reward']:.4f} ({parts})")

    def _file(self, step: int) -> Path:
        return self.best / f"step-{step}.safetensors"


def best_validation(state: TrainerState) -> dict[str, Any]:
    """The log line with the highest validation reward, the earliest of ties."""
    lines = [line for line in state.log_history if f"{VALIDATION}reward" in line]
    return max(lines, key=lambda line: (line[f"{VALIDATION}reward"], -line["step"]))


def learned(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def greedy_reports(trained: TrainedLlm, examples: Examples, *, tokens: int | None) -> tuple[list[str], list[bool]]:
    """A report per example, and whether it was cut at `tokens`. Leaves the model's mode and the random state unchanged."""
    model, conversation = trained.model, trained.conversation
    chosen = generation_settings(trained, DecodingConfig(beams=1, max_tokens=tokens), 1)
    ends = torch.tensor(chosen.eos_token_id).flatten()
    reports: list[str] = []
    cut: list[bool] = []
    was_training = model.training
    model.eval()
    for start in range(0, len(examples), GENERATION_BATCH):
        batch = [examples[row] for row in range(start, min(start + GENERATION_BATCH, len(examples)))]
        inputs = on_device(conversation.inputs(batch), trained.device)
        with torch.no_grad(), trained.arithmetic():
            tokens_BT: Tensor = model.generate(**inputs, generation_config=chosen)
        asked = inputs["input_ids"].shape[1]
        reports += conversation.texts(tokens_BT, asked)
        cut += (~torch.isin(tokens_BT[:, asked:].cpu(), ends).any(1)).tolist()
    model.train(was_training)
    return reports, cut
