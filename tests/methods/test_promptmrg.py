from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import small_config
from rayscribe.config import RunConfig
from rayscribe.data.conditions import Conditions, condition_rates, study_conditions
from rayscribe.errors import InputError
from rayscribe.labels import (
    AUXILIARY,
    CONDITIONS,
    NEGATIVE,
    NOT_MENTIONED,
    OBSERVATIONS,
    POSITIVE,
    UNCERTAIN,
    UNLABELLED,
)
from rayscribe.methods import find_method
from rayscribe.methods.build import build_model
from rayscribe.methods.promptmrg import (
    STATE_SCORES,
    STATES,
    Diagnoses,
    DiagnosisStage,
    DiagnosisTask,
    PromptMrgSettings,
    priors,
    state_loss_B,
)
from rayscribe.methods.promptmrg_reports import RETRIEVED, MemoryTransformer, ReportMemory
from rayscribe.models.decoding import DecodingConfig, Vocabulary, decode
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel
from rayscribe.study import GIVEN_STATES, Batch
from rayscribe.task import report_loss_B
from tasks import build_task

WORDS, WIDTH, REPORTS = 12, 16, 5
CONDITION_COUNT = len(CONDITIONS)
VOCABULARY = Vocabulary(pad=0, begin=1, end=2)


def without_memory(**diagnosis: object) -> RunConfig:
    config = small_config("promptmrg")
    return replace(config, method=replace(config.method, memory=False, **diagnosis))


def states(studies: int = 6, labelled: int = 14, seed: int = 0) -> Conditions:
    found = np.random.default_rng(seed).integers(0, STATES, (studies, CONDITION_COUNT)).astype(np.int8)
    found[:, labelled:] = UNLABELLED
    return Conditions(states_RO=found, source="test")


def batch_of(studies: int = 3, tokens: int = 7, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        rows_B=torch.arange(studies),
        has_view_BV=torch.ones(studies, 1, dtype=torch.bool),
        tokens_BT=torch.cat(
            [
                torch.ones(studies, 1, dtype=torch.long),
                torch.randint(3, WORDS, (studies, tokens - 1), generator=generator),
            ],
            dim=1,
        ),
        has_token_BT=torch.ones(studies, tokens, dtype=torch.bool),
        pixels_BVHW=torch.randint(0, 256, (studies, 1, 64, 64), generator=generator, dtype=torch.uint8),
        extras={RETRIEVED: torch.randn(studies, REPORTS, WIDTH, generator=generator).half()},
    )


def task_of(
    config: RunConfig, *, training: Conditions | None = None, validation: Iterable[Batch] = ()
) -> DiagnosisTask:
    torch.manual_seed(0)
    training = training or states()
    known = Diagnoses(training=training, validation=training, rates_O=training.positive_rates_O())
    model = built(config)
    task = build_task(config, model, known, validation=lambda: validation)
    assert isinstance(task, DiagnosisTask)
    return task


def built(config: RunConfig) -> ReportModel:
    return build_model(config, WORDS, find_method(config.system).resources(config, None))


def stage_of(model: ReportModel) -> DiagnosisStage:
    stage = model.stages[0]
    assert isinstance(stage, DiagnosisStage)
    return stage


def test_conditions_are_promptmrgs_in_its_order() -> None:
    assert len(CONDITIONS) == 18 and CONDITIONS[14:] == AUXILIARY
    assert set(CONDITIONS[:14]) == set(OBSERVATIONS)
    assert CONDITIONS[0] == "Enlarged Cardiomediastinum" and CONDITIONS[13] == "No Finding"


def test_the_memory_transformer_has_the_published_parameters() -> None:
    assert sum(parameter.numel() for parameter in MemoryTransformer(512).parameters()) == 14_713_856


def test_shapes_are_those_of_the_paper() -> None:
    stage = DiagnosisStage(2048, ReportMemory(2048, 512)).eval()
    seen = Encoded(torch.randn(2, 49, 2048), torch.ones(2, 49, dtype=torch.bool), {RETRIEVED: torch.randn(2, 21, 512)})
    assert stage.memory is not None
    assert stage.memory(torch.randn(2, 2048), torch.randn(2, 21, 512)).shape == (2, 512)
    found = stage(seen)
    assert found.extras[STATE_SCORES].shape == (2, 4, 18)
    assert found.prompt_BO is not None and found.prompt_BO.shape == (2, 18)
    assert stage.classify.in_features == 2560 and stage.classify.out_features == 72


@pytest.mark.parametrize("findings", [None, torch.randn(20, WIDTH)], ids=["no findings", "findings"])
def test_a_study_depends_on_itself_alone(findings: Tensor | None) -> None:
    torch.manual_seed(0)
    stage = DiagnosisStage(8, ReportMemory(8, WIDTH, findings_FM=findings)).eval()
    exists = torch.ones(3, 4, dtype=torch.bool)
    features, retrieved = torch.randn(3, 4, 8), torch.randn(3, REPORTS, WIDTH)
    before = stage.scores(Encoded(features, exists, {RETRIEVED: retrieved}))
    features[1], retrieved[1] = torch.randn(4, 8), torch.randn(REPORTS, WIDTH)
    after = stage.scores(Encoded(features, exists, {RETRIEVED: retrieved}))
    assert torch.equal(before[[0, 2]], after[[0, 2]]) and not torch.equal(before[1], after[1])
    alone = stage.scores(Encoded(features[:1], exists[:1], {RETRIEVED: retrieved[:1]}))
    assert torch.allclose(alone, after[:1], atol=1e-6)


def test_retrieved_reports_and_their_query_reach_the_states() -> None:
    torch.manual_seed(0)
    memory = ReportMemory(8, WIDTH).eval()
    image, retrieved = torch.randn(2, 8), torch.randn(2, REPORTS, WIDTH)
    answer = memory(image, retrieved)
    assert not torch.allclose(answer, memory(image, torch.randn_like(retrieved)))
    assert not torch.allclose(answer, memory(torch.randn(2, 8), retrieved))
    assert torch.allclose(answer, memory(image, retrieved.flip(1)), atol=1e-6)  # a set: their order says nothing


def test_priors_of_one_shift_nothing_and_others_shift_positive_alone() -> None:
    scores = torch.randn(3, STATES, CONDITION_COUNT)
    gold = torch.from_numpy(states(3).states_RO).long()
    plain = torch.nn.functional.cross_entropy(scores[:, :, :14], gold[:, :14], reduction="none").mean(1)
    assert torch.allclose(state_loss_B(scores, gold, torch.ones(CONDITION_COUNT).log()), plain)
    shift = torch.full((CONDITION_COUNT,), 0.2).log()
    by_hand = scores.clone()
    by_hand[:, POSITIVE] += shift
    wanted = torch.nn.functional.cross_entropy(by_hand[:, :, :14], gold[:, :14], reduction="none").mean(1)
    assert torch.allclose(state_loss_B(scores, gold, shift), wanted)


def test_a_smaller_prior_asks_for_a_wider_margin() -> None:
    scores, gold = (
        torch.zeros(1, STATES, CONDITION_COUNT, requires_grad=True),
        torch.full((1, CONDITION_COUNT), POSITIVE),
    )
    shift = torch.cat([torch.tensor([1.0, 0.1]), torch.ones(CONDITION_COUNT - 2)]).log()
    state_loss_B(scores, gold, shift).sum().backward()
    assert scores.grad is not None
    assert scores.grad[0, POSITIVE, 1] < scores.grad[0, POSITIVE, 0] < 0  # pushed up harder


def test_unlabelled_conditions_are_left_out_of_loss_and_prompt() -> None:
    task = task_of(without_memory())
    batch = batch_of()
    reading = task.read(batch)
    assert reading.encoded.prompt_BO is not None
    assert (reading.encoded.prompt_BO[:, 14:] == NOT_MENTIONED).all()
    scores = reading.encoded.extras[STATE_SCORES]
    loss = state_loss_B(scores, task.states_RO[batch.rows_B].long(), torch.zeros(CONDITION_COUNT))
    grad = torch.autograd.grad(loss.sum(), scores)[0]
    assert (grad[:, :, 14:] == 0).all() and (grad[:, :, :14] != 0).any()
    with torch.no_grad():  # a head that is sure of an unlabelled condition is not asked
        stage_of(task.model).classify.bias.view(STATES, CONDITION_COUNT)[POSITIVE] = 100.0
    encoded = task.model.encode(batch)
    assert encoded.prompt_BO is not None
    assert (encoded.prompt_BO[:, :14] == POSITIVE).all() and (encoded.prompt_BO[:, 14:] == NOT_MENTIONED).all()


def test_training_reads_the_gold_states_and_writing_the_heads_own() -> None:
    task = task_of(without_memory())
    batch = batch_of()
    gold = task.read(batch).encoded.prompt_BO
    wanted = torch.from_numpy(task.known.training.states_RO[:3]).long()
    assert gold is not None and torch.equal(gold[:, :14], wanted[:, :14])
    own = task.model.read(batch).encoded
    assert own.prompt_BO is not None
    assert torch.equal(own.prompt_BO[:, :14], own.extras[STATE_SCORES].argmax(1)[:, :14])
    predicted = task_of(without_memory(training_prompt="predicted")).read(batch).encoded.prompt_BO
    assert predicted is not None and torch.equal(predicted, own.prompt_BO)


def test_the_prompt_changes_what_is_written_unless_it_is_switched_off() -> None:
    torch.manual_seed(0)
    batch = batch_of()
    for prompt in (True, False):
        model = built(without_memory(prompt=prompt)).eval()
        seen = model.see(batch)
        few, many = (
            model.read(batch, replace(seen, extras={GIVEN_STATES: torch.full((3, CONDITION_COUNT), state)})).hidden_BTD
            for state in (NEGATIVE, POSITIVE)
        )
        assert torch.equal(few, many) != prompt


def test_only_words_are_learned_never_the_prompt() -> None:
    """The loss is over the words after the begin token; no score is asked for at a position of the prompt."""
    model = built(without_memory()).eval()
    batch = batch_of(tokens=7)
    output = model(batch)
    assert output.logits_BTW.shape == (3, 6, WORDS)
    by_hand = torch.nn.functional.cross_entropy(
        output.logits_BTW.transpose(1, 2), batch.tokens_BT[:, 1:], reduction="none"
    )
    assert torch.allclose(report_loss_B(output, batch), by_hand.sum(1))


@pytest.mark.parametrize("decoder", ["own", "bert"])
def test_writing_behind_a_cached_prompt_equals_reading_everything_anew(decoder: str) -> None:
    config = without_memory()
    config = replace(config, model=replace(config.model, decoder=decoder))  # type: ignore[arg-type]
    torch.manual_seed(3)
    model = built(config).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    batch = batch_of()
    given = torch.from_numpy(states(3).states_RO).long().clamp(min=0)
    encoded = model.read(batch, replace(model.see(batch), extras={GIVEN_STATES: given})).encoded
    with torch.inference_mode():
        cache = model.decoder.start(encoded, beams=2, positions=6)
        tokens_BK = torch.ones(3, 2, dtype=torch.long)
        history = tokens_BK[:, :, None]
        for step in range(6):
            scores = model.decoder.step(tokens_BK, cache)
            for beam in range(2):
                anew = model.decoder.head(model.decoder(history[:, beam], encoded))[:, -1]
                assert torch.allclose(scores[:, beam], anew, atol=1e-5), (step, beam)
            best = scores.topk(2, dim=-1).indices
            parents = torch.tensor([[1, 0], [0, 0], [1, 1]])
            tokens_BK = torch.stack([best[torch.arange(3), parents[:, k], k] for k in range(2)], dim=1)
            cache.reorder(parents)
            history = torch.cat([history[torch.arange(3)[:, None], parents], tokens_BK[:, :, None]], dim=2)


@pytest.mark.parametrize("decoder", ["own", "bert"])
def test_no_prompt_is_ever_written(decoder: str) -> None:
    """States have no word in the vocabulary, so whatever is decoded is words."""
    config = without_memory()
    config = replace(config, model=replace(config.model, decoder=decoder))  # type: ignore[arg-type]
    model = built(config).eval()
    with torch.inference_mode():
        encoded = model.encode(batch_of())
        found = decode(model.decoder, encoded, VOCABULARY, DecodingConfig(beams=3), max_tokens=9)
    assert encoded.prompt_BO is not None
    for best in found:
        assert all(3 <= token < WORDS for token in best[0].tokens) and len(best[0].tokens) <= 9
    assert model.decoder.head.out_features == WORDS


def test_priors_follow_the_validation_split_and_have_a_floor() -> None:
    known = states(4)
    known.states_RO[:, 0] = NEGATIVE  # nobody has it
    validation = batch_of(4)
    task = task_of(without_memory(), training=known, validation=[validation])
    before = task.priors_O.clone()
    assert before[0] == pytest.approx(1e-3) and before.max() == 1 and (before[14:] == 1).all()
    task.start_epoch(0, {})
    assert torch.equal(task.priors_O, before)  # the first epoch has the rates
    task.start_epoch(1, {})
    task.eval()
    probability = task.diagnose(task.model.see(validation)).softmax(1)[:, POSITIVE]
    is_positive = torch.from_numpy(known.states_RO[:4] == POSITIVE)
    wanted = torch.stack(
        [
            probability[is_positive[:, o], o].mean() if is_positive[:, o].any() else before[o]
            for o in range(CONDITION_COUNT)
        ]
    )
    wanted = (wanted / wanted[:14].max()).clamp(1e-3, 1)
    assert torch.allclose(task.priors_O[:14], wanted[:14], atol=1e-5)
    assert task.priors_O.isfinite().all() and (task.priors_O[14:] == 1).all()
    assert task.training is False


def test_priors_that_are_no_numbers_stay_as_they_were() -> None:
    labelled = torch.tensor([True] * 14 + [False] * 4)
    rates = torch.full((CONDITION_COUNT,), 0.5)
    rates[3] = math.nan
    found = priors(rates, torch.full((CONDITION_COUNT,), 0.25), labelled)
    assert found[3] == 0.5 and found[0] == 1 and (found[14:] == 1).all()


def test_losses_of_a_batch_equal_those_of_its_parts() -> None:
    """What accumulated and data-parallel steps rest on; the parts say how many studies share the step."""
    task = task_of(without_memory()).eval()
    whole = batch_of(4)
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        parts.append(
            replace(
                whole,
                rows_B=whole.rows_B[rows],
                has_view_BV=whole.has_view_BV[rows],
                tokens_BT=whole.tokens_BT[rows],
                has_token_BT=whole.has_token_BT[rows],
                pixels_BVHW=None if whole.pixels_BVHW is None else whole.pixels_BVHW[rows],
                targets_per_batch=4 * 6 / 2,
                studies_per_batch=4 / 2,
            )
        )
    together = task(whole)
    apart = [task(part) for part in parts]
    for name in ("loss", "report", "diagnosis"):
        assert torch.allclose(together[name], sum(one[name] for one in apart) / 2, atol=1e-5), name


def test_labels_come_from_the_rules_or_from_a_table(tmp_path: Path) -> None:
    reports = ["there is a large left pleural effusion .", "the lungs are clear ."]
    found = study_conditions("rules", ["a", "b"], reports)
    assert found.states_RO[0, CONDITIONS.index("Pleural Effusion")] == POSITIVE
    assert found.is_labelled_O.tolist() == [True] * 14 + [False] * 4
    table = tmp_path / "labels.csv"
    names = [*reversed(OBSERVATIONS), "Aorta Abnormal"]
    rows = [",".join(["study_id", *names]), ",".join(["b", *["-1"] * 15]), ",".join(["a", *["1"] * 14, "0"])]
    table.write_text("\n".join(rows) + "\n")
    found = study_conditions(str(table), ["a", "b"], reports)
    assert (found.states_RO[0, :14] == POSITIVE).all() and (found.states_RO[1, :15] == UNCERTAIN).all()
    assert found.states_RO[0, 14] == NEGATIVE and not found.is_labelled_O[15:].any()
    with pytest.raises(InputError, match=r"1 of 3 studies have no labels, e.g. c;"):
        study_conditions(str(table), ["a", "b", "c"], [*reports, ""])


def test_priors_are_counted_or_read(tmp_path: Path) -> None:
    known = states(50)
    assert condition_rates("training", known)[2] == np.mean(known.states_RO[:, 2] == POSITIVE)
    path = tmp_path / "priors.json"
    path.write_text('{"rates": {"Cardiomegaly": 0.222}}')
    with pytest.raises(InputError, match="no share between 0 and 1 for Enlarged Cardiomediastinum, Lung Opacity"):
        condition_rates(str(path), known)
    path.write_text(json.dumps({"rates": dict.fromkeys(CONDITIONS, 0.1) | {"Cardiomegaly": 1.5}}))
    with pytest.raises(InputError, match=r"no share between 0 and 1 for Cardiomegaly$"):
        condition_rates(str(path), known)
    path.write_text("[]")
    with pytest.raises(InputError, match=r"not a file of priors.*build priors"):
        condition_rates(str(path), known)


def test_a_run_without_an_index_says_how_to_make_one(
    world: Path, tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    message = rayscribe("train", "promptmrg", "--data", world, "--run", tmp_path / "run", code=1)
    assert "rayscribe build retrieval" in message and "--method.no-memory" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 0.0}, "--method.weight 0.0: above 0"),
        ({"reports": 0}, "--method.reports 0: at least 1"),
        ({"memory": False, "retrieval": "x"}, "not used with --method.no-memory"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptMrgSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--kif.residual"], "--kif.residual is now --method.residual"),
        (["--images.flip"], "reports are retrieved for the unflipped image"),
        (["--distill.temperature", "2"], "--distill.temperature is now --method.isd.temperature of train RECIPE+isd"),
        (["--method.no-memory", "--generations", "2"], "learns nothing from an earlier run; train promptmrg+isd"),
        (["--method.no-memory", "--generations", "0"], "--generations 0: at least 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(
    flags: list[str], message: str, world: Path, tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    assert message in rayscribe("train", "promptmrg", "--data", world, "--run", tmp_path / "run", *flags, code=1)
