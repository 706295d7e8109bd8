"""Where models run, as `--device` says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rayscribe.data.manifest import read_manifest
from rayscribe.errors import InputError
from rayscribe.models.device import chosen_device, show_only


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    """A machine with so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back whatever the test does
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


def test_the_first_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 0)
    assert chosen_device() == chosen_device("cpu") == torch.device("cpu")
    machine(monkeypatch, 2)
    assert chosen_device() == chosen_device("cuda") == torch.device("cuda")
    assert chosen_device("cuda:1") == torch.device("cuda:1")
    assert chosen_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("gpus", "name", "message"),
    [
        (1, "gpu", "--device gpu: no such device; there are cpu, cuda and cuda:N"),
        (1, "cuda:one", "--device cuda:one: no such device"),
        (0, "cuda", "--device cuda: torch finds no GPU; use --device cpu"),
        (1, "cuda:1", "--device cuda:1: no such GPU; there is only cuda:0"),
        (4, "cuda:7", "--device cuda:7: no such GPU; there is cuda:0 to cuda:3"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, message: str
) -> None:
    machine(monkeypatch, gpus)
    with pytest.raises(InputError, match=message):
        chosen_device(name)


def test_a_process_can_be_shown_one_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    machine(monkeypatch, 4)
    show_only(None)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    show_only("cuda:2")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    show_only("cuda:1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    with pytest.raises(InputError, match="no such GPU; CUDA_VISIBLE_DEVICES is '6'"):
        show_only("cuda:1")
    show_only("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun gives every process its own GPU"):
        show_only("cuda:0")


def test_every_verb_that_runs_a_model_takes_a_device(
    rayscribe: Callable[..., str], monkeypatch: pytest.MonkeyPatch, served: dict[str, Path], world: Path, tmp_path: Path
) -> None:
    machine(monkeypatch, 0)
    study = read_manifest(world).split("test")[0]
    image, findings = study.images[0], served["findings"]
    commands = [
        ["predict", image, "--model", served["r2gen"]],
        ["generate", "--model", served["r2gen"], "--data", world, "--out", tmp_path / "p.jsonl"],
        ["classify", "predict", image, "--model", findings],
        ["classify", "test", findings, "--data", world],
        ["classify", "label", "--model", findings, "--data", world, "--out", tmp_path / "labels.csv"],
    ]
    for command in commands:
        assert "--device cuda:1: torch finds no GPU" in rayscribe(*command, "--device", "cuda:1", code=1), command
        assert rayscribe(*command, "--device", "cpu"), command
