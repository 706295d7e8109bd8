from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import plugged, small_config
from methods.test_promptmrg import WORDS, batch_of, states
from rayscribe.checkpoint import load_model
from rayscribe.cli.main import run as run_verb
from rayscribe.config import RunConfig
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.methods import find_method
from rayscribe.methods.build import build_model
from rayscribe.methods.compose import host_run
from rayscribe.methods.distill import DistillTask, IsdSettings, softened_kl
from rayscribe.methods.ithn import IthnSettings
from rayscribe.methods.method import TrainedModel
from rayscribe.methods.promptmrg import Diagnoses
from rayscribe.settings import to_yaml
from rayscribe.study import Batch
from rayscribe.training.learner import Place
from rayscribe.training.loop import build_optimizer
from rayscribe.training.run import train_generations, train_method
from tasks import build_task
from training_runs import (
    assert_same,
    logged,
    logs_of_one_and_two_processes,
    run_by_two_processes,
    train_until_killed,
    weights,
)

METHODS = ("baseline", "r2gen", "r2gen_cmn", "promptmrg", "kif")


def config_of(method: str, **distill: object) -> RunConfig:
    return plugged(small_config(method), "isd", IsdSettings(teacher="somewhere", **distill))  # type: ignore[arg-type]


def taught_by(config: RunConfig, teacher: Path, **settings: object) -> RunConfig:
    return plugged(config, "isd", IsdSettings(teacher=str(teacher), **settings))  # type: ignore[arg-type]


def task_of(config: RunConfig, *, same: bool = False) -> DistillTask:
    """Student and teacher, of one set of weights or of two."""
    known = states()
    diagnoses = Diagnoses(training=known, validation=known, rates_O=known.positive_rates_O())
    plain = host_run(config)
    method = find_method(plain.system)
    resources = method.resources(plain, None)
    torch.manual_seed(0)
    student = build_model(config, WORDS, resources)
    torch.manual_seed(0 if same else 1)
    teacher = TrainedModel(
        method=method,
        model=build_model(plain, WORDS, resources),
        tokenizer=Tokenizer(words=()),
        config=plain,
        data={},
        training={},
    )
    task = build_task(config, student, (diagnoses, teacher))
    assert isinstance(task, DistillTask)
    return task


def place(data: Path, run: Path, *, resume: bool = False) -> Place:
    return Place(data=data, run=run, resume=resume, notify=lambda text: None)


def padded(batch: Batch) -> Batch:
    """The same studies with two more positions of padding."""
    tokens, has = batch.tokens_BT, batch.has_token_BT
    return replace(
        batch,
        tokens_BT=torch.cat([tokens, torch.zeros(len(tokens), 2, dtype=torch.long)], dim=1),
        has_token_BT=torch.cat([has, torch.zeros(len(has), 2, dtype=torch.bool)], dim=1),
    )


@pytest.mark.parametrize("grams", ["separate", "joined"])
@pytest.mark.parametrize("method", METHODS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(method: str, grams: str) -> None:
    task = task_of(config_of(method, grams=grams), same=True).eval()
    with torch.no_grad():
        found = task(batch_of())
        assert found["response"] == 0 and found["relation"] == 0
        assert found["loss"] == task.student(batch_of())["loss"]
    found = task(batch_of())  # with gradients other kernels compute the student's side
    assert found["response"] < 1e-6 and found["relation"] < 1e-6
    found["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_is_never_changed(method: str) -> None:
    task = task_of(config_of(method))
    before = {name: tensor.clone() for name, tensor in task.teacher.state_dict().items()}
    optimizer = build_optimizer(task, config_of(method).train)
    task.train()
    assert not any(part.training for part in task.teacher.modules())
    for _ in range(2):
        losses = task(batch_of())
        assert losses["response"] > 0 and losses["relation"] > 0
        losses["loss"].backward()
        assert all(parameter.grad is None for parameter in task.teacher.parameters())
        optimizer.step()
    after = task.teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_response_is_the_divergence_of_softened_scores() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    p, q = (teacher / 4).softmax(-1), (student / 4).softmax(-1)
    wanted = 16 * (p * (p / q).log()).sum(-1)
    assert torch.allclose(softened_kl(student, teacher, 4.0), wanted, atol=1e-5)
    assert (softened_kl(student, student, 4.0) == 0).all()


def test_padding_moves_neither_loss_but_the_released_sum() -> None:
    for reduction, moves in (("token", False), ("batchmean", True)):
        task = task_of(config_of("baseline", reduction=reduction)).eval()
        plain, longer = task(batch_of()), task(padded(batch_of()))
        assert torch.allclose(plain["relation"], longer["relation"], atol=1e-6)
        assert torch.allclose(plain["response"], longer["response"], atol=1e-5) != moves


def test_batchmean_is_the_released_sum_over_studies() -> None:
    """Without padding it is the token mean times the number of positions."""
    batch = batch_of(tokens=7)
    token = task_of(config_of("baseline")).eval()(batch)["response"]
    summed = task_of(config_of("baseline", reduction="batchmean")).eval()(batch)["response"]
    assert torch.allclose(summed, 6 * token, rtol=1e-5)


def test_joined_similarities_are_those_of_the_features_alone() -> None:
    """Why they are normalised on their own: features are so much larger that the states' similarities have no effect."""
    task = task_of(config_of("promptmrg", grams="joined")).eval()
    student, teacher = task.student.read(batch_of()), task.teacher.read(batch_of())
    whole = task._relation(student, teacher, batch_of())
    bare = [replace(one, encoded=replace(one.encoded, extras={})) for one in (student, teacher)]
    assert torch.allclose(whole, task._relation(bare[0], bare[1], batch_of()), rtol=1e-2)
    separate = task_of(config_of("promptmrg")).eval()
    assert not torch.allclose(
        separate._relation(student, teacher, batch_of()), separate._relation(*bare, batch_of()), rtol=1e-2
    )


def test_fillers_do_not_count() -> None:
    batch = batch_of()
    filler = replace(batch, has_token_BT=batch.has_token_BT & torch.tensor([[True], [True], [False]]))
    two = batch_of(3)
    two = replace(
        two,
        rows_B=two.rows_B[:2],
        has_view_BV=two.has_view_BV[:2],
        tokens_BT=two.tokens_BT[:2],
        has_token_BT=two.has_token_BT[:2],
        pixels_BVHW=None if two.pixels_BVHW is None else two.pixels_BVHW[:2],
    )
    task = task_of(config_of("promptmrg")).eval()
    with_filler, without = task(filler), task(two)
    for name in with_filler:
        assert torch.allclose(with_filler[name], without[name], atol=1e-5), name


def test_generations_learn_from_one_another_and_say_so(world: Path, tmp_path: Path) -> None:
    config = plugged(small_config("baseline", epochs=1), "isd", IsdSettings())
    last = train_generations(config, place(world, tmp_path / "run"), generations=3)
    assert last == tmp_path / "run" / "generation-3"
    lineage = json.loads((last / "model.json").read_text())["training"]["lineage"]
    assert [one["system"] for one in lineage] == ["baseline", "baseline+isd"]
    assert all(len(one["weights_sha256"]) == 64 and one["validation"] for one in lineage)
    first = json.loads((tmp_path / "run" / "generation-1" / "model.json").read_text())
    assert "lineage" not in first["training"] and first["config"]["system"] == "baseline"
    assert load_model(last).config.system == "baseline+isd"
    assert "2 generations before it: baseline " in (last / "README.md").read_text()
    steps = logged(tmp_path / "run" / "generation-2")
    assert steps and all(float(step["response"]) > 0 for step in steps)


@pytest.mark.slow
def test_generations_go_on_where_they_were_stopped(world: Path, tmp_path: Path) -> None:
    plain = small_config("baseline", epochs=2)
    config = plugged(plain, "isd", IsdSettings())
    quiet: Callable[[str], None] = lambda text: None  # noqa: E731
    whole = train_generations(config, place(world, tmp_path / "whole"), generations=2)
    train_method(plain, world, tmp_path / "cut" / "generation-1", notify=quiet)
    second = taught_by(plain, tmp_path / "cut" / "generation-1")
    with pytest.raises(_Stopped):
        train_method(second, world, tmp_path / "cut" / "generation-2", notify=_stop_at_validation)
    with pytest.raises(InputError, match="already holds a run"):
        train_generations(config, place(world, tmp_path / "cut"), generations=2)
    resumed = train_generations(config, place(world, tmp_path / "cut", resume=True), generations=2)
    assert_same(weights(whole), weights(resumed))


class _Stopped(Exception):
    pass


def _stop_at_validation(text: str) -> None:
    if text.startswith("validation"):
        raise _Stopped


def test_a_teacher_that_does_not_fit_is_refused(world: Path, tmp_path: Path) -> None:
    quiet: Callable[[str], None] = lambda text: None  # noqa: E731
    train_method(small_config("r2gen_cmn", epochs=1), world, tmp_path / "teacher", notify=quiet)
    base = taught_by(small_config("baseline", epochs=1), tmp_path / "teacher")
    cases: list[tuple[Any, str]] = [
        (replace(base, text=replace(base.text, threshold=3)), "vocabulary"),
        (replace(base, images=replace(base.images, size=32, resize=32)), "image size"),
        (replace(base, text=replace(base.text, max_length=20)), "ids per report"),
        (taught_by(small_config("baseline"), tmp_path / "none"), "not a rayscribe report model"),
        (plugged(small_config("baseline"), "isd", IsdSettings()), "needs a teacher; give --generations"),
    ]
    for number, (config, message) in enumerate(cases):
        with pytest.raises(InputError, match=message):
            train_method(config, world, tmp_path / f"run-{number}", notify=quiet)
    train_method(base, world, tmp_path / "other-method", notify=quiet)  # a plain method may teach another


@pytest.mark.slow
def test_graph_distillation_and_hard_negatives_compose_and_resume(world: Path, tmp_path: Path) -> None:
    """ITHN around ISD around KIF: one host, killed within an epoch, goes on to the same weights."""
    quiet: Callable[[str], None] = lambda text: None  # noqa: E731
    mined = tmp_path / "mined.parquet"
    run_verb(["build", "negatives", str(world), "--out", str(mined)])
    train_method(small_config("kif", epochs=1), mined, tmp_path / "teacher", notify=quiet)
    config = taught_by(small_config("kif", checkpoint_minutes=0.0), tmp_path / "teacher")
    config = plugged(config, "ithn", IthnSettings(width=16))
    assert config.system == "kif+isd+ithn"
    train_method(config, mined, tmp_path / "unbroken", notify=quiet)
    train_until_killed(tmp_path, 8, config, mined, tmp_path / "killed", tmp_path / "features")
    train_method(config, mined, tmp_path / "killed", resume=True, notify=quiet)
    assert_same(weights(tmp_path / "unbroken"), weights(tmp_path / "killed"))
    steps = logged(tmp_path / "unbroken")
    assert steps == logged(tmp_path / "killed")
    for name in ("report", "diagnosis", "response", "relation", "align", "apart"):
        assert all(math.isfinite(float(step[name])) for step in steps), name
    exported = load_file(tmp_path / "unbroken" / "model.safetensors")
    assert not any("teacher" in name or "image.weight" in name for name in exported)
    assert load_model(tmp_path / "unbroken").config.system == "kif+isd+ithn"


@pytest.mark.slow
@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_jima_teaches_itself_where_a_step_holds_reports(training: str, world: Path, tmp_path: Path) -> None:
    base = small_config("jima", epochs=2)
    base = replace(base, method=replace(base.method, training=training))
    config = plugged(base, "isd", IsdSettings(features="encoded"))
    last = train_generations(config, place(world, tmp_path / "run"), generations=2)
    found = [float(step["response"]) for step in logged(last)]
    assert any(value > 0 for value in found)
    assert any(math.isnan(value) for value in found) == (training == "alternating")


@pytest.mark.slow
def test_two_processes_train_generations(world: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(plugged(small_config("baseline", epochs=1), "isd", IsdSettings())))
    script = (
        "import torch\nfrom pathlib import Path\ntorch.set_num_threads(1)\n"
        "from rayscribe.methods import run_from_yaml\nfrom rayscribe.training.learner import Place\n"
        "from rayscribe.training.run import train_generations\n"
        f"config = run_from_yaml(Path({str(tmp_path / 'config.yaml')!r}).read_text(), 'config')\n"
        f"data, run = Path({str(world)!r}), Path({str(tmp_path / 'run')!r})\n"
        "place = Place(data=data, run=run)\n"
        "train_generations(config, place, generations=2)\n"
    )
    assert run_by_two_processes(script, tmp_path).count("generation 2 of 2") == 1
    assert len(load_model(tmp_path / "run" / "generation-2").training["lineage"]) == 1


@pytest.mark.slow
def test_two_processes_distil_as_one_does(world: Path, tmp_path: Path) -> None:
    config = small_config("promptmrg", epochs=1, bucket=False, eps=1e-4)
    config = replace(
        config,
        model=replace(config.model, dropout=0.0, patch_dropout=0.0),
        backbone=replace(config.backbone, trainable=False),
    )
    train_method(config, world, tmp_path / "teacher", features=tmp_path / "features", notify=lambda text: None)
    # The relation compares the studies of a process with one another, so it is left out.
    taught = taught_by(config, tmp_path / "teacher", relation=0.0)
    one, two = logs_of_one_and_two_processes(taught, world, tmp_path)
    for step, (first, second) in enumerate(zip(one, two, strict=True)):
        tolerance = 1e-4 if step == 0 else 1e-2
        for name in ("loss", "response", "diagnosis"):
            assert float(second[name]) == pytest.approx(float(first[name]), rel=tolerance), (step, name)
