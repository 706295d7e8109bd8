"""Utilities of all pairs, equal to the plain scorers pair by pair."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscribe.errors import InputError
from rayscribe.labels import OBSERVATIONS
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap
from rayscribe.metrics.utility import (
    ReportPairs,
    TrainingTexts,
    clinical_utility,
    cosine_utility,
    mixed,
    utilities,
    utility_weights,
)

REFERENCES = [
    "the lungs are clear . no pleural effusion .",
    "heart size is enlarged . small left pleural effusion . no pneumothorax .",
    "the heart is normal in size . the lungs are clear .",
    "there is a right pneumothorax . the the the lungs lungs",
    " ".join(f"word{number}" for number in range(70)) + " the lungs are clear .",
]
CANDIDATES = [*REFERENCES[:3], "the lungs", "clear", " ".join(f"word{number}" for number in range(130))]
texts = st.lists(st.sampled_from("a b c d . the lungs".split()), min_size=1, max_size=12).map(" ".join)


def bleu4(candidate: str, reference: str) -> float:
    own, wanted = candidate.split(), reference.split()
    total = 0.0
    for order in range(1, 5):
        first, second = (Counter(zip(*(words[at:] for at in range(order)))) for words in (own, wanted))
        matches, guesses = sum((first & second).values()), max(0, len(own) - order + 1)
        smooth = 0.1 if order > 1 else 0.0
        if matches + smooth == 0:
            return 0.0
        total += math.log((matches + smooth) / (guesses + smooth)) / 4
    return math.exp(total + min(0.0, 1 - len(wanted) / len(own)))


@settings(deadline=None, max_examples=30)
@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=2, max_size=5))
def test_every_pair_scores_as_the_plain_scorers_do(candidates: list[str], references: list[str]) -> None:
    found = ReportPairs(candidates, references)
    sentence, cider, rouge = found.bleu4(), found.cider(), found.rouge_l()
    for row, candidate in enumerate(candidates):
        plain = overlap([candidate] * len(references), references)
        assert cider[row] == pytest.approx(plain.table_RK[:, plain.columns.index("cider")], abs=1e-6)
        assert rouge[row] == pytest.approx(plain.table_RK[:, plain.columns.index("rouge_l")], abs=1e-6)
        assert sentence[row] == pytest.approx([bleu4(candidate, one) for one in references], abs=1e-6)


def test_long_reports_share_what_they_share() -> None:
    """Subsequences of more than 64 words cross the border of a machine word."""
    found = ReportPairs(CANDIDATES, REFERENCES).rouge_l()
    for row, candidate in enumerate(CANDIDATES):
        plain = overlap([candidate] * len(REFERENCES), REFERENCES)
        assert found[row] == pytest.approx(plain.table_RK[:, plain.columns.index("rouge_l")], abs=1e-6)


def test_document_frequencies_are_those_of_the_documents() -> None:
    alone = ReportPairs(CANDIDATES, REFERENCES[:2], documents=REFERENCES).cider()
    assert alone == pytest.approx(ReportPairs(CANDIDATES, REFERENCES).cider()[:, :2], abs=1e-6)
    assert not np.allclose(alone, ReportPairs(CANDIDATES, REFERENCES[:2]).cider())


def test_the_clinical_utility_is_a_weighted_f_beta() -> None:
    labels = RuleLabeler().label(REFERENCES)
    own, beta = labels, 2.0
    found = clinical_utility(own, labels, power=0.5, beta=beta)
    positive = np.delete(labels == 1, OBSERVATIONS.index("No Finding"), axis=1)
    weight = np.maximum(positive.mean(0), 1 / len(labels)) ** -0.5
    for c, j in np.ndindex(found.shape):
        both = (weight * (positive[c] & positive[j])).sum()
        bottom = (weight * positive[c]).sum() + beta**2 * (weight * positive[j]).sum()
        assert found[c, j] == pytest.approx((1 + beta**2) * both / bottom if bottom else 1.0, abs=1e-6)
    assert found[0, 2] == 1 and found[0, 1] == 0


def test_a_mixture_is_in_standard_deviations() -> None:
    parts = {"bleu4": ReportPairs(CANDIDATES, REFERENCES).bleu4(), "cider": ReportPairs(CANDIDATES, REFERENCES).cider()}
    found = mixed(parts, {"bleu4": 1, "cider": 2})
    assert found == pytest.approx(
        parts["bleu4"] / parts["bleu4"].std() + 2 * parts["cider"] / parts["cider"].std(), rel=1e-5
    )
    with pytest.raises(InputError, match="no utility 'meteor'"):
        mixed(parts, {"meteor": 1})


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="0 candidates and 1 references"):
        ReportPairs([], ["a"])


def test_weights_of_utilities_are_read_or_refused() -> None:
    assert utility_weights("bleu4=1, clinical=2", "--x") == {"bleu4": 1.0, "clinical": 2.0}
    for text in ("", "bleu4", "meteor=1", "bleu4=x", "bleu4=-1", "bleu4=0", "bleu4=nan"):
        with pytest.raises(InputError, match="--x"):
            utility_weights(text, "--x")
    found = utilities(["a b"], TrainingTexts.of(["a b", "c"]), RuleLabeler(), beta=1.0, names=("cider", "clinical"))
    assert list(found) == ["cider", "clinical"]


def test_cosines_are_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    text_CD, image_BD = generator.standard_normal((5, 8)), generator.standard_normal((3, 8)).astype(np.float32)
    text_CD[2] = 0
    found = cosine_utility(text_CD, image_BD)
    assert found.shape == (5, 3) and found.dtype == np.float32
    for c, b in np.ndindex(found.shape):
        length = np.sqrt((text_CD[c] ** 2).sum()) * np.sqrt((image_BD[b] ** 2).sum())
        wanted = sum(x * y for x, y in zip(text_CD[c], image_BD[b], strict=True)) / length if length else 0.0
        assert found[c, b] == pytest.approx(wanted, abs=1e-6)


def test_more_names_of_utilities_are_known_where_they_are_given() -> None:
    assert utility_weights("bleu4=1,image=2", "--x", more=["image"]) == {"bleu4": 1.0, "image": 2.0}
    with pytest.raises(InputError, match="of bleu4, cider, rouge_l, clinical"):
        utility_weights("image=1", "--x")
