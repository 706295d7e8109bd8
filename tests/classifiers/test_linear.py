"""The linear classifier: a plain logistic regression, missing views, calibration, a fit that is killed, and every verb."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rayscribe as rs
from rayscribe.classifiers import linear as linear_run
from rayscribe.classifiers.cohort import read_cohort
from rayscribe.classifiers.config import CohortConfig, LinearConfig, LinearSettings, classifier_from_yaml, multilabel
from rayscribe.classifiers.folder import TrainedClassifier, load_classifier
from rayscribe.classifiers.logistic import PlacedRows, chosen_strengths, fold_of_groups, logistic
from rayscribe.classifiers.predict import classified
from rayscribe.classifiers.run import train_classifier, train_each
from rayscribe.classifiers.scores import score_classifiers, study_logits
from rayscribe.config import BackboneConfig, ImageConfig
from rayscribe.data.features import cached_features
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import read_manifest, write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import check
from rayscribe.errors import InputError
from rayscribe.metrics.classification import calibration
from rayscribe.models.classifier import LinearClassifier, class_map
from rayscribe.models.folder import read_weights
from rayscribe.models.pooling import pooled_features
from rayscribe.settings import to_yaml
from rayscribe.study import Batch
from rayscribe.training.learner import Place
from training_runs import assert_same

FINDINGS = ("Cardiomegaly", "Pleural Effusion")


def small(**settings: object) -> LinearConfig:
    return LinearConfig(
        cohort=CohortConfig(findings=FINDINGS),
        images=ImageConfig(size=64, resize=64),
        backbone=BackboneConfig(name="test_resnet", trainable=False),
        linear=LinearSettings(**settings),  # type: ignore[arg-type]
        seed=3,
    )


def quiet(text: str) -> None:
    return None


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linear")
    write_phantom(folder / "phantom", PhantomConfig(studies=240, size=64, seed=5))
    checked = check(read_iu_xray(folder / "phantom"), source={"source": "phantom"}, missing_is_fault=True)
    write_manifest(folder / "world.parquet", checked.manifest)
    return folder / "world.parquet"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def trained(drawn: Path, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("classifier") / "run"
    train_classifier(small(), drawn, run, features=features, notify=quiet)
    return run


def random_batch(model: LinearClassifier, views: list[list[bool]]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    has_view = torch.tensor(views)
    return Batch(
        rows_B=torch.arange(len(views)),
        has_view_BV=has_view,
        tokens_BT=torch.zeros(len(views), 1, dtype=torch.long),
        has_token_BT=torch.zeros(len(views), 1, dtype=torch.bool),
        maps_BVNC=torch.rand(*has_view.shape, 4, model.backbone.channels, generator=generator)
        * has_view[..., None, None],
    )


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "model.safetensors")[0]


def opened(folder: Path) -> tuple[TrainedClassifier, LinearClassifier]:
    trained = load_classifier(folder)
    assert isinstance(trained.model, LinearClassifier)
    return trained, trained.model


def plain_logits(x: torch.Tensor, known: torch.Tensor, wanted: torch.Tensor, strength: float) -> torch.Tensor:
    """A logistic regression of one finding on standardised features, as a textbook writes it."""
    centre, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    z = (x - centre) / scale
    rank = min(z.shape)
    weight, bias = (torch.zeros(size, dtype=x.dtype, requires_grad=True) for size in (x.shape[1], 1))
    search = torch.optim.LBFGS([weight, bias], max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        cost = torch.nn.functional.binary_cross_entropy_with_logits(z @ weight + bias, known)
        cost = cost + strength / 2 * (z**2).sum() / len(z) / rank * (weight**2).sum()
        cost.backward()
        return cost

    search.step(loss)
    return (((wanted - centre) / scale) @ weight + bias).detach()


def test_probabilities_are_those_of_a_plain_logistic_regression(drawn: Path, features: Path, tmp_path: Path) -> None:
    config = replace(small(grid=1, components=10_000, strengths=(0.3,)), cohort=CohortConfig(findings=FINDINGS[:1]))
    train_classifier(config, drawn, tmp_path / "run", features=features, notify=quiet)
    trained, model = opened(tmp_path / "run")
    manifest = read_manifest(drawn)
    cohort, studies = read_cohort(manifest, "train", config.cohort), manifest.split("val")
    cache = cached_features([*cohort.studies, *studies], model.backbone, config.images, folder=features)
    expected = torch.zeros(len(studies), dtype=torch.float64)
    for view in (0, 1):
        rows = [row for row, study in enumerate(cohort.studies) if len(study.images) > view]
        x, wanted = (
            torch.from_numpy(
                np.concatenate([pooled_features(cache[one.sha256[view]][None], 1) for one in part])
            ).double()
            for part in ([cohort.studies[row] for row in rows], [one for one in studies if len(one.images) > view])
        )
        logits = plain_logits(x, torch.from_numpy(cohort.known_RL[rows, 0]).double(), wanted, 0.3)
        seen = [row for row, study in enumerate(studies) if len(study.images) > view]
        expected[seen] += logits / torch.tensor([min(2, len(studies[row].images)) for row in seen])
    assert {len(study.images) for study in studies} <= {1, 2}
    found = study_logits(trained, studies, features=features)
    slope, offset = trained.calibration[0]
    assert np.allclose(found[:, 0], expected.numpy(), atol=2e-4)
    assert np.allclose(trained.probabilities(found)[:, 0], torch.sigmoid(expected * slope + offset).numpy(), atol=1e-4)


def test_an_unknown_label_is_a_row_that_is_not_there() -> None:
    generator = np.random.default_rng(0)
    x_RC, known_RL = generator.normal(size=(60, 5)), (generator.random((60, 2)) < 0.4).astype(float)
    hidden_RL = known_RL.copy()
    hidden_RL[:20, 0] = np.nan
    strength_L = np.array([0.1, 0.2])
    weight_CL, bias_L = logistic(x_RC, hidden_RL, strength_L, tolerance=1e-9)
    whole_CL, whole_L = logistic(x_RC, known_RL, strength_L, tolerance=1e-9)
    scale = (x_RC**2).mean() / (x_RC[20:] ** 2).mean()  # the strength's unit is that of all rows
    part_CL, part_L = logistic(x_RC[20:], known_RL[20:], strength_L * scale, tolerance=1e-9)
    assert np.allclose(weight_CL[:, 1], whole_CL[:, 1], atol=1e-6) and np.allclose(bias_L[1], whole_L[1], atol=1e-6)
    assert np.allclose(weight_CL[:, 0], part_CL[:, 0], atol=1e-6) and np.allclose(bias_L[0], part_L[0], atol=1e-6)


def test_a_finding_of_one_class_has_its_prevalence() -> None:
    weight_CL, bias_L = logistic(np.eye(3), np.array([[0.0], [0.0], [np.nan]]), np.ones(1))
    assert (weight_CL == 0).all() and bias_L[0] == pytest.approx(np.log(0.5 / 2.5))


def test_a_strength_is_chosen_on_patients_that_are_left_out() -> None:
    groups = [f"p{row // 3}" for row in range(60)]
    fold_S = fold_of_groups(groups, 5, 0)
    assert all(len(set(fold_S[start : start + 3])) == 1 for start in range(0, 60, 3))
    assert np.bincount(fold_S).tolist() == [12] * 5
    order = np.random.default_rng(0).permutation(60)
    assert (fold_of_groups([groups[row] for row in order], 5, 0) == fold_S[order]).all()
    # A patient's studies are equal and labels are noise: only a weak fit would know them again if they were not left out.
    generator = np.random.default_rng(1)
    x_RC = np.repeat(generator.normal(size=(20, 40)), 3, 0)
    known_SL = np.repeat((generator.random((20, 1)) < 0.5).astype(float), 3, 0)
    rows = PlacedRows(x_RC=[x_RC], study_R=[np.arange(60)])
    by_patient, _ = chosen_strengths(rows, known_SL, groups, strengths=(0.01, 100.0), folds=5, seed=0)
    by_study, _ = chosen_strengths(
        rows, known_SL, [str(row) for row in range(60)], strengths=(0.01, 100.0), folds=5, seed=0
    )
    assert by_patient == [100.0] and by_study == [0.01]


def test_a_missing_view_changes_nothing_else(trained: Path) -> None:
    _, model = opened(trained)
    both = random_batch(model, [[True, True], [True, True]])
    one = replace(both, has_view_BV=torch.tensor([[True, True], [True, False]]))
    found, lacking = model(both), model(one)
    assert torch.equal(found[0], lacking[0]) and not torch.allclose(found[1], lacking[1])
    assert both.maps_BVNC is not None
    pooled = torch.from_numpy(pooled_features(both.maps_BVNC[1].numpy(), model.grid))
    own = [pooled[view] @ model.weight_KLF[view].T + model.bias_KL[view] for view in (0, 1)]
    assert torch.allclose(lacking[1], own[0], atol=1e-5)
    assert torch.allclose(found[1], (own[0] + own[1]) / 2, atol=1e-5)


def test_further_images_and_rare_places_share_the_map_before(drawn: Path, features: Path, tmp_path: Path) -> None:
    told: list[str] = []
    train_classifier(small(views=4), drawn, tmp_path / "run", features=features, notify=told.append)
    _, model = opened(tmp_path / "run")
    assert torch.equal(model.weight_KLF[1], model.weight_KLF[2]) and torch.equal(model.bias_KL[1], model.bias_KL[3])
    assert not torch.equal(model.weight_KLF[0], model.weight_KLF[1])
    three = random_batch(model, [[True, True, True]])
    maps = three.maps_BVNC
    assert maps is not None
    swapped = replace(three, maps_BVNC=maps[:, [0, 2, 1]])
    assert torch.allclose(model(three), model(swapped), atol=1e-5)


def test_calibration_and_thresholds_come_from_validation(trained: Path, drawn: Path, features: Path) -> None:
    model, _ = opened(trained)
    cohort = read_cohort(read_manifest(drawn), "val", model.config.cohort)
    logits_RL = study_logits(model, cohort.studies, features=features)
    for place in range(len(model.findings)):
        known_R = cohort.known_RL[:, place]
        is_known_R = ~np.isnan(known_R)
        expected = calibration(logits_RL[is_known_R, place], known_R[is_known_R] == 1)
        assert model.calibration[place] == pytest.approx(expected, abs=1e-6)
        probability_R = model.probabilities(logits_RL)[is_known_R, place]
        assert np.isclose(probability_R, model.thresholds[place], atol=1e-6).any()


def test_a_linear_map_learns_what_is_drawn(trained: Path, drawn: Path, features: Path) -> None:
    def infer(*given: object) -> object:
        return study_logits(*given, features=features)  # type: ignore[arg-type]

    result = score_classifiers([trained], read_manifest(drawn), split="test", resamples=50, infer=infer)  # type: ignore[arg-type]
    for one in result["findings"].values():
        assert one["scores"]["auroc"]["value"] > 0.75


def test_loose_images_have_the_probabilities_of_the_manifest(trained: Path, drawn: Path, features: Path) -> None:
    model, _ = opened(trained)
    for study in read_manifest(drawn).split("test")[:3]:
        expected = model.probabilities(study_logits(model, [study], features=features))[0]
        found = classified(model, study.images)
        assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_every_patch_has_its_share_of_a_logit(trained: Path) -> None:
    _, model = opened(trained)
    batch = random_batch(model, [[True, True]])
    assert batch.maps_BVNC is not None
    shares = class_map(model, batch, 1)
    assert shares.shape == (1, 2, 4) and (shares >= 0).all()
    maps = batch.maps_BVNC.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.classify(maps, batch.has_view_BV)[:, 1].sum(), maps)
    whole = (gradient * maps).sum() + model.bias_KL[:2, 1].mean()
    assert whole.item() == pytest.approx(model(batch)[0, 1].item(), abs=1e-4)
    assert torch.allclose(shares, (gradient * maps).sum(-1).relu().detach(), atol=1e-6)


@pytest.mark.parametrize("where", ["chosen_strengths", "save_classifier"])
def test_a_killed_fit_leaves_no_model_and_starts_again(
    where: str, trained: Path, drawn: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(linear_run, where, killed)
        train_classifier(small(), drawn, run, features=features, notify=quiet)
    assert not {"model.json", "model.safetensors", "README.md"} & {path.name for path in run.iterdir()}
    with pytest.raises(InputError, match=r"no rayscribe model"):
        load_classifier(run)
    train_classifier(small(), drawn, run, resume=True, features=features, notify=quiet)
    assert_same(tensors(run), tensors(trained))
    told: list[str] = []
    train_classifier(small(), drawn, run, resume=True, features=features, notify=told.append)
    assert told == [f"{run}: the fit is complete"]
    with pytest.raises(InputError, match="started with other settings"):
        train_classifier(small(grid=1), drawn, run, resume=True, features=features, notify=quiet)
    with pytest.raises(InputError, match="already holds a run"):
        train_classifier(small(), drawn, run, features=features, notify=quiet)


def test_settings_of_either_kind_are_read_back(tmp_path: Path) -> None:
    for config in (small(grid=3), multilabel()):
        assert classifier_from_yaml(to_yaml(config), tmp_path / "config.yaml") == config
    with pytest.raises(InputError, match=r"config.yaml: not a rayscribe configuration"):
        classifier_from_yaml("linear: [1", tmp_path / "config.yaml")
    with pytest.raises(InputError, match=r"unknown setting 'linear\.gird'"):
        classifier_from_yaml("linear: {gird: 1}", tmp_path / "config.yaml")


def test_a_linear_classifier_needs_a_frozen_encoder_and_images_as_they_are() -> None:
    with pytest.raises(InputError, match=r"--backbone.trainable: a linear classifier reads a frozen image encoder"):
        replace(small(), backbone=BackboneConfig(name="test_resnet"))
    with pytest.raises(InputError, match="cannot be augmented"):
        replace(small(), images=ImageConfig(size=64, resize=64, rotation=5))
    with pytest.raises(InputError, match=r"--linear.strengths"):
        small(strengths=())


def test_one_patient_is_too_few(drawn: Path, features: Path, tmp_path: Path) -> None:
    manifest = read_manifest(drawn)
    same = tuple(replace(study, subject="1" if study.split == "train" else "") for study in manifest.studies)
    write_manifest(tmp_path / "one.parquet", replace(manifest, studies=same))
    with pytest.raises(InputError, match="all training studies are one patient's"):
        train_classifier(small(), tmp_path / "one.parquet", tmp_path / "run", features=features, notify=quiet)


def test_its_folder_knows_its_training_images(trained: Path, drawn: Path) -> None:
    manifest = read_manifest(drawn)
    turned = {"train": "test", "test": "train", "val": "val"}
    studies = tuple(replace(study, split=turned[study.split]) for study in manifest.studies)
    with pytest.raises(InputError, match="learned from images of"):
        score_classifiers([trained], replace(manifest, studies=studies), split="test", resamples=10)


def test_one_model_a_finding_is_the_same_model(trained: Path, drawn: Path, features: Path, tmp_path: Path) -> None:
    place = Place(data=drawn, run=tmp_path / "each", features=features, notify=quiet)
    folders = train_each(small(), place)
    assert [path.name for path in folders] == ["cardiomegaly", "pleural-effusion"]
    studies = read_manifest(drawn).split("val")
    whole = study_logits(load_classifier(trained), studies, features=features)
    for place_L, folder in enumerate(folders):
        assert np.allclose(
            study_logits(load_classifier(folder), studies, features=features)[:, 0], whole[:, place_L], atol=1e-3
        )
    assert train_each(small(), replace(place, resume=True)) == folders


def test_every_verb_takes_a_linear_classifier(
    rayscribe: Callable[..., str], trained: Path, drawn: Path, features: Path, served: dict[str, Path], tmp_path: Path
) -> None:
    told = rayscribe("classify", "train", "linear", "--help")
    assert "--linear.strengths 0.03" in told and "--train.epochs" not in told
    assert "there is nothing to tune" in rayscribe("classify", "tune", "linear", code=1)
    flags = [
        "--backbone.name",
        "test_resnet",
        "--images.size",
        64,
        "--images.resize",
        64,
        "--cohort.findings",
        *FINDINGS,
    ]
    run = ["--data", drawn, "--run", tmp_path / "run", "--features", features]
    told = rayscribe("classify", "train", "linear", *run, *flags, "--seed", 3)
    assert "next: rayscribe classify test" in told and "on left-out patients" in told
    assert_same(tensors(tmp_path / "run"), tensors(trained))
    rayscribe("classify", "train", "--resume", "--run", tmp_path / "run")
    data = ["--data", drawn, "--features", features]
    assert "| Cardiomegaly |" in rayscribe("classify", "test", tmp_path / "run", *data, "--resamples", 20)
    rayscribe("classify", "label", "--model", tmp_path / "run", *data, "--out", tmp_path / "found.csv")
    image = read_manifest(drawn).split("test")[0].images[0]
    heat = ["--heatmap", tmp_path / "h.png", "--finding", FINDINGS[0]]
    found = json.loads(rayscribe("classify", "predict", image, "--model", tmp_path / "run", "--json", *heat))
    assert set(found["findings"]) == set(FINDINGS) and Image.open(tmp_path / "h.png").size == (512, 548)
    rayscribe("export", "model", tmp_path / "run", "--out", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")  # a folder needs no other
    classifier = rs.load(tmp_path / "copy")
    assert [one.name for one in classifier.draft(image).findings] == list(FINDINGS)
    beside = rs.load(served["baseline"]).draft(image, classifier=classifier)
    assert beside.findings == classifier.draft(image).findings


def test_the_interface_trains_it(drawn: Path, features: Path, tmp_path: Path) -> None:
    assert "linear" in rs.list_recipes()
    changes = {"backbone.name": "test_resnet", "images.size": 64, "linear.grid": 1, "cohort.findings": FINDINGS}
    with pytest.raises(InputError, match=r"linear\.gird: no such setting of linear; did you mean linear\.grid"):
        rs.recipe("linear", {"linear.gird": 1})
    model = rs.train(rs.recipe("linear", changes), data=drawn, run=tmp_path / "run", features=features)
    assert model.kind == "classifier"
    assert model.draft(read_manifest(drawn).split("test")[0].images[0]).text == ""
