"""A split beside random ones, and what tells the wording besides the lungs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rayscribe.data.audit import find_copies
from rayscribe.data.manifest import read_manifest
from rayscribe.evaluation.split_audit import _random_split, against_random_splits, split_warnings, wording_clues
from rayscribe.metrics.groups import groups_of
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.study import Study

SIZES = ((2000, 2500), (2320, 2828))


def studies_of(count: int) -> list[Study]:
    """Every fourth study has the template, whose title is in capitals; test holds copies of train alone."""
    found = []
    for number in range(count):
        is_test, is_template = number >= 0.8 * count, number % 4 == 0
        text = (
            "the lungs are clear ." if is_template else f"the heart is enlarged in case {number % round(0.8 * count)} ."
        )
        found.append(
            Study(
                id=str(number),
                images=(Path(f"{number}.png"),),
                views=("pa",),
                sizes=(SIZES[number % 7 > 2],),
                split="test" if is_test else "train",
                subject=f"p{number // 2}",
                findings=text,
                exam="CHEST TWO VIEWS" if is_template else "Chest, two views.",
            )
        )
    return found


def test_a_random_split_keeps_patients_together_and_sizes() -> None:
    patient_R = groups_of([f"p{number // 3}" for number in range(300)])
    split_R = np.repeat([0, 1, 2], [210, 30, 60])
    for seed in range(5):
        drawn_R = _random_split(patient_R, split_R, seed)
        assert all(len(set(drawn_R[patient_R == patient].tolist())) == 1 for patient in set(patient_R.tolist()))
        assert np.abs(np.bincount(drawn_R) - [210, 30, 60]).max() <= 3
    assert (_random_split(patient_R, split_R, 0) != _random_split(patient_R, split_R, 1)).any()


def test_a_split_that_holds_copies_of_train_stands_out() -> None:
    studies = studies_of(200)
    beside = against_random_splits(studies, find_copies(studies), RuleLabeler())["test"]["seen_in_train"]
    assert beside["value"] == 1
    assert beside["mean"] < 1
    assert beside["above"] < 0.01 < beside["below"]
    warnings = split_warnings({"test": {"seen_in_train": beside}}, {})
    assert "test is no random split: 100.0 % of reports occur word for word in train" in warnings[0]


def test_a_title_that_gives_the_template_away_is_found_and_a_size_that_does_not_is_not() -> None:
    studies = studies_of(200)
    clues = wording_clues(studies, find_copies(studies), read_images=False)
    assert clues["auroc"]["context_form"] > 0.99
    assert 0.35 < clues["auroc"]["scanner"] < 0.65
    assert clues["template_share"] == 0.25
    assert "AUROC by context form 1.00" in split_warnings({}, clues)[0]


def test_a_frequent_report_is_needed_for_clues() -> None:
    studies = [Study(id=str(number), images=(), findings=f"case {number} .", split="train") for number in range(30)]
    assert wording_clues(studies, find_copies(studies), read_images=False) == {}
    assert against_random_splits(studies, find_copies(studies), RuleLabeler()) == {}


@pytest.mark.slow
def test_the_published_iu_split_is_no_random_one(iu_root: Path, rayscribe: Callable[..., str], tmp_path: Path) -> None:
    rayscribe("prepare", "iu-xray", iu_root, "--out", tmp_path / "iu.parquet", "--layout", "r2gen")
    printed = rayscribe("audit", tmp_path / "iu.parquet", "--html", tmp_path / "audit.html", "--no-read-images")
    assert "test is no random split: 46.9 % of reports occur word for word in train, 26.9 % (sd 1.7)" in printed
    assert re.search(r"AUROC by context form 0\.9\d", printed)
    page = (tmp_path / "audit.html").read_text()
    texts = [study.findings for study in read_manifest(tmp_path / "iu.parquet").studies]
    assert "context form" in page
    assert not any(text in page for text in texts)
