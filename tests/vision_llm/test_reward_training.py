"""Reward training: trl asks what `generate` asks, the adapters learn and nothing else, the best by validation are kept."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_idefics3, tiny_llava, tiny_mllama, tiny_qwen2_vl

pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")

from rayscribe.data.manifest import read_manifest, write_manifest  # noqa: E402
from rayscribe.drafts import DecodingConfig, first_reports  # noqa: E402
from rayscribe.errors import InputError  # noqa: E402
from rayscribe.labels import OBSERVATIONS, POSITIVE  # noqa: E402
from rayscribe.metrics.labeler import states  # noqa: E402
from rayscribe.vision_llm.base import base_digest, load_base, load_conversation  # noqa: E402
from rayscribe.vision_llm.config import LlmConfig, LlmTrainConfig, ResponseConfig  # noqa: E402
from rayscribe.vision_llm.folder import TrainedLlm, load_llm, save_llm, wrap_base  # noqa: E402
from rayscribe.vision_llm.lora import LoraSettings  # noqa: E402
from rayscribe.vision_llm.pictures import Examples  # noqa: E402
from rayscribe.vision_llm.reporter import VisionLlmReporter  # noqa: E402
from rayscribe.vision_llm.reward import RewardTrainConfig  # noqa: E402
from rayscribe.vision_llm.reward_trainer import CARRIED, check_trainable, reward_trainer, study_order  # noqa: E402
from rayscribe.vision_llm.reward_training import train_reward  # noqa: E402
from rayscribe.vision_llm.reward_validation import greedy_reports  # noqa: E402
from rayscribe.vision_llm.training import adapted, train_llm  # noqa: E402

CPU = torch.device("cpu")
NORMAL, EFFUSION = "The heart is normal in size. The lungs are clear.", "There is a small left pleural effusion."
SHORT = RewardTrainConfig(steps=4, studies_per_step=2, generations=4, batch_size=4, lr=1e-3, evaluate_every=2, seed=1)


def settings(base: Path, **train: Any) -> LlmConfig:
    defaults = {"batch_size": 8, "studies_per_step": 8, "precision": "float32", "gradient_checkpointing": False}
    return LlmConfig(
        base=str(base),
        weights="float32",
        text=ResponseConfig(max_new_tokens=24),
        lora=LoraSettings(rank=8, alpha=16, projector=True),
        train=LlmTrainConfig(**(defaults | {"workers": 0} | train)),
    )


@pytest.fixture(scope="module")
def two_kinds(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawn studies to learn from and four to validate on; half of each with an effusion, which is all that is told.
    The images of the split test are not there."""
    manifest = read_manifest(world)
    effusion = OBSERVATIONS.index("Pleural Effusion")
    with_effusion = [study for study in manifest.studies if states(study.findings)[effusion] == POSITIVE]
    without = [study for study in manifest.studies if study not in with_effusion]
    studies = []
    for kind, findings in ((with_effusion, EFFUSION), (without, NORMAL)):
        for split, chosen in (("train", kind[:4]), ("val", kind[4:6]), ("test", kind[6:8])):
            studies += [replace(study, split=split, findings=findings) for study in chosen]
    studies = [replace(s, images=(Path("gone.png"),) * len(s.images)) if s.split == "test" else s for s in studies]
    path = tmp_path_factory.mktemp("two_kinds") / "data.parquet"
    write_manifest(path, replace(manifest, studies=studies))
    return path


@pytest.fixture(scope="module")
def tuned(two_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA that was tuned for a few steps: it writes such reports, with mistakes."""
    base, run = (tmp_path_factory.mktemp("llava") / name for name in ("base", "tuned"))
    tiny_llava(base)
    model = transformers.AutoModelForImageTextToText.from_pretrained(base)
    model.lm_head.weight.data *= 2  # a new model's tells words apart so little that adapters alone could not
    model.save_pretrained(base)
    train_llm(settings(base, max_steps=30, lr=1e-2, evaluate_every=30), two_kinds, run, notify=lambda text: None)
    return run


def untuned(write: Callable[[Path], None], folder: Path, **train: Any) -> TrainedLlm:
    """A model of another family with new adapters."""
    write(folder)
    config = settings(folder, **train)
    base = load_base(folder, config, CPU)
    conversation = load_conversation(folder, image_token=base.config.image_token_id, order="images-first")
    torch.manual_seed(0)
    return TrainedLlm(
        model=adapted(base, config),
        conversation=conversation,
        config=config,
        data={},
        training={},
        base_sha256=base_digest(folder),
    )


def qwen2_vl_that_leaves_begin_to_the_template(folder: Path) -> None:
    """As its own tokenizer does."""
    tiny_qwen2_vl(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def log_of(run: Path) -> list[dict[str, str]]:
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("write", [tiny_llava, tiny_idefics3, qwen2_vl_that_leaves_begin_to_the_template])
def test_trl_generates_and_learns_from_the_prompt_and_the_images_that_generate_gets(
    write: Callable[[Path], None], recomputed: bool, two_kinds: Path, tmp_path: Path
) -> None:
    trained = untuned(write, tmp_path, gradient_checkpointing=recomputed)
    studies = read_manifest(two_kinds).split("train")
    # One study with a single image among those with two.
    first = replace(studies[0], images=studies[0].images[:1], views=studies[0].views[:1], sha256=studies[0].sha256[:1])
    lessons = Examples([first, *studies[1:3]], trained.config)
    config = replace(SHORT, steps=1, studies_per_step=3, batch_size=6)
    check_trainable(trained.conversation, lessons[0])
    before = weights(trained.model)
    trainer = reward_trainer(trained, config, lessons, tmp_path / "checkpoints")
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    seen: list[tuple[dict[str, Any], Any]] = []
    trainer.model.get_base_model().register_forward_hook(
        lambda module, given, named, found: seen.append((dict(named), found)), with_kwargs=True
    )
    asked: list[dict[str, Any]] = []
    generate = trainer.model.get_base_model().generate
    trainer.model.get_base_model().generate = lambda **named: asked.append(named) or generate(**named)
    trainer.train()
    after = weights(trained.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("lora_" in name or "modules_to_save" in name for name in moved)
    assert not any(".ref." in name for name in moved)

    wanted = trained.conversation.inputs([lessons[row] for row in study_order(3, config) for _ in range(4)])
    assert wanted.keys() <= asked[0].keys() and len(asked) == 1
    assert all(torch.equal(asked[0][name], tensor) for name, tensor in wanted.items())
    with torch.no_grad():
        for name, parameter in trained.model.named_parameters():
            if name in before:
                parameter.copy_(before[name])
    own = [trained.conversation.inputs([lessons[row]]) for row in range(3)]
    learned_from = []
    for named, found in seen:
        if named.get("fused_lm_head") and found.log_probs.requires_grad:
            for row in range(len(named["input_ids"])):
                learned_from.append(matches(trained, own, named, found.log_probs[row].detach(), row))
    assert sorted(learned_from) == sorted([[0], [1], [2]] * 4)


def matches(
    trained: TrainedLlm, own: list[dict[str, torch.Tensor]], named: dict[str, Any], log_probs: torch.Tensor, row: int
) -> list[int]:
    """The studies whose prompt and images, as `generate` gets them, give the report the probability that trl learned on."""
    kept = named["attention_mask"][row].bool()
    ids, places = named["input_ids"][row][kept], (named["labels"][row] != -100)
    found = []
    for study, inputs in enumerate(own):
        asked = inputs["input_ids"][0]
        if not torch.equal(ids[: len(asked)], asked) or len(ids) != len(asked) + int(places.sum()):
            continue
        longer = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None]}
        if "mm_token_type_ids" in inputs:
            rest = inputs["mm_token_type_ids"].new_zeros(1, len(ids) - len(asked))
            longer["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], rest], dim=1)
        with torch.no_grad():
            logits = trained.model(**(inputs | longer)).logits[0, len(asked) - 1 : -1]
        alone = logits.log_softmax(-1).gather(1, ids[len(asked) :, None])[:, 0]
        if torch.allclose(alone, log_probs[places[1:]], rtol=0, atol=1e-5):
            found.append(study)
    return found


@pytest.mark.slow
def test_in_bfloat16_the_adapters_learn_and_stay_float32(two_kinds: Path, tmp_path: Path) -> None:
    trained = untuned(tiny_llava, tmp_path / "base", precision="bfloat16", gradient_checkpointing=True)
    save_llm(tmp_path / "new", replace(trained, config=replace(trained.config, weights="bfloat16")))
    run = tmp_path / "run"
    train_reward(tmp_path / "new", replace(SHORT, steps=1), two_kinds, run, notify=lambda text: None)
    start = load_file(tmp_path / "new" / "adapter_model.safetensors")
    moved = load_file(run / "checkpoints" / "checkpoint-1" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in moved.values()} == {torch.float32}
    assert sum(not torch.equal(moved[name], start[name]) for name in start) > len(start) / 2


def test_a_family_that_trl_cannot_train_is_refused_before_anything_is_written(two_kinds: Path, tmp_path: Path) -> None:
    save_llm(tmp_path / "tuned", replace(untuned(tiny_mllama, tmp_path / "base"), training={}))
    with pytest.raises(InputError, match=r"does not pass on aspect_ratio_ids, aspect_ratio_mask, cross_attention_mask"):
        train_reward(tmp_path / "tuned", SHORT, two_kinds, tmp_path / "run", notify=lambda text: None)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_would_begin_twice_under_trl_is_refused(two_kinds: Path, tmp_path: Path) -> None:
    trained = untuned(tiny_qwen2_vl, tmp_path)
    example = Examples(read_manifest(two_kinds).split("train"), trained.config)[0]
    with pytest.raises(InputError, match="with other tokens than `generate`"):
        check_trainable(trained.conversation, example)


def test_all_that_we_hand_to_trl_it_hands_on() -> None:
    from trl.trainer.grpo_trainer import GRPOTrainer

    assert set(inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters) >= CARRIED


def test_every_study_comes_once_before_any_comes_again() -> None:
    config = RewardTrainConfig(steps=5, studies_per_step=4)
    order = study_order(7, config)
    assert len(order) == 20
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert order[:7] != order[7:14]
    assert study_order(7, replace(config, steps=2)) == order[:8]


@pytest.mark.slow
def test_the_command_moves_the_adapters_alone_and_leaves_an_ordinary_model_folder(
    rayscribe: Callable[..., str], tuned: Path, two_kinds: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ["--steps", 2, "--studies-per-step", 4, "--generations", 4, "--batch-size", 8, "--lr", 1e-3]
    base = base_digest(Path(load_llm(tuned, CPU).config.base))
    printed = rayscribe("llm", "reward", tuned, "--data", two_kinds, "--run", run, *options, "--reward.overlap", 0.25)
    assert "8 studies to learn from, 4 to validate on" in printed
    about, before = (json.loads((folder / "model.json").read_text()) for folder in (run, tuned))
    told = about["training"]["reward"]
    assert told["from_adapters_sha256"] == before["adapters_sha256"]
    assert told["from_training"] == before["training"]
    assert told["settings"]["reward"]["overlap"] == 0.25
    assert about["config"] == before["config"]
    assert base_digest(Path(load_llm(tuned, CPU).config.base)) == base == about["base_sha256"]
    assert "then reward-trained" in (run / "README.md").read_text()
    log = log_of(run)
    assert [row["step"] for row in log] == ["0", "1", "2"]
    assert [bool(row["val_reward"]) for row in log] == [True, False, True]
    moved = load_file(run / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    start = load_file(tuned / "adapter_model.safetensors")
    assert moved.keys() == start.keys()
    assert sum(not torch.equal(moved[name], start[name]) for name in start) > len(start) / 2
    assert not (run / "ref").exists()
    drafts = VisionLlmReporter(trained=load_llm(run, CPU)).draft(
        read_manifest(two_kinds).split("val"), DecodingConfig(beams=1)
    )
    assert all(first_reports(drafts))


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_adapters_as_an_unbroken_one(
    tuned: Path, two_kinds: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def dies(text: str) -> None:
        if text.startswith("step 4"):
            raise Killed

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    config = replace(SHORT, steps=5, studies_per_step=4)  # past the first round of all eight studies
    train_reward(tuned, config, two_kinds, whole, notify=lambda text: None)
    with pytest.raises(Killed):
        train_reward(tuned, config, two_kinds, broken, notify=dies)
    assert not (broken / "model.json").exists()
    (broken / "checkpoints" / "checkpoint-4").mkdir(exist_ok=True)  # half written
    with pytest.raises(InputError, match="already holds a run"):
        train_reward(tuned, config, two_kinds, broken, notify=lambda text: None)
    with pytest.raises(InputError, match="other settings"):
        train_reward(tuned, replace(config, lr=1), two_kinds, broken, resume=True, notify=lambda text: None)
    train_reward(tuned, config, two_kinds, broken, resume=True, notify=lambda text: None)
    train_reward(tuned, config, two_kinds, broken, resume=True, notify=lambda text: None)  # has nothing left to do
    assert log_of(whole) == log_of(broken)
    for name in ("checkpoints/checkpoint-5/adapter_model.safetensors", "adapter_model.safetensors"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


@pytest.mark.slow
def test_the_mean_reward_rises(tuned: Path, two_kinds: Path, tmp_path: Path) -> None:
    config = RewardTrainConfig(
        steps=12, studies_per_step=8, generations=8, batch_size=64, lr=2e-3, beta=0.0, evaluate_every=12
    )
    train_reward(tuned, config, two_kinds, tmp_path / "run", notify=lambda text: None)
    rewards = [
        float(row["reward"]) for row in log_of(tmp_path / "run")[1:]
    ]  # each step writes for the same eight studies
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.02


@pytest.mark.slow
def test_what_the_model_began_with_is_kept_when_nothing_better_follows(
    tuned: Path, two_kinds: Path, tmp_path: Path
) -> None:
    config = replace(SHORT, steps=2, lr=0.3)
    train_reward(tuned, config, two_kinds, tmp_path / "run", notify=lambda text: None)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["training"]["step"] == 0
    start, end = (load_file(folder / "adapter_model.safetensors") for folder in (tuned, tmp_path / "run"))
    assert all(torch.equal(start[name], end[name]) for name in start)


@pytest.mark.slow
def test_a_diverged_run_stops_and_keeps_nothing(tuned: Path, two_kinds: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step \d: \w+ is (nan|inf); the run has diverged; lower --lr"):
        train_reward(tuned, replace(SHORT, lr=1e30), two_kinds, tmp_path / "run", notify=lambda text: None)
    assert not (tmp_path / "run" / "model.json").exists()
    assert not list((tmp_path / "run").glob("checkpoints/checkpoint-*"))


def test_validation_reports_are_those_of_generate(tuned: Path, two_kinds: Path) -> None:
    trained = load_llm(tuned, CPU)
    studies = read_manifest(two_kinds).split("val")
    reports, cut = greedy_reports(trained, Examples(studies, trained.config), tokens=None)  # type: ignore[arg-type]
    assert reports == first_reports(VisionLlmReporter(trained=trained).draft(studies, DecodingConfig(beams=1)))
    assert greedy_reports(trained, Examples(studies, trained.config), tokens=2)[1] == [True] * 4  # type: ignore[arg-type]
    assert not all(cut)


def test_what_cannot_be_trained_is_said(
    tuned: Path, two_kinds: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"notify": lambda text: None}
    wrap_base(load_llm(tuned, CPU).config, tmp_path / "bare")
    with pytest.raises(InputError, match="contains no adapters"):
        train_reward(tmp_path / "bare", SHORT, two_kinds, tmp_path / "run", **quiet)  # type: ignore[arg-type]
    manifest = read_manifest(two_kinds)
    turned = [replace(s, split={"train": "val", "val": "train"}.get(s.split, s.split)) for s in manifest.studies]
    write_manifest(tmp_path / "turned.parquet", replace(manifest, studies=turned))
    with pytest.raises(InputError, match="learned from images of 8 studies of val or test"):
        train_reward(tuned, SHORT, tmp_path / "turned.parquet", tmp_path / "run", **quiet)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="on one GPU"):
        train_reward(tuned, SHORT, two_kinds, tmp_path / "run", **quiet)  # type: ignore[arg-type]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="in one process"):
        train_reward(tuned, SHORT, two_kinds, tmp_path / "run", **quiet)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs trl; install them with `pip install 'rayscribe\[reward\]'`"):
        train_reward(tuned, SHORT, two_kinds, tmp_path / "run", **quiet)  # type: ignore[arg-type]
