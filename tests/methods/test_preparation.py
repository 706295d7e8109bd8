"""One verb trains any method: what it needs beside the manifest is built, kept under a digest, and found again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import plugged, small_config
from rayscribe.config import BackboneConfig, RunConfig
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.prepared import manifest_key, prepared
from rayscribe.errors import InputError
from rayscribe.methods.ithn import IthnSettings
from rayscribe.methods.ithn_pairs import prepare_negatives
from rayscribe.methods.method import Preparation, Source
from rayscribe.methods.promptmrg import PromptMrgSettings
from rayscribe.models.backbones import Backbone
from rayscribe.training.run import train_method
from training_runs import train_until_killed

Command = Callable[..., str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a tiny image encoder."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "weights.safetensors"
    save_file(Backbone(BackboneConfig(name="test_resnet")).net.state_dict(), path)
    return path


def retrieving(weights: Path, method: str = "promptmrg", **train_settings: Any) -> RunConfig[Any]:
    config = small_config(method, **train_settings)
    settings = config.method if method == "promptmrg" else config.method.diagnosis
    memory = replace(settings, memory=True, reports=5)
    chosen = memory if method == "promptmrg" else replace(config.method, diagnosis=memory)
    return replace(config, method=chosen, backbone=replace(config.backbone, weights=str(weights)))


def test_negatives_are_those_of_the_build_verb(world: Path, tmp_path: Path, rayscribe: Command) -> None:
    rayscribe("build", "negatives", world, "--out", tmp_path / "mined.parquet")
    by_verb = read_manifest(tmp_path / "mined.parquet")
    config = plugged(small_config(), "ithn", IthnSettings())
    source = Source(manifest=read_manifest(world), path=world)
    _, found = prepare_negatives(config, source, Preparation(features=tmp_path / "features"))
    assert found.manifest.digest_with_negatives() == by_verb.digest_with_negatives()
    assert found.manifest.provenance["negatives"] == by_verb.provenance["negatives"]


def test_negatives_are_mined_once_and_their_file_holds_no_report(world: Path, tmp_path: Path) -> None:
    config = plugged(small_config(epochs=1), "ithn", IthnSettings())
    said: list[str] = []
    for run in ("first", "second"):
        train_method(config, world, tmp_path / run, features=tmp_path / "features", notify=said.append)
    assert sum(line.startswith("mining negatives") for line in said) == 1
    assert sum(line.startswith("negatives of 42 training studies") for line in said) == 2
    (kept,) = (tmp_path / "features" / "prepared").glob("negatives-*")
    assert "heart" not in kept.read_text() and "lung" not in kept.read_text()


def test_a_manifest_with_negatives_is_taken_as_it_is(world: Path, tmp_path: Path, rayscribe: Command) -> None:
    rayscribe("build", "negatives", world, "--out", tmp_path / "mined.parquet", "--top", 1)
    source = Source(manifest=read_manifest(tmp_path / "mined.parquet"), path=world)
    config = plugged(small_config(), "ithn", IthnSettings())
    assert prepare_negatives(config, source, Preparation(features=tmp_path))[1] is source


def test_patients_decide_what_is_kept(world: Path) -> None:
    manifest = read_manifest(world)
    one = Manifest(studies=tuple(replace(s, subject="p") for s in manifest.studies), provenance=manifest.provenance)
    assert one.digest() == manifest.digest() and manifest_key(one) != manifest_key(manifest)


@pytest.mark.parametrize("method", ["promptmrg", "kif"])
def test_the_index_is_that_of_the_build_verb(
    method: str, world: Path, weights: Path, tmp_path: Path, rayscribe: Command
) -> None:
    flags = ["--backbone.name", "test_resnet", "--backbone.weights", weights, "--images.size", 64]
    flags += ["--images.resize", 68, "--features", tmp_path / "features"]
    rayscribe("build", "retrieval", world, "--out", tmp_path / "index", *flags)
    said: list[str] = []
    train_method(
        retrieving(weights, method, epochs=1),
        world,
        tmp_path / "run",
        features=tmp_path / "features",
        notify=said.append,
    )
    by_verb, own = (
        load_file(folder / "bank.safetensors") for folder in (tmp_path / "index", tmp_path / "run/retrieval")
    )
    assert all(torch.equal(by_verb[name], own[name]) for name in by_verb)
    assert any("own report among the 5 nearest" in line for line in said)
    assert "retrieval: ''" in (tmp_path / "run" / "config.yaml").read_text(), "the settings are the user's"


def test_a_run_that_prepares_is_resumed_to_the_same_weights(world: Path, weights: Path, tmp_path: Path) -> None:
    config, features = retrieving(weights), tmp_path / "features"
    train_method(config, world, tmp_path / "whole", features=features)
    train_until_killed(tmp_path, 3, config, world, tmp_path / "broken", features=features)
    train_method(config, world, tmp_path / "broken", resume=True, features=features)
    whole, broken = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_plug_ins_and_hosts_prepare_together(world: Path, weights: Path, tmp_path: Path) -> None:
    config = plugged(retrieving(weights, epochs=1), "ithn", IthnSettings())
    train_method(config, world, tmp_path / "run", features=tmp_path / "features")
    kinds = {path.name.partition("-")[0] for path in (tmp_path / "features" / "prepared").glob("[!.]*")}
    assert kinds == {"negatives", "retrieval"}
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_an_untrained_image_encoder_retrieves_nothing(world: Path, tmp_path: Path) -> None:
    config = replace(small_config("promptmrg"), method=PromptMrgSettings())
    with pytest.raises(
        InputError, match=r"test_resnet has random weights: give --backbone\.weights.*--method\.no-memory"
    ):
        train_method(config, world, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_reports_leave_nothing_behind(world: Path, weights: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    few = tuple(study for study in manifest.studies if study.split != "train")[:4]
    rows = tuple(replace(study, split="train") for study in few)
    write_manifest(tmp_path / "few.parquet", Manifest(studies=rows, provenance=manifest.provenance))
    with pytest.raises(InputError, match="too few for an index"):
        train_method(retrieving(weights), tmp_path / "few.parquet", tmp_path / "run", features=tmp_path / "features")
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "features" / "prepared").glob("retrieval-*"))


def test_what_a_killed_build_left_is_built_again(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        path.mkdir()
        (path / "whole").touch()

    path = prepared("thing", {"a": 1}, build, features=tmp_path)
    (path / "whole").unlink()
    path.rename(built[0])  # as if the process had been killed while it built
    again = prepared("thing", {"a": 1}, build, features=tmp_path)
    assert again == path and (path / "whole").exists() and not built[0].exists()
    assert len(built) == 2


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(path: Path) -> None:
        path.write_text("half")
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        prepared("thing", {"a": 1}, build, features=tmp_path)
    assert not list((tmp_path / "prepared").glob("*thing*[!k]"))


def test_two_at_once_build_once(tmp_path: Path) -> None:
    begun, go_on, built = threading.Event(), threading.Event(), []

    def build(path: Path) -> None:
        built.append(path)
        begun.set()
        assert go_on.wait(20)
        path.touch()

    threads = [
        threading.Thread(target=prepared, args=("thing", {"a": 1}, build), kwargs={"features": tmp_path})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(built) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 5}', "\udcff", '{"sha256": "0", "negatives": {}}'])
def test_damaged_negatives_are_mined_again(content: str, world: Path, tmp_path: Path) -> None:
    config = plugged(small_config(), "ithn", IthnSettings())
    source = Source(manifest=read_manifest(world), path=world)
    _, first = prepare_negatives(config, source, Preparation(features=tmp_path))
    (kept,) = (tmp_path / "prepared").glob("negatives-*")
    kept.write_bytes(content.encode(errors="surrogateescape"))
    _, again = prepare_negatives(config, source, Preparation(features=tmp_path))
    assert again.manifest.digest_with_negatives() == first.manifest.digest_with_negatives()


@pytest.mark.parametrize("name", ["bank.safetensors", "encoder.safetensors", "retrieval.json"])
def test_a_damaged_index_is_built_again(name: str, world: Path, weights: Path, tmp_path: Path) -> None:
    config = retrieving(weights, epochs=1)
    train_method(config, world, tmp_path / "first", features=tmp_path / "features")
    (kept,) = (tmp_path / "features" / "prepared").glob("retrieval-*")
    (kept / name).write_bytes((kept / name).read_bytes()[:100])
    train_method(config, world, tmp_path / "second", features=tmp_path / "features")
    first, second = (load_file(tmp_path / run / "model.safetensors") for run in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)
