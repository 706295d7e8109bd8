"""Classifiers: sizes of the published networks, unknown labels, resumed = unbroken, from the command line to a heat map."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apart import call_by_two_processes
from conftest import small_config
from rayscribe.classifiers.cohort import as_in_training, cohort_digest, read_cohort, trainable_findings
from rayscribe.classifiers.config import ClassifyConfig, CohortConfig, binary, multilabel
from rayscribe.classifiers.folder import build_classifier, load_classifier
from rayscribe.classifiers.measured import image_set, logits_of
from rayscribe.classifiers.run import train_classifier, train_each
from rayscribe.classifiers.scores import score_classifiers, study_logits
from rayscribe.classifiers.task import ClassifierTask, finding_loss_B
from rayscribe.cli.classify import _text
from rayscribe.config import BackboneConfig, ImageConfig, TrainConfig
from rayscribe.data.features import cached_features
from rayscribe.data.images import evaluation_square, training_square
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import check
from rayscribe.errors import InputError
from rayscribe.inference.images import image_batch, read_image_study
from rayscribe.labels import OBSERVATIONS
from rayscribe.models import backbones
from rayscribe.models.backbones import Backbone
from rayscribe.models.classifier import class_map
from rayscribe.models.folder import read_weights
from rayscribe.settings import settings_from_yaml, to_yaml
from rayscribe.study import Batch, Study
from rayscribe.training.learner import Place
from rayscribe.training.run import train_method
from training_runs import assert_same, call_until_killed, logged, weights

FINDINGS = ("Cardiomegaly", "Pleural Effusion")


def small(**changes: object) -> ClassifyConfig:
    """A network of a few thousand weights that sees 64-pixel images."""
    config = ClassifyConfig(
        cohort=CohortConfig(findings=FINDINGS),
        images=ImageConfig(size=64, resize=68, rotation=5),
        backbone=BackboneConfig(name="test_resnet"),
        train=TrainConfig(
            epochs=2, batch_size=16, workers=0, metric="auroc", lr=3e-3, lr_backbone=3e-3, clip_value=None, bucket=False
        ),
        dropout=0.1,
        seed=3,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 drawn studies, so that every split has some with each finding and some without."""
    folder = tmp_path_factory.mktemp("classes")
    write_phantom(folder / "phantom", PhantomConfig(studies=240, size=64, seed=5))
    checked = check(read_iu_xray(folder / "phantom"), source={"source": "phantom"}, missing_is_fault=True)
    write_manifest(folder / "world.parquet", checked.manifest)
    return folder / "world.parquet"


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("classifier") / "run"
    train_classifier(small(), world, run, notify=lambda text: None)
    return run


def studies_with(problems: list[tuple[str, ...]], split: str = "train", **fields: object) -> list[Study]:
    return [
        Study(id=f"{split}{n}", images=(Path("a.png"),), sha256=("0",), split=split, problems=codes, **fields)  # type: ignore[arg-type]
        for n, codes in enumerate(problems)
    ]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vgg16", 134_264_641), ("resnet18", 11_177_025), ("resnet50", 23_510_081), ("densenet121", 6_954_881)],
)
def test_networks_have_the_sizes_of_the_published_ones_with_one_logit(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build_classifier(replace(binary(), backbone=BackboneConfig(name=name)), 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_unknown_labels_teach_nothing_and_known_ones_count_alike_for_every_study() -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [1.0, 1.0]], requires_grad=True)
    known = torch.tensor([[1.0, torch.nan], [0.0, 1.0], [torch.nan, torch.nan]])
    loss_B = finding_loss_B(logits, known)
    loss_B.sum().backward()
    assert logits.grad is not None and logits.grad[0, 1] == 0 and (logits.grad[2] == 0).all()
    single = torch.nn.functional.binary_cross_entropy_with_logits
    assert loss_B[0].item() == pytest.approx(single(logits[0, 0], torch.tensor(1.0)).item())
    assert loss_B[1].item() == pytest.approx(single(logits[1], known[1]).item())
    assert loss_B[2] == 0


def test_balanced_weights_are_the_number_of_negatives_for_a_positive() -> None:
    known = torch.tensor([[1.0], [0.0], [0.0], [0.0], [torch.nan]])
    task = ClassifierTask(build_classifier(small(), 1), known, balanced=True)
    assert task.positive_weight_L.tolist() == [3.0]
    assert ClassifierTask(build_classifier(small(), 1), known, balanced=False).positive_weight_L.tolist() == [1.0]


def test_the_published_recipe_is_the_systems_without_its_flip() -> None:
    config = binary()
    assert (config.train.lr, config.train.lr_backbone, config.train.weight_decay) == (1e-5, 1e-5, 1e-4)
    assert (config.train.epochs, config.train.patience, config.train.batch_size) == (20, 3, 32)
    assert (config.train.schedule, config.train.gamma, config.train.plateau_epochs) == ("plateau", 0.1, 2)
    assert config.dropout == 0.5 and config.images.rotation == 10 and not config.images.flip and not config.images.crop
    assert config.backbone.name == "resnet18" and config.backbone.mean == config.backbone.std == (0.5, 0.5, 0.5)
    rules = config.cohort
    assert (rules.views, rules.one_per_subject, rules.uncertain, rules.blank) == ("pa", True, "drop", "drop")


def test_rules_of_the_cohort_choose_views_patients_and_labels(tmp_path: Path) -> None:
    two = {"images": (Path("a.png"), Path("b.png")), "sha256": ("0", "1")}
    studies = [
        Study(id="s1", split="train", subject="p1", views=("lateral", "pa"), problems=("pneumonia",), **two),
        Study(id="s2", split="train", subject="p1", views=("pa", "lateral"), problems=("normal",), **two),
        Study(id="s3", split="train", subject="p2", views=("ap", "lateral"), problems=(), **two),
        Study(id="s4", split="train", subject="p3", views=("pa", "pa"), problems=("pneumonia",), **two),
    ]
    manifest = Manifest(studies=tuple(studies), provenance={})
    cohort = read_cohort(manifest, "train", CohortConfig(labels="codes", views="pa", one_per_subject=True))
    assert [study.id for study in cohort.studies] == ["s1", "s4"]
    assert [study.images for study in cohort.studies] == [(Path("b.png"),), (Path("a.png"),)]
    assert cohort.left_out == {"no image of these views": 1, "a further study of a patient": 1}
    for uncertain in ("drop", "zero", "one"):  # s3 has no code: nobody knows, whatever a doubt is taken for
        everyone = read_cohort(manifest, "train", CohortConfig(labels="codes", uncertain=uncertain))  # type: ignore[arg-type]
        assert everyone.counts("pneumonia") == (2, 1) and everyone.left_out == {"no row in the labels": 1}
    table = tmp_path / "labels.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *OBSERVATIONS])
        for study, state in zip(studies, ("1", "0", "-1", "")):
            writer.writerow([study.id, *([state] * 14)])
    for uncertain, blank, counts in (("drop", "drop", (1, 1)), ("zero", "negative", (1, 3)), ("one", "drop", (2, 1))):
        rules = CohortConfig(labels=str(table), findings=("edema",), uncertain=uncertain, blank=blank)  # type: ignore[arg-type]
        assert read_cohort(manifest, "train", rules).counts("Edema") == counts
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("s2")))
    partly = read_cohort(manifest, "train", CohortConfig(labels=str(table), findings=("edema",)))
    assert partly.left_out["no row in the labels"] == 1 and len(partly.studies) == 2  # s3 is uncertain
    table.write_text(lines[0] + lines[1].replace("s1", "other"))
    with pytest.raises(InputError, match="has no labels for split train"):
        read_cohort(manifest, "train", CohortConfig(labels=str(table)))


def test_a_finding_with_one_class_in_a_split_is_skipped_and_said_to_be(tmp_path: Path) -> None:
    studies = studies_with([("edema", "gout"), ("edema", "mass"), ("mass", "gout"), ("normal",)])
    studies += studies_with([("edema",), ("edema",), ("normal",), ("normal", "mass")], split="val")
    write_manifest(tmp_path / "m.parquet", Manifest(studies=tuple(studies), provenance={}))
    manifest = read_manifest(tmp_path / "m.parquet")
    told: list[str] = []
    rules = CohortConfig(labels="codes")
    parts = [read_cohort(manifest, split, rules) for split in ("train", "val")]
    assert trainable_findings(parts[0], parts[1], told.append) == ("edema",)
    assert "skipped gout: val has 0 with and 4 without" in told  # a code of one split alone
    assert any(line.startswith("skipped mass: val has 1 with and 3 without") for line in told)
    with pytest.raises(InputError, match="no finding has studies with and without it"):
        trainable_findings(parts[0].of(("mass",)), parts[1].of(("mass",)), told.append)
    with pytest.raises(InputError, match="no labels for sprue; there are edema, gout, mass, normal"):
        read_cohort(manifest, "train", CohortConfig(labels="codes", findings=("sprue",)))


def test_saved_and_loaded_is_before_and_the_best_epoch_is_kept(trained: Path, world: Path) -> None:
    model = load_classifier(trained)
    studies = read_manifest(world).split("val")
    logits = study_logits(model, studies)
    epochs = logged(trained, "validation.csv")
    best = max(range(len(epochs)), key=lambda epoch: float(epochs[epoch]["auroc"]))
    assert model.training["epoch"] == best + 1
    assert np.array_equal(logits, study_logits(load_classifier(trained), studies))
    assert set(json.loads((trained / "model.json").read_text())) >= {"findings", "thresholds", "calibration", "data"}
    card = (trained / "README.md").read_text()
    assert "ot a medical device" in card and "Pleural Effusion" in card


@pytest.mark.slow
def test_killed_and_resumed_is_the_unbroken_run_with_rates_that_wait_on_a_plateau(world: Path, tmp_path: Path) -> None:
    config = small()
    train = replace(config.train, epochs=3, schedule="plateau", plateau_epochs=0, gamma=0.5, checkpoint_minutes=0.0)
    config = replace(config, train=train)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_classifier(config, world, whole, notify=lambda text: None)
    steps = len(logged(whole))
    read_again = settings_from_yaml(ClassifyConfig, to_yaml(config), "config")
    call_until_killed(tmp_path, steps - 2, train_classifier, read_again, world, broken)
    train_classifier(config, world, broken, resume=True, notify=lambda text: None)
    assert_same(weights(whole), weights(broken))
    # Tensors and notes, not bytes: safetensors writes its notes in any order.
    (first, noted), (second, noted_again) = (read_weights(run / "model.safetensors") for run in (whole, broken))
    assert_same(first, second)
    assert noted == noted_again


@pytest.mark.slow
def test_rates_fall_when_the_validation_loss_stays(world: Path, tmp_path: Path) -> None:
    config = small()
    train = replace(config.train, epochs=6, lr=3.0, lr_backbone=3.0, schedule="plateau", plateau_epochs=0, gamma=0.1)
    train_classifier(replace(config, train=train), world, tmp_path / "run", notify=lambda text: None)
    losses = [float(row["loss"]) for row in logged(tmp_path / "run", "validation.csv")]
    rates = {int(row["epoch"]): float(row["lr"]) for row in logged(tmp_path / "run")}
    lowest, expected = float("inf"), 3.0
    for epoch, loss in enumerate(losses):
        assert rates[epoch] == pytest.approx(expected)
        if loss < lowest * (1 - 1e-4):
            lowest = loss
        else:
            expected *= 0.1
    assert expected < 3.0  # a rate of 3 is too high to fall every epoch, so the test means something


def test_a_frozen_backbone_classifies_cached_features_as_it_does_pixels(world: Path, tmp_path: Path) -> None:
    config = small(images=ImageConfig(size=64, resize=68), backbone=BackboneConfig(name="test_resnet", trainable=False))
    torch.manual_seed(0)
    model = build_classifier(config, 2).eval()
    studies = read_manifest(world).split("val")
    cache = cached_features(studies, model.backbone, config.images, folder=tmp_path, device=torch.device("cpu"))
    from_pixels = logits_of(model, image_set(studies, config.images, None))
    assert np.allclose(from_pixels, logits_of(model, image_set(studies, config.images, cache)), atol=1e-6)
    with pytest.raises(InputError, match="reads cached features"):
        replace(config, images=ImageConfig(size=64, resize=68, rotation=5))


def test_a_classifier_is_a_backbone_for_report_models(trained: Path) -> None:
    own = load_classifier(trained).model.backbone
    taken = Backbone(BackboneConfig(name="test_resnet", weights=str(trained), trainable=False))
    assert taken.fingerprint() == own.fingerprint()
    with pytest.raises(InputError, match="of another architecture"):
        Backbone(BackboneConfig(name="test_vit", weights=str(trained)))
    with pytest.raises(InputError, match="no such weights file or model folder"):
        Backbone(BackboneConfig(name="test_resnet", weights=str(trained / "nothing")))


def test_heat_maps_are_the_weighted_features_for_a_linear_head(trained: Path) -> None:
    """With a mean and one layer, Grad-CAM is CAM: each patch's share of the logit, where it is positive."""
    model = load_classifier(trained).model
    pixels = torch.randint(0, 256, (1, 2, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    batch = Batch(
        rows_B=torch.zeros(1, dtype=torch.long),
        has_view_BV=torch.ones(1, 2, dtype=torch.bool),
        tokens_BT=torch.zeros(1, 1, dtype=torch.long),
        has_token_BT=torch.zeros(1, 1, dtype=torch.bool),
        pixels_BVHW=pixels,
    )
    maps_BVNC = model.maps(batch).detach()
    expected = (maps_BVNC @ model.head.weight[1] / maps_BVNC.shape[2] / 2).relu()
    assert torch.allclose(class_map(model, batch, 1), expected, atol=1e-6)


def test_augmentation_turns_and_stretches_only_in_training() -> None:
    image = np.zeros((80, 100), np.uint8)
    image[30:50, 10:90] = 200
    still = ImageConfig(size=64, resize=64, crop=False)
    turned = replace(still, rotation=20.0)
    same = training_square(image, still, np.random.default_rng(0))
    assert np.array_equal(same, evaluation_square(image, still))
    first, again, other = (training_square(image, turned, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and first.shape == (64, 64)
    assert np.array_equal(evaluation_square(image, turned), same)


def test_scores_carry_protocol_intervals_and_floors(trained: Path, world: Path) -> None:
    result = score_classifiers([trained], read_manifest(world), split="test", resamples=50)
    for one in result["findings"].values():
        assert one["scores"]["auroc"]["low"] <= one["scores"]["auroc"]["value"] <= one["scores"]["auroc"]["high"]
        assert one["floors"]["auroc"] == 0.5 and 0 < one["prevalence"] < 1
    protocol = next(iter(result["protocol"].values()))
    assert protocol["threshold"] == "best F1 on validation" and protocol["labels"] and protocol["weights_sha256"]
    assert "patients" in result["intervals"] and "ot a medical device" in result["disclaimer"]
    with pytest.raises(InputError, match="a second classifier for"):
        score_classifiers([trained, trained], read_manifest(world), split="test", resamples=10)


@pytest.mark.slow
def test_from_the_command_line_to_a_heat_map(
    rayscribe: Callable[..., str], world: Path, trained: Path, tmp_path: Path
) -> None:
    image = read_manifest(world).split("test")[0].images[0]
    told = rayscribe("classify", "test", trained, "--data", world, "--json", tmp_path / "s.json", "--resamples", 20)
    assert "| Cardiomegaly |" in told and "ot a medical device" in told
    assert json.loads((tmp_path / "s.json").read_text())["split"] == "test"
    rayscribe("classify", "test", trained, "--data", world, "--plots", tmp_path / "plots", "--resamples", 20)
    assert {path.name for path in (tmp_path / "plots").iterdir()} >= {
        "roc.svg",
        "precision_recall.png",
        "calibration.svg",
    }
    found = json.loads(
        rayscribe("classify", "predict", image, "--model", trained, "--json", "--heatmap", tmp_path / "h.png")
    )
    assert set(found["findings"]) == set(FINDINGS) and all(0 <= p <= 1 for p in found["findings"].values())
    assert Image.open(tmp_path / "h.png").size == (512, 548)
    rayscribe("classify", "label", "--model", trained, "--data", world, "--out", tmp_path / "found.csv")
    with open(tmp_path / "found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["Cardiomegaly"] for row in rows} <= {"0", "1"} and {row["Edema"] for row in rows} == {""}
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:300])
    assert "broken.png: damaged" in rayscribe("classify", "predict", broken, "--model", trained, code=1)
    assert "classifier knows" in rayscribe(
        "classify", "predict", image, "--model", trained, "--heatmap", tmp_path / "x.png", "--finding", "gout", code=1
    )
    assert "name at least one image" in rayscribe("classify", "predict", "--model", trained, code=1)
    assert "needed here" in rayscribe("predict", image, "--model", trained, code=1)


@pytest.mark.slow
def test_one_model_a_finding_and_a_second_start_goes_on(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    flags = ["--backbone.name", "test_resnet", "--images.size", 64, "--images.resize", 64, "--train.epochs", 1]
    flags += [
        "--cohort.views",
        "all",
        "--cohort.blank",
        "negative",
        "--train.workers",
        0,
        "--cohort.findings",
        *FINDINGS,
    ]
    command = ["classify", "train", "binary", "--data", world, "--run", tmp_path / "run", *flags]
    rayscribe(*command)
    folders = sorted(path.name for path in (tmp_path / "run").iterdir() if path.is_dir())
    assert folders == ["cardiomegaly", "pleural-effusion"]
    before = (tmp_path / "run" / "cardiomegaly" / "model.safetensors").read_bytes()
    for named in ((), ("--data", world)):  # the folder knows that it holds a run a finding
        rayscribe("classify", "train", "--resume", "--run", tmp_path / "run", *named)
        assert (tmp_path / "run" / "cardiomegaly" / "model.safetensors").read_bytes() == before
        assert not (tmp_path / "run" / "model.safetensors").exists()
    assert "already holds a run" in rayscribe(*command, code=1)
    models = [tmp_path / "run" / name for name in folders]
    told = rayscribe("classify", "test", *models, "--data", world, "--resamples", 20)
    assert "| Cardiomegaly |" in told and "| Pleural Effusion |" in told


@pytest.mark.slow
def test_a_search_is_kept_in_sqlite_and_goes_on(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    flags = ["--backbone.name", "test_resnet", "--images.size", 64, "--images.resize", 68, "--train.epochs", 1]
    flags += ["--train.workers", 0, "--cohort.findings", *FINDINGS]
    command = ["classify", "tune", "multilabel", "--data", world, "--run", tmp_path / "s", *flags]
    rayscribe(*command, "--trials", 2)
    assert (tmp_path / "s" / "study.db").stat().st_size > 0
    import optuna

    storage = f"sqlite:///{tmp_path / 's' / 'study.db'}"
    study = optuna.load_study(study_name="rayscribe", storage=storage)
    killed = study.ask()  # a process that died in its third trial
    killed.suggest_float("lr", 1e-5, 1e-3, log=True)
    killed.set_user_attr("folder", killed.number)
    told = rayscribe(*command, "--trials", 3)
    assert "trial-2 was interrupted and will resume" in told and "best: " in told
    trials = optuna.load_study(study_name="rayscribe", storage=storage).trials
    finished = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(finished) == 3 and finished[-1].params["lr"] == killed.params["lr"]
    assert sorted(path.name for path in (tmp_path / "s").glob("trial-*")) == ["trial-0", "trial-1", "trial-2"]
    assert "started with other settings" in rayscribe(*command, "--trials", 3, "--dropout", 0.3, code=1)


@pytest.mark.slow
def test_a_small_network_learns_what_is_drawn(world: Path, tmp_path: Path) -> None:
    config = small()
    config = replace(config, train=replace(config.train, epochs=12, metric="loss"))
    train_classifier(config, world, tmp_path / "run", notify=lambda text: None)
    losses = [float(row["loss"]) for row in logged(tmp_path / "run")]
    assert np.mean(losses[-6:]) < 0.75 * np.mean(losses[:6])


def test_loose_images_are_read_as_the_data_set_reads_them(world: Path, trained: Path) -> None:
    model = load_classifier(trained)
    study = read_manifest(world).split("test")[0]
    batch = image_batch([read_image_study(study.images, at_least=64, source="")], model.config.images)
    with torch.inference_mode():
        found = model.model(batch).double().numpy()
    assert np.allclose(found, study_logits(model, [study]), atol=1e-6)


def test_multilabel_is_selected_by_auroc_and_reports_cannot_be() -> None:
    assert multilabel().train.metric == "auroc"
    with pytest.raises(InputError, match="reports have no ROC curve"):
        small_config(metric="auroc")
    with pytest.raises(InputError, match="selected by loss or auroc"):
        replace(multilabel(), train=TrainConfig())


def search_flags(world: Path, run: Path) -> list[object]:
    flags = ["--backbone.name", "test_resnet", "--images.size", 64, "--images.resize", 68, "--train.epochs", 1]
    flags += ["--train.workers", 0, "--cohort.findings", *FINDINGS]
    return ["classify", "tune", "multilabel", "--data", world, "--run", run, *flags]


@pytest.mark.slow
def test_a_search_refuses_other_data_a_damaged_study_and_no_trials(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    command = search_flags(world, tmp_path / "s")
    assert "--trials" in rayscribe(*command, "--trials", 0, code=1)
    assert not (tmp_path / "s").exists()
    rayscribe(*command, "--trials", 1)
    manifest = read_manifest(world)
    fewer = tmp_path / "fewer.parquet"
    write_manifest(fewer, replace(manifest, studies=manifest.studies[:-1]))
    told = rayscribe(*search_flags(fewer, tmp_path / "s"), "--trials", 2, code=1)
    assert "on other data" in told and not (tmp_path / "s" / "trial-1").exists()
    (tmp_path / "s" / "study.db").write_bytes(b"no database" * 500)
    assert "study.db: damaged" in rayscribe(*command, "--trials", 2, code=1)


@pytest.mark.slow
def test_a_trial_that_was_interrupted_by_hand_goes_on_in_its_folder(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna")
    from rayscribe.classifiers import tune

    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    told: list[str] = []
    config = small(train=replace(small().train, epochs=1))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tune, "train_classifier", interrupted)
        tune.search(config, world, tmp_path / "s", trials=1, space=tune.SearchSpace(), notify=told.append)
    best = tune.search(config, world, tmp_path / "s", trials=1, space=tune.SearchSpace(), notify=told.append)
    assert best.name == "trial-0" and "trial-0 was interrupted and will resume" in told
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR  # a warning of Optuna's is a traceback


def test_a_run_is_not_resumed_with_other_codes_or_views() -> None:
    studies = studies_with([("Edema",), ("normal",)], views=("pa",), subject="1")
    before = cohort_digest(Manifest(studies=tuple(studies), provenance={}), CohortConfig(labels="codes"))
    for change in ({"problems": ("normal",)}, {"views": ("ap",)}, {"subject": "2"}):
        other = (replace(studies[0], **change), studies[1])  # type: ignore[arg-type]
        assert cohort_digest(Manifest(studies=other, provenance={}), CohortConfig(labels="codes")) != before


def test_a_model_a_finding_needs_a_folder_each_and_finished_ones_hold_to_their_settings(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    codes = [("a/b", "a b"), ("a/b", "a b"), ("normal",), ("normal",)]
    studies = [
        replace(study, id=f"{study.split}{study.id}") for s in ("train", "val") for study in studies_with(codes, s)
    ]
    write_manifest(tmp_path / "codes.parquet", Manifest(studies=tuple(studies), provenance={}))
    config = small(cohort=CohortConfig(labels="codes"))
    with pytest.raises(InputError, match="would share a run folder"):
        train_each(config, Place(data=tmp_path / "codes.parquet", run=tmp_path / "codes"))
    config = small(cohort=CohortConfig(findings=FINDINGS[:1]), train=replace(small().train, epochs=1))
    place = Place(data=world, run=tmp_path / "run")
    train_each(config, place)
    with pytest.raises(InputError, match="started with other settings"):
        train_each(replace(config, dropout=0.2), replace(place, resume=True))


def test_a_table_of_findings_comes_from_the_views_of_the_training() -> None:
    study = Study(id="1", images=(Path("a"), Path("b")), sha256=("0", "1"), split="test", views=("lateral", "pa"))
    side = replace(study, id="2", views=("lateral", "lateral"))
    (seen, as_it_is), others = as_in_training([study, side], CohortConfig(views="pa"))
    assert (seen.images, seen.sha256, seen.views) == ((Path("b"),), ("1",), ("pa",))
    assert as_it_is == side and others == 1
    assert as_in_training([study, side], CohortConfig()) == ([study, side], 0)


def test_weights_of_another_epoch_than_the_thresholds_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "cut")
    about = json.loads((trained / "model.json").read_text())
    about["thresholds"][0] /= 2  # model.json of the next epoch; the process died before the weights
    (tmp_path / "cut" / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="from different epochs"):
        load_classifier(tmp_path / "cut")


def test_no_resamples_and_a_folder_as_output_are_messages(
    rayscribe: Callable[..., str], trained: Path, world: Path, tmp_path: Path
) -> None:
    assert "--resamples" in rayscribe("classify", "test", trained, "--data", world, "--resamples", 0, code=1)
    told = rayscribe("classify", "label", "--model", trained, "--data", world, "--out", tmp_path, code=1)
    assert "is a folder" in told


@pytest.mark.slow
def test_nobody_scores_a_model_on_images_that_it_learned_from(
    rayscribe: Callable[..., str], world: Path, trained: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(world)
    turned = {"train": "test", "test": "train", "val": "val"}
    leaky = tmp_path / "leaky.parquet"
    studies = tuple(replace(study, split=turned[study.split]) for study in manifest.studies)
    write_manifest(leaky, replace(manifest, studies=studies))
    count = manifest.counts()["train"]
    with pytest.raises(InputError, match=f"learned from images of {count} studies of test"):
        score_classifiers([trained], read_manifest(leaky), split="test", resamples=10)
    told = rayscribe("classify", "label", "--model", trained, "--data", leaky, "--out", tmp_path / "x.csv", code=1)
    assert "a score on them would mean nothing" in told and not (tmp_path / "x.csv").exists()
    config = small_config("baseline", epochs=1)
    config = replace(config, backbone=replace(config.backbone, weights=str(trained), trainable=False))
    with pytest.raises(InputError, match="studies of val and test"):
        train_method(config, leaky, tmp_path / "leaky", features=tmp_path / "features")
    train_method(config, world, tmp_path / "honest", features=tmp_path / "features")
    # What stands on it has learned from the same images, and passes that on.
    further = replace(config, backbone=replace(config.backbone, weights=str(tmp_path / "honest")))
    with pytest.raises(InputError, match="studies of val and test"):
        train_method(further, leaky, tmp_path / "further", features=tmp_path / "features")


def test_looks_at_the_test_split_are_noted_and_undefined_scores_are_null(
    rayscribe: Callable[..., str], world: Path, trained: Path, tmp_path: Path
) -> None:
    before = (trained / "test-log.jsonl").read_text().count("\n") if (trained / "test-log.jsonl").exists() else 0
    rayscribe("classify", "test", trained, "--data", world, "--json", tmp_path / "s.json", "--resamples", 5)
    rayscribe("classify", "label", "--model", trained, "--data", world, "--out", tmp_path / "l.csv")
    lines = (trained / "test-log.jsonl").read_text().splitlines()
    assert len(lines) == before + 2 and json.loads(lines[-1])["out"] == "l.csv"
    assert "NaN" not in (tmp_path / "s.json").read_text()
    assert json.loads(_text({"a": [float("nan"), 1.0]})) == {"a": [None, 1.0]}


@pytest.mark.slow
def test_two_processes_train_the_classifier_that_one_does(world: Path, tmp_path: Path) -> None:
    config = small(
        images=ImageConfig(size=64, resize=68),
        backbone=BackboneConfig(name="test_resnet", trainable=False),
        dropout=0.0,
    )
    features = tmp_path / "features"
    train_classifier(config, world, tmp_path / "one", features=features, notify=lambda text: None)
    read_again = settings_from_yaml(ClassifyConfig, to_yaml(config), "config")
    call_by_two_processes(tmp_path, train_classifier, read_again, world, tmp_path / "two", features=features)
    for name, tensor in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=1e-4)
    first, second = (logged(tmp_path / name, "validation.csv") for name in ("one", "two"))
    assert len(first) == len(second) == 2
    for one, two in zip(first, second, strict=True):
        assert float(two["auroc"]) == pytest.approx(float(one["auroc"]), abs=0.02)
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-3)


def test_pretrained_weights_keep_their_norm_unless_a_recipe_means_another(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.setattr(backbones, "pretrained_net", lambda name: timm.create_model(name, num_classes=0))
    published = replace(binary().backbone, weights="pretrained")
    assert Backbone(published).shift_C11[0].item() == pytest.approx(-1.0)  # (x - .5) / .5 of black
    with pytest.raises(InputError, match=r"was trained with --backbone\.mean"):
        Backbone(replace(published, checks_norm=True))
