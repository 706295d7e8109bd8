from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from rayscribe.labels import FIVE, NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNCERTAIN
from rayscribe.metrics.clinical import POLICIES, clinical, is_positive, observation_counts, per_observation


def some_labels(seed: int, reports: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (reports, 14)).astype(np.int8)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_average_equals_scikit_learn(policy: str) -> None:
    predicted, reference = some_labels(1), some_labels(2)
    predicted[:, 3] = NEGATIVE  # an observation that is never predicted: 0 / 0
    reference[7] = NOT_MENTIONED  # a report without any
    scores = clinical(predicted, reference).scores()
    five = [OBSERVATIONS.index(name) for name in FIVE]
    for size, places in (("14", list(range(14))), ("5", five)):
        given = is_positive(predicted, policy)[:, places]
        wanted = is_positive(reference, policy)[:, places]
        for ours, theirs in (("micro", "micro"), ("macro", "macro"), ("example", "samples")):
            trusted = precision_recall_fscore_support(wanted, given, average=theirs, zero_division=0)
            for kind, value in zip(("precision", "recall", "f1"), trusted[:3], strict=True):
                assert scores[f"ce_{kind}_{ours}_{size}_uncertain_{policy}"] == pytest.approx(value)


def test_normal_and_abnormal_are_two_classes_of_one_decision() -> None:
    predicted, reference = some_labels(3), some_labels(4)
    scores = clinical(predicted, reference).scores()
    given, wanted = predicted[:, 0] == POSITIVE, reference[:, 0] == POSITIVE
    assert scores["normal_f1"] == pytest.approx(f1_score(wanted, given))
    assert scores["abnormal_f1"] == pytest.approx(f1_score(~wanted, ~given))


def test_uncertain_is_positive_under_one_policy_only() -> None:
    labels = np.full((3, 14), UNCERTAIN, np.int8)
    scores = clinical(labels, labels).scores()
    assert scores["ce_f1_micro_14_uncertain_negative"] == 0
    assert scores["ce_f1_micro_14_uncertain_positive"] == 1


def test_the_table_of_observations_counts_what_is_there() -> None:
    predicted, reference = some_labels(5), some_labels(6)
    rows = clinical(predicted, reference)
    counts, f1 = observation_counts(rows, "negative"), per_observation(rows, "negative").scores()
    for place, name in enumerate(OBSERVATIONS):
        assert counts[name]["positives"] == (reference[:, place] == POSITIVE).sum()
        assert counts[name]["predicted"] == (predicted[:, place] == POSITIVE).sum()
        assert f1[name] == pytest.approx(f1_score(reference[:, place] == POSITIVE, predicted[:, place] == POSITIVE))
    mean = np.mean(list(f1.values()))
    assert rows.scores()["ce_f1_macro_14_uncertain_negative"] == pytest.approx(mean)
