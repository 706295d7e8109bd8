"""Adapters on 4-bit weights: a step runs on the CPU, the adapters learn, the weights stay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_llava, tiny_mllama

pytest.importorskip("bitsandbytes")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from rayscribe.vision_llm import costs  # noqa: E402
from rayscribe.vision_llm.checkpointing import recompute_layers  # noqa: E402
from rayscribe.vision_llm.lora import LoraSettings, kept_whole, lora_config  # noqa: E402
from rayscribe.vision_llm.plan import base_config  # noqa: E402


def four_bits(folder: Path) -> transformers.PreTrainedModel:
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=kept_whole(costs.meta_model(base_config(folder))),
    )
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, quantization_config=settings)
    return peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def study(folder: Path) -> dict[str, torch.Tensor]:
    processor = transformers.AutoProcessor.from_pretrained(folder)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}
    answer = {"role": "assistant", "content": "The heart is normal in size. The lungs are clear."}
    text = processor.apply_chat_template([question, answer])
    image = Image.effect_noise((48, 40), 60).convert("RGB")
    inputs = processor(text=[text], images=[[image]], return_tensors="pt", add_special_tokens=False)
    image_token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    return {**inputs, "labels": inputs["input_ids"].masked_fill(inputs["input_ids"] == image_token, -100)}


def fingerprints(model: torch.nn.Module, *, trained: bool) -> dict[str, str]:
    weights = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad is trained)
    return {name: hashlib.sha256(weight.detach().numpy().tobytes()).hexdigest() for name, weight in weights}


@pytest.mark.parametrize("write", [tiny_mllama, tiny_llava])
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_step_on_4_bit_weights_moves_the_adapters_and_nothing_else(
    write: Callable[[Path], None], recomputed: bool, tmp_path: Path
) -> None:
    write(tmp_path)
    torch.manual_seed(0)
    base = four_bits(tmp_path)
    kinds = [type(module).__name__ for module in base.modules()]
    assert kinds.count("Linear4bit") == len(costs.quantised(costs.meta_model(base_config(tmp_path))))
    model = peft.get_peft_model(base, lora_config(base, LoraSettings(rank=4, alpha=4))).train()
    if recomputed:
        recompute_layers(model.get_base_model())
    before = fingerprints(model, trained=False)
    adapters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimiser = torch.optim.AdamW(adapters.values(), lr=1e-2, weight_decay=0)
    batch, losses = study(tmp_path), []
    for _ in range(3):
        loss = model(**batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses == sorted(losses, reverse=True)
    assert all(weight.grad is not None and weight.grad.any() for weight in adapters.values())
    assert all("lora_" in name for name in adapters)
    assert fingerprints(model, trained=False) == before


def test_4_bit_weights_and_their_float32_rest_take_the_planned_bytes(tmp_path: Path) -> None:
    tiny_mllama(tmp_path)
    rest = sum(weight.nbytes for weight in four_bits(tmp_path).parameters() if weight.dtype == torch.float32)
    planned = costs.meta_model(base_config(tmp_path))
    quantised = sum(layer.weight.numel() for layer in costs.quantised(planned).values())
    assert rest == 4 * (costs.parameters(planned) - quantised)
