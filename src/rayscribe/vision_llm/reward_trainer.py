"""trl's trainer for a tuned vision LLM: which models it can train, the order of studies, and the reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback

from rayscribe.errors import InputError
from rayscribe.vision_llm.conversation import Conversation
from rayscribe.vision_llm.folder import TrainedLlm
from rayscribe.vision_llm.pictures import Example, Examples, response_text
from rayscribe.vision_llm.reward import RewardConfig, RewardTrainConfig, mean_parts, report_parts

CARRIED = frozenset(
    {"input_ids", "attention_mask", "pixel_values", "pixel_attention_mask", "image_grid_thw", "image_sizes"}
    | {"token_type_ids", "mm_token_type_ids"}
)
"Inputs that trl (1.16) passes from the processor to the model in training; families that need others cannot be trained."

_PER_TOKEN = {"token_type_ids", "mm_token_type_ids"}


def check_trainable(conversation: Conversation, example: Example) -> None:
    """Raises InputError if trl would omit inputs of the model, or would prompt it differently from `generate`."""
    ours = conversation.inputs([example])
    if lacking := sorted(set(ours) - CARRIED):
        raise InputError(
            f"trl cannot train this family of models by reward: it does not pass on {', '.join(lacking)}. "
            "LLaVA, Idefics3 and Qwen2-VL work; Llama 3.2 Vision can only be tuned with `rayscribe llm train`"
        )
    processor, wanted = conversation.processor, ours["input_ids"][0].tolist()
    turn = conversation.asked(example)
    pictures = iter(example.pictures)
    content = [part | {"image": next(pictures)} if part["type"] == "image" else part for part in turn["content"]]
    theirs = processor.apply_chat_template(
        conversation=[[turn | {"content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **conversation.template_settings,
    )
    plain = processor(text=[conversation.prompt(example)], images=[example.pictures])
    if list(theirs["input_ids"][0]) != wanted or (_PER_TOKEN & set(ours) and len(plain["input_ids"][0]) != len(wanted)):
        raise InputError(
            "trl would prompt this model with other tokens than `generate` (its tokenizer and its chat template disagree on "
            "which of them adds the begin token), so it cannot be trained by reward"
        )


def reward_trainer(trained: TrainedLlm, config: RewardTrainConfig, lessons: Examples, folder: Path) -> Any:
    """trl's trainer over the studies of `lessons`, in an order that depends on the seed alone."""
    import datasets  # type: ignore[import-untyped]
    import huggingface_hub.constants
    from trl.trainer.grpo_config import GRPOConfig  # seconds to import, and optional
    from trl.trainer.grpo_trainer import GRPOTrainer

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # trl would report every run to its makers
    conversation, reports = trained.conversation, config.studies_per_step * config.generations
    conversation.processor.tokenizer.padding_side = "left"
    rows = datasets.Dataset.from_dict({"study": study_order(len(lessons), config)})
    rows.set_transform(_Questions(conversation, lessons, kept=config.studies_per_step))
    references = [response_text(study, trained.config.text) for study in lessons.studies]
    arguments = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=reports // config.batch_size,
        num_generations=config.generations,
        max_completion_length=config.max_new_tokens or trained.config.text.max_new_tokens,
        temperature=config.temperature,
        beta=config.beta,
        learning_rate=config.lr,
        lr_scheduler_type="constant",
        max_steps=config.steps,
        optim="adamw_torch",
        bf16=not trained.is_exact,
        use_cpu=trained.device.type == "cpu",
        gradient_checkpointing=trained.config.train.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        disable_dropout=True,  # the model that wrote a report also scores it
        shuffle_dataset=False,  # `study_order` has shuffled
        # So that a diverged run ends in its loss, not in sampling.
        generation_kwargs={"remove_invalid_values": True},
        log_multimodal=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.evaluate_every,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
    )
    # transformers' `generate` encodes the images outside of `forward`, and only `forward` runs in trl's mixed precision.
    trained.model.generate = _in_arithmetic(trained, trained.model.generate)
    trainer = GRPOTrainer(
        model=trained.model,
        reward_funcs=_paid(conversation, references, config.reward, trained),
        args=arguments,
        train_dataset=rows,
        processing_class=conversation.processor,
    )
    trainer.remove_callback(PrinterCallback)  # forty numbers per step; they are in the log
    return trainer


def _in_arithmetic(trained: TrainedLlm, generate: Callable[..., Any]) -> Callable[..., Any]:
    def generated(*given: Any, **named: Any) -> Any:
        with trained.arithmetic():
            return generate(*given, **named)

    return generated


def study_order(studies: int, config: RewardTrainConfig) -> list[int]:
    """Studies of all steps in sequence: every study once, in a new order, before any is repeated."""
    order: list[int] = []
    for epoch in range(-(-config.steps * config.studies_per_step // studies)):
        generator = np.random.default_rng((config.seed, epoch))
        order += generator.permutation(studies).tolist()
    return order[: config.steps * config.studies_per_step]


@dataclass
class _Questions:
    """Rows of the data set to trl's inputs: our turn, its pictures. Caches the last studies, as trl requests each often."""

    conversation: Conversation
    lessons: Examples
    kept: int
    read: dict[int, Example] = field(default_factory=dict)

    def __call__(self, rows: dict[str, list[int]]) -> dict[str, list[Any]]:
        examples = [self._example(row) for row in rows["study"]]
        return {
            "study": rows["study"],
            "prompt": [[self.conversation.asked(example)] for example in examples],
            "images": [example.pictures for example in examples],
        }

    def _example(self, row: int) -> Example:
        if row not in self.read:
            while len(self.read) >= self.kept:
                self.read.pop(next(iter(self.read)))
            self.read[row] = self.lessons[row]
        return self.read[row]


def _paid(
    conversation: Conversation, references: Sequence[str], settings: RewardConfig, trained: TrainedLlm
) -> Callable[..., list[float | None]]:
    own = trained.model.generation_config.eos_token_id
    ends = {conversation.processor.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}

    def reward(
        completion_ids: list[list[int]], study: list[int], log_metric: Callable[[str, float], None], **others: Any
    ) -> list[float | None]:
        texts = conversation.processor.batch_decode(completion_ids, skip_special_tokens=True)
        written = [" ".join(text.split()) for text in texts]
        cut = [not ids or ids[-1] not in ends for ids in completion_ids]
        parts = report_parts(written, [references[row] for row in study], settings, cut=cut)
        for name, mean in mean_parts(parts, settings).items():
            if name != "reward":  # trl logs this itself
                log_metric(name, mean)
        return [one.total(settings) for one in parts]

    return reward
