"""The loop: resumed equals unbroken, two processes equal one, accumulated equals large, NaN stops with names."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from apart import call_apart
from conftest import small_config
from rayscribe.checkpoint import load_model
from rayscribe.cli.main import main
from rayscribe.config import RunConfig, TrainConfig
from rayscribe.data.dataset import Order
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.errors import InputError
from rayscribe.methods import own_methods, run_from_yaml
from rayscribe.methods.build import build_model
from rayscribe.methods.r2gen import r2gen
from rayscribe.settings import to_yaml
from rayscribe.task import ReportTask
from rayscribe.training.loop import build_optimizer, lr_factor
from rayscribe.training.run import train_method
from training_runs import assert_same, logged, logs_of_one_and_two_processes, train_until_killed, weights

METHODS = ("baseline", "r2gen", "r2gen_cmn", "promptmrg", "kif")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "step", "trainable"), [("r2gen", 3, True), ("baseline", 8, False)])
def test_a_run_killed_at_any_step_resumes_to_the_same_weights(
    method: str, step: int, trainable: bool, world: Path, tmp_path: Path
) -> None:
    config = small_config(method, checkpoint_minutes=0.0)
    config = replace(config, backbone=replace(config.backbone, trainable=trainable))
    features = tmp_path / "features"
    train_method(config, world, tmp_path / "unbroken", features=features)
    train_until_killed(tmp_path, step, config, world, tmp_path / "killed", features)
    assert len(logged(tmp_path / "killed")) == step
    train_method(config, world, tmp_path / "killed", resume=True, features=features)
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))
    assert_same(
        load_file(tmp_path / "killed" / "model.safetensors"), load_file(tmp_path / "unbroken" / "model.safetensors")
    )
    assert logged(tmp_path / "killed") == logged(tmp_path / "unbroken")
    assert logged(tmp_path / "killed", "validation.csv") == logged(tmp_path / "unbroken", "validation.csv")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_take_the_steps_of_one(method: str, world: Path, tmp_path: Path) -> None:
    # A large eps, so that Adam does not make whole steps out of the rounding of vanishing gradients.
    config = small_config(method, epochs=1, bucket=False, eps=1e-4)
    config = replace(
        config,
        model=replace(config.model, dropout=0.0, patch_dropout=0.0),
        method=replace(config.method, dropout=0.0) if method == "kif" else config.method,
        # Frozen, because batch normalisation sees half of the batch in each of two processes.
        backbone=replace(config.backbone, trainable=False),
    )
    one, two = logs_of_one_and_two_processes(config, world, tmp_path)
    assert len(one) == len(two) == 6
    for step, (first, second) in enumerate(zip(one, two, strict=True)):
        tolerance = 1e-4 if step == 0 else 1e-2  # see the test of accumulation
        assert float(second["gradient_norm"]) == pytest.approx(float(first["gradient_norm"]), rel=tolerance)
        assert float(second["loss"]) == pytest.approx(float(first["loss"]), rel=tolerance)
    for name, tensor in weights(tmp_path / "one").items():
        # Adam divides by the gradient's size, so rounding shows where a gradient is nearly zero; six steps are up to 6e-3, and
        # 4 of 36,864 weights of R2Gen were seen 2e-4 apart on one processor of several.
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=5e-4)
    scores = [logged(tmp_path / name, "validation.csv")[0] for name in ("one", "two")]
    assert float(scores[1]["loss"]) == pytest.approx(float(scores[0]["loss"]), rel=1e-3)


def test_accumulated_batches_take_the_step_of_a_large_one(world: Path, tmp_path: Path) -> None:
    base = small_config(epochs=1, bucket=False)
    base = replace(
        base,
        model=replace(base.model, dropout=0.0, patch_dropout=0.0),
        backbone=replace(base.backbone, trainable=False),
    )
    small = replace(base, train=replace(base.train, batch_size=4, accumulate=2))
    train_method(base, world, tmp_path / "large", features=tmp_path / "features")
    train_method(small, world, tmp_path / "small", features=tmp_path / "features")
    large_log, small_log = logged(tmp_path / "large"), logged(tmp_path / "small")
    assert len(large_log) == len(small_log)
    for step, (first, second) in enumerate(zip(large_log, small_log, strict=True)):
        # The first step sees the same weights; after it, Adam amplifies the rounding of gradients that are nearly zero.
        tolerance = 1e-4 if step == 0 else 1e-2
        assert float(second["gradient_norm"]) == pytest.approx(float(first["gradient_norm"]), rel=tolerance)
        assert float(second["loss"]) == pytest.approx(float(first["loss"]), rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_phantom_world(method: str, world: Path, tmp_path: Path) -> None:
    config = small_config(method, epochs=8, lr=5e-3, lr_backbone=5e-3, clip_value=None, clip_norm=1.0)
    train_method(config, world, tmp_path / "run")
    losses = [float(row["loss"]) for row in logged(tmp_path / "run", "validation.csv")]
    assert losses[-1] < 0.75 * losses[0]


def test_a_loss_that_is_not_a_number_names_its_studies_and_keeps_the_last_state(world: Path, tmp_path: Path) -> None:
    config = small_config("baseline", epochs=1, lr=1e38, clip_value=None)
    with pytest.raises(InputError, match=r"the loss is (nan|inf).*CXR.*--train\.lr"):
        train_method(config, world, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_weights_that_are_not_numbers_are_never_saved(world: Path, tmp_path: Path) -> None:
    config = small_config("baseline", epochs=1, lr=1e38, clip_value=None, checkpoint_minutes=0.0)
    with pytest.raises(InputError, match="no longer numbers after step 1"):
        train_method(config, world, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()
    one_step = replace(config, train=replace(config.train, batch_size=60, checkpoint_minutes=10.0))
    with pytest.raises(InputError, match="no longer numbers after step 1"):
        train_method(one_step, world, tmp_path / "epoch")
    assert not (tmp_path / "epoch" / "model.safetensors").exists()


def test_a_start_that_failed_can_be_repeated(world: Path, tmp_path: Path) -> None:
    config = small_config("baseline", epochs=1)
    wrong = replace(config, backbone=replace(config.backbone, weights="/none.pth"))
    with pytest.raises(InputError, match="no such weights file"):
        train_method(wrong, world, tmp_path / "run")
    train_method(config, world, tmp_path / "run")


def test_the_optimiser_is_the_published_one(world: Path) -> None:
    """Adam with amsgrad, weight decay 5e-5, the image encoder at a rate of its own (specification 2.4)."""
    config = r2gen().train
    task = ReportTask(build_model(small_config("r2gen"), 12))
    optimizer = build_optimizer(task, config)
    assert type(optimizer) is torch.optim.Adam
    assert [group["lr"] for group in optimizer.param_groups] == [5e-5, 1e-4]
    assert all(group["amsgrad"] and group["weight_decay"] == 5e-5 for group in optimizer.param_groups)
    backbone = {id(parameter) for parameter in task.model.backbone.parameters()}
    assert {id(parameter) for parameter in optimizer.param_groups[0]["params"]} == backbone
    assert config.clip_value == 0.1


def test_a_run_is_never_overwritten_and_resumes_only_with_its_own_settings(world: Path, tmp_path: Path) -> None:
    config = small_config("baseline", epochs=1)
    train_method(config, world, tmp_path / "run", features=tmp_path / "features")
    with pytest.raises(InputError, match="already holds a run"):
        train_method(config, world, tmp_path / "run")
    manifest = read_manifest(world)
    write_manifest(tmp_path / "other.parquet", replace(manifest, studies=manifest.studies[1:]))
    with pytest.raises(InputError, match="started on other data"):
        train_method(config, tmp_path / "other.parquet", tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="other settings"):
        train_method(replace(config, seed=7), world, tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="no run to resume"):
        train_method(config, world, tmp_path / "other", resume=True)
    before = weights(tmp_path / "run")
    train_method(config, world, tmp_path / "run", resume=True)  # finished: nothing is left to do
    assert_same(weights(tmp_path / "run"), before)


def test_training_without_the_section_says_which(world: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    bare = replace(manifest, studies=tuple(replace(study, impression="") for study in manifest.studies))
    write_manifest(tmp_path / "bare.parquet", bare)
    config = small_config()
    config = replace(config, text=replace(config.text, section="impression"))
    with pytest.raises(InputError, match="section 'impression'"):
        train_method(config, tmp_path / "bare.parquet", tmp_path / "run")


def train_on_a_full_disk(limit: int, config: RunConfig, world: Path, run: Path) -> None:
    """The limit on file size makes the write itself fail, as a full disk does."""
    own_methods()["baseline"] = replace(own_methods()["baseline"], recipes={"baseline": lambda: config})
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["rayscribe", "train", "baseline", "--data", str(world), "--run", str(run)]
    main()


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "file"), [(200_000, "model.safetensors"), (3_000_000, "state.pt")])
def test_a_full_disk_is_named_and_leaves_no_half_written_state(
    limit: int, file: str, world: Path, tmp_path: Path
) -> None:
    config = run_from_yaml(to_yaml(small_config("baseline", epochs=1)), "config")
    code, printed = call_apart(tmp_path, train_on_a_full_disk, limit, config, world, tmp_path / "run")
    message = printed.splitlines()[-1]
    assert code == 1
    assert message.startswith("rayscribe: ")
    assert file in message
    assert "disk space" in message
    assert "Traceback" not in printed
    assert not list((tmp_path / "run").glob(".*.part"))
    assert not (tmp_path / "run" / "state.pt").exists()


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    lengths = [(7 * i) % 23 + 3 for i in range(203)]
    order = Order(lengths=lengths, batch_size=16, bucket=True, seed=3)
    assert order.batches(4) == order.batches(4)
    assert order.batches(4) != order.batches(5)
    assert sorted(study for batch in order.batches(4) for study in batch) == list(range(203))
    padding = [sum(max(lengths[s] for s in batch) - lengths[s] for s in batch) for batch in order.batches(0)]
    loose = replace(order, bucket=False)
    loose_padding = [sum(max(lengths[s] for s in batch) - lengths[s] for s in batch) for batch in loose.batches(0)]
    assert sum(padding) < 0.5 * sum(loose_padding)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_processes_share_every_batch_without_overlap(processes: int) -> None:
    order = Order(lengths=[5] * 33, batch_size=6, bucket=False, seed=0)
    shares = [order.rows(0, accumulate=1, rank=rank, processes=processes) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    counted = [row.study for share in shares for batch in share for row in batch if row.counts]
    assert sorted(counted) == list(range(33))
    assert all(batch for share in shares for batch in share)


def test_the_schedules_are_functions_of_the_step() -> None:
    config = TrainConfig()
    assert lr_factor(config, 0, 49.9) == 1.0
    assert lr_factor(config, 0, 50.0) == pytest.approx(0.1)
    cosine = replace(config, schedule="cosine", warmup_steps=10)
    assert lr_factor(cosine, 0, 0.0) == pytest.approx(0.1, abs=1e-3)
    assert lr_factor(cosine, 1000, float(cosine.epochs)) == pytest.approx(0, abs=1e-9)


def test_a_run_folder_is_a_model_folder(world: Path, tmp_path: Path) -> None:
    train_method(small_config("baseline", epochs=1), world, tmp_path / "run")
    trained = load_model(tmp_path / "run")
    assert trained.data["source"] == "phantom"
    assert trained.training["epoch"] == 1
    assert (tmp_path / "run" / "README.md").read_text().count("Not a medical device") == 1
    assert any((tmp_path / "run" / "tensorboard").iterdir())
