"""Shapes: B studies, D projected width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from apart import call_by_two_processes
from conftest import plugged, small_config, small_model
from rayscribe.checkpoint import load_model
from rayscribe.cli.main import run as run_verb
from rayscribe.config import RunConfig
from rayscribe.errors import InputError
from rayscribe.methods import find_recipe, run_from_yaml
from rayscribe.methods.build import build_model
from rayscribe.methods.ithn import (
    HardNegativeTask,
    IthnSettings,
    ascended,
    batch_mixed,
    column_loss,
    diagonal_loss,
    on_the_line,
)
from rayscribe.settings import to_yaml
from rayscribe.study import Batch, Pair
from rayscribe.task import ReportTask
from rayscribe.training.run import train_method
from tasks import build_task
from training_runs import assert_same, logged, train_until_killed, weights

METHODS = ("baseline", "r2gen", "r2gen_cmn")


def units(rows: int, seed: int, width: int = 8) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def triples(seed: int, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Images, true reports, mined reports."""
    return units(rows, 3 * seed), units(rows, 3 * seed + 1), units(rows, 3 * seed + 2)


def random_pair(seed: int = 0, studies: int = 4, padding: int = 0) -> Pair:
    return Pair(first=random_batch(seed, studies, padding), second=random_batch(seed + 100, studies, padding))


def random_batch(seed: int, studies: int = 4, padding: int = 0) -> Batch:
    """Two views of 64 pixels, reports of 5 ids and `padding` more."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(3, 12, (studies, 5), generator=generator)
    tokens_BT[:, 0] = 1
    return Batch(
        rows_B=torch.arange(studies),
        has_view_BV=torch.ones(studies, 2, dtype=torch.bool),
        tokens_BT=F.pad(tokens_BT, (0, padding)),
        has_token_BT=F.pad(torch.ones_like(tokens_BT, dtype=torch.bool), (0, padding)),
        pixels_BVHW=torch.randint(0, 256, (studies, 2, 64, 64), generator=generator, dtype=torch.uint8),
    )


def small_task(method: str = "baseline", **ithn: object) -> HardNegativeTask:
    torch.manual_seed(5)
    config = IthnSettings(width=16, **ithn)  # type: ignore[arg-type]
    return HardNegativeTask(ReportTask(small_model(method)), config, studies=4, batches_per_epoch=10)


@pytest.fixture(scope="module")
def mined(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn world with negatives."""
    out = tmp_path_factory.mktemp("mined") / "mined.parquet"
    run_verb(["build", "negatives", str(world), "--out", str(out)])
    return out


def small_run(method: str = "baseline", negative: str = "line", **train_settings: object) -> RunConfig:
    settings = IthnSettings(width=16, negative=negative)  # type: ignore[arg-type]
    return plugged(small_config(method, **train_settings), "ithn", settings)


def with_settings(config: RunConfig, **settings: object) -> RunConfig:
    """The same run with other settings of the plug-in."""
    plug_in = replace(config.method.plug_in, **settings)
    return replace(config, method=replace(config.method, plug_in=plug_in))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), mixing=st.floats(0, 1))
def test_the_negative_lies_between_the_mined_and_the_true_report(seed: int, mixing: float) -> None:
    image, text, mined = triples(seed)
    way, gone = text - mined, on_the_line(image, text, mined, mixing) - mined
    share = (gone * way).sum(-1) / (way * way).sum(-1)
    torch.testing.assert_close(gone, share[:, None] * way, atol=1e-6, rtol=1e-5)
    assert (share >= -1e-6).all() and (share <= 1 + 1e-6).all()


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_point_between_the_reports_is_nearer_to_the_image_than_the_hardest(seed: int) -> None:
    image, text, mined = triples(seed)
    nearest = (image - on_the_line(image, text, mined, 0.0)).norm(dim=-1)
    for share in torch.linspace(0, 1, 21):
        assert (nearest <= (image - (mined + share * (text - mined))).norm(dim=-1) + 1e-6).all()


def test_lambda_one_gives_the_mined_negative() -> None:
    image, text, mined = triples(0)
    assert torch.equal(on_the_line(image, text, mined, 1.0), mined)
    assert torch.equal(small_task(alpha=0.0).harder(image, text, mined, torch.arange(6)), F.normalize(mined, dim=-1))
    assert small_task(negative="mined").mixing() == 1.0


def test_lambda_falls_with_the_epochs_as_in_the_released_code() -> None:
    task = small_task()
    found = []
    for epoch in (0, 9, 49, 99):  # the code counts from 1
        task.start_epoch(epoch, {})
        found.append(round(task.mixing(), 3))
    assert found == [0.990, 0.905, 0.607, 0.368]


def test_negatives_come_nearer_to_the_image_with_every_epoch() -> None:
    image, text, mined = triples(1, rows=200)
    task = small_task(alpha=0.1)
    distances = []
    for epoch in range(30):
        task.start_epoch(epoch, {})
        distances.append((image - on_the_line(image, text, mined, task.mixing())).norm(dim=-1))
    moved = torch.stack(distances).diff(dim=0)
    assert (moved <= 1e-6).all()
    assert (moved.sum(0) < -0.01).float().mean() > 0.5


def test_hardening_by_step_reaches_each_epoch_s_end_where_hardening_by_epoch_stands() -> None:
    task = small_task(harden="step").train()
    assert task.mixing() == 1.0
    pair = random_pair()
    for _ in range(10):  # batches of an epoch
        before = task.mixing()
        task(pair)
        assert task.mixing() < before
    assert task.mixing() == pytest.approx(math.exp(-0.01))


@pytest.mark.parametrize("negative", ["line", "mined", "ascent"])
def test_a_study_s_negative_does_not_depend_on_the_rest_of_the_batch(negative: str) -> None:
    image, text, mined = triples(2, rows=4)
    task = small_task(negative=negative).eval()
    task.ascended_SD = torch.zeros(4, 8)
    together = task.harder(image, text, mined, torch.arange(4))
    for row in range(4):
        one = slice(row, row + 1)
        alone = task.harder(image[one], text[one], mined[one], torch.tensor([row]))
        torch.testing.assert_close(alone, together[one])


def test_the_released_projection_mixes_the_batch_and_is_ours_for_one_study_up_to_a_factor() -> None:
    image, text, mined = triples(3, rows=4)
    together = batch_mixed(image, text, mined, 0.5)
    alone = torch.cat([batch_mixed(image[i : i + 1], text[i : i + 1], mined[i : i + 1], 0.5) for i in range(4)])
    assert (together - alone).abs().max() > 0.1
    way = text - mined
    along = ((image - mined) * way).sum(-1, keepdim=True)
    torch.testing.assert_close(alone, mined + 0.5 * along * F.normalize(way, dim=-1))


@pytest.mark.parametrize(
    ("negative", "passes"), [("line", False), ("ascent", False), ("mined", False), ("released", True)]
)
def test_only_the_released_form_passes_gradients_through_the_max_step(negative: str, passes: bool) -> None:
    image, text, mined = (one.requires_grad_() for one in triples(4, rows=4))
    task = small_task(negative=negative)
    task.ascended_SD = torch.zeros(4, 8)
    assert task.harder(image, text, mined, torch.arange(4)).requires_grad == passes


def cosines(seed: int, rows: int = 3) -> tuple[Tensor, Tensor]:
    """Sum of the cosines of true and mined pairs (B, B), and of images with their harder negatives (B)."""
    image, text, mined_image = triples(seed, rows)
    mined, harder = units(rows, 91), units(rows, 92)
    return image @ text.T + mined_image @ mined.T, (image * harder).sum(-1)


def everybody(rows: int) -> Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_the_diagonal_loss_is_the_published_formula() -> None:
    both, harder = cosines(5)
    rows = [[14.0 / 3 * float(value) for value in row] for row in both]
    for i in range(3):
        rows[i][i] -= 9.0 / 3 * float(harder[i])
    expected = 0.0
    for i in range(3):
        for line in (rows[i], [row[i] for row in rows]):
            expected += (math.log(sum(map(math.exp, line))) - rows[i][i]) / 6
    assert float(diagonal_loss(both, harder, torch.tensor([14.0, 9.0]), everybody(3))) == pytest.approx(
        expected, rel=1e-5
    )


def test_the_column_loss_chooses_among_the_others_and_the_harder_negative() -> None:
    both, harder = cosines(5)
    rows = [[14.0 / 2 * float(value) for value in row] for row in both]
    expected = 0.0
    for i in range(3):
        for line in ([*rows[i], 9.0 * float(harder[i])], [row[i] for row in rows]):
            expected += (math.log(sum(map(math.exp, line))) - rows[i][i]) / 6
    assert float(column_loss(both, harder, torch.tensor([14.0, 9.0]), everybody(3))) == pytest.approx(
        expected, rel=1e-5
    )


def test_the_published_loss_rewards_what_tells_nothing_apart_and_the_column_loss_does_not() -> None:
    """Every image opposite to every report."""
    both, harder, scales = torch.full((8, 8), -2.0), torch.full((8,), -1.0), torch.tensor([100.0, 100.0])
    assert float(diagonal_loss(both, harder, scales, everybody(8))) < 1e-6
    assert float(column_loss(both, harder, scales, everybody(8))) > math.log(8)


def test_the_parts_add_up_with_their_weights() -> None:
    losses = small_task(report=0.5, align=0.3, apart=0.2)(random_pair())
    parts = 0.5 * losses["report"] + 0.3 * losses["align"] + 0.2 * losses["apart"]
    torch.testing.assert_close(losses["loss"], parts)


@pytest.mark.parametrize("loss", [diagonal_loss, column_loss])
def test_fillers_change_nothing(loss: Callable[..., Tensor]) -> None:
    both, harder = cosines(8, rows=5)
    scales, counts = torch.tensor([14.0, 14.0]), torch.tensor([True, True, True, True, False])
    torch.testing.assert_close(loss(both, harder, scales, counts), loss(both[:4, :4], harder[:4], scales, everybody(4)))
    assert float(loss(both[:1, :1], harder[:1], scales, torch.tensor([False]))) == 0.0


def test_padding_changes_no_embedding() -> None:
    task = small_task().eval()
    for padded, bare in zip(task.embedded(random_batch(0, padding=3)), task.embedded(random_batch(0)), strict=True):
        torch.testing.assert_close(padded, bare, atol=1e-5, rtol=1e-5)
    released = small_task(negative="released").eval()
    assert (released.embedded(random_batch(0, padding=3))[1] - released.embedded(random_batch(0))[1]).abs().max() > 1e-3


def test_temperatures_are_held_and_can_come_back() -> None:
    task = small_task()
    with torch.no_grad():
        task.log_scales.fill_(9.0)
    task(random_pair())["loss"].backward()
    assert task.log_scales.exp().tolist() == pytest.approx([100.0, 100.0])
    assert task.log_scales.grad is not None and (task.log_scales.grad != 0).all()


def test_a_mined_report_read_before_the_study_s_image_differs_by_its_words_alone() -> None:
    """A mined study with the same words then is the true report, whatever its image shows."""
    first, other = random_batch(0), random_batch(1)
    same_words = replace(other, tokens_BT=first.tokens_BT)
    for read_before, same in (("own_image", True), ("mined_image", False)):
        losses = small_task(read_before=read_before).eval()(Pair(first=first, second=same_words))
        difference = float((losses["true_similarity"] - losses["mined_similarity"]).detach())
        assert (abs(difference) < 1e-6) == same


@pytest.mark.slow
def test_a_probe_leaves_no_trace_in_the_host(mined: Path, tmp_path: Path) -> None:
    """Weights and running means of batch norms, with gradients clipped by their common norm."""
    plain = small_config("r2gen_cmn", epochs=1, clip_value=None, clip_norm=0.5)
    plain = replace(plain, model=replace(plain.model, dropout=0.0, patch_dropout=0.0))
    train_method(plain, mined, tmp_path / "plain")
    train_method(plugged(plain, "ithn", IthnSettings(probe=True, width=16)), mined, tmp_path / "probed")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "probed"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-5)
    heads = weights(tmp_path / "probed")
    start = small_task("r2gen_cmn").image.weight
    assert heads["image.weight"].shape[0] == start.shape[0] and not torch.equal(heads["image.weight"], start)


def test_what_would_be_silently_wrong_is_refused(mined: Path, tmp_path: Path) -> None:
    config = small_run()
    with pytest.raises(InputError, match=r"--images\.flip.*left and right"):
        replace(config, images=replace(config.images, flip=True))
    with pytest.raises(InputError, match=r"5 negatives per study were mined; --method\.ithn\.candidates 6"):
        train_method(with_settings(config, candidates=6), mined, tmp_path / "run")
    with pytest.raises(InputError, match=r"--train\.batch-size 1: .*at least 2"):
        train_method(replace(config, train=replace(config.train, batch_size=1)), mined, tmp_path / "run")
    for wrong in ({"width": 0}, {"align": -1.0}, {"temperature": math.inf}, {"ascent_radius": 2.0}):
        with pytest.raises(InputError, match=r"--method\.ithn"):
            IthnSettings(**wrong)  # type: ignore[arg-type]


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_ascent_stays_on_the_sphere_within_its_radius_and_climbs(seed: int) -> None:
    image, _, mined = triples(seed)
    config = IthnSettings(ascent_steps=1, ascent_step=0.1, ascent_radius=0.4)
    at, last = mined, (image * mined).sum(-1)
    for _ in range(12):
        at = ascended(image, mined, at, config)
        torch.testing.assert_close(at.norm(dim=-1), torch.ones(6))
        assert ((at - mined).norm(dim=-1) <= 0.4 + 1e-5).all()
        similarity = (image * at).sum(-1)
        assert (similarity >= last - 1e-6).all()
        last = similarity


@pytest.mark.parametrize("loss", [diagonal_loss, column_loss])
def test_ascent_goes_up_the_gradient_of_the_alignment_loss(loss: Callable[..., Tensor]) -> None:
    image, text, mined = triples(6)
    at = mined.clone().requires_grad_()
    both = image @ text.T + units(6, 50) @ units(6, 51).T
    loss(both, (image * at).sum(-1), torch.tensor([14.0, 14.0]), everybody(6)).backward()
    assert at.grad is not None
    tangent = at.grad - (at.grad * mined).sum(-1, keepdim=True) * mined
    moved = ascended(image, mined, mined, IthnSettings(ascent_step=1e-3)) - mined
    assert F.cosine_similarity(moved, tangent, dim=-1).min() > 0.999


def test_ascent_goes_on_where_the_study_s_last_negative_was() -> None:
    task = small_task(negative="ascent").train()
    task.ascended_SD = torch.zeros(4, 8)
    image, text, mined = triples(7, rows=2)
    rows = torch.tensor([3, 1])
    first = task.harder(image, text, mined, rows)
    assert torch.equal(task.ascended_SD[rows], first)
    assert not task.ascended_SD[[0, 2]].any()
    second = task.harder(image, text, mined, rows)
    torch.testing.assert_close(second, ascended(image, mined, first, task.config))
    assert ((image * second).sum(-1) > (image * first).sum(-1)).all()


@pytest.mark.parametrize("method", METHODS)
def test_wrapping_leaves_the_host_as_it_was(method: str) -> None:
    model = small_model(method)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = random_batch(1)
    with torch.no_grad():
        alone = model(batch).logits_BTW
        task = HardNegativeTask(ReportTask(model), IthnSettings(), studies=4, batches_per_epoch=1)
        task.eval()(Pair(first=batch, second=random_batch(2)))
        assert torch.equal(task.model(batch).logits_BTW, alone)
    assert_same(before, model.state_dict())
    names = [name for name in task.state_dict() if "decoder.head.weight" in name]
    assert len(names) == 1, "the host has one name in the saved state"


def test_the_plug_in_adds_the_published_number_of_weights() -> None:
    config = plugged(find_recipe("baseline"), "ithn", IthnSettings())
    model = build_model(replace(config, backbone=replace(config.backbone, name="resnet50")), 761)
    task = build_task(config, model, (None, []), studies=1)
    extra = sum(p.numel() for p in task.parameters()) - sum(p.numel() for p in model.parameters())
    assert extra == 1_310_722  # spec 5.2


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_the_plug_in_is_exported(method: str, mined: Path, tmp_path: Path) -> None:
    train_method(small_run(method, epochs=1), mined, tmp_path / "with")
    train_method(small_config(method, epochs=1), mined, tmp_path / "without")
    ours, host = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in host.items()}
    assert load_model(tmp_path / "with").config.system == f"{method}+ithn"


@pytest.mark.slow
@pytest.mark.parametrize("negative", ["ascent", "line"])
def test_a_run_killed_at_any_step_resumes_to_the_same_weights(negative: str, mined: Path, tmp_path: Path) -> None:
    config = small_run("r2gen_cmn", negative, checkpoint_minutes=0.0)
    config = with_settings(config, harden="step", candidates=3)
    train_method(config, mined, tmp_path / "unbroken")
    train_until_killed(tmp_path, 8, config, mined, tmp_path / "killed", tmp_path / "features")
    train_method(config, mined, tmp_path / "killed", resume=True)
    assert_same(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))
    assert logged(tmp_path / "killed") == logged(tmp_path / "unbroken")


@pytest.mark.slow
def test_two_processes_keep_the_negatives_of_both(mined: Path, tmp_path: Path) -> None:
    config = small_run("baseline", "ascent", epochs=1)
    call_by_two_processes(tmp_path, train_method, run_from_yaml(to_yaml(config), "config"), mined, tmp_path / "run")
    assert weights(tmp_path / "run")["ascended_SD"].any(1).all()


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["diagonal", "column"])
def test_true_reports_come_nearer_to_their_images_than_mined_ones(contrast: str, mined: Path, tmp_path: Path) -> None:
    config = small_run("r2gen_cmn", epochs=12, lr=5e-3, lr_backbone=5e-3, clip_norm=1.0, clip_value=None)
    config = with_settings(config, contrast=contrast)
    train_method(config, mined, tmp_path / "run")
    steps = logged(tmp_path / "run")
    last = steps[-12:]  # two epochs: six steps of eight epochs are .07 or .13 by the processor that adds them up
    apart = [float(step["true_similarity"]) - float(step["mined_similarity"]) for step in last]
    assert sum(apart) / len(apart) > 0.1
    assert float(steps[-1]["report"]) < 0.75 * float(steps[0]["report"])


def test_negatives_mined_under_another_cleaning_are_refused(mined: Path, tmp_path: Path) -> None:
    config = small_run()
    config = replace(config, text=replace(config.text, cleaning="r2gen-mimic"))
    with pytest.raises(InputError, match=r"mined for cleaning 'r2gen-iu', this run reads 'r2gen-mimic'"):
        train_method(config, mined, tmp_path / "run")


def test_a_run_is_not_resumed_on_other_negatives(mined: Path, world: Path, tmp_path: Path) -> None:
    config = small_run(epochs=1)
    train_method(config, mined, tmp_path / "run")
    run_verb(
        ["build", "negatives", str(world), "--out", str(tmp_path / "other.parquet"), "--different-labels", "--top", "1"]
    )
    with pytest.raises(InputError, match="started on other data"):
        train_method(config, tmp_path / "other.parquet", tmp_path / "run", resume=True)
