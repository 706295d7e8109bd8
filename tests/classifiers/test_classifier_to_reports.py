"""What a classifier finds reaches the reports: in the prompt of a diagnosing model, and in a floor of stock sentences."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import small_config, small_model
from rayscribe.classifiers.config import ClassifyConfig, CohortConfig
from rayscribe.classifiers.run import train_classifier
from rayscribe.config import TrainConfig
from rayscribe.data.conditions import given_states
from rayscribe.data.manifest import read_manifest
from rayscribe.errors import InputError
from rayscribe.evaluation.image_floors import filled_templates
from rayscribe.labels import CONDITIONS, NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNLABELLED
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.study import GIVEN_STATES, Batch
from rayscribe.training.run import train_method


def table(path: Path, rows: dict[str, dict[str, str]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", *OBSERVATIONS], restval="")
        writer.writeheader()
        writer.writerows({"id": study, **row} for study, row in rows.items())
    return path


def test_a_blank_leaves_the_models_own_state_and_the_rest_is_given(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", {"a": {"Edema": "1", "Fracture": "0"}, "b": {}})
    states = given_states(path, ["b", "a"])
    edema, fracture = CONDITIONS.index("Edema"), CONDITIONS.index("Fracture")
    assert states["a"][edema] == POSITIVE and states["a"][fracture] == NEGATIVE
    assert (np.delete(states["a"], [edema, fracture]) == UNLABELLED).all() and (states["b"] == UNLABELLED).all()
    with pytest.raises(InputError, match="1 of 2 studies have no findings"):
        given_states(path, ["a", "c"])
    model = small_model("promptmrg")
    batch = Batch(
        rows_B=torch.arange(2),
        has_view_BV=torch.ones(2, 1, dtype=torch.bool),
        tokens_BT=torch.tensor([[1, 4, 2], [1, 5, 2]]),
        has_token_BT=torch.ones(2, 3, dtype=torch.bool),
        pixels_BVHW=torch.randint(0, 256, (2, 1, 64, 64), generator=torch.Generator().manual_seed(0)).byte(),
    )
    given = torch.from_numpy(np.stack([states["a"], states["b"]])).long()
    own, told = (model.encode(one).prompt_BO for one in (batch, replace(batch, extras={GIVEN_STATES: given})))
    assert own is not None and told is not None
    assert torch.equal(told[1], own[1]) and told[0, edema] == POSITIVE and told[0, fracture] == NEGATIVE
    kept = [place for place in range(len(CONDITIONS)) if place not in (edema, fracture)]
    assert torch.equal(told[0, kept], own[0, kept])


@pytest.mark.slow
def test_given_findings_change_what_is_written(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    config = small_config("promptmrg", epochs=6)
    train_method(config, world, tmp_path / "run")
    studies = read_manifest(world).split("test")
    sick = table(tmp_path / "sick.csv", {s.id: {"Pleural Effusion": "1", "No Finding": "0"} for s in studies})
    well = table(tmp_path / "well.csv", {s.id: {"Pleural Effusion": "0", "No Finding": "1"} for s in studies})
    command = ["generate", "--model", tmp_path / "run", "--data", world, "--decoding.beams", 1]
    texts = []
    for name, states in (("sick", sick), ("well", well)):
        rayscribe(*command, "--out", tmp_path / f"{name}.jsonl", "--states", states)
        texts.append([json.loads(line)["report"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()])
        assert json.loads((tmp_path / f"{name}.jsonl.meta.json").read_text())["states"].startswith(f"{name}.csv")
    assert texts[0] != texts[1]
    message = rayscribe(*command, "--out", tmp_path / "sick.jsonl", "--states", well, code=1)
    assert "holds reports of another model" in message
    train_method(small_config("r2gen", epochs=1), world, tmp_path / "plain")
    plain = [
        "generate",
        "--model",
        tmp_path / "plain",
        "--data",
        world,
        "--out",
        tmp_path / "p.jsonl",
        "--states",
        sick,
    ]
    assert "does not read findings" in rayscribe(*plain, code=1)
    cohort = CohortConfig(findings=("No Finding",))
    classifier = ClassifyConfig(
        cohort=cohort,
        images=config.images,
        backbone=config.backbone,
        train=TrainConfig(epochs=1, workers=0, metric="auroc", bucket=False),
    )
    train_classifier(classifier, world, tmp_path / "classifier", notify=lambda text: None)
    image = studies[0].images[0]
    found = json.loads(rayscribe("classify", "predict", image, "--model", tmp_path / "classifier", "--json"))
    draft = ["predict", image, "--json", "--decoding.beams", 1, "--classifier", tmp_path / "classifier", "--model"]
    told = json.loads(rayscribe(*draft, tmp_path / "run"))["diagnosis"]
    assert told["No Finding"] == ("positive" if found["present"] else "negative") and len(told) == 14
    assert "does not read findings" in rayscribe(*draft, tmp_path / "plain", code=1)


def test_a_perfect_classifier_fills_templates_that_say_its_findings() -> None:
    training = ["the heart is enlarged . no effusion .", "there is a pleural effusion .", "normal chest ."] * 3
    labeler = RuleLabeler()
    found = np.zeros((2, len(OBSERVATIONS)), bool)
    found[0, OBSERVATIONS.index("Cardiomegaly")] = found[1, OBSERVATIONS.index("Pleural Effusion")] = True
    before = found.copy()
    reports = filled_templates(found, training, constant="no effusion . normal chest .", labeler=labeler)
    labels = labeler.label(reports)
    assert labels[0, OBSERVATIONS.index("Cardiomegaly")] == POSITIVE
    assert labels[1, OBSERVATIONS.index("Pleural Effusion")] == POSITIVE and "no effusion" not in reports[1]
    assert (found == before).all() and labels[0, OBSERVATIONS.index("Pleural Effusion")] in (NEGATIVE, NOT_MENTIONED)


@pytest.mark.slow
def test_evaluate_scores_a_classifiers_template_beside_the_other_floors(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    studies = read_manifest(world).split("test")
    labels = RuleLabeler().label([study.findings for study in studies])
    rows = {
        study.id: {name: "1" if state == POSITIVE else "0" for name, state in zip(OBSERVATIONS, row)}
        for study, row in zip(studies, labels)
    }
    predictions = tmp_path / "p.jsonl"
    predictions.write_text("".join(json.dumps({"id": s.id, "report": "normal chest ."}) + "\n" for s in studies))
    flags = ["--data", world, "--no-image-floors", "--json", tmp_path / "s.json"]
    told = rayscribe("evaluate", predictions, *flags, "--template-findings", table(tmp_path / "t.csv", rows))
    assert "classifier" in told
    floors = json.loads((tmp_path / "s.json").read_text())["floors"]
    name = "ce_f1_micro_14_uncertain_negative"
    assert floors["classifier_template"]["scores"][name]["value"] > floors["constant"]["scores"][name]["value"]
    del rows[studies[0].id]
    message = rayscribe("evaluate", predictions, *flags, "--template-findings", table(tmp_path / "u.csv", rows), code=1)
    assert "--template-findings: 1 studies have no findings" in message
