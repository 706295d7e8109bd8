"""Clinical efficacy: agreement of the observations in a report with those in its reference.

Three incompatible "CheXbert F1"s are in print: uncertain counted as negative (R2Gen's script, PromptMRG) or as positive
(f1chexbert, RadEval); averaged over observations (macro), decisions (micro) or reports (example, PromptMRG); over 14 or 5
observations. All are computed, each under its full name. 0 / 0 is 0 everywhere.

Shapes: R reports, O observations, S samples, K columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rayscribe.labels import FIVE, OBSERVATIONS, POSITIVE, UNCERTAIN, Labels
from rayscribe.metrics.statistics import Floats, Rows

Uncertain = Literal["negative", "positive"]
POLICIES: tuple[Uncertain, ...] = ("negative", "positive")
DEFAULT = "ce_f1_micro_14_uncertain_negative"
"The score that represents the family where there is room for one."
DEFAULT_MACRO = "ce_f1_macro_14_uncertain_negative"
"The mean F1 of the observations, which a report that is always normal cannot win: the headline for findings."

_SETS = {"14": list(range(len(OBSERVATIONS))), "5": [OBSERVATIONS.index(name) for name in FIVE]}
_KINDS = ("precision", "recall", "f1")
_PER_REPORT = [f"{kind}_{size}" for size in _SETS for kind in _KINDS]
_WIDTH = 3 * len(OBSERVATIONS) + len(_PER_REPORT)  # columns per policy

CLINICAL_COLUMNS = (
    *(
        f"{column}_uncertain_{policy}"
        for policy in POLICIES
        for column in (
            *(f"{count} {name}" for count in ("tp", "fp", "fn") for name in OBSERVATIONS),
            *(f"example_{name}" for name in _PER_REPORT),
        )
    ),
    "tp normal",
    "fp normal",
    "fn normal",
    "reports",
)


def is_positive(labels_RO: Labels, uncertain: Uncertain) -> NDArray[np.bool_]:
    """Boolean (R, O): the states that count as positive; `uncertain`: how uncertain ones count."""
    positive = labels_RO == POSITIVE
    return positive | (labels_RO == UNCERTAIN) if uncertain == "positive" else positive


def is_normal(labels_RO: Labels) -> NDArray[np.bool_]:
    """Boolean (R,): reports in which the labeler found nothing, that is, "No Finding" is positive."""
    return labels_RO[:, OBSERVATIONS.index("No Finding")] == POSITIVE


def clinical(predicted_RO: Labels, reference_RO: Labels) -> Rows:
    """Sufficient statistics of `clinical_score` from the states of hypotheses and references, both (R, 14)."""
    parts = []
    for policy in POLICIES:
        tp_RO, fp_RO, fn_RO = _counts(is_positive(predicted_RO, policy), is_positive(reference_RO, policy))
        parts += [tp_RO, fp_RO, fn_RO]
        for places in _SETS.values():
            parts.append(
                np.stack(_rates(tp_RO[:, places].sum(1), fp_RO[:, places].sum(1), fn_RO[:, places].sum(1)), axis=1)
            )
    normal = _counts(is_normal(predicted_RO)[:, None], is_normal(reference_RO)[:, None])
    return Rows(CLINICAL_COLUMNS, np.hstack([*parts, *normal, np.ones((len(reference_RO), 1))]), clinical_score)


def clinical_score(sums_SK: Floats) -> dict[str, Floats]:
    """`ce_{precision,recall,f1}_{micro,macro,example}_{14,5}_uncertain_{negative,positive}`, normal_f1, abnormal_f1: (S,) each.

    All are in [0, 1].
    """
    found: dict[str, Floats] = {}
    tp_S, fp_S, fn_S, reports_S = sums_SK[:, -4:].T
    for number, policy in enumerate(POLICIES):
        tp, fp, fn, examples = _split(sums_SK[:, number * _WIDTH : (number + 1) * _WIDTH])
        for size, places in _SETS.items():
            micro = _rates(tp[:, places].sum(1), fp[:, places].sum(1), fn[:, places].sum(1))
            macro = [rate.mean(1) for rate in _rates(tp[:, places], fp[:, places], fn[:, places])]
            example = [examples[:, _PER_REPORT.index(f"{kind}_{size}")] / reports_S for kind in _KINDS]
            for average, rates in (("micro", micro), ("macro", macro), ("example", example)):
                found |= {
                    f"ce_{kind}_{average}_{size}_uncertain_{policy}": rate
                    for kind, rate in zip(_KINDS, rates, strict=True)
                }
    found["normal_f1"] = _rates(tp_S, fp_S, fn_S)[2]
    # With abnormal as the positive class, a false normal is a missed abnormal report, and vice versa.
    found["abnormal_f1"] = _rates(reports_S - tp_S - fp_S - fn_S, fn_S, fp_S)[2]
    return found


def per_observation(rows: Rows, uncertain: Uncertain) -> Rows:
    """The rows of `clinical`, scored as the F1 of each observation, by its name."""
    start = POLICIES.index(uncertain) * _WIDTH

    def score(sums_SK: Floats) -> dict[str, Floats]:
        tp, fp, fn, _ = _split(sums_SK[:, start : start + _WIDTH])
        f1_SO = _rates(tp, fp, fn)[2]
        return {name: f1_SO[:, place] for place, name in enumerate(OBSERVATIONS)}

    return Rows(rows.columns, rows.table_RK, score)


def observation_counts(rows: Rows, uncertain: Uncertain) -> dict[str, dict[str, float]]:
    """By observation: positives and prevalence in the references, positives predicted, precision and recall in [0, 1]."""
    start = POLICIES.index(uncertain) * _WIDTH
    sums = rows.table_RK.sum(0, keepdims=True)
    tp, fp, fn, _ = _split(sums[:, start : start + _WIDTH])
    precision, recall, _ = _rates(tp, fp, fn)
    return {
        name: {
            "positives": int(tp[0, place] + fn[0, place]),
            "predicted": int(tp[0, place] + fp[0, place]),
            "prevalence": float((tp[0, place] + fn[0, place]) / len(rows.table_RK)),
            "precision": float(precision[0, place]),
            "recall": float(recall[0, place]),
        }
        for place, name in enumerate(OBSERVATIONS)
    }


def _counts(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    hits, extra, missed = predicted & reference, predicted & ~reference, ~predicted & reference
    return hits.astype(np.float64), extra.astype(np.float64), missed.astype(np.float64)


def _split(sums: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """True positives, false positives, false negatives by observation, and the summed per-report rates, of one policy."""
    size = len(OBSERVATIONS)
    return sums[:, :size], sums[:, size : 2 * size], sums[:, 2 * size : 3 * size], sums[:, 3 * size :]


def _rates(tp: Floats, fp: Floats, fn: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision, recall, F1; 0 / 0 is 0."""
    return _ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(tp, tp + (fp + fn) / 2)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)
