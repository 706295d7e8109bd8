"""Folders that version 0.3.0 wrote load, and give the same reports; see old_folders/README.md."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rayscribe.checkpoint import load_model, read_config
from rayscribe.data.manifest import read_manifest
from rayscribe.drafts import DecodingConfig
from rayscribe.inference.reporter import draft_reports, read_study
from rayscribe.methods import run_from_plain
from rayscribe.methods.compose import Plugged
from rayscribe.methods.version_0_3 import upgraded
from training_runs import logged

OLD = Path(__file__).parent / "old_folders"
SYSTEMS = {
    "baseline": "baseline",
    "r2gen": "r2gen",
    "r2gen_cmn": "r2gen_cmn",
    "jima": "jima",
    "promptmrg": "promptmrg",
    "kif": "kif",
    "ithn": "r2gen_cmn+ithn",
    "isd": "r2gen+isd",
}
Command = Callable[..., str]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folders of 0.3.0, with the drawn world that they were trained on."""
    folder = tmp_path_factory.mktemp("old")
    for archive in ("models", "interrupted"):
        with tarfile.open(OLD / f"{archive}.tar.xz") as file:
            file.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def answers(old: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((old / "answers.json").read_text())
    return found


@pytest.mark.parametrize(("name", "system"), SYSTEMS.items())
def test_an_old_model_drafts_what_it_drafted(name: str, system: str, old: Path, answers: dict[str, Any]) -> None:
    trained = load_model(old / name)
    assert trained.config.system == system
    study = read_manifest(old / "world.parquet").split("test")[0]
    (draft,) = draft_reports(trained, [read_study(trained, study.images)], DecodingConfig(beams=2), best=2)
    assert draft.reports == answers[name]["draft"]
    assert draft.log_probabilities == pytest.approx(answers[name]["log_probabilities"], rel=1e-3)
    assert draft.diagnosis == answers[name]["diagnosis"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_an_old_model_writes_the_reports_that_it_wrote(
    name: str, old: Path, answers: dict[str, Any], tmp_path: Path, rayscribe: Command
) -> None:
    out, features = tmp_path / "out.jsonl", tmp_path / "features"
    command = ["--data", old / "world.parquet", "--out", out, "--features", features, "--decoding.beams", 2]
    rayscribe("generate", "--model", old / name, *command)
    assert [json.loads(line)["report"] for line in out.read_text().splitlines()] == answers[name]["test"]


def test_an_old_classifier_gives_the_same_probabilities(old: Path, answers: dict[str, Any], rayscribe: Command) -> None:
    image = sorted((old / "phantom" / "images").glob("*/0.png"))[0]
    found = json.loads(rayscribe("classify", "predict", image, "--model", old / "findings", "--json"))
    assert found["findings"] == pytest.approx(answers["findings"]["findings"], rel=1e-4)
    assert found["present"] == answers["findings"]["present"]


@pytest.mark.slow
def test_an_interrupted_run_of_then_goes_on_now(
    old: Path, answers: dict[str, Any], tmp_path: Path, rayscribe: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its settings say them today; the losses are those of the run had it never been stopped."""
    run = shutil.copytree(old / "ithn-interrupted", tmp_path / "run")
    for name in ("backbone.safetensors", "world.parquet"):
        shutil.copy(old / name, tmp_path)
    shutil.copytree(old / "phantom", tmp_path / "phantom")
    monkeypatch.chdir(tmp_path)
    sizes = "--model.width 32 --model.heads 4 --model.feedforward 32 --model.encoder-layers 1 --model.decoder-layers 2"
    memory = "--method.memory-heads 4 --method.memory-size 64 --method.memory-top 8"
    train = "--train.epochs 3 --train.patience 50 --train.batch-size 8 --train.workers 0 --train.lr 5e-3"
    train += " --train.lr-backbone 5e-5 --train.betas 0.9 0.999 --train.eps 1e-8 --train.clip-value 0.1"
    train += " --train.step-epochs 50 --train.gamma 0.1"
    others = "--text.threshold 1 --text.max-length 24 --images.size 64 --images.resize 68 --decoding.beams 1 --seed 1"
    encoder = "--backbone.name test_resnet --backbone.weights backbone.safetensors --backbone.no-trainable"
    plug_in = "--method.ithn.width 16 --method.ithn.image encoded"
    flags = " ".join([sizes, memory, train, others, encoder, plug_in]).split()
    command = ["train", "r2gen_cmn+ithn", "--data", "world.parquet", "--run", run, "--features", "features", *flags]
    assert "other settings" in rayscribe(*command, "--train.lr", "1e-3", "--resume", code=1)
    rayscribe(*command, "--resume")
    losses = [float(row["loss"]) for row in logged(run)]
    assert losses == pytest.approx(answers["ithn-interrupted"], rel=0.02)


def test_what_0_3_said_of_a_run_is_said_today(old: Path) -> None:
    plain = json.loads((old / "isd" / "model.json").read_text())["config"]
    assert "system" not in plain and plain["model"]["method"] == "r2gen"
    run = run_from_plain(plain)
    assert isinstance(run.method, Plugged) and run.method.plug_in.teacher.endswith("generation-1")
    assert run.method.host.memory_slots == 3 and run.train.lr == plain["train"]["lr"]
    assert read_config(old / "kif").method.diagnosis.memory is False
    assert upgraded(upgraded(plain)) == upgraded(plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ithn"], "the recipe ithn is now `r2gen_cmn+ithn`"),
        (["kif_isd"], "the recipe kif_isd is now `kif` or `kif+isd --generations 2`"),
        (["r2gen", "--ithn.enabled"], "--ithn.enabled is now train RECIPE+ithn"),
        (["r2gen_cmn", "--ithn.alpha", "0.1"], "--ithn.alpha is now --method.ithn.alpha of train RECIPE+ithn"),
        (["jima", "--jima.no-report-curriculum"], "--jima.no-report-curriculum is now --method.no-report-curriculum"),
        (["promptmrg", "--diagnosis.retrieval=x"], "--diagnosis.retrieval is now --method.retrieval"),
        (["kif", "--kif.graph", "x"], "--kif.graph is now --method.graph"),
        (["r2gen", "--distill.teacher", "x"], "--distill.teacher is now --method.isd.teacher of train RECIPE+isd"),
        (["r2gen", "--model.memory-slots", "3"], "--model.memory-slots is now --method.memory-slots"),
        (["r2gen", "--model.memory_slots", "3"], "--model.memory-slots is now --method.memory-slots"),
        (["r2gen_cmn", "--model.no-memory-residual"], "--model.no-memory-residual is now --method.no-memory-residual"),
        (["r2gen", "--model.method", "jima"], "--model.method is now train METHOD"),
        (["r2gan"], "no recipe 'r2gan'; did you mean 'r2gen'?"),
        (["r2gen+itn"], "no method 'itn'; did you mean 'ithn'?"),
        (["ithn+isd"], "the recipe ithn is now `r2gen_cmn+ithn`"),
        (["r2gen+jima"], "jima is a method of its own, not a plug-in"),
        (["r2gen+ithn+isd"], "ithn must come last; write r2gen+isd+ithn"),
    ],
)
def test_an_old_name_is_refused_with_the_new_one(arguments: list[str], message: str, rayscribe: Command) -> None:
    assert message in rayscribe("train", *arguments, "--data", "world.parquet", "--run", "run", code=1)


def test_old_weights_are_not_needed_to_be_written_again(old: Path, tmp_path: Path) -> None:
    """A model of 0.3.0 that is saved today has the same weights under the same names."""
    from safetensors.torch import load_file

    from rayscribe.checkpoint import save_model

    save_model(tmp_path, load_model(old / "promptmrg"))
    before, after = (load_file(folder / "model.safetensors") for folder in (old / "promptmrg", tmp_path))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert load_model(tmp_path).config == load_model(old / "promptmrg").config
