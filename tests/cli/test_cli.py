"""The commands of the README as a user types them, and what a user sees when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import small_config
from rayscribe.data.manifest import read_manifest
from rayscribe.training.run import train_method


@pytest.fixture(scope="module")
def model(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "small"
    train_method(small_config("r2gen", epochs=1), world, run)
    return run


@pytest.mark.parametrize(
    "verb",
    """prepare iu-xray, prepare mimic-cxr, prepare table, prepare phantom, shard, audit, label, deidentify, train baseline,
    train r2gen, classify train binary, classify test, classify tune multilabel, classify predict, classify label,
    llm train compact, llm wrap compact, llm compose, llm merge, llm plan, llm reward, generate, predict, export model,
    export sr, import-r2gen, info, evaluate, compare, reader-study, reader-study score, serve, api-key, worker, demo,
    completion""".replace("\n", " ").split(", "),
)
def test_every_verb_explains_itself(rayscribe: Callable[..., str], monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = rayscribe(*verb.split(), "--help")
    assert f"usage: rayscribe {' '.join(verb.split())}" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.slow
def test_the_whole_path_from_manifest_to_scores(
    rayscribe: Callable[..., str],
    world: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    out, scores = tmp_path / "predictions.jsonl", tmp_path / "scores.json"
    rayscribe("generate", "--model", model, "--data", world, "--split", "test", "--out", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    studies = read_manifest(world).split("test")
    assert [line["id"] for line in lines] == [study.id for study in studies]
    assert all("Not a medical device" in line["disclaimer"] for line in lines)
    printed = rayscribe("evaluate", out, "--data", world, "--split", "test", "--json", scores)
    assert "constant" in printed
    result = json.loads(scores.read_text())
    assert result["studies"] == len(studies)
    assert {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "normal_f1"} <= set(result["scores"])
    assert all(one["low"] <= one["high"] for one in result["scores"].values())
    assert result["scores"].keys() == result["floors"]["constant"]["scores"].keys()
    assert 0 < result["diversity"]["distinct_ratio"] <= 1
    assert result["signature"]["references"] == "full"
    compat = rayscribe("evaluate", out, "--data", world, "--references", "r2gen_compat", "--threshold", 1)
    assert "references r2gen_compat" in compat
    looks = [json.loads(line) for line in (model / "test-log.jsonl").read_text().splitlines()]
    assert [look.get("out") or look["scored"] for look in looks] == [out.name] * 3
    assert [look["signature"]["references"] for look in looks[1:]] == ["full", "r2gen_compat"]


@pytest.mark.slow
def test_an_interrupted_generation_goes_on_to_the_same_file(
    rayscribe: Callable[..., str],
    world: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    common = ["generate", "--model", model, "--data", world, "--split", "train", "--decoding.beams", 2]
    rayscribe(*common, "--out", whole)
    rayscribe(*common, "--out", cut)
    lines = cut.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[:19]) + lines[19][:10])  # as `kill -9` leaves it
    rayscribe(*common, "--out", cut)
    assert cut.read_text() == whole.read_text()
    message = rayscribe(*common, "--decoding.beams", 1, "--out", cut, code=1)
    assert "another model, data or decoding" in message


def test_a_draft_comes_with_its_disclaimer(rayscribe: Callable[..., str], world: Path, model: Path) -> None:
    image = read_manifest(world).studies[0].images[0]
    answer = json.loads(rayscribe("predict", image, image, "--model", model, "--json", "--best", 2))
    assert set(answer) == {"report", "raw", "model", "disclaimer", "warnings", "alternatives"}
    assert "Not a medical device" in answer["disclaimer"]
    assert "drawn phantoms" in answer["warnings"][0]
    assert "Not a medical device" in rayscribe("predict", image, "--model", model)


def test_real_dicom_gets_a_draft(rayscribe: Callable[..., str], dicom_samples: Path, model: Path) -> None:
    answer = json.loads(rayscribe("predict", dicom_samples / "CR-MONO1-10-chest.dcm", "--model", model, "--json"))
    assert isinstance(answer["report"], str)


def test_mistakes_are_answered_in_one_line_with_the_way_out(
    rayscribe: Callable[..., str],
    world: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(read_manifest(world).studies[0].images[0].read_bytes()[:500])
    mistakes = [
        (["fly"], "no verb 'fly'"),
        (["train"], "name a recipe first"),
        (["train", "gpt"], "no recipe 'gpt'; there are baseline, r2gen"),
        (["predict", broken, "--model", model], "broken.png: damaged or truncated"),
        (["predict", "none.png", "--model", model], "none.png: no such image"),
        (["predict", broken, "--model", tmp_path], "no rayscribe model"),
        (["generate", "--model", model, "--data", "none.parquet", "--out", tmp_path / "p"], "rayscribe prepare"),
        (["evaluate", "none.jsonl", "--data", world], "rayscribe generate"),
        (["prepare", "iu-xray", tmp_path / "nowhere", "--out", tmp_path / "m.parquet"], "no such folder"),
        (["info", broken], "neither a manifest"),
        (["demo", "--out", tmp_path], "not a demo"),
    ]
    for arguments, message in mistakes:
        printed = rayscribe(*arguments, code=1).strip().splitlines()
        assert message in printed[-1], printed


def test_scores_need_every_study(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    first = read_manifest(world).split("test")[0]
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps({"id": first.id, "report": "clear ."}) + "\n")
    assert "have no prediction" in rayscribe("evaluate", path, "--data", world, code=1)
    path.write_text(path.read_text() * 2)
    assert "line 2: duplicate study" in rayscribe("evaluate", path, "--data", world, code=1)
    path.write_text("{}\n")
    assert "line 1: not" in rayscribe("evaluate", path, "--data", world, code=1)


def test_prepare_writes_nothing_while_there_are_faults(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    study = read_manifest(world).studies[0]
    table = tmp_path / "table.csv"
    rows = [f"{i},{study.images[0]},clear lungs,train" for i in range(3)]
    table.write_text("\n".join(["id,images,report,split", *rows, f"9,{tmp_path}/gone.png,clear lungs,test"]) + "\n")
    out = tmp_path / "m.parquet"
    assert "1 faults; no manifest was written" in rayscribe("prepare", "table", table, "--out", out, code=1)
    assert not out.exists()
    assert "train 3" in rayscribe("prepare", "table", table, "--out", out, "--leave-out-faulty")
    assert len(read_manifest(out).studies) == 3
    assert "source: table" in rayscribe("info", out)


def test_no_report_text_reaches_the_model_folder(world: Path, model: Path) -> None:
    """The vocabulary holds words, never sentences."""
    sentences = {s.strip() for study in read_manifest(world).studies for s in study.findings.split(". ") if len(s) > 20}
    for path in model.rglob("*"):
        if path.suffix in {".json", ".md", ".yaml", ".csv", ".jsonl"}:
            text = path.read_text().lower()
            assert not [s for s in sentences if s.lower() in text], path


@pytest.mark.slow
def test_training_from_the_command_line_takes_nested_settings(
    rayscribe: Callable[..., str],
    world: Path,
    tmp_path: Path,
) -> None:
    settings = ["--backbone.name", "test_resnet", "--images.size", 64, "--images.resize", 68, "--model.width", 32]
    settings += ["--model.heads", 4, "--method.memory-heads", 4, "--model.encoder-layers", 1, "--text.threshold", 1]
    settings += ["--model.decoder-layers", 1, "--train.epochs", 1, "--train.workers", 1, "--decoding.beams", 1]
    printed = rayscribe("train", "r2gen", "--data", world, "--run", tmp_path / "run", *settings)
    assert "next: rayscribe generate" in printed
    about = json.loads((tmp_path / "run" / "model.json").read_text())
    assert about["config"]["model"]["width"] == 32
    again = rayscribe("train", "r2gen", "--data", world, "--run", tmp_path / "run", *settings, code=1)
    assert "already holds a run" in again


def test_predictions_of_another_section_or_without_text_are_refused(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    lines = [{"id": study.id, "report": "clear ."} for study in read_manifest(world).split("test")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "predictions.jsonl.meta.json").write_text(json.dumps({"section": "impression"}))
    assert "written for section impression" in rayscribe("evaluate", path, "--data", world, code=1)
    path.write_text(json.dumps(lines[0] | {"report": None}) + "\n")
    message = rayscribe("evaluate", path, "--data", world, "--section", "impression", code=1)
    assert "must be a text" in message
