"""The record of a method, its table, and what is composed of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rayscribe.errors import InputError
from rayscribe.methods import as_published, find_method, find_recipe, methods, plug_ins, recipes, run_from_yaml
from rayscribe.methods.compose import Plugged, flag_of
from rayscribe.settings import to_yaml

HOSTS = [name for name, method in methods().items() if not method.is_plug_in]
Command = Callable[..., str]


def test_the_table_holds_every_method_once() -> None:
    assert HOSTS == ["baseline", "r2gen", "r2gen_cmn", "jima", "promptmrg", "kif", "consensus"]
    assert plug_ins() == ["ithn", "isd"]
    assert all(name in recipes() for name in HOSTS)


@pytest.mark.parametrize("name", [*recipes(), "baseline+isd", "jima+isd", "kif+isd", "r2gen+isd+ithn"])
def test_a_recipe_survives_its_file(name: str) -> None:
    run = find_recipe(name)
    assert run_from_yaml(to_yaml(run), name) == run
    assert isinstance(run.method, Plugged) == ("+" in run.system)


@pytest.mark.parametrize("host", [name for name in HOSTS if methods()[name].fit is None])
@pytest.mark.parametrize("plug_in", ["isd", "ithn", "isd+ithn"])
def test_every_plug_in_goes_around_every_host(host: str, plug_in: str) -> None:
    method = find_method(f"{host}+{plug_in}")
    assert method.innermost is methods()[host] and method.name == f"{host}+{plug_in}"
    assert (method.generation is not None) == ("isd" in plug_in)
    assert find_recipe(f"{host}+{plug_in}").system == f"{host}+{plug_in}"


@pytest.mark.parametrize("name", [*HOSTS, "r2gen_cmn+ithn", "kif+isd", "r2gen+isd+ithn"])
def test_what_as_published_switches_differs_from_the_default_and_is_a_setting(name: str) -> None:
    run = find_recipe(name)
    switched, what = as_published(run)
    assert [one.setting for one in what] == [one.setting for one in find_method(name).published]
    assert (switched != run) == bool(what)
    plain, before = yaml.safe_load(to_yaml(switched)), yaml.safe_load(to_yaml(run))
    for one in what:
        *path, last = one.setting.split(".")
        for step in path:
            plain, before = plain[step], before[step]
        assert plain[last] == one.value != before[last] and one.source
        plain, before = yaml.safe_load(to_yaml(switched)), yaml.safe_load(to_yaml(run))


@pytest.mark.slow
def test_as_published_says_what_it_switches_and_a_flag_wins(world: Path, tmp_path: Path, rayscribe: Command) -> None:
    small = "--backbone.name test_resnet --images.size 64 --images.resize 68 --model.width 16 --model.heads 2"
    small += " --method.memory-heads 2 --model.feedforward 16 --text.threshold 1 --train.epochs 1 --train.workers 0"
    command = ["train", "r2gen", "--data", world, *small.split(), "--decoding.beams", 1]
    said = rayscribe(*command, "--run", tmp_path / "run", "--as-published", "--train.bucket")
    assert "as published: --text.legacy-ids (released code: one id" in said
    assert "bucket" not in said
    found = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert found["text"]["legacy_ids"] is True and found["train"]["bucket"] is True


def test_a_setting_is_shown_by_its_flag() -> None:
    shown = [flag_of(one.setting, "r2gen+isd+ithn", one.value) for one in find_method("r2gen+isd+ithn").published]
    assert shown == [
        "--text.legacy-ids",
        "--train.no-bucket",
        "--method.isd.reduction batchmean",
        "--method.isd.response 0.01",
        "--method.isd.grams joined",
        "--method.ithn.negative released",
    ]


def test_what_cannot_be_composed_is_refused_with_what_can(rayscribe: Command, world: Path, tmp_path: Path) -> None:
    for name, message in {
        "isd": "isd is a plug-in; write METHOD+isd",
        "r2gen+isd+isd": "duplicate isd; name it once",
        "kif_isd+ithn": "the recipe kif_isd is now",
    }.items():
        assert message in rayscribe("train", name, "--data", world, "--run", tmp_path / "run", code=1)
    command = ["--data", world, "--run", tmp_path / "run", "--generations", "2"]
    assert "; train r2gen+isd+ithn" in rayscribe("train", "r2gen+ithn", *command, code=1)


def test_a_record_holds_nothing_that_nobody_asks_for() -> None:
    with pytest.raises(ValueError, match="`fit` and `reporter` need each other"):
        replace(methods()["baseline"], fit=lambda run, material: None)
    with pytest.raises(ValueError, match="a plug-in cannot have norms"):
        replace(methods()["isd"], norms=methods()["r2gen"].norms)


def test_settings_of_another_method_cannot_be_given(tmp_path: Path, world: Path, rayscribe: Command) -> None:
    rayscribe("train", "r2gen", "--data", world, "--run", tmp_path / "run", "--method.warmup", "3", code=2)
    assert not (tmp_path / "run").exists()
    plain = yaml.safe_load(to_yaml(find_recipe("r2gen")))
    plain["method"]["warmup"] = 3
    with pytest.raises(InputError, match=r"unknown setting 'method\.warmup' of R2GenSettings"):
        run_from_yaml(yaml.safe_dump(plain), "config.yaml")
    with pytest.raises(InputError, match=r"config\.yaml: not a rayscribe configuration"):
        run_from_yaml("wings: 2", "config.yaml")
