"""Tuning tiny vision LLMs: they learn three reports by heart, from the images; runs go on, stop and refuse as they should."""

from __future__ import annotations

import json
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments
from vision_llm_settings import REPORTS, short

from apart import call_by_two_processes, start_apart
from rayscribe.data.conditions import given_states
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.drafts import DecodingConfig, first_reports
from rayscribe.errors import InputError
from rayscribe.labels import OBSERVATIONS, POSITIVE
from rayscribe.models.folder import read_weights
from rayscribe.vision_llm import training as training_module
from rayscribe.vision_llm.base import base_folder
from rayscribe.vision_llm.config import LLM_RECIPES, LlmConfig, PictureConfig, ResponseConfig, compact, llama32_vision
from rayscribe.vision_llm.conversation import Conversation
from rayscribe.vision_llm.folder import ADAPTERS, load_llm
from rayscribe.vision_llm.pictures import Example, Examples
from rayscribe.vision_llm.reporter import VisionLlmReporter
from rayscribe.vision_llm.training import total_steps, train_llm, training_arguments
from rayscribe.vision_llm.writer import VisionLlmWriter

CPU = torch.device("cpu")
GREEDY = DecodingConfig(beams=1, max_tokens=20)


def adapters(run: Path) -> dict[str, torch.Tensor]:
    return read_weights(run / ADAPTERS)[0]


def assert_close(first: Path, second: Path, tolerance: float = 0.0) -> None:
    one, other = adapters(first), adapters(second)
    assert one.keys() == other.keys() and one
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() <= tolerance, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mllama", "idefics3", "llava", "qwen2_vl", "gemma3", "paligemma"])
def test_it_learns_reports_by_heart_from_the_images_and_writes_them_after_loading(
    bases: dict[str, Path], handful: Path, tmp_path: Path, name: str
) -> None:
    before = read_weights(bases[name] / "model.safetensors")[0]
    steps = {"gemma3": 100, "paligemma": 240}.get(name, 60)
    train_llm(short(bases[name], max_steps=steps, evaluate_every=20, lr=5e-3), handful, tmp_path / "run")
    after = read_weights(bases[name] / "model.safetensors")[0]
    assert all(tensor.equal(after[key]) for key, tensor in before.items())
    assert all("lora_" in key for key in adapters(tmp_path / "run"))
    studies = read_manifest(handful).split("test")
    reporter = VisionLlmReporter(trained=load_llm(tmp_path / "run", CPU))
    assert first_reports(reporter.draft(studies, GREEDY)) == list(REPORTS)  # a batch, padded on the left
    assert [reporter.draft([study], GREEDY)[0].reports[0] for study in studies] == list(REPORTS)
    others = [replace(study, images=studies[0].images, sha256=studies[0].sha256) for study in studies]
    assert first_reports(reporter.draft(others, GREEDY)) == [REPORTS[0]] * 3
    facts = json.loads((tmp_path / "run" / "model.json").read_text())
    assert facts["training"]["validation"]["loss"] < 3 and facts["data"]["digest"]
    assert "Not a medical device" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_adapters(bases: dict[str, Path], handful: Path, tmp_path: Path) -> None:
    config = short(bases["llava"], max_steps=12, evaluate_every=3)
    train_llm(config, handful, tmp_path / "whole")
    run = tmp_path / "killed"
    child = start_apart(tmp_path / "killed.log", train_llm, config, handful, run)
    while not (run / "checkpoints" / "checkpoint-6" / "trainer_state.json").exists():
        assert child.is_alive(), (tmp_path / "killed.log").read_text()
        time.sleep(0.005)
    child.kill()
    child.join()
    half = run / "checkpoints" / "checkpoint-99"
    half.mkdir()
    (half / ADAPTERS).write_bytes(b"half written")
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        train_llm(config, handful, run)
    with pytest.raises(InputError, match="started with other settings"):
        train_llm(replace(config, seed=1), handful, run, resume=True)
    train_llm(config, handful, run, resume=True)
    assert_close(run, tmp_path / "whole")
    assert not half.exists()


def test_accumulated_batches_take_the_step_of_a_large_one(
    bases: dict[str, Path], handful: Path, tmp_path: Path
) -> None:
    shared = {"max_steps": 4, "evaluate_every": 4, "lr": 1e-3, "studies_per_step": 2}
    for batch in (1, 2):
        train_llm(short(bases["llava"], batch_size=batch, **shared), handful, tmp_path / str(batch))
    assert_close(tmp_path / "1", tmp_path / "2", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["images-first", "text-first"])
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_the_validation_loss_is_that_of_the_saved_model_on_its_own_prompts(
    bases: dict[str, Path], handful: Path, tmp_path: Path, order: Any, loss_on: Any
) -> None:
    config = short(bases["llava"], max_steps=2, evaluate_every=2, loss_on=loss_on)
    train_llm(replace(config, prompt=replace(config.prompt, order=order)), handful, tmp_path / "run")
    trained = load_llm(tmp_path / "run", CPU)
    examples = Examples(read_manifest(handful).split("val"), trained.config)
    lesson = trained.conversation.lesson([examples[row] for row in range(3)], loss_on_all=loss_on == "all")
    loss = float(trained.model(**lesson).loss.detach())
    assert loss == pytest.approx(trained.training["validation"]["loss"], abs=1e-4)


def test_findings_and_picture_settings_reach_every_prompt_of_training_and_use(
    bases: dict[str, Path], handful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = read_manifest(handful).studies
    table = tmp_path / "findings.csv"
    lines = [f"{study.id},{','.join('1.0' if name == 'Edema' else '' for name in OBSERVATIONS)}" for study in studies]
    table.write_text("\n".join([f"id,{','.join(OBSERVATIONS)}", *lines]) + "\n")
    seen: list[Example] = []
    prompt = Conversation.prompt

    def noted(self: Conversation, example: Example) -> str:
        seen.append(example)
        return prompt(self, example)

    def all_told(at_least: int) -> bool:
        told = [example.instruction.endswith("findings, present: Edema.") for example in seen]
        sizes = {picture.size for example in seen for picture in example.pictures}
        seen.clear()
        return len(told) >= at_least and all(told) and sizes == {(224, 224)}

    monkeypatch.setattr(Conversation, "prompt", noted)
    config = short(bases["llava"], max_steps=1)
    config = replace(config, images=PictureConfig(legacy_224=True))
    train_llm(replace(config, prompt=replace(config.prompt, findings=str(table))), handful, tmp_path / "run")
    assert all_told(6)
    writer = VisionLlmWriter.load(tmp_path / "run", CPU, base=None, download=False)
    test = read_manifest(handful).split("test")
    states = given_states(table, [study.id for study in test])
    writer.reporter(test, states=states, features=None).draft(test, GREEDY)
    assert all_told(3)
    writer.draft([writer.read([test[0].images[0]], states={"Edema": POSITIVE})], GREEDY)
    assert all_told(1)


def test_a_projector_that_learns_on_bfloat16_weights_is_kept_in_float32(
    bases: dict[str, Path], handful: Path, tmp_path: Path
) -> None:
    config = short(bases["llava"], max_steps=1, precision="bfloat16")
    config = replace(config, weights="bfloat16", lora=replace(config.lora, projector=True))
    train_llm(config, handful, tmp_path / "run")
    assert {tensor.dtype for tensor in adapters(tmp_path / "run").values()} == {torch.float32}


@pytest.mark.slow
def test_it_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best(
    bases: dict[str, Path], handful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(handful)
    other = [
        replace(study, findings="Zzz qqq xxx jjj.") if study.split == "val" else study for study in manifest.studies
    ]
    write_manifest(tmp_path / "other.parquet", replace(manifest, studies=tuple(other)))
    config = short(bases["llava"], max_steps=60, evaluate_every=2, patience=2, lr=1e-2)
    train_llm(config, tmp_path / "other.parquet", tmp_path / "run")
    training = json.loads((tmp_path / "run" / "model.json").read_text())["training"]
    assert training["step"] + 2 * 2 == training["steps"] < 60
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    losses = {int(row.split(",")[0]): float(row.split(",")[3]) for row in rows[1:] if row.split(",")[3]}
    assert min(losses, key=losses.__getitem__) == training["step"]
    assert losses[training["step"]] == pytest.approx(training["validation"]["loss"])
    assert_close(tmp_path / "run", tmp_path / "run" / "checkpoints" / f"checkpoint-{training['step']}")
    with pytest.raises(AssertionError):
        assert_close(tmp_path / "run", tmp_path / "run" / "checkpoints" / f"checkpoint-{training['steps']}")
    half = tmp_path / "half"  # ended between the best validation and the last: one was already without a lower loss
    with monkeypatch.context() as patched:
        patched.setattr(training_module, "total_steps", lambda *_: training["steps"] - 2)
        train_llm(config, tmp_path / "other.parquet", half)
    train_llm(config, tmp_path / "other.parquet", half, resume=True)
    assert json.loads((half / "model.json").read_text())["training"] == training
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    (tmp_path / "again" / "model.json").unlink()  # as if it had been killed after its last step
    train_llm(config, tmp_path / "other.parquet", tmp_path / "again", resume=True)
    assert json.loads((tmp_path / "again" / "model.json").read_text())["training"] == training
    assert_close(tmp_path / "again", tmp_path / "run")


def test_a_diverged_run_stops_with_a_message_and_keeps_nothing(
    bases: dict[str, Path], handful: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"the run has diverged; lower --train\.lr"):
        train_llm(short(bases["llava"], lr=1e38, max_grad_norm=1e38, evaluate_every=2), handful, tmp_path / "run")
    assert not (tmp_path / "run" / "model.json").exists()


def test_the_test_split_is_not_read_in_training(bases: dict[str, Path], handful: Path, tmp_path: Path) -> None:
    manifest = read_manifest(handful)
    gone = [
        replace(s, images=(tmp_path / "gone.png",) * len(s.images)) if s.split == "test" else s
        for s in manifest.studies
    ]
    write_manifest(tmp_path / "gone.parquet", replace(manifest, studies=tuple(gone)))
    train_llm(short(bases["llava"], max_steps=1), tmp_path / "gone.parquet", tmp_path / "run")
    assert (tmp_path / "run" / "model.json").exists()


def test_what_cannot_be_trained_says_why(bases: dict[str, Path], handful: Path, tmp_path: Path) -> None:
    config = short(bases["llava"])
    with pytest.raises(InputError, match="no study in split train has a report of the requested section and length"):
        train_llm(replace(config, text=ResponseConfig(min_words=500)), handful, tmp_path / "a")
    with pytest.raises(InputError, match=r"not on this disk; --download fetches it"):
        train_llm(replace(config, base="nobody/no-model"), handful, tmp_path / "b")
    with pytest.raises(InputError, match=r"not a transformers model \(no config.json\)"):
        train_llm(replace(config, base=str(tmp_path)), handful, tmp_path / "c")


def test_one_process_uses_one_gpu_however_many_there_are(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self._n_gpu or 2))
    assert training_arguments(short(bases["llava"]), tmp_path, 3, CPU).n_gpu == 1


def test_recipes_are_the_seed_systems_and_ours() -> None:
    seed = llama32_vision()
    assert (seed.lora.rank, seed.lora.alpha, seed.lora.dropout) == (20, 20, 0.0)
    assert (seed.weights, seed.seed, seed.train.lr, seed.train.warmup_steps) == ("nf4", 3407, 1e-4, 5)
    assert (seed.train.batch_size, seed.train.studies_per_step, seed.train.max_steps) == (8, 32, 200)
    assert total_steps(2562, seed.train) == 200
    assert total_steps(2069, compact().train) == 260
    assert all(isinstance(recipe(), LlmConfig) for recipe in LLM_RECIPES.values())


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(bases: dict[str, Path], handful: Path, tmp_path: Path) -> None:
    manifest = read_manifest(handful)  # two training studies, because an epoch is shared in equal parts
    two = tmp_path / "two.parquet"
    write_manifest(two, replace(manifest, studies=tuple(s for s in manifest.studies if s.id != "train-2")))
    shared = {"max_steps": 4, "evaluate_every": 2, "lr": 1e-3, "studies_per_step": 2, "batch_size": 1}
    train_llm(short(bases["llava"], **shared), two, tmp_path / "one")
    call_by_two_processes(tmp_path, train_llm, short(bases["llava"], **shared), two, tmp_path / "two")
    assert_close(tmp_path / "two", tmp_path / "one", 1e-4)


def test_nothing_is_asked_of_the_network(
    bases: dict[str, Path], handful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where))
    monkeypatch.setattr(socket.socket, "connect", lambda self, where: asked.append(where))
    train_llm(short(bases["llava"], max_steps=1), handful, tmp_path / "run")
    reporter = VisionLlmReporter(trained=load_llm(tmp_path / "run", CPU))
    assert len(reporter.draft(read_manifest(handful).split("test"), GREEDY)) == 3
    with pytest.raises(InputError, match="not on this disk"):
        base_folder("nobody/no-model")
    assert not asked
