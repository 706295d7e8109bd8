"""Reward training of a tuned vision LLM: group relative policy optimisation with trl, on the reward of `reward.py`.

The path: tuned model -> studies with a report -> trl's trainer, which samples reports and learns -> the adapters with the
highest validation reward in the run folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import set_seed

from rayscribe.data.cleaning import words_only
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.errors import InputError, need_packages
from rayscribe.files import naming, sha256_of
from rayscribe.models.device import chosen_device
from rayscribe.models.folder import origin_of
from rayscribe.provenance import check_unseen, inherited, write_training_images
from rayscribe.settings import to_plain
from rayscribe.study import Study
from rayscribe.vision_llm.folder import ADAPTERS, TrainedLlm, load_llm, save_llm
from rayscribe.vision_llm.llm_run import (
    StopDiverged,
    drawn,
    last_whole,
    prompted_findings,
    run_digest,
    start_run,
    write_log,
)
from rayscribe.vision_llm.pictures import Examples, learnable, response_text
from rayscribe.vision_llm.reward import RewardTrainConfig
from rayscribe.vision_llm.reward_trainer import check_trainable, reward_trainer
from rayscribe.vision_llm.reward_validation import VALIDATION, Validation

_PARTS = ("reward", "clinical", "overlap", "repeated", "unfinished")
_OF_BATCH = ("loss", "grad_norm", "kl", *_PARTS, "reward_std", "completions/mean_length")
_LOGGED = (*_OF_BATCH, *(f"{VALIDATION}{part}" for part in _PARTS))


def train_reward(
    model: Path,
    config: RewardTrainConfig,
    data: Path,
    run: Path,
    *,
    base: str | None = None,
    resume: bool = False,
    notify: Callable[[str], None] = print,
) -> None:
    """Trains on the train split, keeps the adapters with the highest reward on val, and never reads the test split.

    Raises InputError for unusable input, and for a model that trl cannot train. After `kill -9` the same call with `resume`
    ends with the same adapters.
    """
    _check_machine()
    manifest = read_manifest(data)
    check_unseen(model, [*manifest.split("val"), *manifest.split("test")], "val or test")
    trained = load_llm(model, chosen_device(), base=base)
    if not isinstance(trained.model, PeftModel):
        raise InputError(f"{model}: contains no adapters to train; tune it with `rayscribe llm train` first")
    training, validation = (_studies(manifest, split, trained) for split in ("train", "val"))
    validation = drawn(validation, config.val_studies, config.seed)
    notify(f"{len(training)} studies to learn from, {len(validation)} to validate on")
    prompt = trained.config.prompt
    lessons, tests = (
        Examples(studies, trained.config, prompted_findings(prompt, studies)) for studies in (training, validation)
    )
    check_trainable(trained.conversation, lessons[0])
    adapters = sha256_of(model / ADAPTERS)
    start_run(run, config, run_digest([manifest.digest(), trained.base_sha256, adapters], prompt), resume=resume)
    write_training_images(run, training, [str(model)])
    checkpoint = last_whole(run / "checkpoints", may_delete=True) if resume else None

    set_seed(config.seed)
    _let_learn(trained.model)
    check = Validation(
        trained,
        tests,
        config.reward,
        tokens=config.max_new_tokens or None,
        every=config.evaluate_every,
        best=run / "best",
        notify=notify,
    )
    trainer = reward_trainer(trained, config, lessons, run / "checkpoints")
    trainer.add_callback(check)
    trainer.add_callback(StopDiverged(("loss", "grad_norm", "kl"), "--lr"))
    with naming(run / "checkpoints"):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    best = check.restore(trainer.state)
    write_log(run / "log.csv", trainer.state.log_history, {name: name for name in _LOGGED})
    if "ref" in trained.model.peft_config:
        trained.model.delete_adapter("ref")
    facts = _facts(best, trainer.state.global_step, trained, adapters, config)
    about = inherited(manifest.provenance, origin_of(str(model))) | {"digest": manifest.digest()}
    save_llm(run, replace(trained, data=about, training=facts))
    notify(f"best: step {best['step']} of {config.steps}, validation reward {facts['validation']['reward']:.4f}; {run}")


def _check_machine() -> None:
    need_packages("reward", "trl")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("reward training runs in one process; start it without torchrun")
    if torch.cuda.device_count() > 1:
        raise InputError("reward training runs on one GPU; make only one visible, e.g. with CUDA_VISIBLE_DEVICES=0")


def _facts(
    best: Mapping[str, Any], steps: int, trained: TrainedLlm, adapters: str, config: RewardTrainConfig
) -> dict[str, Any]:
    """Facts on the training for model.json; `adapters`: the digest of the initial ones."""
    return {
        "step": best["step"],
        "steps": steps,
        "validation": {name: best[f"{VALIDATION}{name}"] for name in _PARTS},
        "reward": {
            "from_adapters_sha256": adapters,
            "from_training": dict(trained.training),
            "settings": to_plain(config),
        },
    }


def _studies(manifest: Manifest, split: str, trained: TrainedLlm) -> list[Study]:
    """The studies with a report of the right length that is not empty. Raises InputError if there are none."""
    text = trained.config.text
    found = [study for study in learnable(manifest.split(split), text) if words_only(response_text(study, text))]
    if not found:
        raise InputError(
            f"no study in split {split} has a report of the section and length that the model was tuned for"
        )
    return found


def _let_learn(model: PeftModel) -> None:
    """Restores the adapters as in tuning: in float32, with gradients."""
    model.peft_config["default"].inference_mode = False
    model.set_adapter("default")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
