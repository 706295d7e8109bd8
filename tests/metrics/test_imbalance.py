from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscribe.metrics.imbalance import SHARES, by_frequency, published_word_bins, word_bins

TRAINING = ["a a a a b b b c c d e f g h", "a b c d e f g h"]


def test_words_are_ordered_by_frequency() -> None:
    assert by_frequency(TRAINING) == ["a", "b", "c", "d", "e", "f", "g", "h"]


texts = st.lists(st.sampled_from("a b c d e f g h new".split()), min_size=1, max_size=10).map(" ".join)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_frequent_and_rare_words_are_the_clipped_overlap_of_the_parts(pairs: list[tuple[str, str]]) -> None:
    hypotheses, references = [h for h, _ in pairs], [r for _, r in pairs]
    scores = word_bins(hypotheses, references, by_frequency(TRAINING)).scores()
    for bins in SHARES:
        frequent = set("abcdefgh"[: 8 // bins])
        for name, inside in (("freq", frequent), ("infreq", set("abcdefgh") - frequent | {"new"})):
            matches = given_words = wanted_words = 0
            for hypothesis, reference in pairs:
                h = Counter(word for word in hypothesis.split() if word in inside)
                r = Counter(word for word in reference.split() if word in inside)
                matches, given_words, wanted_words = (
                    matches + (h & r).total(),
                    given_words + h.total(),
                    wanted_words + r.total(),
                )
            total = given_words + wanted_words
            assert scores[f"token_f1_{name}_{bins}"] == pytest.approx(2 * matches / total if total else 0)


def test_copying_the_reference_is_perfect_in_every_decile_that_occurs() -> None:
    vocabulary = [f"w{number}" for number in range(20)]
    reports = [" ".join(vocabulary), "w0 w0 unseen"]
    scores = word_bins(reports, reports, vocabulary).scores()
    assert all(scores[f"token_f1_decile_{number}"] == 1 for number in range(1, 11))


def test_the_published_variant_repeats_its_accidents() -> None:
    vocabulary = list("abcdefghij")  # the last two are dropped; an eighth of the rest is one word
    found = published_word_bins(["a b"], ["a a a b"], vocabulary)
    # Three reference words "a" are counted right against one written: precision 3, recall 1, F 1.5.
    assert found["token_f1_freq_8_published"] == pytest.approx(1.5)
    assert found["token_f1_infreq_8_published"] == pytest.approx(1.0)  # a sum over seven bins, six of them empty
