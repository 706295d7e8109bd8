"""What is computed without weights is what models with weights take; the table names every number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import middling
import pytest
import torch
import transformers
from peft import get_peft_model
from tiny import tiny_idefics3, tiny_llava, tiny_mllama
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from rayscribe.errors import InputError
from rayscribe.vision_llm import costs
from rayscribe.vision_llm.checkpointing import recompute_layers
from rayscribe.vision_llm.costs import Checkpointing, Precision
from rayscribe.vision_llm.lora import LoraSettings, kept_whole, lora_config, numbered_layers
from rayscribe.vision_llm.plan import GPUS, Plan, Workload, base_config, llama32_vision_config, plan, plan_table

MIDDLING = [middling.llama_vision, middling.llava]


@pytest.fixture(scope="module")
def eleven_billion() -> Plan:
    return plan(llama32_vision_config(), LoraSettings(), Workload())


def test_the_default_is_the_published_model(eleven_billion: Plan) -> None:
    assert eleven_billion.parameters == 10_670_220_835  # 10.67 B
    assert eleven_billion.trained == 83_968_000
    assert eleven_billion.rows.patches == 4 * 1608
    assert eleven_billion.rows.states == 4 * 1601
    assert eleven_billion.stored["bf16"] == 2 * eleven_billion.parameters


def test_a_step_of_the_published_run_takes_as_long_as_logged_at_a_believable_utilisation(eleven_billion: Plan) -> None:
    assert 0.3 < eleven_billion.logged_utilisation() < 0.55


@pytest.mark.parametrize("precision", ["nf4", "int8", "bf16"])
@pytest.mark.parametrize("write", [tiny_mllama, tiny_idefics3, tiny_llava])
def test_weights_take_the_bytes_that_bitsandbytes_and_torch_store(
    write: Callable[[Path], None], precision: Precision, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    write(tmp_path)
    planned = costs.meta_model(base_config(tmp_path))
    skipped = kept_whole(planned)
    settings = {
        "nf4": transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            llm_int8_skip_modules=skipped,
        ),
        "int8": transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped),
        "bf16": None,
    }[precision]
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.bfloat16, quantization_config=settings)
    assert stored_bytes(model) == costs.weight_bytes(planned, precision)


def stored_bytes(model: torch.nn.Module) -> int:
    total = 0
    for weight in model.parameters():
        total += weight.untyped_storage().nbytes()
        state = vars(weight).get("quant_state")
        if state is not None:
            inner = state.state2
            tensors = (state.absmax, state.code, state.offset, inner.absmax, inner.code)
            total += sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        if vars(weight).get("SCB") is not None:
            total += weight.SCB.untyped_storage().nbytes()
    return total


@pytest.mark.parametrize("settings", [LoraSettings(), LoraSettings(vision=False, rank=4), LoraSettings(projector=True)])
def test_trained_tensors_are_those_that_peft_makes(settings: LoraSettings) -> None:
    config, _ = middling.llama_vision()
    model = costs.meta_model(config)
    shapes = costs.trained_shapes(model, settings)
    adapted = get_peft_model(model, lora_config(model, settings), low_cpu_mem_usage=True)
    made = [tuple(weight.shape) for weight in adapted.parameters() if weight.requires_grad]
    assert sorted(shapes) == sorted(made)
    assert costs.optimiser_bytes(shapes, bits=32) == 8 * sum(prod(shape) for shape in made)


def test_eight_bit_adam_takes_the_bytes_that_bitsandbytes_allots() -> None:
    optimisers = pytest.importorskip("bitsandbytes").optim
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in [(20, 1280), (50, 100), (8, 8)]]
    optimiser = optimisers.AdamW8bit(weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
        optimiser.init_state(optimiser.param_groups[0], weight, 0, 0)
    states = [state for weight in weights for name, state in optimiser.state[weight].items() if name != "step"]
    allotted = sum(state.nbytes for state in states if isinstance(state, torch.Tensor) and state.numel() != 256)
    assert allotted == costs.optimiser_bytes([tuple(weight.shape) for weight in weights], bits=8)


@pytest.mark.parametrize("make", MIDDLING)
def test_flops_are_those_that_torch_counts_up_to_patches_and_projector(make: Callable) -> None:
    config, study = make()
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")  # sdpa is not counted on a CPU
    rows = costs.rows_of_study(config, tokens=middling.TOKENS)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**study)
    assert costs.forward_flops(costs.meta_model(config), rows) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("checkpointing", ["none", "model", "all"])
@pytest.mark.parametrize("make", MIDDLING)
def test_a_training_step_keeps_and_computes_about_what_is_planned(make: Callable, checkpointing: Checkpointing) -> None:
    config, study = make()
    planned, settings = costs.meta_model(config), LoraSettings(rank=4)
    rows = costs.rows_of_study(config, tokens=middling.TOKENS)

    model = adapted(config, settings, checkpointing)
    kept = kept_bytes(model, study)
    # In the forward pass the loss keeps one of the values counted for a logit, of four bytes.
    logits = middling.TOKENS * middling.WORDS * (costs.LOGIT - 4)
    estimate, _ = costs.activation_bytes(planned, settings, rows, checkpointing=checkpointing)
    assert estimate - logits == pytest.approx(kept, rel=0.1)

    model = adapted(config, settings, checkpointing, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(**study).loss.backward()
    flops = costs.training_flops(planned, settings, rows, checkpointing=checkpointing)
    assert flops == pytest.approx(counter.get_total_flops(), rel=0.05)


def adapted(
    config: transformers.PretrainedConfig, settings: LoraSettings, checkpointing: Checkpointing, **keywords: str
) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, **keywords).train()
    found = get_peft_model(model, lora_config(model, settings)).get_base_model()
    if checkpointing == "model":
        found.activation_checkpointing_enable({"use_reentrant": False})
    if checkpointing == "all":
        recompute_layers(found)
    return found


def kept_bytes(model: torch.nn.Module, study: dict[str, torch.Tensor]) -> int:
    """Bytes of what autograd keeps and of what goes into a layer, without weights and their copies in bfloat16."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    matrices = {weight.shape for weight in model.parameters() if weight.ndim == 2}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and not {tensor.shape, tensor.shape[::-1]} & matrices:
            kept[storage.data_ptr()] = tensor
        return tensor

    def keep_inputs(layer: torch.nn.Module, places: tuple, names: dict) -> None:
        for value in (*places, *names.values()):
            if isinstance(value, torch.Tensor):
                keep(value)

    for name in numbered_layers(model):
        model.get_submodule(name).register_forward_pre_hook(keep_inputs, with_kwargs=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        loss = model(**study).loss
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("make", MIDDLING)
def test_recomputed_layers_change_no_gradient_and_reach_every_layer(make: Callable) -> None:
    config, study = make()
    gradients = []
    for checkpointing in ("none", "all"):
        model = adapted(config, LoraSettings(rank=4), checkpointing)
        model(**study).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    layers = {"mllama": 3 + 1 + 4, "llava": 3 + 4}[config.model_type]
    assert recompute_layers(adapted(config, LoraSettings(rank=4), "none")) == layers


def test_transformers_own_switch_leaves_the_vision_tower_of_llama_as_it_is(eleven_billion: Plan) -> None:
    kept = eleven_billion.kept_by_study
    assert kept["none"] < 1.5 * kept["model"]
    assert kept["model"] > 5 * kept["all"]
    assert eleven_billion.largest_batch("nf4", 80, checkpointing="model") < 8
    assert eleven_billion.largest_batch("nf4", 80, checkpointing="all") >= 8


def test_a_larger_gpu_or_fewer_bits_never_fit_fewer_studies(eleven_billion: Plan) -> None:
    fits = [eleven_billion.largest_batch("nf4", gib, checkpointing="all") for gib in GPUS]
    assert fits == sorted(fits)
    for gib in GPUS:
        by_precision = [
            eleven_billion.largest_batch(name, gib, checkpointing="all") for name in ("nf4", "int8", "bf16")
        ]
        assert by_precision == sorted(by_precision, reverse=True)


def test_caches_hold_words_in_self_attention_and_patches_in_cross_attention() -> None:
    config = llama32_vision_config()
    study = costs.rows_of_study(config, tokens=100)
    kept = costs.cache_bytes(costs.meta_model(config), study, new_tokens=28)
    assert kept == 2 * 2 * 1024 * (32 * 128 + 8 * 6404)  # keys and values of 8 heads of 128, two bytes each


def test_the_table_has_a_row_for_every_number(eleven_billion: Plan) -> None:
    table = plan_table(eleven_billion)
    assert "| parameters | 10,670,220,835 |" in table
    assert "| of these trained | 83,968,000 |" in table
    for label in ("4-bit", "8-bit", "bfloat16"):
        assert f"weights as loaded, {label}" in table
        assert f"a step of 8 studies, {label}" in table
        assert table.count(f"\n| {label}") == 3
    for label in (
        "adapters",
        "Adam's states, 32-bit",
        "Adam's states, 8-bit",
        "kept for one study",
        "working",
        "caches",
    ):
        assert f"\n| {label}" in table
    assert "| weights | layers | 16 GB | 24 GB | 40 GB | 48 GB | 80 GB |" in table
    assert "A100 at 35%" in table
    assert "H100 at 35%" in table
    assert "published Llama run's log" in table
    assert all(line.startswith(("| ", "|-")) or "|" not in line for line in table.splitlines())


def test_families_without_a_fixed_image_ask_for_patches() -> None:
    config = transformers.Qwen2VLConfig()
    with pytest.raises(ValueError, match="give `patches`"):
        plan(config, LoraSettings(), Workload())
    found = plan(config, LoraSettings(), Workload(patches=1024))
    assert found.parameters > 70e9
    assert found.rows.patches == 1024


def test_workloads_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"--batch 0"):
        Workload(batch=0)
    with pytest.raises(InputError, match=r"--utilisation 0"):
        replace(Workload(), utilisation=0.0)


def test_the_documented_table_is_the_one_that_is_printed(eleven_billion: Plan) -> None:
    document = Path(__file__).parents[2] / "docs" / "vision-llms.md"
    assert plan_table(eleven_billion) in document.read_text(encoding="utf-8")
