"""`rayscribe train`: where settings come from, what its help shows, and how a run goes on with the run folder alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from conftest import plugged, small_config
from rayscribe.config import BackboneConfig
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.methods import run_from_yaml
from rayscribe.methods.distill import IsdSettings
from rayscribe.models.backbones import Backbone
from rayscribe.settings import to_yaml
from rayscribe.training.folder import RunFolder
from rayscribe.training.run import train_method
from training_runs import train_until_killed

Command = Callable[..., str]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A small run's config.yaml."""
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(small_config(epochs=1)))
    return path


def test_help_shows_twenty_settings_within_eighty_columns(rayscribe: Command) -> None:
    said = rayscribe("train", "r2gen", "--help")
    assert max(map(len, said.splitlines())) <= 80
    _, _, people_change = said.partition("settings that people change")
    assert people_change.count("\n  --") == 20
    assert "--train.epochs 100 " in said and "--backbone.no-trainable" in said and "--method.memory-slots" in said


def test_every_explained_setting_has_an_explanation(rayscribe: Command) -> None:
    lines = rayscribe("train", "kif+isd+ithn", "--help").split("settings of the method")[0].splitlines()
    entries = [at for at, line in enumerate(lines) if line.startswith("  --")]
    for at in entries:
        explains = len(lines[at].split("  ")) > 2 or lines[at + 1].startswith(" " * 30)
        assert explains, lines[at]


def test_the_rest_is_in_help_all(rayscribe: Command) -> None:
    fitted = rayscribe("train", "consensus", "--help")
    assert "--method.no-compose" in fitted and "training sentences" in " ".join(fitted.split())
    assert "--train.lr" not in fitted
    said = rayscribe("train", "r2gen", "--help-all")
    assert "--train.plateau-epochs" in said and "--train.plateau-epochs" not in rayscribe("train", "r2gen", "--help")


def test_flags_change_the_settings_of_a_file(rayscribe: Command, world: Path, settings: Path, tmp_path: Path) -> None:
    rayscribe("train", "--config", settings, "--data", world, "--run", tmp_path / "run", "--train.lr", 0.002)
    given, stored = (yaml.safe_load(path.read_text()) for path in (settings, tmp_path / "run" / "config.yaml"))
    assert stored["train"].pop("lr") == 0.002 and given["train"].pop("lr") == 0.001
    assert stored == given


def test_a_recipe_beside_a_file_is_refused(rayscribe: Command, settings: Path) -> None:
    said = rayscribe("train", "r2gen", "--config", settings, "--data", "x", "--run", "y", code=1)
    assert "takes the place of the recipe r2gen" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "missing.yaml", "--run", "y"], "missing.yaml: no such file of settings"),
        (["--resume", "--run", "missing"], "missing: no run to resume"),
        (["r2gen", "--run", "y"], "name the manifest of `rayscribe prepare` with --data"),
    ],
)
def test_what_is_missing_is_named(rayscribe: Command, arguments: list[str], message: str) -> None:
    assert message in rayscribe("train", *arguments, code=1)


def test_a_killed_run_resumes_with_its_folder_alone(rayscribe: Command, world: Path, tmp_path: Path) -> None:
    config = small_config(epochs=2)
    train_method(config, world, tmp_path / "whole")
    train_until_killed(tmp_path, 3, config, world, tmp_path / "broken")
    said = rayscribe("train", "--resume", "--run", tmp_path / "broken")
    assert f"--data {world}" in said
    whole, broken = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_generations_resume_with_their_folder_alone(
    rayscribe: Command, world: Path, settings: Path, tmp_path: Path
) -> None:
    from conftest import plugged

    settings.write_text(to_yaml(plugged(small_config(epochs=1), "isd", IsdSettings())))
    run = ["--data", world, "--run", tmp_path / "run", "--generations", 2]
    first = rayscribe("train", "--config", settings, *run)
    again = rayscribe("train", "--resume", "--run", tmp_path / "run")
    assert "generation-2" in first and "generation 2 of 2" in again


def test_another_recipe_does_not_resume_a_run(rayscribe: Command, world: Path, settings: Path, tmp_path: Path) -> None:
    rayscribe("train", "--config", settings, "--data", world, "--run", tmp_path / "run")
    said = rayscribe("train", "baseline", "--resume", "--run", tmp_path / "run", code=1)
    assert "is a run of r2gen" in said


def test_a_run_that_does_not_know_its_manifest_says_so(
    rayscribe: Command, world: Path, settings: Path, tmp_path: Path
) -> None:
    rayscribe("train", "--config", settings, "--data", world, "--run", tmp_path / "run")
    (tmp_path / "run" / "started.json").unlink()
    said = rayscribe("train", "--resume", "--run", tmp_path / "run", code=1)
    assert "name the manifest with --data" in said


def test_a_frozen_encoder_brings_the_image_settings_that_go_with_it(
    rayscribe: Command, world: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save_file(Backbone(BackboneConfig(name="test_resnet")).net.state_dict(), tmp_path / "weights.safetensors")
    flags = ["--backbone.name", "test_resnet", "--backbone.weights", tmp_path / "weights.safetensors"]
    flags += ["--images.size", 64, "--images.resize", 68, "--train.epochs", 1, "--train.batch-size", 8]
    run = ["--data", world, "--run", tmp_path / "run", "--features", tmp_path / "features"]
    rayscribe("classify", "train", "multilabel", *run, *flags, "--backbone.no-trainable")
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["images"]["rotation"] == 0 and not stored["backbone"]["trainable"]


def test_an_augmentation_that_is_asked_for_is_refused_with_a_frozen_encoder(rayscribe: Command, world: Path) -> None:
    flags = ["--backbone.no-trainable", "--images.flip", "--data", world, "--run", "x"]
    assert "--images.flip" in rayscribe("train", "r2gen", *flags, code=1)


def test_the_device_is_checked(rayscribe: Command, world: Path, settings: Path, tmp_path: Path) -> None:
    run = ["--data", world, "--run", tmp_path / "run"]
    assert "--device gpu" in rayscribe("train", "--config", settings, *run, "--device", "gpu", code=1)
    assert not (tmp_path / "run").exists()
    rayscribe("train", "--config", settings, *run, "--device", "cpu")


def test_generations_resume_after_their_folder_was_moved(
    rayscribe: Command, world: Path, settings: Path, tmp_path: Path
) -> None:
    settings.write_text(to_yaml(plugged(small_config(epochs=1), "isd", IsdSettings())))
    run = ["--data", world, "--run", tmp_path / "run", "--generations", 2]
    rayscribe("train", "--config", settings, *run)
    (tmp_path / "run").rename(tmp_path / "moved")
    said = rayscribe("train", "--resume", "--run", tmp_path / "moved")
    assert "moved/generation-2" in said
    stored = (tmp_path / "moved" / "generation-2" / "config.yaml").read_text()
    assert str(tmp_path / "moved" / "generation-1") in stored
    rayscribe("train", "--resume", "--run", tmp_path / "moved", "--train.lr", 0.5, code=1)
    assert (tmp_path / "moved" / "generation-2" / "config.yaml").read_text() == stored
    assert "is a run of 2" in rayscribe("train", "--resume", "--run", tmp_path / "moved", "--generations", 3, code=1)


def test_a_run_is_written_by_one_process(rayscribe: Command, world: Path, settings: Path, tmp_path: Path) -> None:
    rayscribe("train", "--config", settings, "--data", world, "--run", tmp_path / "run")
    run, digest = tmp_path / "run", (tmp_path / "run" / "data.sha256").read_text().strip()
    held = RunFolder(run, small_config(epochs=1), data_digest=digest, resume=True, writes=True, parse=run_from_yaml)
    command = [sys.executable, "-m", "rayscribe", "train", "--resume", "--run", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "another process is training into this folder" in done.stderr
    assert held.resumes


@pytest.mark.parametrize("wrong", ["config", "classifier", "gone"])
def test_what_cannot_be_resumed_says_why(
    wrong: str, rayscribe: Command, world: Path, settings: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "data.parquet"
    write_manifest(manifest, read_manifest(world))
    rayscribe("train", "--config", settings, "--data", manifest, "--run", tmp_path / "run")
    resume = ["--resume", "--run", tmp_path / "run"]
    if wrong == "config":
        said = rayscribe("train", "--config", settings, *resume, code=1)
        assert "a run that is resumed has its own settings" in said
    elif wrong == "classifier":
        said = rayscribe("classify", "train", *resume, code=1)
        assert "settings of `rayscribe train`, not of `rayscribe classify train`" in said
    else:
        manifest.unlink()
        said = rayscribe("train", *resume, code=1)
        assert "the manifest that" in said and "name it with --data" in said


@pytest.mark.parametrize("content", [b"PAR1\xff\xfe", b"[]", b"", b"epochs: 3"])
def test_a_file_that_holds_no_settings_is_named(content: bytes, rayscribe: Command, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    said = rayscribe("train", "--config", tmp_path / "x.yaml", "--data", "x", "--run", "y", code=1)
    assert said.startswith(f"rayscribe: {tmp_path / 'x.yaml'}: no") and "\n" not in said


@pytest.mark.parametrize(
    "arguments", [["--help-all"], ["--resume", "--help"], ["r2gen", "--help", "--run"], ["--help", "r2gen"]]
)
def test_help_is_given_wherever_it_is_asked(arguments: list[str], rayscribe: Command) -> None:
    assert "usage: rayscribe train" in rayscribe("train", *arguments)


def test_a_draft_never_replaces_an_image(
    rayscribe: Command, served: dict[str, Path], world: Path, tmp_path: Path
) -> None:
    image = tmp_path / "front.png"
    image.write_bytes(read_manifest(world).studies[0].images[0].read_bytes())
    predict = ["predict", image, "--model", served["r2gen"], "--out"]
    assert "is one of the images" in rayscribe(*predict, image, code=1)
    (tmp_path / "notes.txt").write_text("mine")
    assert "exists and is no draft" in rayscribe(*predict, tmp_path / "notes.txt", code=1)
    for _ in range(2):
        rayscribe(*predict, tmp_path / "draft.json")
    assert (tmp_path / "notes.txt").read_text() == "mine" and image.stat().st_size > 100
