"""The rule labeler on sentences that were written without looking at its rules, and on the real test split."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from gold import disagreements, f1, gold_sentences

from rayscribe.labels import NEGATIVE, OBSERVATIONS, POSITIVE, UNCERTAIN
from rayscribe.metrics.labeler import RuleLabeler, states


def test_the_gold_set_has_500_different_sentences_of_every_state() -> None:
    sentences = gold_sentences()
    assert len({sentence for sentence, _ in sentences}) == len(sentences) >= 500
    found = [state for _, gold in sentences for state in gold.values()]
    assert min(found.count(state) for state in (POSITIVE, NEGATIVE, UNCERTAIN)) >= 50


def test_the_rules_agree_with_the_gold_set() -> None:
    counts, different = disagreements(states)
    assert f1(counts, (POSITIVE, NEGATIVE, UNCERTAIN)) >= 0.95, different
    assert f1(counts, (UNCERTAIN,)) >= 0.85, different


def test_the_rules_agree_with_the_chexpert_labeler_on_held_out_studies(iu_root: Path) -> None:
    """The official test studies were not looked at while the rules were written. Its table was made from the findings."""
    with open(iu_root / "reports.csv", newline="", encoding="utf-8") as file:
        texts = {
            row["uid"]: (row["findings"], f"{row['findings']}\n{row['impression']}")
            for row in csv.DictReader(file)
            if row["split_r2gen"] == "test"
        }
    with open(iu_root / "labels_chexpert_dhesin.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["uid"] in texts]
    for part, least in ((0, 0.93), (1, 0.90)):
        labels = RuleLabeler(as_chexpert=True).label([texts[row["uid"]][part] for row in rows])
        found, scores = labels == POSITIVE, {}
        for place, name in enumerate(OBSERVATIONS):
            wanted = np.array([row[name] == "1.0" for row in rows])
            if wanted.sum() >= 20:
                scores[name] = 2 * (found[:, place] & wanted).sum() / (found[:, place].sum() + wanted.sum())
        assert len(scores) == 6
        assert np.mean(list(scores.values())) >= least, scores
