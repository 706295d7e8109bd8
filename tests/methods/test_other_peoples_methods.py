"""Another package brings a method in one file, registers it through an entry point, and edits nothing elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rayscribe import methods
from rayscribe.api.models import open_reporter
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from training_runs import assert_same, logged, weights

TOYS = Path(__file__).parents[1] / "toys"
Command = Callable[..., str]


def entered(folder: Path, **modules: str) -> Path:
    """What pip writes for an installed package that enters these methods."""
    about = folder / "toys-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"{name} = {place}" for name, place in modules.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{methods.GROUP}]", *lines]) + "\n")
    return folder


@pytest.fixture
def forget() -> Iterator[None]:
    """The packages are looked at once a process."""
    methods._entered.cache_clear()
    yield
    methods._entered.cache_clear()


@pytest.fixture
def toys(forget: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = entered(tmp_path / "site", toy_gate="toy_gate:METHOD", toy_nearest="toy_nearest:METHOD")
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_each_toy_is_one_short_file() -> None:
    assert {path.name for path in TOYS.glob("*.py")} == {"toy_gate.py", "toy_nearest.py"}
    assert all(len(path.read_text().splitlines()) <= 60 for path in TOYS.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "setting"), [("toy_gate", ["--method.cost", "0.5"]), ("toy_nearest", ["--method.ridge", "1e-6"])]
)
def test_a_toy_trains_generates_predicts_and_is_evaluated(
    name: str, setting: list[str], toys: Path, world: Path, tmp_path: Path, rayscribe: Command
) -> None:
    run, out = tmp_path / "run", tmp_path / "predictions.jsonl"
    features = ["--features", tmp_path / "features"]
    rayscribe("train", name, "--data", world, "--run", run, *setting, *features)
    about = json.loads((run / "model.json").read_text())
    assert about["config"]["system"] == name
    assert about["config"]["method"] == {setting[0].removeprefix("--method."): float(setting[1])}
    rayscribe("generate", "--model", run, "--data", world, "--out", out)
    result = rayscribe("evaluate", out, "--data", world, "--json", tmp_path / "scores.json")
    assert "bleu4" in result and "constant" in result
    reports = [json.loads(line)["report"] for line in out.read_text().splitlines()]
    image = sorted((world.parent / "phantom" / "images").glob("*/*.png"))[0]
    assert json.loads(rayscribe("predict", image, "--model", run, "--json"))["report"]
    exported = tmp_path / "exported"
    rayscribe("export", "model", run, "--out", exported)
    again = rayscribe("predict", image, "--model", exported, "--json")
    assert json.loads(again)["report"] == json.loads(rayscribe("predict", image, "--model", run, "--json"))["report"]
    assert name in rayscribe("info", run)
    if name == "toy_nearest":
        assert set(reports) <= set(about["texts"]["reports"]) and len(set(reports)) > 1
        message = rayscribe("train", name, "--data", world, "--run", run, *setting, *features, code=1)
        assert "already holds a run" in message
        with pytest.raises(InputError, match="--best 0: at least 1"):
            writer = open_reporter(run)
            writer.draft([writer.read([image])], DecodingConfig(), best=0)
        (draft,) = writer.draft([writer.read([image])], DecodingConfig(), best=3)
        assert any("3 reports were asked for; this model writes 1" in warning for warning in draft.warnings)
        assert "the fit is complete" in rayscribe(
            "train", name, "--data", world, "--run", run, *setting, *features, "--resume"
        )
    else:
        assert all(float(row["gate"]) > 0 for row in logged(run))


@pytest.mark.slow
def test_a_toy_that_is_killed_resumes_to_the_same_weights(
    toys: Path, world: Path, tmp_path: Path, rayscribe: Command
) -> None:
    rayscribe("train", "toy_gate", "--data", world, "--run", tmp_path / "whole")
    script = (
        "import os, signal, sys\nfrom rayscribe.training.folder import RunFolder\nlog = RunFolder.log_step\n"
        "def log_and_die(self, values, seconds):\n    log(self, values, seconds)\n"
        "    if values['step'] == 8:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunFolder.log_step = log_and_die\nfrom rayscribe.cli.main import main\n"
        f"sys.argv = ['rayscribe', 'train', 'toy_gate', '--data', {str(world)!r}, '--run', {str(tmp_path / 'cut')!r}]\n"
        "main()\n"
    )
    paths = os.pathsep.join([str(toys), str(TOYS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    rayscribe("train", "toy_gate", "--data", world, "--run", tmp_path / "cut", "--resume")
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")


@pytest.mark.slow
def test_plug_ins_go_around_a_toy_too(toys: Path, world: Path, tmp_path: Path, rayscribe: Command) -> None:
    rayscribe("build", "negatives", world, "--out", tmp_path / "mined.parquet")
    run = tmp_path / "run"
    rayscribe("train", "toy_gate+ithn", "--data", tmp_path / "mined.parquet", "--run", run, "--train.epochs", 1)
    assert all(float(row["align"]) > 0 and float(row["gate"]) > 0 for row in logged(run))
    message = rayscribe("train", "toy_nearest+ithn", "--data", world, "--run", tmp_path / "no", code=1)
    assert "toy_nearest has no training steps to add losses to" in message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"broken": "no_such_module:METHOD"}, r"toys: cannot load its method 'broken' .*no_such_module"),
        ({"toy_gate": "toy_gate:NOTHING"}, r"toys: cannot load its method 'toy_gate' .*NOTHING"),
        ({"other": "toy_gate:METHOD"}, r"toys: .*toy_gate:METHOD is the method 'toy_gate'"),
        ({"toy_gate": "toy_gate:GateSettings"}, r"toys: .*GateSettings is not a Method"),
        ({"no_python": "no_python:METHOD"}, r"toys: cannot load its method 'no_python' .*invalid syntax"),
    ],
)
def test_a_package_that_enters_something_else_is_named(
    entry: dict[str, str], message: str, forget: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.syspath_prepend(str(entered(tmp_path / "site", **entry)))
    (tmp_path / "site" / "no_python.py").write_text("def")
    (name,) = entry
    for ask in (methods.find_method, methods.find_recipe):
        with pytest.raises(InputError, match=message):
            ask(name)
    with pytest.raises(InputError, match="no recipe 'r2gne'; did you mean 'r2gen'"):
        methods.find_recipe("r2gne")
    assert methods.find_recipe("r2gen+isd").system == "r2gen+isd"  # what is ours works beside a broken package
    assert set(methods.methods()) == set(methods.own_methods())


def test_a_name_of_ours_is_not_taken_by_another_package(
    forget: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rayscribe: Command
) -> None:
    site = entered(tmp_path / "site", r2gen="rayscribe.methods.baseline:METHOD")
    monkeypatch.syspath_prepend(str(site))
    assert methods.find_method("r2gen") is methods.own_methods()["r2gen"]
    assert methods.broken_methods() == {
        "r2gen": "toys: registers a method named 'r2gen', which already exists; rename it"
    }
    assert "r2gen_cmn" in rayscribe("train", "--help")
