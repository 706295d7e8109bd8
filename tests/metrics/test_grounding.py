from __future__ import annotations

import numpy as np
import pytest

from rayscribe.metrics.alarms import alarms
from rayscribe.metrics.diversity import against_references, diversity
from rayscribe.metrics.floors import always_normal, most_frequent, random_reports, shuffled
from rayscribe.metrics.grounding import finding_grounding, text_grounding
from rayscribe.metrics.labeler import RuleLabeler

REFERENCES = [f"finding{number % 40} in zone{number % 7} . the heart is normal ." for number in range(120)]


def found(reports: list[str], below: list[str] | None = None) -> list[str]:
    diverse = diversity(reports) | against_references(reports, REFERENCES)
    grounding = {"text_similarity": text_grounding(reports, REFERENCES)}
    return alarms(len(reports), diverse, grounding, below or [])


def test_reports_of_their_own_image_raise_no_alarm() -> None:
    noisy = [text if number % 3 else REFERENCES[number - 1] for number, text in enumerate(REFERENCES)]
    assert found(noisy) == []


def test_reports_of_other_images_are_not_grounded() -> None:
    (alarm,) = found(shuffled(REFERENCES, seed=2))
    assert alarm.startswith("NOT GROUNDED")


def test_one_report_for_everybody_is_a_collapse_and_not_grounded() -> None:
    same = [REFERENCES[0]] * 120
    assert text_grounding(same, REFERENCES)["p"] == 1
    assert {alarm.split(":")[0] for alarm in found(same)} == {"COLLAPSED", "NOT GROUNDED"}


def test_four_reports_for_590_studies_are_a_collapse() -> None:
    references = [f"{text} {number} ." for number, text in enumerate(REFERENCES * 5)][:590]
    reports = [references[number % 4] for number in range(590)]
    diverse = diversity(reports) | against_references(reports, references)
    alarm = alarms(590, diverse, {}, [])[0]
    assert alarm == "COLLAPSED: 4 distinct reports for 590 studies; the most frequent one covers 25 % of them"


def test_empty_short_and_poor_reports_and_the_floor_are_named() -> None:
    names = [alarm.split(":")[0] for alarm in found(["", *["the heart"] * 119], below=["bleu4"])]
    assert names == ["COLLAPSED", "EMPTY", "FEW WORDS", "LENGTH", "NOT GROUNDED", "BELOW THE FLOOR"]


@pytest.mark.slow
def test_the_p_value_of_chance_is_uniform() -> None:
    random = np.random.default_rng(0)
    p = []
    for seed in range(60):
        labels = random.integers(0, 2, (40, 14)).astype(np.int8)
        p.append(finding_grounding(labels, random.integers(0, 2, (40, 14)).astype(np.int8), seed=seed)["p"])
    assert 0.35 < np.mean(p) < 0.65


def test_findings_of_the_own_image_are_grounded() -> None:
    labels = np.random.default_rng(1).integers(0, 2, (80, 14)).astype(np.int8)
    assert finding_grounding(labels, labels)["p"] < 0.001


def test_shuffling_leaves_no_report_in_place() -> None:
    order = [str(number) for number in range(50)]
    other = shuffled(order)
    assert sorted(other) == sorted(order)
    assert all(a != b for a, b in zip(order, other))


def test_always_normal_is_the_most_frequent_report_without_a_finding() -> None:
    normal, other = "the lungs are clear .", "no effusion . heart size is normal ."
    training = ["small left pleural effusion .", other, "small left pleural effusion .", normal, normal]
    assert always_normal(training, RuleLabeler()) == normal
    assert always_normal(training[:1], RuleLabeler()) is None


def test_text_floors_come_from_training_reports() -> None:
    training = ["a .", "b .", "b .", "c ."]
    assert most_frequent(training) == "b ."
    drawn = random_reports(training, 200, seed=1)
    assert set(drawn) == set(training)
    assert drawn == random_reports(training, 200, seed=1)
