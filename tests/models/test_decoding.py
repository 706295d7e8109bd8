"""Shapes: B studies, K beams, N patches, T tokens, D width, W vocabulary."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import small_model
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.models import decoding
from rayscribe.models.decoding import Hypothesis, Vocabulary, beam_search, decode
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import ReportModel

LEGACY = Vocabulary(pad=0, begin=0, end=0)
OWN = Vocabulary(pad=0, begin=1, end=2)
METHODS = ("baseline", "r2gen", "r2gen_cmn")


def patches(studies: int = 3, count: int = 5, width: int = 32) -> Encoded:
    torch.manual_seed(7)
    has_patch_BN = torch.ones(studies, count, dtype=torch.bool)
    has_patch_BN[0, 3:] = False
    return Encoded(torch.randn(studies, count, width), has_patch_BN)


def log_probability(model: ReportModel, encoded: Encoded, study: int, tokens: tuple[int, ...], begin: int) -> float:
    """Sum of the log-probabilities of `tokens` by one pass without any cache."""
    one = Encoded(encoded.features_BND[study : study + 1], encoded.has_patch_BN[study : study + 1])
    with torch.no_grad():
        logits = model.decoder.head(model.decoder(torch.tensor([[begin, *tokens[:-1]]]), one))
    return float(logits.log_softmax(-1)[0].gather(1, torch.tensor(tokens)[:, None]).sum())


@pytest.mark.parametrize("method", METHODS)
def test_stepping_with_caches_equals_one_pass_without(method: str) -> None:
    model, encoded = small_model(method), patches()
    tokens_BT = torch.randint(0, 12, (3, 9))
    with torch.no_grad():
        whole_BTW = model.decoder.head(model.decoder(tokens_BT, encoded))
        cache = model.decoder.start(encoded, beams=1, positions=9)
        steps_BTW = torch.cat([model.decoder.step(tokens_BT[:, t : t + 1], cache) for t in range(9)], dim=1)
    torch.testing.assert_close(steps_BTW, whole_BTW, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_reordered_beams_continue_their_own_prefix(method: str) -> None:
    model, encoded = small_model(method), patches()
    found = decode(model.decoder, encoded, LEGACY, DecodingConfig(beams=3), max_tokens=8, best=3)
    for study, beams in enumerate(found):
        for hypothesis in beams:
            tokens = hypothesis.tokens if len(hypothesis.tokens) == 8 else (*hypothesis.tokens, LEGACY.end)
            expected = log_probability(model, encoded, study, tokens, LEGACY.begin)
            assert hypothesis.log_probability == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_greedy_is_a_beam_of_one(method: str) -> None:
    model, encoded = small_model(method), patches()
    with torch.no_grad():
        model.decoder.head.bias[OWN.end] -= 3
    found = decode(model.decoder, encoded, OWN, DecodingConfig(beams=1), max_tokens=8)
    assert all(one[0].tokens for one in found)
    for study, (hypothesis,) in enumerate(found):
        tokens: list[int] = []
        while len(tokens) < 8:
            one = Encoded(encoded.features_BND[study : study + 1], encoded.has_patch_BN[study : study + 1])
            with torch.no_grad():
                logits = model.decoder.head(model.decoder(torch.tensor([[OWN.begin, *tokens]]), one))[0, -1]
            logits[[OWN.pad, OWN.begin]] = -torch.inf
            if int(logits.argmax()) == OWN.end:
                break
            tokens.append(int(logits.argmax()))
        assert hypothesis.tokens == tuple(tokens)


@pytest.mark.parametrize(("vocabulary", "penalty"), [(LEGACY, 0.0), (OWN, 0.0), (LEGACY, 0.7)])
def test_a_wide_beam_finds_what_exhaustive_search_finds(vocabulary: Vocabulary, penalty: float) -> None:
    size, length = 5, 4
    model, encoded = small_model(vocabulary=size), patches(studies=2)
    words = [token for token in range(size) if token not in (vocabulary.pad, vocabulary.begin, vocabulary.end)]
    config = DecodingConfig(beams=size**length, length_penalty=penalty)
    found = decode(model.decoder, encoded, vocabulary, config, max_tokens=length)
    for study, (hypothesis,) in enumerate(found):
        scores = {}
        for count in range(length + 1):
            for tokens in itertools.product(words, repeat=count):
                ended = tokens if count == length else (*tokens, vocabulary.end)
                total = _masked_log_probability(model, encoded, study, ended, vocabulary)
                scores[tokens] = total / ((5 + len(ended)) / 6) ** penalty
        best = max(scores, key=lambda tokens: scores[tokens])
        assert hypothesis.tokens == best
        assert hypothesis.score == pytest.approx(scores[best], abs=1e-4)


def _masked_log_probability(
    model: ReportModel, encoded: Encoded, study: int, tokens: tuple[int, ...], vocabulary: Vocabulary
) -> float:
    one = Encoded(encoded.features_BND[study : study + 1], encoded.has_patch_BN[study : study + 1])
    with torch.no_grad():
        logits = model.decoder.head(model.decoder(torch.tensor([[vocabulary.begin, *tokens[:-1]]]), one))[0]
    for reserved in {vocabulary.pad, vocabulary.begin} - {vocabulary.end}:
        logits[:, reserved] = -torch.inf
    return float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum())


@pytest.mark.parametrize("penalty", [0.0, 1.5])
def test_stopping_early_is_what_the_full_search_finds(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bound that nothing reaches, the search runs to its full length."""
    config = DecodingConfig(beams=3, length_penalty=penalty)
    early, full = [], []
    for seed in range(12):
        model, encoded = small_model("baseline", seed=seed), patches()
        early.append(decode(model.decoder, encoded, OWN, config, max_tokens=14))
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "_reachable", lambda scores, length, alpha: torch.full_like(scores, torch.inf))
            full.append(decode(model.decoder, encoded, OWN, config, max_tokens=14))
    assert [[h.tokens for h in one] for run in early for one in run] == [
        [h.tokens for h in one] for run in full for one in run
    ]


def test_a_study_is_decoded_alone_as_in_a_batch() -> None:
    model, encoded = small_model(), patches()
    short = decode(model.decoder, encoded, OWN, DecodingConfig(beams=3), max_tokens=12, best=2)
    alone = [
        decode(
            model.decoder,
            Encoded(encoded.features_BND[i : i + 1], encoded.has_patch_BN[i : i + 1]),
            OWN,
            DecodingConfig(beams=3),
            max_tokens=12,
            best=2,
        )[0]
        for i in range(3)
    ]
    assert [[h.tokens for h in one] for one in short] == [[h.tokens for h in one] for one in alone]


def test_hypotheses_come_best_first_and_distinct() -> None:
    model, encoded = small_model(), patches()
    for beams in decode(model.decoder, encoded, OWN, DecodingConfig(beams=4), max_tokens=8, best=4):
        scores = [hypothesis.score for hypothesis in beams]
        assert scores == sorted(scores, reverse=True)
        assert len({hypothesis.tokens for hypothesis in beams}) == len(beams) == 4


def test_no_ngram_occurs_twice_when_blocked() -> None:
    model, encoded = small_model(vocabulary=8), patches()
    with torch.no_grad():
        model.decoder.head.bias[OWN.end] = -50  # long reports, which repeat themselves
    free = decode(model.decoder, encoded, OWN, DecodingConfig(), max_tokens=16)
    blocked = decode(model.decoder, encoded, OWN, DecodingConfig(block_ngrams=2), max_tokens=16)
    assert any(_repeats(one[0], 2) for one in free)
    assert not any(_repeats(one[0], 2) for one in blocked)


def _repeats(hypothesis: Hypothesis, size: int) -> bool:
    grams = list(zip(*(hypothesis.tokens[i:] for i in range(size))))
    return len(set(grams)) < len(grams)


def test_a_minimum_length_delays_the_end() -> None:
    model, encoded = small_model(), patches()
    with torch.no_grad():
        model.decoder.head.bias[OWN.end] = 50
    assert all(not one[0].tokens for one in decode(model.decoder, encoded, OWN, DecodingConfig(), max_tokens=9))
    config = DecodingConfig(min_tokens=4)
    assert all(len(one[0].tokens) == 4 for one in decode(model.decoder, encoded, OWN, config, max_tokens=9))


def test_a_length_penalty_prefers_longer_reports() -> None:
    model, encoded = small_model(), patches()
    short = decode(model.decoder, encoded, OWN, DecodingConfig(beams=8), max_tokens=12)
    long = decode(model.decoder, encoded, OWN, DecodingConfig(beams=8, length_penalty=3.0), max_tokens=12)
    assert sum(len(one[0].tokens) for one in long) > sum(len(one[0].tokens) for one in short)


def test_more_reports_than_beams_widen_the_search() -> None:
    found = decode(small_model().decoder, patches(), OWN, DecodingConfig(beams=1), max_tokens=6, best=3)
    assert all(len({one.tokens for one in best}) == 3 for best in found)


def test_a_drawn_report_has_the_probability_of_its_words_and_its_end() -> None:
    model, encoded = small_model(), patches()
    with torch.no_grad():
        model.decoder.head.bias[OWN.end] += 2  # reports of different lengths, so that some end before others
    found = decode(model.decoder, encoded, OWN, DecodingConfig(strategy="sample"), max_tokens=8, best=4)
    assert len({len(one.tokens) for best in found for one in best}) > 1
    for study, best in enumerate(found):
        for one in best:
            tokens = one.tokens if len(one.tokens) == 8 else (*one.tokens, OWN.end)
            expected = _masked_log_probability(model, encoded, study, tokens, OWN)
            assert one.log_probability == pytest.approx(expected, abs=1e-4)


def test_sampling_repeats_with_its_seed_alone() -> None:
    model, encoded = small_model(), patches()
    config = DecodingConfig(strategy="sample", seed=3)
    first = decode(model.decoder, encoded, OWN, config, max_tokens=8, best=5)
    torch.manual_seed(99)
    assert decode(model.decoder, encoded, OWN, config, max_tokens=8, best=5) == first
    assert decode(model.decoder, encoded, OWN, replace(config, seed=4), max_tokens=8, best=5) != first


@pytest.mark.parametrize("config", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}])
def test_sampling_from_the_single_best_word_is_greedy(config: dict[str, float]) -> None:
    model, encoded = small_model(), patches()
    greedy = decode(model.decoder, encoded, OWN, DecodingConfig(beams=1), max_tokens=8)
    sampled = decode(
        model.decoder,
        encoded,
        OWN,
        DecodingConfig(strategy="sample", **config),  # type: ignore[arg-type]
        max_tokens=8,
    )
    assert [one[0].tokens for one in sampled] == [one[0].tokens for one in greedy]


def test_sampled_words_follow_the_model_s_distribution() -> None:
    model, encoded = small_model(vocabulary=6), patches(studies=1)
    draws = decode(model.decoder, encoded, OWN, DecodingConfig(strategy="sample"), max_tokens=1, best=4000)[0]
    with torch.no_grad():
        logits = model.decoder.head(model.decoder(torch.tensor([[OWN.begin]]), encoded))[0, 0]
    logits[[OWN.pad, OWN.begin]] = -torch.inf
    expected = logits.softmax(-1)
    for token in range(3, 6):
        share = sum(draw.tokens == (token,) for draw in draws) / len(draws)
        assert share == pytest.approx(float(expected[token]), abs=0.03)


def test_the_cache_holds_one_slot_a_position_and_beam() -> None:
    """Memory grows with length by the new keys and values alone: nothing is copied when beams are reordered."""
    model, encoded = small_model(), patches()
    cache = model.decoder.start(encoded, beams=3, positions=6)
    keys = cache.layers[0].keys_BHSE
    assert keys.shape[2] == 6 * 3
    with torch.no_grad():
        model.decoder.step(torch.full((3, 3), OWN.begin), cache)
    before = keys.data_ptr()
    cache.reorder(torch.tensor([[2, 1, 0]] * 3))
    assert cache.layers[0].keys_BHSE.data_ptr() == before


def test_beam_search_is_what_decode_calls_by_default() -> None:
    model, encoded = small_model(), patches()
    with torch.inference_mode():
        direct = beam_search(model.decoder, encoded, OWN, DecodingConfig(), max_tokens=6)
    assert decode(model.decoder, encoded, OWN, DecodingConfig(), max_tokens=6) == direct


def test_a_report_that_may_neither_end_nor_go_on_ends() -> None:
    model, encoded = small_model(), patches()
    for strategy in ("beam", "sample"):
        config = DecodingConfig(strategy=strategy, beams=2, block_ngrams=1, min_tokens=40)
        for (found,) in decode(model.decoder, encoded, OWN, config, max_tokens=40):
            assert len(set(found.tokens)) == len(found.tokens) == 12 - 3  # every word of the vocabulary once


def test_the_likeliest_word_is_drawn_however_small_the_nucleus_is() -> None:
    model, encoded = small_model(), patches()
    greedy = decode(model.decoder, encoded, OWN, DecodingConfig(beams=1), max_tokens=8)
    drawn = decode(model.decoder, encoded, OWN, DecodingConfig(strategy="sample", top_p=1e-320), max_tokens=8)
    assert [one.tokens for (one,) in drawn] == [one.tokens for (one,) in greedy]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.inf},
        {"temperature": 1e-300},
        {"length_penalty": 1e308},
        {"length_penalty": math.nan},
        {"seed": 2**80},
        {"seed": -1},
        {"block_ngrams": -1},
        {"min_tokens": -1},
    ],
)
def test_settings_that_no_number_can_hold_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--decoding"):
        DecodingConfig(**wrong)
