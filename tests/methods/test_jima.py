"""JIMA: fusion and counts as published, ranks against a loop, what each loss reaches, curricula that resume.

Shapes: B studies, N patches, C channels, V words, W ids, T positions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_ithn import mined as mined  # the drawn world with negatives
from test_ithn import random_batch
from torch import Tensor
from torch.nn import functional as F

from conftest import plugged, small_config
from rayscribe.checkpoint import load_model
from rayscribe.config import RunConfig, TextConfig
from rayscribe.data.dataset import Order
from rayscribe.data.entities import EntityTargets
from rayscribe.errors import InputError
from rayscribe.methods.build import build_model
from rayscribe.methods.ithn import IthnSettings
from rayscribe.methods.jima import CurriculumTask, EntityFusion, JimaSettings, PatchEntityHead, fused, jima
from rayscribe.methods.jima_curriculum import TwoTasks, chosen_S, entity_ranks, next_share, report_ranks
from rayscribe.models.layers import Encoded
from rayscribe.study import Pair
from rayscribe.training.run import train_method
from tasks import build_task
from training_runs import assert_same, logged, logs_of_one_and_two_processes, train_until_killed, weights

VOCABULARY = 12


def small_jima(epochs: int = 2, **settings: object) -> RunConfig:
    config = small_config("jima", epochs=epochs)
    return replace(config, method=replace(config.method, **settings))


def small_task(batches: int = 2, **settings: object) -> CurriculumTask:
    """Eight studies whose entities are two words each."""
    torch.manual_seed(3)
    config = small_jima(**settings)
    words = VOCABULARY - 3
    names = [str(at) for at in range(words)]
    entities = EntityTargets.build([[names[at % words], names[(at + 3) % words]] for at in range(8)], names)
    read = [replace(random_batch(at), rows_B=torch.arange(4 * at, 4 * at + 4)) for at in range(batches)]
    task = build_task(config, build_model(config, VOCABULARY), entities, studies=8, training=lambda: read)
    assert isinstance(task, CurriculumTask)
    return task


def fusion_of(task: CurriculumTask) -> EntityFusion:
    fusion = task.model.stages[0]
    assert isinstance(fusion, EntityFusion)
    return fusion


def before_the_fusion(task: CurriculumTask) -> dict[str, Tensor]:
    """Weights of the image encoder, the adapter and the entity head."""
    names = ("reporter.backbone.", "reporter.stages.0.head.", "reporter.stages.0.adapter.")
    return {name: weight for name, weight in task.named_parameters() if name.startswith(names)}


def test_jima_has_the_published_parameter_counts() -> None:
    """Specification 7.3: MIMIC-CXR's entity head sees one view, as our mean over all views does; resnet50 has its channels."""
    for words, encoder_decoder, head in ((760, 14_843_129, None), (4335, 20_337_904, 3_535_599)):
        config = replace(jima(), text=TextConfig(legacy_ids=True))
        model = build_model(replace(config, backbone=replace(config.backbone, name="resnet50")), words + 1)
        sizes = {name: weight.numel() for name, weight in model.named_parameters()}
        of_head = sum(size for name, size in sizes.items() if name.startswith("stages.0.head."))
        of_backbone = sum(size for name, size in sizes.items() if name.startswith("backbone."))
        assert sum(sizes.values()) - of_backbone - of_head == encoder_decoder
        assert head in (None, of_head)


@pytest.mark.parametrize(("channels", "words"), [(7, 3), (3, 7)])
def test_the_fusion_is_the_written_out_one(channels: int, words: int) -> None:
    """Specification 4.4, for narrower and for wider vocabularies."""
    torch.manual_seed(0)
    x_BNC, q_BV = torch.randn(2, 4, channels), torch.rand(2, words)
    q_BNV = q_BV[:, None].expand(-1, 4, -1)
    if words < channels:
        parts = [
            x_BNC[..., :words] * q_BNV,
            x_BNC[..., words:] * x_BNC[..., : channels - words],
            q_BNV * x_BNC[..., channels - words :],
        ]
    else:
        parts = [
            x_BNC * q_BNV[..., :channels],
            q_BNV[..., : words - channels] * q_BNV[..., channels:],
            q_BNV[..., words - channels :] * x_BNC,
        ]
    torch.testing.assert_close(fused(x_BNC, q_BV), torch.cat(parts, -1))


def test_the_patch_head_gives_the_mean_probability_of_the_patches_that_exist() -> None:
    torch.manual_seed(0)
    head, features_BNC = PatchEntityHead(6, 5), torch.randn(3, 4, 6)
    has_patch_BN = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    logits_BV = head(Encoded(features_BNC, has_patch_BN), drops=False)
    for study in range(3):
        each_NV = head.layer(features_BNC[study][has_patch_BN[study]]).sigmoid()
        torch.testing.assert_close(logits_BV[study].sigmoid(), each_NV.mean(0))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_ranks_are_those_of_a_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(seed, studies=3, padding=2)
    logits_BTW = torch.randint(0, 6, (3, 6, VOCABULARY), generator=generator).float()  # with ties
    is_entity_BV = torch.rand(3, VOCABULARY - 3, generator=generator) < 0.4
    difficulty_B, performance_B = report_ranks(logits_BTW, batch, is_entity_BV)
    plain_B, _ = report_ranks(logits_BTW, batch, None)
    entity_difficulty_B, precision_B = entity_ranks(logits_BTW[:, 0, 3:], is_entity_BV)
    for study in range(3):
        kinds: dict[bool, list[float]] = {True: [], False: []}
        for at, gold in enumerate(batch.tokens_BT[study, 1:].tolist()):
            if batch.has_token_BT[study, at + 1]:
                row = logits_BTW[study, at].tolist()
                rank = 1 + sum(value > row[gold] for value in row)
                kinds[bool(gold >= 3 and is_entity_BV[study, gold - 3])].append(rank / VOCABULARY)
        means = [sum(ranks) / len(ranks) for ranks in kinds.values() if ranks]
        every = kinds[True] + kinds[False]
        assert float(difficulty_B[study]) == pytest.approx(sum(means) / len(means))
        assert float(plain_B[study]) == pytest.approx(sum(every) / len(every))
        assert 0 < float(difficulty_B[study]) <= 1
        assert float(performance_B[study]) == pytest.approx(every.count(1 / VOCABULARY) / len(every))
        row, golds = logits_BTW[study, 0, 3:].tolist(), is_entity_BV[study].nonzero().flatten().tolist()
        ranks = [1 + sum(value > row[gold] for value in row) for gold in golds]
        if golds:
            assert float(entity_difficulty_B[study]) == pytest.approx(sum(ranks) / len(ranks) / len(row))
            assert float(precision_B[study]) == pytest.approx(sum(rank <= len(golds) for rank in ranks) / len(golds))
        else:
            assert float(entity_difficulty_B[study]) == 0 and precision_B[study].isnan()


def test_the_share_follows_equation_2() -> None:
    assert next_share(1.0, 0.5, 0.6, floor=0.1) == pytest.approx(0.8)  # 20 % better: 20 % fewer
    assert next_share(0.8, 0.6, 0.6, floor=0.1) == pytest.approx(0.8)
    assert next_share(0.8, 0.6, 0.3, floor=0.1) == 1.0  # half as good: never more than all
    assert next_share(0.8, 0.1, 0.5, floor=0.1) == 0.1
    assert next_share(0.8, 0.0, 0.5, floor=0.1) == 0.8  # no performance to compare with


def test_the_hardest_are_kept_and_others_if_asked() -> None:
    difficulty_S = torch.tensor([0.1, 0.9, 0.5, 0.7])
    assert chosen_S(difficulty_S, 0.5, order="hard", seed=0).tolist() == [False, True, False, True]
    assert chosen_S(difficulty_S, 0.5, order="easy", seed=0).tolist() == [True, False, True, False]
    random = [chosen_S(difficulty_S, 0.5, order="random", seed=seed).tolist() for seed in range(9)]
    assert all(sum(one) == 2 for one in random) and len(set(map(tuple, random))) > 2
    assert chosen_S(difficulty_S, 0.01, order="hard", seed=0).sum() == 1


@pytest.mark.parametrize("head", ["mlp", "patch"])
@pytest.mark.parametrize("adapter", [0, 6])
def test_each_loss_reaches_its_own_side_of_the_fusion(head: str, adapter: int) -> None:
    task = small_task(head=head, adapter=adapter).train()
    draw = Pair(first=random_batch(0), second=random_batch(1))
    before = before_the_fusion(task)
    for part, is_own in ((Pair(first=draw.first, second=None), False), (Pair(first=None, second=draw.second), True)):
        task.zero_grad()
        task(part)["loss"].backward()
        for name, weight in task.named_parameters():
            assert (weight.grad is not None) == ((name in before) == is_own), name


def test_a_joint_step_is_both_steps_at_once() -> None:
    task = small_task(training="joint").eval()  # without dropout; which sides there are does not depend on it
    draw = Pair(first=random_batch(0), second=random_batch(1))
    task(draw)["loss"].backward()
    joint = {name: weight.grad.clone() for name, weight in task.named_parameters() if weight.grad is not None}
    task.zero_grad()
    task(Pair(first=draw.first, second=None))["loss"].backward()
    task(Pair(first=None, second=draw.second))["loss"].backward()
    for name, weight in task.named_parameters():
        torch.testing.assert_close(weight.grad, joint[name])


def test_a_report_step_leaves_the_frozen_parts_as_in_evaluation() -> None:
    task = small_task().train()
    norms = {name: value.clone() for name, value in task.model.backbone.state_dict().items() if "running" in name}
    task(Pair(first=random_batch(0), second=None))
    assert norms
    for name, value in norms.items():
        assert torch.equal(task.model.backbone.state_dict()[name], value)
    assert task.model.backbone.training
    # The prediction that is fused has no dropout: with that of the patches off, two passes agree.
    fusion_of(task).drop.p = 0.0
    seen = task.read(random_batch(0)).seen
    assert torch.equal(fusion_of(task)(seen).features_BND, fusion_of(task)(seen).features_BND)
    assert not torch.equal(fusion_of(task).predict(seen), fusion_of(task).predict(seen)), "the entity task's way has"


def test_positive_weight_counts_the_entities_that_are_there_more() -> None:
    batch, losses = random_batch(0), []
    for weight in (1.0, 3.0):
        task = small_task(positive_weight=weight).eval()
        losses.append(task(Pair(first=None, second=batch))["entities"].item())
        logits = task.predict(task.model.see(batch)).float()
        gold = task.entities.of(batch.rows_B)
        wanted = -(weight * gold * F.logsigmoid(logits) + (1 - gold) * F.logsigmoid(-logits)).mean()
        assert losses[-1] == pytest.approx(wanted.item(), rel=1e-5)
    assert losses[1] > losses[0]


def test_after_the_warm_up_fewer_are_kept_as_performance_grows() -> None:
    task = small_task(epochs=4, warmup=2, smoothing=0.0)
    task.start_epoch(0, {})
    assert int(task.measured_epoch) == -1 and task.is_chosen_2S.all()
    task.start_epoch(1, {})
    assert int(task.measured_epoch) == 1 and task.is_chosen_2S.all(), "nothing to compare with yet"
    task.performance_2 *= 0.75  # as if the epochs before had been worse by a quarter
    task.start_epoch(2, {})
    assert task.shares_2.tolist() == pytest.approx([2 / 3, 2 / 3])
    for is_chosen_S, difficulty_S in zip(task.is_chosen_2S, task.difficulty_2S):
        assert int(is_chosen_S.sum()) == 6
        assert difficulty_S[is_chosen_S].min() >= difficulty_S[~is_chosen_S].max()
    chosen = task.is_chosen_2S.clone()
    task.performance_2 *= 0.5
    task.start_epoch(2, {})  # a resumed epoch
    assert torch.equal(task.is_chosen_2S, chosen)


def test_smoothing_keeps_a_part_of_the_performance_before() -> None:
    task = small_task(epochs=4, smoothing=0.25)
    task.start_epoch(0, {})
    measured_2 = task.performance_2.clone()
    task.performance_2 *= 0.5
    task.start_epoch(1, {})
    torch.testing.assert_close(task.performance_2, 0.25 * 0.5 * measured_2 + 0.75 * measured_2)
    change = float(task.performance_2[0] / (0.5 * measured_2[0])) - 1  # three quarters of a doubling
    assert change == pytest.approx(0.75)
    assert task.shares_2.tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize("split", [True, False])
def test_what_is_measured_are_the_ranks_of_reports_and_of_entities(split: bool) -> None:
    task = small_task(split_entity_rank=split)
    task.start_epoch(0, {})
    assert task.training, "measuring leaves the training mode on"
    task.eval()
    performance = []
    for batch in task.training_batches():
        reading, is_entity_BV = task.read(batch), task.entities.of(batch.rows_B).bool()
        logits_BTW = task.model.score(reading).logits_BTW
        reports = report_ranks(logits_BTW, batch, is_entity_BV if split else None)
        entities = entity_ranks(task.predict(reading.seen), is_entity_BV)
        torch.testing.assert_close(task.difficulty_2S[0, batch.rows_B], reports[0])
        torch.testing.assert_close(task.difficulty_2S[1, batch.rows_B], entities[0])
        performance.append(torch.stack([reports[1], entities[1]]))
    torch.testing.assert_close(task.performance_2, torch.cat(performance, 1).mean(1).double())


@pytest.mark.parametrize(("reports", "entities"), [(True, False), (False, True), (False, False)])
def test_each_curriculum_can_be_switched_off(reports: bool, entities: bool) -> None:
    task = small_task(smoothing=0.0, report_curriculum=reports, entity_curriculum=entities)
    task.start_epoch(0, {})
    task.performance_2 *= 0.5
    task.start_epoch(1, {})
    assert [bool(row_S.all()) for row_S in task.is_chosen_2S] == [not reports, not entities]
    assert int(task.measured_epoch) == (1 if reports or entities else -1)


LENGTHS = [5 + at % 7 for at in range(40)]


def draws(
    alternating: bool, chosen: tuple[list[int], list[int]], rank: int = 0, processes: int = 1, accumulate: int = 1
) -> list[list]:
    order = Order(lengths=LENGTHS, batch_size=8, bucket=True, seed=1)
    sampler = TwoTasks(order=order, chosen=lambda: chosen, alternating=alternating)
    return sampler.rows(4, accumulate=accumulate, rank=rank, processes=processes)


@pytest.mark.parametrize("alternating", [False, True])
def test_an_epoch_visits_the_larger_choice_once_and_the_smaller_one_equally_often(alternating: bool) -> None:
    chosen = (list(range(5, 35)), list(range(7)))
    batches = draws(alternating, chosen)
    reports, entities = ([pair[side].study for batch in batches for pair in batch if pair[side]] for side in (0, 1))
    assert sorted(reports) == chosen[0]
    counts = Counter(entities)
    assert set(counts) == set(chosen[1]) and len(entities) == len(reports) and set(counts.values()) == {4, 5}
    visits = [(pair[1].study, pair[1].visit) for batch in batches for pair in batch if pair[1]]
    assert len(set(visits)) == len(visits), "repeats are cropped anew"
    if alternating:
        kinds = [{(first is not None, second is not None) for first, second in batch} for batch in batches]
        assert kinds == [{(True, False)}, {(False, True)}] * 4
    else:
        assert len(batches) == 4
        assert all(any(first for first, _ in batch) and any(second for _, second in batch) for batch in batches)


@pytest.mark.parametrize("alternating", [False, True])
def test_processes_share_the_draws_of_one(alternating: bool) -> None:
    chosen = (list(range(33)), list(range(20)))
    one = draws(alternating, chosen)
    shares = [draws(alternating, chosen, rank, 2) for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(one)
    for side in (0, 1):
        for batch, *parts in zip(one, *shares, strict=True):
            whole = [pair[side].study for pair in batch if pair[side]]
            found = [pair[side].study for part in parts for pair in part if pair[side] and pair[side].counts]
            assert sorted(found) == sorted(whole)


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_what_a_step_divides_by_counts_its_tokens_and_its_studies(processes: int, accumulate: int) -> None:
    chosen = (list(range(33)), list(range(21)))
    shares = [draws(False, chosen, rank, processes, accumulate) for rank in range(processes)]
    counts = (lambda row: LENGTHS[row.study] - 1, lambda row: 1)
    for start in range(0, len(shares[0]), accumulate):
        step = [share[start : start + accumulate] for share in shares]
        for side, targets in enumerate(counts):
            rows = [pair[side] for batches in step for batch in batches for pair in batch if pair[side]]
            divided = len(step[0]) * processes * rows[0].targets_per_batch
            assert divided == pytest.approx(sum(targets(row) for row in rows if row.counts))
            assert len({row.targets_per_batch for row in rows}) == 1


def test_the_entity_loss_divides_by_the_studies_of_the_step() -> None:
    task = small_task().eval()
    batch = random_batch(0)
    whole = task(Pair(first=None, second=batch))["entities"].item()
    half = task(Pair(first=None, second=replace(batch, targets_per_batch=8.0)))["entities"].item()
    assert half == pytest.approx(whole / 2)
    masked = replace(batch, has_token_BT=batch.has_token_BT & (torch.arange(4) < 3)[:, None])
    three = task(Pair(first=None, second=masked))["entities"].item()
    four = task(Pair(first=None, second=replace(masked, targets_per_batch=4.0)))["entities"].item()
    assert four == pytest.approx(0.75 * three), "fillers do not count"


def test_bfloat16_gives_gradients_to_the_same_weights_as_float32() -> None:
    draw, found = Pair(first=random_batch(0), second=random_batch(1)), []
    for enabled in (False, True):
        task = small_task(adapter=6).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = task(draw)["loss"]
        loss.backward()
        found.append({name for name, weight in task.named_parameters() if weight.grad is not None})
    assert found[0] == found[1] == {name for name, _ in task.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("training", "trainable"), [("joint", True), ("alternating", False)])
def test_a_curriculum_that_is_killed_within_an_epoch_resumes_to_the_same_weights(
    training: str, trainable: bool, world: Path, tmp_path: Path
) -> None:
    config = small_jima(epochs=4, training=training, adapter=0 if trainable else 8, smoothing=0.9, floor=0.5)
    config = replace(
        config,
        backbone=replace(config.backbone, trainable=trainable),
        train=replace(config.train, checkpoint_minutes=0.0),
    )
    features = tmp_path / "features"
    train_method(config, world, tmp_path / "unbroken", features=features)
    rows = logged(tmp_path / "unbroken")
    assert min(float(row["report_share"]) for row in rows) < 1, "the curriculum has begun"
    step = next(at for at in range(1, len(rows)) if rows[at - 1]["epoch"] == rows[at]["epoch"] == "2")
    train_until_killed(tmp_path, step, config, world, tmp_path / "killed", features)
    train_method(config, world, tmp_path / "killed", resume=True, features=features)
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))
    assert logged(tmp_path / "killed") == rows


@pytest.mark.slow
@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_two_processes_measure_choose_and_step_as_one(training: str, world: Path, tmp_path: Path) -> None:
    config = small_jima(training=training, smoothing=0.0, adapter=8, head_dropout=0.0)
    config = replace(
        config,
        model=replace(config.model, dropout=0.0, patch_dropout=0.0),
        backbone=replace(config.backbone, trainable=False),
        train=replace(config.train, bucket=False, eps=1e-4),
    )
    one, two = logs_of_one_and_two_processes(config, world, tmp_path)
    assert len(one) == len(two) > (6 if training == "joint" else 12)
    for step, (first, second) in enumerate(zip(one, two, strict=True)):
        tolerance = 1e-4 if step == 0 else 1e-2  # see the test of accumulation
        for name in ("loss", "report", "entities", "report_share", "entity_share", "gradient_norm"):
            assert float(second[name]) == pytest.approx(float(first[name]), rel=tolerance, nan_ok=True), (step, name)
    found, wanted = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert (found["difficulty_2S"] > 0).all(), "both processes' studies are measured"
    torch.testing.assert_close(found["difficulty_2S"], wanted["difficulty_2S"], rtol=0.02, atol=0.01)
    assert torch.equal(found["is_chosen_2S"], wanted["is_chosen_2S"])


@pytest.mark.slow
def test_a_model_needs_neither_entities_nor_task(world: Path, tmp_path: Path) -> None:
    entities = tmp_path / "entities.csv"
    ids = [f'"{study}",heart lungs' for study in load_ids(world)]
    entities.write_text("id,entities\n" + "\n".join(ids) + "\n")
    train_method(small_jima(epochs=1, entities=str(entities), adapter=8), world, tmp_path / "run")
    assert "adapter | width 8, trained, behind the image encoder" in (tmp_path / "run" / "README.md").read_text()
    entities.unlink()
    trained = load_model(tmp_path / "run")
    names = load_file(tmp_path / "run" / "model.safetensors").keys()
    assert not any("difficulty" in name or "chosen" in name for name in names)
    encoded = trained.model.encode(random_batch(0))
    assert encoded.features_BND.shape[-1] == 32


def load_ids(world: Path) -> list[str]:
    from rayscribe.data.manifest import read_manifest

    return [study.id for study in read_manifest(world).studies]


def test_other_entities_are_another_run(world: Path, tmp_path: Path) -> None:
    entities = tmp_path / "entities.csv"
    lines = [f"{study},heart" for study in load_ids(world)]
    entities.write_text("id,entities\n" + "\n".join(lines) + "\n")
    config = small_jima(epochs=1, entities=str(entities))
    train_method(config, world, tmp_path / "run")
    entities.write_text("id,entities\n" + "\n".join(line + " lungs" for line in lines) + "\n")
    with pytest.raises(InputError, match="started on other data; resume it with the same manifest and the same files"):
        train_method(config, world, tmp_path / "run", resume=True)
    entities.unlink()
    with pytest.raises(InputError, match=r"entities.csv: no such file of entities"):
        train_method(config, world, tmp_path / "run", resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("training", ["joint", "alternating"])
def test_ithn_goes_around_jima_and_resumes(training: str, mined: Path, tmp_path: Path) -> None:
    config = small_jima(training=training)
    config = replace(config, train=replace(config.train, checkpoint_minutes=0.0))
    config = plugged(config, "ithn", IthnSettings(width=16, image="encoded"))
    train_method(config, mined, tmp_path / "unbroken", features=tmp_path / "features")
    rows = logged(tmp_path / "unbroken")
    aligned = [row for row in rows if row["align"] != "nan"]
    assert len(aligned) == (len(rows) if training == "joint" else len(rows) / 2)
    assert all(float(row["align"]) > 0 for row in aligned)
    train_until_killed(tmp_path, 3, config, mined, tmp_path / "killed", tmp_path / "features")
    train_method(config, mined, tmp_path / "killed", resume=True)
    assert logged(tmp_path / "killed") == rows
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": replace(jima().model, decoder="bert")}, "--model.decoder bert: jima needs the decoder `own`"),
        (
            {"method": JimaSettings(training="alternating"), "train": replace(jima().train, accumulate=2)},
            "an alternating step takes one batch",
        ),
        ({"images": replace(jima().images, flip=True)}, "--images.flip: entities name sides of the unflipped image"),
        (
            {"train": replace(jima().train, epochs=30)},
            "--method.warmup 30: the curriculum would not begin within --train.epochs 30",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(jima(), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (IthnSettings(), "give --method.ithn.image encoded"),
        (IthnSettings(image="encoded", harden="step"), "epochs differ in length; give epoch"),
    ],
)
def test_hard_negatives_reach_what_jima_trains(settings: IthnSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plugged(jima(), "ithn", settings)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"smoothing": 1.0}, "smoothing"),
        ({"floor": 0.0}, "floor"),
        ({"adapter": -1}, "adapter"),
        ({"warmup": 0}, "warmup"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, flag: str) -> None:
    with pytest.raises(InputError, match=f"--method.{flag}"):
        JimaSettings(**settings)
