"""Floors that see a small picture, or its corners alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from rayscribe.evaluation.image_floors import corners, expected_reports
from rayscribe.metrics.labeler import RuleLabeler


def test_corners_see_nothing_else() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32 * 32)).astype(np.float32)
    changed = pixels.reshape(3, 32, 32).copy()
    changed[:, 7:25, :] = 0
    changed[:, :, 7:25] = 0
    assert np.array_equal(corners(pixels), corners(changed.reshape(3, -1)))
    assert corners(pixels).shape == (3, 4 * 49)
    changed[:, 0, 0] += 1
    assert not np.array_equal(corners(pixels), corners(changed.reshape(3, -1)))


@pytest.mark.parametrize("aim", ["overlap", "findings"])
def test_the_expected_report_follows_what_the_features_tell(aim: Literal["overlap", "findings"]) -> None:
    """Features that give the report away are followed, features that say nothing give one report to all."""
    generator = np.random.default_rng(0)
    texts = ["the heart is enlarged .", "small left pleural effusion .", "the lungs are clear ."]
    rows = np.arange(90) % 3
    told = np.eye(3, dtype=np.float32)[rows] + 0.05 * generator.standard_normal((90, 3)).astype(np.float32)
    training = (told, [f"{texts[row]} view {number % 5} ." for number, row in enumerate(rows)])
    found = expected_reports(training, np.eye(3, dtype=np.float32), labeler=RuleLabeler(), aim=aim)
    assert [report.split(" view")[0] for report in found] == texts
    nothing = (np.zeros((90, 3), np.float32), training[1])
    assert len(set(expected_reports(nothing, told[:10] * 0, labeler=RuleLabeler(), aim=aim))) == 1
