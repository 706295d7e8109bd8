"""Shapes: B studies, V views, N patches, C channels, T positions, W vocabulary, S rows of the memory, K the best of them,
H heads, D width, E = D / H.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from conftest import small_config, small_model
from rayscribe.config import ModelConfig
from rayscribe.methods.build import build_model
from rayscribe.methods.r2gen_cmn import CrossModalMemory, R2GenCmnSettings, r2gen_cmn
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch
from rayscribe.task import ReportTask

ABLATIONS: list[dict[str, object]] = [
    {"memory_queries": "shared"},
    {"memory_queries": "separate"},
    {"memory_queries": "visual"},
    {"memory_queries": "text"},
    {"memory_residual": False},
]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**settings: object) -> ReportModel:
    return small_model("r2gen_cmn", settings=replace(small_config("r2gen_cmn").method, **settings))


def random_batch(model: ReportModel, studies: int = 3) -> Batch:
    """Features of two views and reports of 6 ids."""
    generator = torch.Generator().manual_seed(5)
    return Batch(
        rows_B=torch.arange(studies),
        has_view_BV=torch.ones(studies, 2, dtype=torch.bool),
        tokens_BT=torch.randint(3, 12, (studies, 6), generator=generator),
        has_token_BT=torch.ones(studies, 6, dtype=torch.bool),
        maps_BVNC=torch.rand(studies, 2, 4, model.backbone.channels, generator=generator),
    )


def gathered(memory: CrossModalMemory, x_BTD: Tensor) -> Tensor:
    """The published form: values of the best rows, gathered from a tensor that is expanded over queries."""

    def split(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (memory.heads, -1)).transpose(-3, -2)

    keys_HSE, values_HSE = map(split, memory.key_value(memory.rows_SD).chunk(2, dim=-1))
    query_BHTE = split(memory.query(x_BTD))
    scores_BHTS = query_BHTE @ keys_HSE.transpose(-2, -1) / math.sqrt(query_BHTE.shape[-1])
    best_BHTK = scores_BHTS.topk(memory.top, dim=-1)
    values_BHTSE = values_HSE[:, None].expand(*scores_BHTS.shape, -1)
    best_BHTKE = best_BHTK.indices[..., None].expand(-1, -1, -1, -1, values_HSE.shape[-1])
    mixed_BHTE = (best_BHTK.values.softmax(-1)[..., None] * values_BHTSE.gather(3, best_BHTKE)).sum(-2)
    return x_BTD + memory.out(mixed_BHTE.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("vocabulary", "encoder_decoder"),
    [(761, 16_553_209), (4336, 20_217_584)],
)
def test_r2gencmn_has_the_published_parameter_counts(vocabulary: int, encoder_decoder: int) -> None:
    """Specification 3.2 and 7.3; resnet101 as published."""
    model = build_model(r2gen_cmn(), vocabulary)
    memory = model.stages[1].patches
    assert count(model) - count(model.backbone) == encoder_decoder
    assert memory.rows_SD.numel() == 1_048_576
    assert count(memory) - memory.rows_SD.numel() == 1_050_624
    assert vocabulary != 761 or count(model) == 59_053_369


def test_the_memory_starts_as_published() -> None:
    """Specification 3.2: rows from a normal distribution of deviation 1 / 512, every projection Xavier-uniform by itself."""
    torch.manual_seed(0)
    memory = CrossModalMemory(512, rows=2048, top=32, heads=8, dropout=0.1, residual=True)
    assert memory.rows_SD.std().item() == pytest.approx(1 / 512, rel=0.01)
    bound = math.sqrt(6 / (512 + 512))
    for block in (memory.query.weight, *memory.key_value.weight.chunk(2), memory.out.weight):
        assert 0.99 * bound < block.abs().max().item() <= bound


def test_the_dense_form_equals_the_gather_form() -> None:
    """At the published size: output within 1e-5, every gradient within 3e-6 of its largest number (about 1e-8)."""
    torch.manual_seed(0)
    memory = CrossModalMemory(512, rows=2048, top=32, heads=8, dropout=0.0, residual=True)
    with torch.no_grad():
        memory.rows_SD.mul_(512)  # as large as features, so that some of the best rows answer more than others
    x_BTD = torch.randn(2, 5, 512)
    outputs, gradients = [], []
    for form in (lambda x: memory.recall()(x), lambda x: gathered(memory, x)):
        x = x_BTD.clone().requires_grad_()
        output_BTD = form(x)
        # Gradients of a mean are small, 1e-4 to 5e-3: a fixed tolerance of 1e-6 (specification 7.5) would say little.
        output_BTD.square().mean().backward()
        outputs.append(output_BTD.detach())
        gradients.append({"x": x.grad} | {name: weight.grad for name, weight in memory.named_parameters()})
        memory.zero_grad()
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=0)
    assert len(gradients[0]) == 8
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=3e-6 * gradient.abs().max().item(), rtol=0)


def test_only_the_best_rows_answer() -> None:
    memory = CrossModalMemory(8, rows=6, top=1, heads=1, dropout=0.0, residual=False)
    keys_SD, values_SD = memory.key_value(memory.rows_SD).chunk(2, dim=-1)
    x_BTD = torch.randn(2, 3, 8)
    nearest_BT = (memory.query(x_BTD) @ keys_SD.T).argmax(-1)
    torch.testing.assert_close(memory.recall()(x_BTD), memory.out(values_SD[nearest_BT]))


def test_a_shared_memory_has_one_name() -> None:
    names = [name for name in small().state_dict() if name.endswith("rows_SD")]
    assert names == ["stages.1.patches.rows_SD"]
    apart = [name for name in small(memory_queries="separate").state_dict() if name.endswith("rows_SD")]
    assert apart == ["stages.1.patches.rows_SD", "stages.1.words.rows_SD"]


def test_a_shared_memory_learns_from_patches_and_from_words() -> None:
    model = small()
    batch = random_batch(model)
    rows_SD = model.stages[1].patches.rows_SD

    def loss(encoded: Encoded) -> Tensor:
        return model.decoder(batch.tokens_BT, encoded).sin().sum()

    encoded = model.encode(batch)
    (to_features_BND,) = torch.autograd.grad(loss(encoded), encoded.features_BND, retain_graph=True)
    (from_patches_SD,) = torch.autograd.grad(encoded.features_BND, rows_SD, to_features_BND)
    (from_words_SD,) = torch.autograd.grad(loss(Encoded(encoded.features_BND.detach(), encoded.has_patch_BN)), rows_SD)
    (whole_SD,) = torch.autograd.grad(loss(model.encode(batch)), rows_SD)
    assert from_patches_SD.abs().max() > 1e-3 and from_words_SD.abs().max() > 1e-3
    torch.testing.assert_close(whole_SD, from_patches_SD + from_words_SD, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ABLATIONS)
def test_every_ablation_trains(model: dict[str, object]) -> None:
    """After a step every weight of the encoder-decoder has moved, so nothing is built that nothing uses."""
    torch.manual_seed(0)
    config = small_config("r2gen_cmn")
    built = build_model(replace(config, method=replace(config.method, **model)), 12)
    task = ReportTask(built).train()
    before = {name: weight.detach().clone() for name, weight in built.named_parameters()}
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)
    first = task(random_batch(built))["loss"]
    first.backward()
    optimizer.step()
    for name, weight in built.named_parameters():
        assert name.startswith("backbone.") or not torch.equal(weight, before[name]), name
    assert torch.isfinite(task(random_batch(built))["loss"])


@pytest.mark.parametrize("model", ABLATIONS)
def test_stepping_with_caches_equals_one_pass_in_every_ablation(model: dict[str, object]) -> None:
    built = small(**model)
    batch = random_batch(built)
    with torch.no_grad():
        encoded = built.encode(batch)
        whole_BTW = built.decoder.head(built.decoder(batch.tokens_BT, encoded))
        cache = built.decoder.start(encoded, beams=1, positions=6)
        steps_BTW = torch.cat([built.decoder.step(batch.tokens_BT[:, t : t + 1], cache) for t in range(6)], dim=1)
    torch.testing.assert_close(steps_BTW, whole_BTW, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ABLATIONS)
def test_an_absent_view_changes_nothing(model: dict[str, object]) -> None:
    """A study with one view gives the same alone as in a batch of studies with two, whatever stands in the gap."""
    built = small(**model)
    batch = random_batch(built)
    assert batch.maps_BVNC is not None
    one = replace(batch, has_view_BV=batch.has_view_BV[:, :1], maps_BVNC=batch.maps_BVNC[:, :1])
    has_view_BV = batch.has_view_BV.clone()
    has_view_BV[:, 1] = False
    with torch.no_grad():
        alone_BTW = built(one).logits_BTW
        padded_BTW = built(replace(batch, has_view_BV=has_view_BV)).logits_BTW
        assert not torch.allclose(built(batch).logits_BTW, padded_BTW, atol=1e-3)
    torch.testing.assert_close(padded_BTW, alone_BTW, atol=1e-5, rtol=1e-5)


def test_patches_have_positions() -> None:
    """Unlike in R2Gen: the same patches in another order are another image."""
    for method, is_same in (("r2gen", True), ("r2gen_cmn", False)):
        model = small_model(method)
        batch = random_batch(model)
        assert batch.maps_BVNC is not None
        with torch.no_grad():
            logits_BTW = model(batch).logits_BTW
            turned_BTW = model(replace(batch, maps_BVNC=batch.maps_BVNC.flip(2))).logits_BTW
        assert torch.allclose(logits_BTW, turned_BTW, atol=1e-4) is is_same


def test_the_recipe_is_the_published_one() -> None:
    """Specification 3.4, IU X-Ray."""
    config = r2gen_cmn()
    assert config.model == ModelConfig()
    assert config.method == R2GenCmnSettings(memory_size=2048, memory_top=32, memory_heads=8)
    train = config.train
    assert (config.seed, train.epochs, train.batch_size, train.lr_backbone, train.lr) == (7580, 100, 16, 1e-4, 5e-4)
    assert (train.betas, train.eps, train.amsgrad, train.weight_decay) == ((0.9, 0.98), 1e-9, True, 5e-5)
    assert (train.clip_value, train.clip_norm) == (None, None)
    assert (train.schedule, train.step_epochs, train.gamma) == ("step", 10, 0.8)
