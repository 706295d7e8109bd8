"""From examples to model inputs: the chat template, token ids, and which tokens count in the loss.

One function builds the prompt, for training and for use. Shapes: B studies, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rayscribe.errors import InputError
from rayscribe.vision_llm.pictures import Example

IGNORED = -100
"Label of a token that the loss ignores (torch's cross_entropy)."

_DATE = "26 Jul 2024"  # some templates write today's date into the prompt; ours is the same every day


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One base model's chat format: its processor and the order of image and text."""

    processor: Any
    images_first: bool = True
    image_tokens: tuple[int, ...] = ()
    "ids that represent pieces of an image; in Mllama they have no row in the output layer"

    @property
    def has_turns(self) -> bool:
        """Whether the model has conversation turns; PaliGemma has a prefix, which it sees all at once, and a suffix."""
        return bool(self.processor.chat_template)

    def prompt(self, example: Example) -> str:
        """The text up to where the assistant starts to write."""
        if not self.has_turns:
            return f"{self.processor.image_token * len(example.pictures)}{example.instruction}"
        return self._written([self.asked(example)], begins=True)

    def whole(self, example: Example) -> str:
        """The same, with the response and its end."""
        answer = {"role": "assistant", "content": [{"type": "text", "text": example.response}]}
        # Text that a template adds after the end of the turn is not a target.
        return self._written([self.asked(example), answer], begins=False).rstrip("\n")

    def inputs(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Inputs of `generate`: prompts padded on the left, so that all of them end where writing starts."""
        batch = self._processed([self.prompt(example) for example in examples], examples, side="left")
        batch.pop("labels", None)  # PaliGemma's processor always adds some
        return batch

    def lesson(self, examples: Sequence[Example], *, loss_on_all: bool = False) -> dict[str, Tensor]:
        """Training inputs: whole conversations, padded on the right, with `labels` (B, T).

        Raises InputError if the template does not begin a whole conversation with its prompt.
        """
        if not self.has_turns:
            return self._continued(examples, loss_on_all=loss_on_all)
        batch = self._processed([self.whole(example) for example in examples], examples, side="right")
        labels_BT = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        labels_BT = self._without_images(labels_BT)
        if not loss_on_all:
            for row, example in enumerate(examples):
                end = int(batch["attention_mask"][row].sum())
                response = self._response_ids(example)
                assert batch["input_ids"][row, end - len(response) : end].tolist() == response
                labels_BT[row, : end - len(response)] = IGNORED
        return batch | {"labels": labels_BT}

    def texts(self, tokens_BT: Tensor, prompt_tokens: int) -> list[str]:
        """The text after the prompt, on one line."""
        written = self.processor.batch_decode(tokens_BT[:, prompt_tokens:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in written]

    @property
    def template_settings(self) -> dict[str, str]:
        """Arguments of the chat template besides the turns."""
        return {"date_string": _DATE} if "date_string" in str(self.processor.chat_template) else {}

    def asked(self, example: Example) -> dict[str, Any]:
        """The user's turn, with a placeholder for every picture."""
        images: list[dict[str, str]] = [{"type": "image"} for _ in example.pictures]
        text = [{"type": "text", "text": example.instruction}]
        return {"role": "user", "content": images + text if self.images_first else text + images}

    def _continued(self, examples: Sequence[Example], *, loss_on_all: bool) -> dict[str, Tensor]:
        """Training inputs of a model without turns, whose processor appends the suffix to the prompt and tells them apart."""
        batch = self._processed(
            [self.prompt(example) for example in examples],
            examples,
            side="right",
            suffix=[example.response for example in examples],
        )
        if loss_on_all:
            labels_BT = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
            batch["labels"] = self._without_images(labels_BT)
        return batch

    def _without_images(self, labels_BT: Tensor) -> Tensor:
        for token in self.image_tokens:
            labels_BT = labels_BT.masked_fill(labels_BT == token, IGNORED)
        return labels_BT

    def _written(self, turns: list[dict[str, Any]], *, begins: bool) -> str:
        text: str = self.processor.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=begins, **self.template_settings
        )
        return text

    def _response_ids(self, example: Example) -> list[int]:
        """Ids of the response with the end of the turn: what follows the prompt in the whole conversation."""
        prompt, whole = (
            self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (self.prompt(example), self.whole(example))
        )
        if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
            raise InputError(
                "the base model's chat template does not begin a conversation with its own prompt, so response and prompt "
                "cannot be told apart; use another base model, or --train.loss-on all"
            )
        response: list[int] = whole[len(prompt) :]
        return response

    def _processed(
        self, texts: list[str], examples: Sequence[Example], *, side: str, **more: list[str]
    ) -> dict[str, Tensor]:
        return dict(
            self.processor(
                text=texts,
                images=[example.pictures for example in examples],
                padding=True,
                padding_side=side,
                add_special_tokens=False,  # the template has already added them
                return_tensors="pt",
                **more,
            )
        )


@dataclass(frozen=True, slots=True)
class Collator:
    """`Conversation.lesson` as the Trainer's collator."""

    conversation: Conversation
    loss_on_all: bool

    def __call__(self, examples: list[Example]) -> dict[str, Tensor]:
        return self.conversation.lesson(examples, loss_on_all=self.loss_on_all)


def on_device(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in inputs.items()}
