"""Restricted data: canary words that stand in every report reach no output, and models that learned from them say so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from conftest import small_config
from rayscribe.checkpoint import load_model
from rayscribe.cli.main import main
from rayscribe.data.label_tables import state_of
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.data.table import read_table
from rayscribe.errors import InputError
from rayscribe.provenance import inherited, is_restricted, terms_of
from rayscribe.training.run import train_method

TERMS = "a data use agreement"


def canary(number: int) -> str:
    """A word of one report alone, so that no vocabulary holds it."""
    return f"zebra{number}quagga"


@pytest.fixture(scope="module")
def restricted(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn world as if it were under a use agreement, a canary in every report."""
    manifest = read_manifest(world)
    studies = tuple(
        replace(
            study,
            findings=f"{canary(n)} {study.findings} {canary(n)} seen.",
            impression=f"{study.impression} {canary(n)}.",
        )
        for n, study in enumerate(manifest.studies)
    )
    path = tmp_path_factory.mktemp("restricted") / "data.parquet"
    provenance = manifest.provenance | {"terms": TERMS, "restricted": True}
    write_manifest(path, replace(manifest, studies=studies, provenance=provenance))
    return path


@pytest.fixture(scope="module")
def model(restricted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("model") / "run"
    config = small_config("r2gen", epochs=1)
    train_method(replace(config, text=replace(config.text, threshold=3)), restricted, run, notify=print)
    return run


@pytest.mark.slow
def test_no_canary_reaches_any_output(
    restricted: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rayscribe(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["rayscribe", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code in (0, None)
        printed = capsys.readouterr()
        return printed.out + printed.err

    monkeypatch.setattr("rayscribe.progress._QUIET", 0)  # every line that a log could get
    out, encoder = tmp_path / "out", ["--backbone.name", "test_resnet", "--backbone.weights", model]
    told = rayscribe(
        "generate", "--model", model, "--data", restricted, "--out", out / "p.jsonl", "--decoding.beams", 1
    )
    flags = ["--json", out / "scores.json", "--html", out / "scores.html", "--plots", out / "plots"]
    told += rayscribe("evaluate", out / "p.jsonl", "--data", restricted, *flags)
    told += rayscribe("audit", restricted, "--json", out / "audit.json", "--html", out / "audit.html")
    told += rayscribe("build", "retrieval", restricted, "--out", out / "index", "--width", 16, *encoder)
    told += rayscribe("build", "graph", restricted, "--out", out / "graph.json")
    told += rayscribe("build", "priors", restricted, "--out", out / "priors.json")
    told += rayscribe("info", restricted) + rayscribe("info", model)
    told += rayscribe("export", "model", model, "--out", out / "exported", "--terms-allow-it")
    files = [path for folder in (out, model) for path in folder.rglob("*") if path.is_file()]
    assert {"scores.html", "audit.html", "log.csv", "README.md"} <= {path.name for path in files}
    assert any(path.name.startswith("events.out") for path in files)
    for path in files:
        assert b"quagga" not in path.read_bytes(), path
    assert "generating" in told and "quagga" not in told  # progress and warnings are in it
    scores = json.loads((out / "scores.json").read_text())
    assert "text" not in scores["floors"]["constant"] and scores["floors"]["constant"]["scores"]
    assert "no report is quoted" in (out / "scores.html").read_text()


@pytest.mark.slow
def test_without_the_restriction_the_same_outputs_quote(
    rayscribe: Callable[..., str], restricted: Path, tmp_path: Path
) -> None:
    """So that the test above cannot pass because nothing is ever written."""
    manifest = read_manifest(restricted)
    free = tmp_path / "free.parquet"
    write_manifest(free, replace(manifest, provenance=manifest.provenance | {"restricted": False}))
    predictions = tmp_path / "p.jsonl"
    texts = {study.id: study.findings for study in manifest.split("test")}
    predictions.write_text("".join(json.dumps({"id": i, "report": t}) + "\n" for i, t in texts.items()))
    flags = ["--no-image-floors", "--json", tmp_path / "s.json", "--html", tmp_path / "s.html"]
    rayscribe("evaluate", predictions, "--data", free, *flags)
    assert "quagga" in (tmp_path / "s.html").read_text() and "quagga" in (tmp_path / "s.json").read_text()
    rayscribe("evaluate", predictions, "--data", restricted, *flags)
    assert "quagga" not in (tmp_path / "s.html").read_text() + (tmp_path / "s.json").read_text()


def test_a_model_of_restricted_data_says_so_and_is_not_exported_unasked(
    rayscribe: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    assert is_restricted(load_model(model).data)
    assert f"{TERMS} (restricted" in (model / "README.md").read_text()
    message = rayscribe("export", "model", model, "--out", tmp_path / "x", code=1)
    assert TERMS in message and "--terms-allow-it" in message and not (tmp_path / "x").exists()
    rayscribe("export", "model", model, "--out", tmp_path / "x", "--terms-allow-it")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        "README.md",
        "model.json",
        "model.safetensors",
        "training-images.txt",
        "vocabulary.json",
    }
    about = (tmp_path / "x" / "model.json").read_text()
    assert "/tmp" not in about and is_restricted(json.loads(about)["data"])
    first, second = load_file(model / "model.safetensors"), load_file(tmp_path / "x" / "model.safetensors")
    assert first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)
    assert "already exists" in rayscribe("export", "model", model, "--out", tmp_path / "x", "--terms-allow-it", code=1)
    assert "no rayscribe model" in rayscribe("export", "model", tmp_path, "--out", tmp_path / "y", code=1)


def test_what_starts_from_a_restricted_model_is_restricted(
    world: Path, model: Path, tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    config = small_config("baseline", epochs=1)
    config = replace(config, backbone=replace(config.backbone, weights=str(model), trainable=False))
    train_method(config, world, tmp_path / "run", features=tmp_path / "features")
    data = load_model(tmp_path / "run").data
    assert is_restricted(data) and TERMS in data["terms"]
    assert "--terms-allow-it" in rayscribe("export", "model", tmp_path / "run", "--out", tmp_path / "x", code=1)


def test_terms_add_up_once() -> None:
    free, bound = {"terms": "free"}, {"terms": "bound", "restricted": True}
    assert inherited(free, []) == free and terms_of(free) == "free"
    both = inherited(free, [bound, bound])
    assert both == {"terms": "free; of what it started from: bound", "restricted": True}
    assert inherited(bound, [bound]) == bound and terms_of({}) == "not stated"


def test_readers_see_restricted_text_only_on_the_users_word(
    rayscribe: Callable[..., str], restricted: Path, tmp_path: Path
) -> None:
    paths = []
    for name in ("one", "two"):
        paths.append(tmp_path / f"{name}.jsonl")
        rows = [{"id": study.id, "report": f"{name} {study.id}"} for study in read_manifest(restricted).split("test")]
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = ["--out", tmp_path / "page.html", "--key", tmp_path / "key.json"]
    command = ["reader-study", *paths, "--data", restricted, "--studies", 4, *out]
    assert "--restricted-text" in rayscribe(*command, code=1) and not (tmp_path / "page.html").exists()
    rayscribe(*command, "--restricted-text")


def test_messages_about_wrong_columns_do_not_quote_reports(tmp_path: Path) -> None:
    report = "[The lungs are clear and the patient is called Doe"
    with pytest.raises(InputError) as one:
        state_of(report, "labels.csv, line 2, Edema")
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"id": "1", "images": report, "findings": "x", "split": "test"}) + "\n"
    )
    with pytest.raises(InputError) as two:
        read_table(tmp_path / "t.jsonl")
    assert "JSON list" in str(two.value) and "clear" not in str(one.value) + str(two.value)


def test_a_model_without_settings_is_not_exported(rayscribe: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"format": "rayscribe-classifier-1", "data": {}}')
    told = rayscribe("export", "model", tmp_path, "--out", tmp_path / "out", code=1)
    assert "no rayscribe model" in told and not (tmp_path / "out").exists()
