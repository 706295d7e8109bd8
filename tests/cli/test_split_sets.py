"""Sets of splits: one model each, the right model for each, scores over all of them, and comparisons."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rayscribe as rs
from apart import call_apart, run_command
from built_once import built_once
from conftest import plugged, small_config
from rayscribe.cli.main import run as command
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.split_sets import split_manifests
from rayscribe.errors import InputError
from rayscribe.evaluation.scorers import Scorers
from rayscribe.methods.distill import IsdSettings
from rayscribe.models.folder import read_weights
from rayscribe.settings import to_yaml
from rayscribe.training import closed_form
from training_runs import dies_at

Command = Callable[..., str]
SMALL = ["--backbone.name", "test_resnet", "--images.size", "64", "--images.resize", "68"]
QUICK = Scorers(image_floors=False, resamples=100)
SPLITS = ["split-0", "split-1", "split-2"]


def call(*arguments: object) -> None:
    assert command([str(one) for one in arguments]) == 0


def train_consensus(data: Path, run: Path, *more: object) -> list[object]:
    return ["train", "consensus", "--data", data, "--run", run, *SMALL, "--features", data.parent / "features", *more]


def score(predictions: Path, data: Path, out: Path, *more: object) -> list[object]:
    return ["evaluate", predictions, "--data", data, "--json", out, "--no-image-floors", *more]


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three splits, a model each in `run`, their reports in `predictions`, and their scores in set.json."""

    def build(folder: Path) -> None:
        torch.manual_seed(0)
        call("resplit", world, "--seeds", 3, "--out", folder / "splits")
        call(*train_consensus(folder / "splits", folder / "run"))
        files = ["--data", folder / "splits", "--out", folder / "predictions", "--features", folder / "features"]
        call("generate", "--model", folder / "run", *files)
        call(*score(folder / "predictions", folder / "splits", folder / "set.json", "--html", folder / "page.html"))

    return built_once(tmp_path_factory, "split_sets", build)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "made")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_weights(run / "model.safetensors")[0]


def assert_equal_models(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()  # thresholds of observations that never occur are no numbers
    assert all(torch.allclose(one[name], other[name], rtol=0, atol=0, equal_nan=True) for name in one)


def same_reports(manifest: Manifest, text: str) -> str:
    return "".join(json.dumps({"id": study.id, "report": text}) + "\n" for study in manifest.split("test"))


@pytest.mark.slow
def test_every_split_is_scored_as_it_would_be_alone(made: Path) -> None:
    result = json.loads((made / "set.json").read_text())
    assert list(result["splits"]) == SPLITS
    for name in SPLITS:
        alone = made / f"{name}.json"
        call(*score(made / "predictions" / f"{name}.jsonl", made / "splits" / f"{name}.parquet", alone))
        assert result["splits"][name] == json.loads(alone.read_text())


def test_the_summary_is_over_the_splits(made: Path) -> None:
    result = json.loads((made / "set.json").read_text())
    both = [(result["summary"]["model"], [one["scores"] for one in result["splits"].values()])]
    both += [
        (scores, [one["floors"][floor]["scores"] for one in result["splits"].values() if floor in one["floors"]])
        for floor, scores in result["summary"]["floors"].items()
    ]
    assert result["summary"]["floors"].keys() == {name for one in result["splits"].values() for name in one["floors"]}
    for summary, scores in both:
        for name, facts in summary.items():
            values = [one[name]["value"] for one in scores]
            assert facts["mean"] == pytest.approx(np.mean(values)) and list(facts["values"].values()) == values
            assert (facts["low"], facts["high"]) == (min(values), max(values))
            assert facts["deviation"] == pytest.approx(np.std(values, ddof=1))
    for name, manifest in split_manifests(made / "splits").items():
        assert result["training_studies"][name] == len(read_manifest(manifest).split("train"))
    assert "data_digest" not in result["signature"] and result["signature"]["split"] == "test"


@pytest.mark.slow
def test_alarms_are_counted_over_the_splits(made: Path, rayscribe: Command, tmp_path: Path) -> None:
    """Two splits get one report for everybody, the third its references."""
    (tmp_path / "reports").mkdir()
    for name, path in split_manifests(made / "splits").items():
        manifest = read_manifest(path)
        text = same_reports(manifest, "the heart is normal .")
        if name == "split-2":
            pairs = ({"id": study.id, "report": study.findings} for study in manifest.split("test"))
            text = "".join(json.dumps(pair) + "\n" for pair in pairs)
        (tmp_path / "reports" / f"{name}.jsonl").write_text(text)
    said = rayscribe(*score(tmp_path / "reports", made / "splits", tmp_path / "set.json"))
    assert "ALARM  COLLAPSED in 2 of 3 splits; split-0: " in said
    (collapsed,) = (one for one in json.loads((tmp_path / "set.json").read_text())["alarms"] if "COLLAPSED" in str(one))
    assert collapsed["splits"] == ["split-0", "split-1"]


def test_the_page_shows_every_split_beside_the_floors(made: Path) -> None:
    page, result = (made / "page.html").read_text(), json.loads((made / "set.json").read_text())
    assert all(text in page for text in ("Not a medical device", "Every split", *SPLITS))
    assert all(f">{name.replace('_', ' ')}</th>" in page for name in result["summary"]["floors"])
    assert f"<td>{result['summary']['model']['bleu4']['mean']:.3f}</td>" in page


@pytest.mark.slow
def test_a_program_gets_the_same_set(made: Path) -> None:
    result = rs.evaluate(made / "predictions", data=made / "splits", scorers=QUICK)
    stored = json.loads((made / "set.json").read_text())
    assert result["summary"]["model"] == stored["summary"]["model"]
    with pytest.raises(InputError, match="needs a folder of predictions, not a value of type dict"):
        rs.evaluate({"a": "text"}, data=made / "splits")


def consensus_until_killed(data: Path, run: Path, fits: int) -> None:
    """Trains, and kills this process when the last of so many fits has been saved, before it is marked as finished."""
    save, saved = closed_form.save_fitted, []

    def save_and_die(*given: Any) -> None:
        save(*given)
        saved.append(given)
        if len(saved) == fits:
            os.kill(os.getpid(), signal.SIGKILL)

    closed_form.save_fitted = save_and_die  # type: ignore[assignment]
    run_command(*train_consensus(data, run))


@pytest.mark.slow
def test_a_killed_set_resumes_with_its_folder_alone_and_equals_an_unbroken_one(
    made: Path, rayscribe: Command, tmp_path: Path
) -> None:
    code, printed = call_apart(tmp_path, consensus_until_killed, made / "splits", tmp_path / "run", 2)
    assert code == -signal.SIGKILL and "split 2 of 3: split-1" in printed, printed
    first = (tmp_path / "run" / "split-0" / "model.safetensors").stat().st_mtime_ns
    said = rayscribe("train", "--resume", "--run", tmp_path / "run")
    assert "split 1 of 3: split-0 is finished\nsplit 2 of 3: split-1\n" in said and "split 3 of 3: split-2\n" in said
    assert "validation, mean of 3 splits: leave_one_out_macro_f1 " in said and " (sd " in said
    assert (tmp_path / "run" / "split-0" / "model.safetensors").stat().st_mtime_ns == first
    for name in SPLITS:
        assert_equal_models(tmp_path / "run" / name, made / "run" / name)
        assert json.loads((tmp_path / "run" / name / "model.json").read_text()) == json.loads(
            (made / "run" / name / "model.json").read_text()
        )


def test_a_finished_set_trains_nothing_again(copy: Path, rayscribe: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in (copy / "run").rglob("model.safetensors")}
    said = rayscribe("train", "--resume", "--run", copy / "run")
    assert said.count("is finished") == 3 and len(before) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_another_set_or_other_settings_do_not_resume_a_run(copy: Path, rayscribe: Command, world: Path) -> None:
    run = ["--resume", "--run", copy / "run"]
    assert "already holds a run" in rayscribe(*train_consensus(copy / "splits", copy / "run"), code=1)
    assert "started with other settings" in rayscribe("train", *run, "--method.aim", "utility", code=1)
    assert "started on other data" in rayscribe("train", *run, "--data", world, code=1)
    (copy / "splits" / "split-2.parquet").unlink()
    assert "started on other data" in rayscribe("train", *run, "--data", copy / "splits", code=1)


@pytest.mark.slow
def test_every_split_has_its_own_generations_and_a_killed_set_of_them_equals_an_unbroken_one(
    made: Path, rayscribe: Command, tmp_path: Path
) -> None:
    settings, data = tmp_path / "small.yaml", tmp_path / "two"
    settings.write_text(to_yaml(plugged(small_config("baseline", epochs=1), "isd", IsdSettings())))
    data.mkdir()
    for name in SPLITS[:2]:
        manifest = read_manifest(made / "splits" / f"{name}.parquet")
        write_manifest(data / f"{name}.parquet", manifest)
    start = ["train", "--config", settings, "--data", data, "--generations", 2, "--run"]
    call(*start, tmp_path / "whole")
    code, printed = call_apart(tmp_path, dies_at, 3, run_command, *start, tmp_path / "cut")
    assert code == -signal.SIGKILL, printed
    said = rayscribe("train", "--resume", "--run", tmp_path / "cut", "--generations", 3, code=1)
    assert "is a run of 2" in said
    said = rayscribe("train", "--resume", "--run", tmp_path / "cut")
    assert said.count("generation 2 of 2") == 2
    for name in SPLITS[:2]:
        assert_equal_models(tmp_path / "cut" / name / "generation-2", tmp_path / "whole" / name / "generation-2")
    call("generate", "--model", tmp_path / "cut", "--data", data, "--out", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "split-1.jsonl.meta.json").read_text())
    assert about["folder"] == str(tmp_path / "cut" / "split-1" / "generation-2")


def test_generations_without_a_teacher_are_refused(made: Path, rayscribe: Command, tmp_path: Path) -> None:
    said = rayscribe(*train_consensus(made / "splits", tmp_path / "run", "--generations", 2), code=1)
    assert "consensus learns nothing from an earlier run" in said and not (tmp_path / "run").exists()


def test_a_mistake_before_the_first_model_can_be_mended_without_resume(
    made: Path, rayscribe: Command, tmp_path: Path
) -> None:
    arguments = train_consensus(made / "splits", tmp_path / "run")
    assert "trainable" in rayscribe(*arguments, "--backbone.trainable", code=1)
    assert "split 3 of 3" in rayscribe(*arguments)


def test_reports_go_on_where_they_were_stopped(copy: Path, rayscribe: Command) -> None:
    whole = {path.name: path.read_text() for path in (copy / "predictions").iterdir()}
    lines = whole["split-1.jsonl"].splitlines(keepends=True)
    (copy / "predictions" / "split-1.jsonl").write_text("".join(lines[:3]) + lines[3][:9])  # as kill -9 leaves it
    (copy / "predictions" / "split-2.jsonl").unlink()
    files = ["--data", copy / "splits", "--out", copy / "predictions", "--features", copy / "features"]
    said = rayscribe("generate", "--model", copy / "run", *files)
    assert "split 2 of 3: split-1, " in said
    assert {name: (copy / "predictions" / name).read_text() for name in whole if name.endswith("l")} == {
        name: text for name, text in whole.items() if name.endswith("l")
    }


def swap(first: Path, second: Path) -> None:
    between = first.with_name("between")
    first.rename(between)
    second.rename(first)
    between.rename(second)


def test_swapped_models_are_refused_before_anything_is_written(copy: Path, rayscribe: Command) -> None:
    swap(copy / "run" / "split-0", copy / "run" / "split-1")
    said = rayscribe("generate", "--model", copy / "run", "--data", copy / "splits", "--out", copy / "out", code=1)
    assert f"{copy / 'run' / 'split-0'} was not trained on {copy / 'splits' / 'split-0.parquet'}" in said
    assert "seed 1" in said and "seed 0" in said and not (copy / "out").exists()


def test_a_model_of_another_split_is_refused_for_one_split_too(made: Path, rayscribe: Command, tmp_path: Path) -> None:
    files = ["--model", made / "run" / "split-0", "--out", tmp_path / "p.jsonl", "--features", made / "features"]
    said = rayscribe("generate", *files, "--data", made / "splits" / "split-1.parquet", code=1)
    assert "learned from images of" in said and "split test of" in said and not (tmp_path / "p.jsonl").exists()
    assert "reports in" in rayscribe("generate", *files, "--data", made / "splits" / "split-0.parquet")


def test_missing_unfinished_and_single_models_are_named(copy: Path, rayscribe: Command) -> None:
    generate = ["generate", "--data", copy / "splits", "--out", copy / "out", "--model"]
    said = rayscribe(*generate, copy / "run" / "split-0", code=1)
    assert "is one model, and a set of splits needs one for every split" in said
    (copy / "run" / "split-1" / "done.txt").unlink()
    said = rayscribe(*generate, copy / "run", code=1)
    assert "split-1.parquet is not finished" in said and "train --resume --run" in said
    shutil.rmtree(copy / "run" / "split-1")
    said = rayscribe(*generate, copy / "run", code=1)
    assert f"{copy / 'run' / 'split-1'}: no model for {copy / 'splits' / 'split-1.parquet'}" in said
    said = rayscribe("predict", "x.png", "--model", copy / "run", code=1)
    assert f"there is one in {copy / 'run' / 'split-0'}" in said


def test_predictions_that_do_not_go_with_the_splits_are_named(copy: Path, rayscribe: Command, world: Path) -> None:
    evaluate = score(copy / "predictions", copy / "splits", copy / "out.json")
    stray = copy / "predictions" / "other.csv"
    stray.write_text("id,report\n")
    assert "has no split 'other'; it has split-0, split-1, split-2" in rayscribe(*evaluate, code=1)
    stray.rename(copy / "predictions" / "split-0.csv")
    assert "split-0.jsonl: two files for" in rayscribe(*evaluate, code=1)
    (copy / "predictions" / "split-0.csv").unlink()
    for end in ("", ".meta.json"):
        swap(copy / "predictions" / f"split-0.jsonl{end}", copy / "predictions" / f"split-1.jsonl{end}")
    assert "split-0.jsonl: was written for another manifest than" in rayscribe(*evaluate, code=1)
    (copy / "predictions" / "split-2.jsonl").unlink()
    assert "no predictions for" in rayscribe(*evaluate, code=1)
    one = copy / "predictions" / "split-1.jsonl"
    assert "is no folder" in rayscribe(*score(one, copy / "splits", copy / "out.json"), code=1)
    assert "is no folder" in rayscribe(*score(copy / "predictions", world, copy / "out.json"), code=1)
    assert "--plots: belongs to one split" in rayscribe(*evaluate, "--plots", copy / "plots", code=1)
    assert not (copy / "out.json").exists()


def test_a_folder_without_manifests_or_with_another_file_is_named(rayscribe: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert "a folder without a manifest (*.parquet)" in rayscribe(*train_consensus(data, tmp_path / "run"), code=1)
    (data / "split-0.parquet").write_text("no table")
    said = rayscribe(*train_consensus(data, tmp_path / "run"), code=1)
    assert "split-0.parquet: not a rayscribe manifest" in said and not (tmp_path / "run").exists()


def test_splits_are_in_the_order_of_their_numbers(world: Path, tmp_path: Path) -> None:
    for number in (10, 2, 0):
        (tmp_path / f"split-{number}.parquet").symlink_to(world)
    assert list(split_manifests(tmp_path)) == ["split-0", "split-2", "split-10"]


def test_where_one_manifest_is_needed_a_folder_is_refused(made: Path, rayscribe: Command, tmp_path: Path) -> None:
    advice = f"one manifest is needed here; give a file, such as {made / 'splits' / 'split-0.parquet'}"
    run = ["--data", made / "splits", "--run", tmp_path / "run"]
    assert advice in rayscribe("classify", "train", "multilabel", *run, code=1)
    assert advice in rayscribe("audit", made / "splits", code=1)
    with pytest.raises(InputError, match="one manifest is needed here"):
        rs.train(rs.recipe("consensus"), data=made / "splits", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def normal(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The score file of one report for everybody, over the same splits."""

    def build(folder: Path) -> None:
        for name, path in split_manifests(made / "splits").items():
            text = same_reports(read_manifest(path), "the heart is normal . the lungs are clear .")
            (folder / f"{name}.jsonl").write_text(text)
        result = rs.evaluate(folder, data=made / "splits", scorers=QUICK)
        (folder / "set.json").write_text(json.dumps(result))

    return built_once(tmp_path_factory, "split_sets_normal", build) / "set.json"


def test_equal_systems_differ_by_nothing(made: Path, rayscribe: Command, tmp_path: Path) -> None:
    both = [f"a={made / 'set.json'}", f"b={made / 'set.json'},{made / 'set.json'}"]
    rayscribe("compare", *both, "--json", tmp_path / "c.json")
    result = json.loads((tmp_path / "c.json").read_text())
    for test in result["differences"]["b"].values():
        assert (test["difference"], test["p"], test["p_holm"], test["low"], test["high"]) == (0, 1, 1, 0, 0)


def test_a_difference_is_tested_over_the_splits(made: Path, normal: Path, rayscribe: Command, tmp_path: Path) -> None:
    written = {name: tmp_path / f"c.{name}" for name in ("html", "latex", "json")}
    options = [part for name, path in written.items() for part in (f"--{name}", path)]
    said = rayscribe("compare", f"normal={normal}", f"consensus={made / 'set.json'}", *options)
    assert "corrected resampled t-test over 3 splits (Nadeau and Bengio, 2003), Holm over the table" in said
    result = json.loads(written["json"].read_text())
    first, second = (json.loads(path.read_text()) for path in (normal, made / "set.json"))
    counts = [(one["studies"], second["training_studies"][name]) for name, one in second["splits"].items()]
    share = float(np.mean([test / train for test, train in counts]))
    tests = result["differences"]["consensus"]
    for name, test in tests.items():
        values = [
            second["splits"][s]["scores"][name]["value"] - first["splits"][s]["scores"][name]["value"] for s in SPLITS
        ]
        error = float(np.sqrt((1 / 3 + share) * np.var(values, ddof=1)))
        assert test["difference"] == pytest.approx(np.mean(values))
        assert test["high"] - test["difference"] == pytest.approx(4.302653 * error)
        assert test["p"] <= test["p_holm"] <= 1
    assert result["training_studies"] == second["training_studies"]
    assert "\\toprule" in written["latex"].read_text() and "split-1: " in written["html"].read_text()


def test_the_score_of_a_split_is_the_mean_over_its_seeds(
    made: Path, normal: Path, rayscribe: Command, tmp_path: Path
) -> None:
    rayscribe("compare", f"a={normal}", f"b={normal},{made / 'set.json'}", "--json", tmp_path / "both.json")
    rayscribe("compare", f"a={normal}", f"b={made / 'set.json'}", "--json", tmp_path / "one.json")
    both, one = (json.loads((tmp_path / f"{name}.json").read_text())["differences"]["b"] for name in ("both", "one"))
    assert all(both[name]["difference"] == pytest.approx(one[name]["difference"] / 2) for name in one)


def changed(path: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    result = json.loads(path.read_text())
    change(result)
    out.write_text(json.dumps(result))
    return out


def without_two(result: dict[str, Any]) -> None:
    for part in (result["splits"], result["training_studies"]):
        part.pop("split-1"), part.pop("split-2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_two, "are not over the same splits: split-0, split-1, split-2 against split-0"),
        (lambda result: result["splits"]["split-1"]["signature"].update(section="impression"), "differ in split-1"),
        (lambda result: result["training_studies"].update({"split-1": 7}), "different training studies"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(
    change: Callable[[dict[str, Any]], object], message: str, made: Path, rayscribe: Command, tmp_path: Path
) -> None:
    other = changed(made / "set.json", tmp_path / "other.json", change)
    assert message in rayscribe("compare", f"a={made / 'set.json'}", f"b={other}", code=1)


def test_a_set_and_a_single_split_are_not_mixed(made: Path, rayscribe: Command, tmp_path: Path) -> None:
    single = tmp_path / "single.json"
    single.write_text(json.dumps(json.loads((made / "set.json").read_text())["splits"]["split-0"]))
    said = rayscribe("compare", f"a={made / 'set.json'}", f"b={single}", code=1)
    assert "set.json holds scores of a set of splits" in said and "single.json those of one split" in said


def test_one_split_has_no_test_over_splits(made: Path, normal: Path, rayscribe: Command, tmp_path: Path) -> None:
    sets = [changed(path, tmp_path / f"{n}.json", without_two) for n, path in enumerate((normal, made / "set.json"))]
    said = rayscribe("compare", f"a={sets[0]}", f"b={sets[1]}", "--html", tmp_path / "c.html")
    assert "no test over splits is possible with 1; draw more with `rayscribe resplit`" in said
    assert " p " not in said.split("note:")[0].replace("none over splits", "")


def test_the_same_split_twice_is_refused(copy: Path, rayscribe: Command) -> None:
    for name in ("splits/split-1.parquet", "predictions/split-1.jsonl", "predictions/split-1.jsonl.meta.json"):
        shutil.copy(copy / name.replace("split-1", "split-0"), copy / name)
    said = rayscribe(*score(copy / "predictions", copy / "splits", copy / "out.json"), code=1)
    assert "split-1.parquet are the same split" in said
