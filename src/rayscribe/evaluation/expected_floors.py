"""Floors of highest expected utility: the training report that should score best, given little or nothing of a study.

A floor writes one set of reports for each score that it aims at; the strength of its ridge smoother is chosen on
the training split by leaving out each study and those with an equal report (see `metrics/expected_utility.py`).

Shapes: J training studies, C distinct training reports, R queries, F features, O observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rayscribe.labels import OBSERVATIONS, POSITIVE, Labeler, Labels
from rayscribe.metrics.clinical import DEFAULT_MACRO, clinical
from rayscribe.metrics.expected_utility import FindingsTerm, Smoother, Space, expected
from rayscribe.metrics.floors import best_constant
from rayscribe.metrics.groups import groups_of
from rayscribe.metrics.statistics import Ints, Singles
from rayscribe.metrics.utility import Matrix, ReportPairs

Aim = Literal["bleu4", "rouge_l", "cider", "findings"]
AIMS: tuple[Aim, ...] = get_args(Aim)

_BESIDE: dict[str, Aim] = {
    "bleu": "bleu4",
    "meteor": "bleu4",
    "sentence": "bleu4",
    "rouge_l": "rouge_l",
    "cider": "cider",
}
"The aim for scores whose name starts so."

COMPONENTS = 400
"Principal components that a smoother uses."
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
GAMMAS = (3.0, 6.0, 10.0)
"Weights of the findings term to choose from."
_MOST_CANDIDATES = 5_000  # that `best_constants` compares


def aim_beside(score: str) -> Aim:
    """The aim whose reports a score is computed from: BLEU-4 for BLEU, METEOR and cosines, findings for clinical scores."""
    for starts, aim in _BESIDE.items():
        if score.startswith(starts):
            return aim
    return "findings"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReports:
    """Training reports with the utility of each distinct one against each, and their labels."""

    candidates: list[str]
    own_J: Ints
    "the candidate that a study's own report is"
    groups_J: Ints
    "studies with an equal report"
    utilities: dict[Aim, Matrix]
    "by aim (C, J); for findings the standardised sum of BLEU-4 and CIDEr-D, to which the findings term is added"
    labels_JO: Labels
    labels_CO: Labels

    @classmethod
    def of(cls, reports: Sequence[str], labeler: Labeler) -> TrainingReports:
        """`reports`: cleaned training reports, with repeats."""
        candidates = list(dict.fromkeys(reports))
        place = {text: at for at, text in enumerate(candidates)}
        pairs = ReportPairs(candidates, reports)
        bleu4_CJ, cider_CJ = pairs.bleu4(), pairs.cider()
        both_CJ = bleu4_CJ / max(1e-9, float(bleu4_CJ.std())) + cider_CJ / max(1e-9, float(cider_CJ.std()))
        labels_CO, own_J = labeler.label(candidates), np.array([place[text] for text in reports])
        return cls(
            candidates=candidates,
            own_J=own_J,
            groups_J=groups_of(reports),
            utilities={"bleu4": bleu4_CJ, "rouge_l": pairs.rouge_l(), "cider": cider_CJ, "findings": both_CJ},
            labels_JO=labels_CO[own_J],
            labels_CO=labels_CO,
        )


def expected_reports(training: TrainingReports, features_JF: Singles, queries_RF: Singles) -> dict[Aim, Ints]:
    """The candidates (R,) of highest expected utility by each aim, from features of training studies and queries."""
    count = len(training.own_J)
    space = Space.fit(features_JF, COMPONENTS)
    known_JK, asked_RK = space.project(features_JF), space.project(queries_RF)
    best: dict[Aim, float] = {}
    found: dict[Aim, Ints] = {}
    for strength in STRENGTHS:
        smoother = Smoother.fit(known_JK, np.arange(count), strength=strength)
        left_out_JJ, weights_RJ = smoother.left_out(training.groups_J, count), smoother.weights(asked_RK, count)
        for aim in AIMS:
            for score, picks_R in _picks(training, aim, left_out_JJ, weights_RJ):
                if aim not in best or score > best[aim]:
                    best[aim], found[aim] = score, picks_R
    return found


def _picks(
    training: TrainingReports, aim: Aim, left_out_JJ: Matrix, weights_RJ: Matrix
) -> list[tuple[float, NDArray[np.int64]]]:
    """For each setting of the aim its score on training studies that were left out, and the queries' candidates."""
    rows_J = np.arange(len(training.own_J))
    utility_CJ = training.utilities[aim]
    known_JC, asked_RC = expected(left_out_JJ, utility_CJ.T), expected(weights_RJ, utility_CJ.T)
    known_JC[rows_J, training.own_J] = -np.inf
    if aim != "findings":
        return [(float(utility_CJ[known_JC.argmax(1), rows_J].mean()), asked_RC.argmax(1))]
    is_positive_JO, is_positive_CO = training.labels_JO == POSITIVE, training.labels_CO == POSITIVE
    scores_JO, scores_RO = (
        expected(weights, is_positive_JO.astype(np.float32)) for weights in (left_out_JJ, weights_RJ)
    )
    term = FindingsTerm.fit(scores_JO, is_positive_JO, gamma=1.0)
    term_JC, term_RC = term.of(scores_JO, is_positive_CO), term.of(scores_RO, is_positive_CO)
    found = []
    for gamma in GAMMAS:
        picks_J = (known_JC + np.float32(gamma) * term_JC).argmax(1)
        score = clinical(training.labels_CO[picks_J], training.labels_JO).scores()[DEFAULT_MACRO]
        found.append((float(score), (asked_RC + np.float32(gamma) * term_RC).argmax(1)))
    return found


def best_constants(candidates: Sequence[str], references: Sequence[str], labeler: Labeler) -> dict[Aim, str]:
    """By each aim, the candidate that scores best on the references if written for every study, the first of ties.

    Pass training reports as candidates and validation reports as references, never the test split. Beside `best_constant`, a
    random sample of 5,000 is compared where there are more.
    """
    distinct = _sampled(list(dict.fromkeys(candidates)))
    wanted = _sampled(list(references))
    pairs = ReportPairs(distinct, wanted)
    # A constant's F1 of an observation that it states: all n positives are found, and R - n others are called positive.
    rate_O = (labeler.label(wanted) == POSITIVE).mean(0)
    macro_C = (labeler.label(distinct) == POSITIVE) @ (2 * rate_O / (1 + rate_O)) / len(OBSERVATIONS)
    return {
        "bleu4": best_constant(candidates, references),
        "rouge_l": distinct[int(pairs.rouge_l().mean(1).argmax())],
        "cider": distinct[int(pairs.cider().mean(1).argmax())],
        "findings": distinct[int(macro_C.argmax())],
    }


def _sampled(texts: list[str]) -> list[str]:
    if len(texts) <= _MOST_CANDIDATES:
        return texts
    picks = np.random.default_rng(0).choice(len(texts), _MOST_CANDIDATES, replace=False)
    return [texts[pick] for pick in np.sort(picks)]
