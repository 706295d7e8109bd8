"""Adapters sit where the published run had them, in every family, and each of them learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import get_peft_model
from PIL import Image
from tiny import tiny_idefics3, tiny_llava, tiny_mllama, tiny_qwen2_vl
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from rayscribe.errors import InputError
from rayscribe.vision_llm.lora import LoraSettings, lora_config, projector, targets, towers

ATTENTION, GATED, PLAIN = 4, 3, 2  # linear layers of an attention, of a gated MLP, of a plain one


def on_meta(config: Any) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def llama_vision() -> PreTrainedModel:
    return on_meta(transformers.MllamaConfig(vision_config={"image_size": 560}))


def trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "parameters"), [(16, 67_174_400), (20, 83_968_000)])
def test_llama_vision_gets_as_many_trainable_parameters_as_the_published_logs_say(rank: int, parameters: int) -> None:
    model = llama_vision()
    adapted = get_peft_model(model, lora_config(model, LoraSettings(rank=rank)), low_cpu_mem_usage=True)
    assert trainable(adapted) == parameters


FAMILIES = [  # configuration class, its changes, layers of the vision tower, linear layers in one, layers that write
    (transformers.MllamaConfig, {}, 32 + 8, ATTENTION + PLAIN, 40),
    (transformers.Idefics3Config, {}, 12, ATTENTION + PLAIN, 32),
    (transformers.SmolVLMConfig, {}, 12, ATTENTION + PLAIN, 32),
    (transformers.LlavaConfig, {}, 23, ATTENTION + PLAIN, 32),  # of 24: it reads the last but one
    (transformers.LlavaConfig, {"vision_feature_layer": [3, -1]}, 24, ATTENTION + PLAIN, 32),
    (transformers.LlavaConfig, {"vision_feature_layer": 5}, 5, ATTENTION + PLAIN, 32),
    (
        transformers.LlavaConfig,
        {"vision_config": {"model_type": "pixtral"}, "vision_feature_layer": -1},
        24,
        ATTENTION + GATED,
        32,
    ),
    (transformers.LlavaNextConfig, {}, 23, ATTENTION + PLAIN, 32),
    (transformers.Qwen2VLConfig, {}, 32, 2 + PLAIN, 80),
    (transformers.Qwen2_5_VLConfig, {}, 32, 2 + GATED, 80),
    (transformers.PaliGemmaConfig, {}, 27, ATTENTION + PLAIN, 18),
    (transformers.Gemma3Config, {}, 12, ATTENTION + PLAIN, 26),  # SigLIP's pooling head, which is not read, gets none
]


@pytest.mark.parametrize(("family", "changes", "vision_layers", "linears", "language_layers"), FAMILIES)
def test_both_towers_of_every_family_are_adapted_and_nothing_else(
    family: type[Any], changes: dict[str, Any], vision_layers: int, linears: int, language_layers: int
) -> None:
    model = on_meta(family(**changes))
    vision = targets(model, LoraSettings(language=False))
    language = targets(model, LoraSettings(vision=False))
    assert len(vision) == vision_layers * linears
    assert len(language) == language_layers * (ATTENTION + GATED)
    assert targets(model, LoraSettings()) == vision + language
    between = projector(model)
    assert len(between) == 1
    assert not [found for found in (*vision, *language) if found.startswith(between[0])]
    assert all(isinstance(model.get_submodule(found), torch.nn.Linear) for found in (*vision, *language))


def test_llama_vision_has_adapters_in_cross_attention_and_in_its_global_layers() -> None:
    found = Counter(name.split(".layers.")[0].split(".")[-1] for name in targets(llama_vision(), LoraSettings()))
    assert found == {"transformer": 32 * 6, "global_transformer": 8 * 6, "language_model": 40 * 7}
    crossed = [name for name in targets(llama_vision(), LoraSettings()) if ".cross_attn." in name]
    assert len(crossed) == 8 * 4


@pytest.mark.parametrize(
    ("family", "between"),
    [
        (transformers.MllamaConfig, "model.multi_modal_projector"),
        (transformers.Idefics3Config, "model.connector"),
        (transformers.LlavaConfig, "model.multi_modal_projector"),
        (transformers.Qwen2VLConfig, "model.visual.merger"),
        (transformers.Gemma3Config, "model.multi_modal_projector"),
    ],
)
def test_the_projector_is_what_lies_between_the_towers(family: type[Any], between: str) -> None:
    assert projector(on_meta(family())) == [between]


@pytest.fixture(params=[tiny_mllama, tiny_idefics3, tiny_llava, tiny_qwen2_vl], ids=lambda write: write.__name__)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write: Callable[[Path], None] = request.param
    write(tmp_path)
    return tmp_path


def test_every_adapter_and_the_projector_learn_and_nothing_else_does(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    adapted = get_peft_model(model, lora_config(model, LoraSettings(rank=2, projector=True)))
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "The heart is normal."}]}
    text = processor.apply_chat_template([turn])
    inputs = processor(text=[text], images=[[Image.effect_noise((48, 48), 60).convert("RGB")]], return_tensors="pt")
    adapted(**inputs).logits.logsumexp(-1).sum().backward()
    learns = {name for name, weight in adapted.named_parameters() if weight.grad is not None and weight.grad.any()}
    up = {name for name, weight in adapted.named_parameters() if "lora_B" in name}
    saved = {name for name, weight in adapted.named_parameters() if "modules_to_save" in name}
    assert up
    assert saved
    assert learns == up | saved  # the other half of an adapter waits for its first half to leave zero


def test_the_projector_can_be_trained_alone(tmp_path: Path) -> None:
    tiny_llava(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    settings = LoraSettings(vision=False, language=False, projector=True)
    adapted = get_peft_model(model, lora_config(model, settings))
    assert trainable(adapted) == sum(
        weight.numel() for weight in model.model.multi_modal_projector.original_module.parameters()
    )


def test_settings_that_train_nothing_or_have_no_rank_are_refused() -> None:
    with pytest.raises(InputError, match="nothing would be trained"):
        LoraSettings(vision=False, language=False)
    with pytest.raises(InputError, match=r"--lora\.rank 0"):
        LoraSettings(rank=0)
    with pytest.raises(InputError, match=r"--lora\.dropout 1"):
        LoraSettings(dropout=1.0)


def test_a_language_model_alone_has_no_tower_that_sees() -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(num_hidden_layers=1))
    with pytest.raises(ValueError, match="no vision tower"):
        towers(model)
