from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscribe.data.tokenizer import UNKNOWN, Tokenizer
from rayscribe.errors import InputError

REPORTS = ["the heart is normal .", "the lungs are clear .", "no effusion ."]
texts = st.lists(st.sampled_from("the heart is normal . lungs are clear no effusion zebra".split()), max_size=30)


@given(texts, st.integers(2, 20))
def test_a_cut_report_keeps_its_end(words: list[str], max_length: int) -> None:
    tokenizer = Tokenizer.build(REPORTS, threshold=1)
    ids = tokenizer.encode(" ".join(words), max_length=max_length)
    assert ids[0] == tokenizer.begin
    assert ids[-1] == tokenizer.end
    assert len(ids) == min(len(words) + 2, max_length)


@given(texts)
def test_decoding_gives_back_the_known_words(words: list[str]) -> None:
    for legacy in (False, True):
        tokenizer = Tokenizer.build(REPORTS, threshold=1, legacy_ids=legacy)
        expected = [word if word in tokenizer.words else UNKNOWN for word in words]
        ids = tokenizer.encode(" ".join(words), max_length=40)
        assert tokenizer.decode(ids) == " ".join(expected)
        assert all(0 <= one < tokenizer.size for one in ids)


def test_own_ids_keep_pad_begin_and_end_apart() -> None:
    tokenizer = Tokenizer.build(REPORTS, threshold=1)
    assert (tokenizer.pad, tokenizer.begin, tokenizer.end) == (0, 1, 2)
    assert tokenizer.size == len(tokenizer.words) + 3


def test_legacy_ids_are_those_of_r2gen() -> None:
    tokenizer = Tokenizer.build(REPORTS, threshold=1, legacy_ids=True)
    assert (tokenizer.pad, tokenizer.begin, tokenizer.end) == (0, 0, 0)
    assert tokenizer.encode("the heart", max_length=60)[1:-1] == [
        tokenizer.words.index("the") + 1,
        tokenizer.words.index("heart") + 1,
    ]
    assert tokenizer.encode("the heart is normal", max_length=4)[-1] != 0  # the end is cut off


def test_a_vocabulary_survives_its_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer.build([*REPORTS, "ödem 10 %"], threshold=1, legacy_ids=True)
    tokenizer.save(tmp_path / "vocabulary.json")
    assert Tokenizer.load(tmp_path / "vocabulary.json") == tokenizer


def test_rare_words_are_unknown_and_too_high_a_threshold_says_so() -> None:
    assert Tokenizer.build(REPORTS, threshold=3).words == (".", UNKNOWN)
    with pytest.raises(InputError, match=r"lower --text\.threshold"):
        Tokenizer.build(REPORTS, threshold=9)
