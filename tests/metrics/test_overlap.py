from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from rayscribe.data.cleaning import clean_r2gen_iu
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.metrics.diversity import diversity
from rayscribe.metrics.floors import best_constant
from rayscribe.metrics.overlap import overlap, overlap_scores


def trusted_scores(hypotheses: list[str], references: list[str]) -> dict[str, float]:
    """pycocoevalcap without its PTB tokeniser, as the papers use it."""
    gold = {i: [text] for i, text in enumerate(references)}
    given_ = {i: [text] for i, text in enumerate(hypotheses)}
    bleu = Bleu(4).compute_score(gold, given_, verbose=0)[0]
    return {
        **{f"bleu{order}": value for order, value in enumerate(bleu, start=1)},
        "rouge_l": Rouge().compute_score(gold, given_)[0],
        "cider": Cider().compute_score(gold, given_)[0],
    }


words = st.lists(st.sampled_from("the heart is normal . no effusion left right".split()), min_size=1, max_size=12)
hypothesis_words = st.lists(st.sampled_from("the heart is enlarged . no right".split()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(hypothesis_words, words), min_size=1, max_size=6))
def test_scores_equal_pycocoevalcap_on_any_words(pairs: list[tuple[list[str], list[str]]]) -> None:
    hypotheses, references = [" ".join(h) for h, _ in pairs], [" ".join(r) for _, r in pairs]
    expected = trusted_scores(hypotheses, references)
    ours = overlap_scores(hypotheses, references)
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert ours["cider_d"] == ours["cider"]


@pytest.fixture(scope="module")
def iu_reports(iu_root: Path) -> dict[str, list[str]]:
    annotation = json.loads((iu_root / "annotation.json").read_text())
    return {split: [clean_r2gen_iu(record["report"]) for record in annotation[split]] for split in annotation}


@pytest.mark.slow
def test_scores_equal_pycocoevalcap_on_real_reports(iu_reports: dict[str, list[str]]) -> None:
    generator = random.Random(0)
    references = iu_reports["train"] + iu_reports["test"]
    hypotheses = [generator.choice(iu_reports["train"]) for _ in references]
    hypotheses[:4] = ["", "heart", "the the the the", references[3]]
    expected = trusted_scores(hypotheses, references)
    ours = overlap_scores(hypotheses, references)
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert ours["cider_d"] == ours["cider"]


@pytest.mark.slow
def test_a_constant_report_scores_what_the_specification_measured(iu_reports: dict[str, list[str]]) -> None:
    """Section 7.8: the best constant on val among the 150 most frequent training reports, and the most frequent one."""
    tokenizer = Tokenizer.build(iu_reports["train"], threshold=3, legacy_ids=True)
    cut = {
        split: [tokenizer.decode(tokenizer.encode(report, max_length=60)) for report in reports]
        for split, reports in iu_reports.items()
    }
    frequent = [report for report, _ in Counter(iu_reports["train"]).most_common(150)]

    def rounded(report: str, references: list[str]) -> list[float]:
        scores = overlap_scores([report] * len(references), references)
        return [round(scores[name], 4) for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l")]

    constant = best_constant(frequent, cut["val"])
    assert rounded(constant, cut["test"]) == [0.4763, 0.2958, 0.2012, 0.1468, 0.3638]
    assert rounded(constant, iu_reports["test"]) == [0.4790, 0.2981, 0.2027, 0.1478, 0.3636]
    assert rounded(constant, cut["val"]) == [0.4889, 0.3038, 0.2038, 0.1450, 0.3545]
    assert rounded(frequent[0], cut["test"]) == [0.2415, 0.1466, 0.1055, 0.0810, 0.3122]
    best = best_constant(cut["train"], cut["val"])  # over all training reports: evaluation.md, section 1
    assert rounded(best, cut["test"]) == [0.5000, 0.3376, 0.2400, 0.1721, 0.3628]
    assert rounded(best_constant(iu_reports["train"], iu_reports["val"]), iu_reports["test"]) == [
        0.5031,
        0.3405,
        0.2424,
        0.1743,
        0.3627,
    ]


def test_the_best_constant_is_the_one_that_scores_best() -> None:
    references = ["the heart is normal .", "the heart is large .", "lungs clear ."]
    candidates = ["lungs clear .", "the heart is normal .", "no", "the heart is large and round ."]
    scores = {text: overlap_scores([text] * 3, references)["bleu4"] for text in candidates}
    assert best_constant(candidates, references) == max(scores, key=lambda text: scores[text])


def test_a_resample_equals_scoring_the_resampled_reports() -> None:
    hypotheses = ["the heart is normal .", "no effusion .", "lungs clear ."]
    references = ["the heart is large .", "no effusion seen .", "the lungs are clear ."]
    rows = np.array([2, 0, 2])
    direct = overlap_scores([hypotheses[i] for i in rows], [references[i] for i in rows])
    resampled = overlap(hypotheses, references).of(rows).scores()
    # CIDEr's document frequencies stay those of the whole set.
    assert {k: v for k, v in resampled.items() if "cider" not in k} == pytest.approx(
        {k: v for k, v in direct.items() if "cider" not in k}
    )


def test_empty_references_are_refused_with_their_count() -> None:
    with pytest.raises(InputError, match="1 of 2 references are empty"):
        overlap_scores(["a", "b"], ["a", " "])
    with pytest.raises(InputError, match="no reports"):
        overlap_scores([], [])


def test_diversity_counts_distinct_reports() -> None:
    found = diversity(["a b", "a  b", "c", "d", ""])
    assert (found["distinct_reports"], found["distinct_ratio"], found["top_share"]) == (4, 0.8, 0.4)
    assert (found["words"], found["empty_reports"]) == (4, 1)
    assert (found["distinct_1"], found["distinct_2"], found["distinct_3"]) == (4 / 6, 1 / 2, 0)
