"""What a vision LLM reads, and which tokens its loss counts, in six families."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny import BEGIN, END
from transformers import AutoConfig

from rayscribe.errors import InputError
from rayscribe.vision_llm.base import load_conversation
from rayscribe.vision_llm.conversation import IGNORED, Conversation
from rayscribe.vision_llm.pictures import Example

TALKING = ("mllama", "idefics3", "llava", "qwen2_vl", "gemma3")
NAMES = (*TALKING, "paligemma")
SHORT, LONG = "Lungs are clear.", "The heart is enlarged. There is a small left pleural effusion."


def opened(base: Path, order: str = "images-first") -> Conversation:
    token = AutoConfig.from_pretrained(base).image_token_id
    return load_conversation(str(base), image_token=token, order=order)


def example(response: str, images: int = 1) -> Example:
    pictures = [Image.effect_noise((64, 56), 80).convert("RGB") for _ in range(images)]
    return Example(pictures=pictures, instruction="Describe it.", response=response)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_counts_the_response_and_its_end_alone(bases: dict[str, Path], name: str) -> None:
    conversation = opened(bases[name])
    lesson = conversation.lesson([example(LONG), example(SHORT)])
    tokenizer = conversation.processor.tokenizer
    for ids, labels, response in zip(lesson["input_ids"], lesson["labels"], (LONG, SHORT), strict=True):
        learned = labels[labels != IGNORED]
        assert tokenizer.decode(learned) == response + END
        assert ids[labels != IGNORED].tolist() == learned.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_on_all_leaves_out_images_and_padding_only(bases: dict[str, Path], name: str) -> None:
    conversation = opened(bases[name])
    lesson = conversation.lesson([example(LONG), example(SHORT)], loss_on_all=True)
    (image,) = conversation.image_tokens
    left_out = (lesson["input_ids"] == image) | (lesson["attention_mask"] == 0)
    assert (lesson["labels"] == IGNORED).equal(left_out)
    assert (lesson["input_ids"] == image).any() and (lesson["attention_mask"] == 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_begins_what_is_learned_with_one_begin_token(bases: dict[str, Path], name: str) -> None:
    conversation = opened(bases[name])
    one = example(LONG)
    asked = conversation.inputs([one])["input_ids"][0].tolist()
    learned = conversation.lesson([one])["input_ids"][0].tolist()
    assert learned[: len(asked)] == asked
    assert asked.count(conversation.processor.tokenizer.convert_tokens_to_ids(BEGIN)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_padded_on_the_left_and_end_together(bases: dict[str, Path], name: str) -> None:
    conversation = opened(bases[name])
    few, many = replace(example(""), instruction="Look."), example("", images=2)
    both = conversation.inputs([few, many])
    assert both["attention_mask"][:, -1].all() and not both["attention_mask"][0, 0]
    alone = conversation.inputs([few])["input_ids"][0]
    assert both["input_ids"][0, -len(alone) :].equal(alone)


@pytest.mark.parametrize("name", TALKING)
def test_the_order_of_image_and_text_is_a_setting(bases: dict[str, Path], name: str) -> None:
    one = example("")
    first, last = opened(bases[name]).prompt(one), opened(bases[name], "text-first").prompt(one)
    assert first != last and sorted(first) == sorted(last)
    assert last.index("Describe it.") < first.index("Describe it.")


def test_a_template_that_does_not_begin_with_its_prompt_is_refused(bases: dict[str, Path]) -> None:
    conversation = opened(bases["llava"])
    template = conversation.processor.chat_template
    conversation.processor.chat_template = template.replace(
        "{% if add_generation_prompt %}", "{% if add_generation_prompt %}Now: "
    )
    with pytest.raises(InputError, match="chat template does not begin a conversation with its own prompt"):
        conversation.lesson([example(SHORT)])


def test_the_days_date_is_not_in_the_prompt(bases: dict[str, Path]) -> None:
    conversation = opened(bases["llava"])
    conversation.processor.chat_template = (
        "{% if not date_string is defined %}{{ raise_exception('today') }}{% endif %}{{ date_string }}"
    )
    assert conversation.prompt(example("")) == "26 Jul 2024"


def test_a_model_without_turns_sees_the_images_first(bases: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="always sees the images first"):
        opened(bases["paligemma"], "text-first")
