"""Composed reports: exact utilities of new texts, and a search that contradicts nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS, POSITIVE
from rayscribe.metrics.composing import Composer, ReferenceIndex, report_sentences
from rayscribe.metrics.expected_utility import FindingsTerm
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.utility import ReportPairs, TrainingTexts

NORMAL = ("the heart is normal in size .", "the lungs are clear .", "there is no pleural effusion .")
HEART, EFFUSION = "the heart is enlarged .", "small left pleural effusion ."
WORDS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6), st.lists(WORDS, min_size=2, max_size=6))
def test_utilities_of_new_texts_are_those_of_all_pairs(texts: list[str], references: list[str]) -> None:
    index, pairs = ReferenceIndex(references), ReportPairs(texts, references)
    bleu4_CJ, cider_CJ = pairs.bleu4(), pairs.cider()
    for row, text in enumerate(texts):
        found = index.utilities(text)
        assert found["bleu4"] == pytest.approx(bleu4_CJ[row], abs=1e-6)
        assert found["cider"] == pytest.approx(cider_CJ[row], abs=1e-5)


def composer_of(reports: list[str]) -> Composer:
    return Composer.of(TrainingTexts.of(reports), {"bleu4": 1.0, "cider": 0.2}, RuleLabeler())


def term(positive: set[str], gamma: float = 5.0) -> tuple[np.ndarray, FindingsTerm]:
    """Scores of 1 for these observations and 0 for the others, with thresholds of a half."""
    scores_O = np.array([name in positive for name in OBSERVATIONS], np.float32)
    half_O = np.full(len(OBSERVATIONS), 0.5)
    return scores_O, FindingsTerm(thresholds_O=half_O, spread_O=np.ones(len(OBSERVATIONS)), gamma=gamma)


def reports() -> list[str]:
    """Nobody has both an enlarged heart and an effusion."""
    heart, lungs, pleura = NORMAL
    kinds = (f"{heart} {lungs} {pleura}", f"{HEART} {lungs} {pleura}", f"{heart} {lungs} {EFFUSION}")
    return [kinds[number % 3] for number in range(30)]


def test_two_findings_that_nobody_wrote_together_are_said_together() -> None:
    composer, texts = composer_of(reports()), reports()
    scores_O, findings = term({"Cardiomegaly", "Pleural Effusion"})
    found = composer.composed(texts[0], np.zeros(30, np.float32), scores_O, findings)
    assert found not in texts
    assert set(report_sentences(found)) == {HEART, NORMAL[1], EFFUSION}
    assert report_sentences(found)[0] == HEART  # in the order of the training reports


def test_a_composed_report_speaks_of_an_observation_once_and_contradicts_nothing() -> None:
    composer, generator = composer_of(reports()), np.random.default_rng(0)
    for _ in range(20):
        wanted = {name for name in OBSERVATIONS if generator.random() < 0.3}
        scores_O, findings = term(wanted)
        weights_J = generator.normal(0, 0.3, 30).astype(np.float32)
        text = composer.composed(reports()[int(generator.integers(30))], weights_J, scores_O, findings)
        states_SO = RuleLabeler().label(report_sentences(text))
        states_SO[:, OBSERVATIONS.index("No Finding")] = NOT_MENTIONED
        assert ((states_SO != NOT_MENTIONED).sum(0) <= 1).all()


def test_the_search_never_lowers_the_expected_utility_of_a_start_from_the_pool() -> None:
    composer, generator = composer_of(reports()), np.random.default_rng(1)
    place = {text: at for at, text in enumerate(composer.sentences)}
    scores_O, findings = term({"Cardiomegaly"}, gamma=0.5)
    for start in sorted(set(reports())):
        weights_J = generator.normal(0, 0.2, 30).astype(np.float32)
        found = composer.composed(start, weights_J, scores_O, findings)
        before, after = (
            composer._value(frozenset(place[one] for one in report_sentences(text)), weights_J, scores_O, findings)
            for text in (start, found)
        )
        assert after >= before


def test_rare_sentences_that_name_no_single_finding_are_left_out_of_the_pool() -> None:
    once = "comparison is made with nothing ."
    composer = composer_of([*reports(), f"{HEART} {once}", f"{HEART} fractured left rib ."])
    assert once not in composer.sentences
    assert "fractured left rib ." in composer.sentences
    at = composer.sentences.index("fractured left rib .")
    assert composer.positive_SO[at].sum() == 1 and POSITIVE == 1
