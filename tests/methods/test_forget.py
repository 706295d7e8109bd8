"""A model that forgets a study is the one that never saw it, and nothing of the study stays in its folder."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_consensus import Command, features, fitted, small

from rayscribe import checkpoint, files
from rayscribe.checkpoint import load_fitted, save_fitted
from rayscribe.config import RunConfig
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.split_reports import SplitReports, cleaned_report
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.methods import find_method
from rayscribe.methods.consensus import ConsensusSettings
from rayscribe.methods.consensus_reporter import ConsensusReporter
from rayscribe.methods.consensus_studies import sampled
from rayscribe.methods.fitted import Fitted
from rayscribe.provenance import SEEN
from rayscribe.study import Study
from rayscribe.training.forget import forget
from rayscribe.training.run import train_method

__all__ = ["fitted"]


def settings(fitted: Path) -> RunConfig[ConsensusSettings]:
    return small(
        fitted / "weights.safetensors", strengths=(1.0,), gammas=(3.0,), utility="bleu4=1,image=1", compose=False
    )


@pytest.fixture(scope="module")
def trained(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a manifest in which every two studies are of one patient."""
    folder = tmp_path_factory.mktemp("forget")
    manifest = read_manifest(fitted / "world.parquet")
    studies = [replace(study, subject=f"Patient {row // 2}") for row, study in enumerate(manifest.studies)]
    write_manifest(folder / "world.parquet", Manifest(studies=tuple(studies), provenance=manifest.provenance))
    train_method(settings(fitted), folder / "world.parquet", folder / "run", features=fitted / "features")
    return folder


def studies_of(trained: Path) -> list[Study]:
    return list(read_manifest(trained / "world.parquet").split("train"))


def with_unique_report(trained: Path, fitted: Path) -> Study:
    """A training study whose report nobody else has."""
    text = settings(fitted).text
    counts = Counter(cleaned_report(study, text) for study in studies_of(trained))
    return next(study for study in studies_of(trained)[5:] if counts[cleaned_report(study, text)] == 1)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_rest_is_the_fit_that_never_saw_them(trained: Path, fitted: Path, tmp_path: Path) -> None:
    gone = {studies_of(trained)[3].id, with_unique_report(trained, fitted).id, studies_of(trained)[-1].id}
    shutil.copytree(trained / "run", tmp_path / "run")
    done = forget(tmp_path / "run", sorted(gone), print)
    manifest = read_manifest(trained / "world.parquet")
    rest = tuple(study for study in manifest.studies if study.id not in gone)
    write_manifest(tmp_path / "rest.parquet", Manifest(studies=rest, provenance=manifest.provenance))
    scores = train_method(
        settings(fitted), tmp_path / "rest.parquet", tmp_path / "wanted", features=fitted / "features"
    ).scores
    found, wanted = load_fitted(tmp_path / "run"), load_fitted(tmp_path / "wanted")
    assert done.studies == 3 and done.remaining == len(wanted.fitted.texts["ids"]) and done.scores == scores
    assert found.fitted.texts == wanted.fitted.texts
    assert found.fitted.weights.keys() == wanted.fitted.weights.keys()
    for name, tensor in wanted.fitted.weights.items():
        torch.testing.assert_close(found.fitted.weights[name], tensor, atol=1e-6, rtol=1e-6, equal_nan=True)
    drafts = [
        ConsensusReporter(one.config, one.fitted).draft(features(fitted), DecodingConfig()) for one in (found, wanted)
    ]
    assert [one.reports for one in drafts[0]] == [one.reports for one in drafts[1]]
    assert (tmp_path / "run" / SEEN).read_bytes() == (tmp_path / "wanted" / SEEN).read_bytes()
    assert found.training == wanted.training


def test_nothing_of_a_forgotten_study_stays_in_the_folder(
    trained: Path, fitted: Path, tmp_path: Path, rayscribe: Command
) -> None:
    study, run = with_unique_report(trained, fitted), tmp_path / "run"
    shutil.copytree(trained / "run", run)
    report = cleaned_report(study, settings(fitted).text)
    row = list(load_fitted(run).fitted.texts["ids"]).index(study.id)
    one = load_fitted(run).fitted.weights["view0_features"][row].numpy().tobytes()
    traces = [report.encode(), f'"{study.id}"'.encode(), one, *(sha256[:16].encode() for sha256 in study.sha256)]
    before = b"".join(content(run).values())
    assert all(trace in before for trace in traces)
    said = rayscribe("forget", run, study.id)
    after = b"".join(content(run).values())
    assert not any(trace in after for trace in traces) and b"Patient" not in before
    assert "forgot 1 training studies" in said and "1 other training studies are of the same patients" in said
    facts = load_fitted(run).data
    assert facts["forgotten"] == 1 and facts["digest"] == load_fitted(trained / "run").data["digest"]
    assert facts["counts"]["train"] == load_fitted(trained / "run").data["counts"]["train"] - 1
    assert "| forgotten since | 1 training studies |" in (run / "README.md").read_text()
    rayscribe("forget", run, studies_of(trained)[0].id)
    assert load_fitted(run).data["forgotten"] == 2


def test_predictions_that_still_hold_a_report_are_named(
    trained: Path, fitted: Path, tmp_path: Path, rayscribe: Command
) -> None:
    study = with_unique_report(trained, fitted)
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "predictions.jsonl").write_text(cleaned_report(study, settings(fitted).text))
    said = rayscribe("forget", tmp_path / "run", study.id)
    assert "predictions.jsonl still names a forgotten study, or holds its report; delete it" in said


@pytest.mark.parametrize("moves", [0, 1, 2, 3, 4])
def test_a_killed_process_leaves_a_folder_that_is_old_or_is_completed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    study, run = studies_of(trained)[0], tmp_path / "run"
    shutil.copytree(trained / "run", run)
    old, real, done = content(run), os.replace, []

    def replace_some(source: str | Path, target: str | Path) -> None:
        if Path(target).name == ".replacing" or Path(source).parent.name == ".replacing":
            if len(done) == moves:
                raise KeyboardInterrupt
            done.append(target)
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace_some)
    with pytest.raises(KeyboardInterrupt):
        forget(run, [study.id], print)
    monkeypatch.undo()
    if moves == 0:
        assert content(run) == old
        forget(run, [study.id], print)
    else:
        with pytest.raises(InputError, match="completed what an interrupted `forget` had made ready"):
            forget(run, [study.id], print)
    assert study.id not in load_fitted(run).fitted.texts["ids"]
    assert content(run).keys() == old.keys()


def test_what_cannot_be_forgotten_changes_nothing(
    trained: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    before, ids = content(run), [study.id for study in studies_of(trained)]
    near = ids[0][:-1] + "_"
    with pytest.raises(InputError, match=rf"no training study '{near}' among \d+; did you mean .*Nothing was changed"):
        forget(run, [ids[1], near], print)
    with pytest.raises(InputError, match=r"9 training studies; consensus needs at least 10"):
        forget(run, ids[9:], print)
    with pytest.raises(InputError, match=r"name the training studies"):
        forget(run, [], print)
    assert content(run) == before


@pytest.mark.parametrize("name", ["baseline", "findings"])
def test_models_trained_by_gradients_say_why_they_cannot(served: dict[str, Path], name: str) -> None:
    with pytest.raises(InputError, match=r"mixes all studies into its weights.*methods that can forget: consensus"):
        forget(served[name], ["1"], print)


def test_a_method_with_a_fit_may_be_unable_to_forget(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    able = find_method("consensus")
    with pytest.raises(ValueError, match="without a `fit` of its own it cannot `forget`"):
        replace(able, fit=None, reporter=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "find_method", lambda system: replace(able, forget=None))
        with pytest.raises(InputError, match="mixes all studies into its weights"):
            forget(tmp_path / "run", [studies_of(trained)[0].id], print)


def test_a_folder_of_an_earlier_version_says_what_it_lacks(trained: Path, tmp_path: Path) -> None:
    model = load_fitted(trained / "run")
    older = {name: value for name, value in model.fitted.texts.items() if name not in ("patients", "images")}
    save_fitted(tmp_path / "run", replace(model, fitted=Fitted(weights=model.fitted.weights, texts=older)))
    with pytest.raises(InputError, match="fitted by an earlier version, which kept no features"):
        forget(tmp_path / "run", [studies_of(trained)[0].id], print)


def test_an_encoder_that_saw_the_studies_is_refused(trained: Path, tmp_path: Path) -> None:
    model = load_fitted(trained / "run")
    shutil.copytree(trained / "run", tmp_path / "run")
    save_fitted(tmp_path / "run", replace(model, training=model.training | {"seen_by_encoder": 7}))
    with pytest.raises(InputError, match=r"image encoder learned from 7 of the training studies"):
        forget(tmp_path / "run", [studies_of(trained)[0].id], print)


def test_the_sample_without_a_study_is_the_sample_of_the_others(trained: Path) -> None:
    studies = studies_of(trained)
    whole = SplitReports(studies, [study.findings for study in studies])
    sample = sampled(whole, 50, seed=3).ids
    assert len(sample) == 50 and sample != sampled(whole, 50, seed=4).ids
    fewer = [study for study in studies if study.id != sample[10]]
    others = sampled(SplitReports(fewer, [study.findings for study in fewer]), 50, seed=3).ids
    assert set(sample) - {sample[10]} < set(others) and len(others) == 50
    assert sampled(SplitReports(fewer, [study.findings for study in fewer]), 49, seed=3).ids == [
        one for one in sample if one != sample[10]
    ]
