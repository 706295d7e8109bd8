"""Consensus: it learns the drawn world, depends on the image, says why, and never learns from the study that it judges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rayscribe as rs
from built_once import built_once
from rayscribe.checkpoint import load_fitted
from rayscribe.config import BackboneConfig, ImageConfig, RunConfig, TextConfig
from rayscribe.data.features import cached_features
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import check
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.methods.consensus import ConsensusSettings, consensus
from rayscribe.methods.consensus_reporter import ConsensusReporter
from rayscribe.metrics.expected_utility import expected
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.models.backbones import Backbone
from rayscribe.models.pooling import pooled_features
from rayscribe.reports.document import document_json, read_document
from rayscribe.training.run import train_method

Command = Callable[..., str]


def small(weights: Path, **settings: Any) -> RunConfig[ConsensusSettings]:
    return replace(
        consensus(),
        method=ConsensusSettings(components=60, **settings),
        images=ImageConfig(size=64, resize=68),
        backbone=BackboneConfig(name="test_resnet", weights=str(weights), trainable=False),
        text=TextConfig(threshold=1, max_length=60),
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with world.parquet (400 drawn studies), weights, features and the model in `run`."""

    def build(folder: Path) -> None:
        write_phantom(folder / "phantom", PhantomConfig(studies=400, size=64, variety=0.2))
        checked = check(read_iu_xray(folder / "phantom"), source={"source": "phantom"}, missing_is_fault=True)
        write_manifest(folder / "world.parquet", checked.manifest)
        torch.manual_seed(0)
        save_file(Backbone(BackboneConfig(name="test_resnet")).net.state_dict(), folder / "weights.safetensors")
        config = small(folder / "weights.safetensors")
        train_method(config, folder / "world.parquet", folder / "run", features=folder / "features")

    return built_once(tmp_path_factory, "consensus", build)


def reporter(fitted: Path) -> ConsensusReporter:
    trained = load_fitted(fitted / "run")
    return ConsensusReporter(trained.config, trained.fitted)


def features(fitted: Path, split: str = "test") -> list[np.ndarray]:
    trained, studies = load_fitted(fitted / "run"), read_manifest(fitted / "world.parquet").split(split)
    cache = cached_features(studies, trained.backbone, trained.config.images, folder=fitted / "features")
    return [np.stack([cache[sha256] for sha256 in study.sha256]) for study in studies]


def texts(fitted: Path, split: str = "test") -> list[str]:
    return [study.findings for study in read_manifest(fitted / "world.parquet").split(split)]


def macro_f1(reports: list[str], references: list[str]) -> float:
    own, wanted = (RuleLabeler().label(texts) == 1 for texts in (reports, references))
    return float((2 * (own & wanted).sum(0) / np.maximum(1, own.sum(0) + wanted.sum(0))).mean())


@pytest.mark.slow
def test_it_learns_the_drawn_world_and_depends_on_the_image(fitted: Path) -> None:
    model = rs.load(fitted / "run", device="cpu")
    studies = read_manifest(fitted / "world.parquet").split("test")
    references = [study.findings for study in studies]
    drafts = model.draft([list(study.images) for study in studies])
    own = macro_f1([draft.text for draft in drafts], references)
    others = macro_f1([draft.text for draft in drafts[1:] + drafts[:1]], references)
    normal = macro_f1(["The heart is normal. The lungs are clear."] * len(studies), references)
    assert own > 2 * normal and own > 1.5 * others
    assert len({draft.text for draft in drafts}) > 10


def test_manifest_and_loose_images_give_the_same_draft(fitted: Path, tmp_path: Path, rayscribe: Command) -> None:
    files = ["--model", fitted / "run", "--data", fitted / "world.parquet", "--out", tmp_path / "p.jsonl"]
    rayscribe("generate", *files, "--features", fitted / "features")
    first = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    study = next(one for one in read_manifest(fitted / "world.parquet").split("test") if one.id == first["id"])
    said = rayscribe("predict", *study.images, "--model", fitted / "run", "--raw")
    assert said.splitlines()[0] == first["report"]
    assert "Training studies that speak for it" in said and "Expected scores: bleu4" in said


def test_the_studies_that_speak_for_a_report_are_those_that_raise_it(fitted: Path) -> None:
    """Without them the report's total falls further than without as many others; all contributions add up to the total."""
    model = reporter(fitted)
    generator = np.random.default_rng(0)
    drafts = model.draft(features(fitted), DecodingConfig())
    ids = list(model.fitted.texts["ids"])
    for study, draft in zip(features(fitted)[:20], drafts, strict=False):
        added_J = model.contributions(study, draft.reports[0])
        named = [ids.index(one.id) for one in draft.studies]
        random = [added_J[generator.choice(len(ids), len(named), replace=False)].sum() for _ in range(20)]
        assert added_J[named].sum() > max(random)
        assert 0 < sum(one.share for one in draft.studies) <= 1


def test_probabilities_are_calibrated_and_states_follow_thresholds(fitted: Path) -> None:
    drafts = reporter(fitted).draft(features(fitted), DecodingConfig())
    wanted = (
        RuleLabeler().label([study.findings for study in read_manifest(fitted / "world.parquet").split("test")]) == 1
    )
    for place, name in enumerate(rs.label(["clear"])[0]):
        told = [draft.probabilities[name] for draft in drafts if name in draft.probabilities]
        if told:
            assert abs(np.mean(told) - wanted[:, place].mean()) < 0.15
            called = [draft.probabilities[name] for draft in drafts if draft.diagnosis[name] == "positive"]
            left = [draft.probabilities[name] for draft in drafts if draft.diagnosis[name] == "negative"]
            assert not called or not left or min(called) >= max(left)


def test_no_study_judges_itself(tmp_path: Path, fitted: Path) -> None:
    """Leave-one-out on random reports finds nothing: a leak would let every study find its own."""
    manifest = read_manifest(fitted / "world.parquet")
    training = manifest.split("train")
    order = np.random.default_rng(0).permutation(len(training))
    shuffled = {study.id: training[int(at)].findings for study, at in zip(training, order, strict=True)}
    rows = tuple(replace(study, findings=shuffled.get(study.id, study.findings)) for study in manifest.studies)
    write_manifest(tmp_path / "shuffled.parquet", Manifest(studies=rows, provenance=manifest.provenance))
    scores = {}
    for name, data in (("true", fitted / "world.parquet"), ("shuffled", tmp_path / "shuffled.parquet")):
        config = small(fitted / "weights.safetensors", strengths=(0.3,), gammas=(3.0,))
        scores[name] = train_method(config, data, tmp_path / name, features=fitted / "features").scores
    key = "leave_one_out_macro_f1"
    assert scores["shuffled"][key] < 0.75 * scores["true"][key]


def test_the_aim_decides_what_is_written(fitted: Path, tmp_path: Path) -> None:
    plain = {"aim": "utility", "utility": "bleu4=1", "compose": False}
    config = small(fitted / "weights.safetensors", strengths=(1.0,), **plain)
    progress = train_method(config, fitted / "world.parquet", tmp_path / "run", features=fitted / "features")
    trained = load_fitted(tmp_path / "run")
    assert trained.fitted.texts["gamma"] == 0 and "leave_one_out_utility" in progress.scores
    model = ConsensusReporter(trained.config, trained.fitted)
    reference_J = trained.fitted.weights["reference_of"].numpy()
    utility_CJ = trained.fitted.weights["utility_bleu4"].numpy()[:, reference_J]
    expected_BC = expected(model.weights(features(fitted)), utility_CJ.T)
    for draft, expected_C in zip(model.draft(features(fitted), DecodingConfig()), expected_BC, strict=True):
        assert draft.expected["bleu4"] == pytest.approx(float(expected_C.max()), abs=1e-5)
    aimed = reporter(fitted).draft(features(fitted), DecodingConfig())
    assert macro_f1([one.reports[0] for one in aimed], texts(fitted)) > macro_f1(
        [one.reports[0] for one in model.draft(features(fitted), DecodingConfig())], texts(fitted)
    )


def test_composed_reports_score_what_they_promise_and_repeat_less_than_whole_ones(fitted: Path) -> None:
    model = reporter(fitted)
    whole = ConsensusReporter(replace(model.run, method=replace(model.run.method, compose=False)), model.fitted)
    drafts, plain = (one.draft(features(fitted), DecodingConfig()) for one in (model, whole))
    known = set(model.fitted.texts["reports"])
    assert {draft.reports[0] for draft in plain} <= known
    new = [draft for draft in drafts if draft.reports[0] not in known]
    assert len(new) > len(drafts) / 4
    assert all(draft.reports[1] == one.reports[0] for draft, one in zip(drafts, plain, strict=True) if draft in new)
    assert len({draft.reports[0] for draft in drafts}) > len({draft.reports[0] for draft in plain})
    composed, others = ([draft.reports[0] for draft in one] for one in (drafts, plain))
    assert macro_f1(composed, texts(fitted)) > 0.8 * macro_f1(others, texts(fitted))
    assert all(draft.studies and 0 <= draft.expected["clinical"] <= 1.5 for draft in drafts)


def test_a_utility_that_cannot_be_composed_says_what_to_add(fitted: Path) -> None:
    with pytest.raises(InputError, match=r"--method\.no-compose"):
        small(fitted / "weights.safetensors", utility="clinical=1")


def test_a_draft_keeps_its_evidence_as_json(fitted: Path, tmp_path: Path, rayscribe: Command) -> None:
    image = read_manifest(fitted / "world.parquet").split("test")[0].images[0]
    rayscribe("predict", image, "--model", fitted / "run", "--out", tmp_path / "draft.json")
    document = read_document((tmp_path / "draft.json").read_text(), "draft.json")
    assert document.studies and document.expected and document.findings[0].probability is not None
    assert read_document(document_json(document), "again") == document


def test_info_shows_no_training_report(fitted: Path, rayscribe: Command) -> None:
    said = rayscribe("info", fitted / "run")
    report = read_manifest(fitted / "world.parquet").split("train")[0].findings.split(".")[0].lower()
    assert "texts: ids, reports" in said and report not in said.lower()


def test_features_are_means_over_the_grid() -> None:
    maps = np.arange(2 * 49 * 3, dtype=np.float32).reshape(2, 49, 3)
    found = pooled_features(maps.astype(np.float16), 2)
    square = maps.reshape(2, 7, 7, 3)
    assert found.shape == (2, 3 + 4 * 3)
    assert found[:, :3] == pytest.approx(maps.mean(1), rel=1e-2)
    assert found[:, 3:6] == pytest.approx(square[:, :4, :4].mean((1, 2)), rel=1e-2)
    assert pooled_features(maps.astype(np.float16), 0).shape == (2, 3)


def test_too_many_views_are_named(fitted: Path, tmp_path: Path) -> None:
    config = small(fitted / "weights.safetensors", views=5)
    with pytest.raises(InputError, match=r"training studies have \d images; give --method.views"):
        train_method(config, fitted / "world.parquet", tmp_path / "run", features=fitted / "features")


def test_candidates_can_be_compared_with_the_image(fitted: Path, tmp_path: Path) -> None:
    drafts = {}
    for utility in ("image=1", "bleu4=1,image=1", "bleu4=1"):
        plain = {"aim": "utility", "utility": utility, "compose": False}
        config = small(fitted / "weights.safetensors", strengths=(1.0,), **plain)
        train_method(config, fitted / "world.parquet", tmp_path / utility, features=fitted / "features")
        trained = load_fitted(tmp_path / utility)
        drafts[utility] = ConsensusReporter(trained.config, trained.fitted).draft(features(fitted), DecodingConfig())
    chosen = {utility: [draft.reports[0] for draft in drafts[utility]] for utility in drafts}
    assert chosen["image=1"] != chosen["bleu4=1,image=1"] != chosen["bleu4=1"]
    own, mixed = ([draft.expected["image"] for draft in drafts[name]] for name in ("image=1", "bleu4=1,image=1"))
    assert (
        all(one >= other - 1e-6 for one, other in zip(own, mixed, strict=True))
        and "image" not in drafts["bleu4=1"][0].expected
    )
    others = chosen["image=1"][1:] + chosen["image=1"][:1]
    assert macro_f1(chosen["image=1"], texts(fitted)) > 1.3 * macro_f1(others, texts(fitted))


def test_a_folder_with_two_encoders_needs_no_other_file(fitted: Path, tmp_path: Path, rayscribe: Command) -> None:
    torch.manual_seed(1)
    other = tmp_path / "vit.safetensors"
    save_file(Backbone(BackboneConfig(name="test_vit")).net.state_dict(), other)
    shutil.copyfile(fitted / "weights.safetensors", tmp_path / "resnet.safetensors")
    config = small(tmp_path / "resnet.safetensors", strengths=(1.0,), gammas=(3.0,))
    config = replace(config, backbone=replace(config.backbone, layers=2, beside=(f"test_vit={other}",)))
    train_method(config, fitted / "world.parquet", tmp_path / "run", features=tmp_path / "features")
    image = read_manifest(fitted / "world.parquet").split("test")[0].images[0]
    before = rayscribe("predict", image, "--model", tmp_path / "run", "--raw")
    width = load_fitted(tmp_path / "run").fitted.weights["view0_centre"].shape[0]
    assert width == 5 * load_fitted(tmp_path / "run").backbone.channels == 5 * (96 + 192 + 64 + 64)
    rayscribe("export", "model", tmp_path / "run", "--out", tmp_path / "copy")
    for path in (other, tmp_path / "resnet.safetensors"):
        path.unlink()
    shutil.rmtree(tmp_path / "run")
    assert rayscribe("predict", image, "--model", tmp_path / "copy", "--raw") == before
    facts = (tmp_path / "copy" / "model.json").read_text()
    assert str(tmp_path) not in facts and "test_vit=vit.safetensors" in facts
    card = (tmp_path / "copy" / "README.md").read_text()
    assert (
        "test_resnet (2 layers) beside test_vit (2 layers), frozen, started from resnet.safetensors, vit.safetensors"
        in card
    )


def test_the_frontier_of_one_fit_goes_from_wording_to_findings(
    fitted: Path, tmp_path: Path, rayscribe: Command
) -> None:
    always = tmp_path / "always.csv"
    studies = read_manifest(fitted / "world.parquet").split("val")
    always.write_text("id,report\n" + "".join(f"{study.id},The lungs are clear.\n" for study in studies))
    common = ["--data", fitted / "world.parquet", "--features", fitted / "features", "--out", tmp_path / "frontier"]
    said = rayscribe("frontier", "--model", fitted / "run", *common, "--systems", f"always={always}")
    assert "always: below the frontier in BLEU-4 and findings" in said
    result = json.loads((tmp_path / "frontier" / "frontier.json").read_text())
    macro = {point["name"]: point["scores"]["ce_f1_macro_14_uncertain_negative"] for point in result["points"]}
    best = max(value for name, value in macro.items() if name.startswith("both"))
    assert best > 2 * max(macro["constant"], macro["always_normal"], macro["shuffled"])
    assert (tmp_path / "frontier" / "frontier.png").stat().st_size > 10_000
    as_file = ["--data", fitted / "world.parquet", "--out", always]
    assert "is a file; name a folder" in rayscribe("frontier", "--model", fitted / "run", *as_file, code=1)
    assert "write NAME=FILE" in rayscribe("frontier", "--model", fitted / "run", *common, "--systems", "always", code=1)


def test_a_folder_of_an_earlier_version_is_refused_with_the_way_out(fitted: Path) -> None:
    trained = load_fitted(fitted / "run")
    weights = {name: tensor for name, tensor in trained.fitted.weights.items() if name != "shares"}
    with pytest.raises(InputError, match="fitted by an earlier version of consensus; train it again"):
        ConsensusReporter(trained.config, replace(trained.fitted, weights=weights))
