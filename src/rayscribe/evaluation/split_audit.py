"""How a split compares with random ones, and what besides the lungs tells how a report is worded.

Shapes: R studies, D draws, F features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.audit import Copies
from rayscribe.errors import InputError
from rayscribe.evaluation.floor_cache import small_pictures
from rayscribe.evaluation.floor_features import context_form, corners, fact_tables, scanner_facts
from rayscribe.labels import Labeler
from rayscribe.metrics.classification import finding_scores
from rayscribe.metrics.clinical import is_normal
from rayscribe.metrics.expected_utility import Smoother, Space, expected
from rayscribe.metrics.groups import connected, groups_of
from rayscribe.metrics.statistics import Ints, Singles
from rayscribe.progress import ProgressBar
from rayscribe.study import SPLITS, Study, coded_normal

DRAWS = 300
"Random splits that a split is compared with."
MOST_TO_PREDICT = 2_500
"Studies at most that the wording is predicted for, drawn at random."
TELLING = 0.6
"Warn of an AUROC above this."
RARE = 0.01
"Warn of a split whose share fewer than this part of the random splits reaches, on either side."
_FEWEST = 10  # studies with and without the template
_COMPONENTS, _STRENGTH, _FOLDS = 200, 1.0, 5


def against_random_splits(studies: Sequence[Study], copies: Copies, labeler: Labeler) -> dict[str, Any]:
    """By split other than train: the shares of reports that stand in train and of normal studies, beside random splits.

    A random split has the same sizes, up to one patient's studies, and keeps patients together. `above` is the share of random
    splits whose value is at least as high, `below` of those whose value is at least as low. Studies without text are left out.
    """
    named = [name for name in SPLITS if any(study.split == name for study in studies)]
    if "train" not in named or len(named) < 2:
        return {}
    report_R = np.full(len(studies), -1)
    for number, places in enumerate(copies.texts):
        report_R[places] = number
    has_text_R = report_R >= 0
    normal_R = _normal(studies, labeler)
    split_R = np.array([named.index(study.split) for study in studies])
    patient_R = groups_of([study.subject for study in studies])
    draws = [_random_split(patient_R, split_R, seed) for seed in range(DRAWS)]
    measures: dict[str, Callable[[Ints, int], float]] = {
        "seen_in_train": lambda drawn_R, split: float(
            np.isin(report_R[has_text_R & (drawn_R == split)], report_R[drawn_R == named.index("train")]).mean()
        ),
        "normal": lambda drawn_R, split: float(normal_R[drawn_R == split].mean()),
    }
    return {
        name: {
            measure: _beside(of(split_R, number), [of(drawn_R, number) for drawn_R in draws])
            for measure, of in measures.items()
        }
        for number, name in enumerate(named)
        if name != "train" and (has_text_R & (split_R == number)).any()
    }


def wording_clues(
    studies: Sequence[Study], copies: Copies, *, read_images: bool = True, progress: ProgressBar = iter
) -> dict[str, Any]:
    """How well corners, facts about the files and the form of the context tell who has the most frequent report.

    The template is that report with its near duplicates. Each AUROC is that of a ridge smoother by five-fold
    cross-validation over patients. Empty where fewer than ten studies have the template.
    """
    if not copies.texts:
        return {}
    common = max(range(len(copies.texts)), key=lambda number: len(copies.texts[number]))
    alike_T = connected(len(copies.texts), copies.near)
    members = {
        place for number in np.flatnonzero(alike_T == alike_T[common]).tolist() for place in copies.texts[number]
    }
    with_text = sorted(place for places in copies.texts for place in places)
    if len(with_text) > MOST_TO_PREDICT:
        picks = np.random.default_rng(0).choice(len(with_text), MOST_TO_PREDICT, replace=False)
        with_text = [with_text[pick] for pick in np.sort(picks)]
    chosen = [studies[place] for place in with_text]
    is_template_R = np.array([place in members for place in with_text])
    if min(is_template_R.sum(), (~is_template_R).sum()) < _FEWEST:
        return {}
    features: dict[str, Callable[[], Singles]] = {}
    if all(study.sizes for study in chosen):
        features["scanner"] = lambda: _table(chosen, scanner_facts)
    if any(any(study.context) for study in chosen):
        features["context_form"] = lambda: _table(chosen, context_form)
    if read_images:
        features["corners"] = lambda: corners(small_pictures(chosen, progress=progress))
    auroc: dict[str, float] = {}
    notes = []
    for name, make in features.items():
        try:
            auroc[name] = _auroc(make(), is_template_R, groups_of([study.subject for study in chosen]))
        except InputError as error:
            notes.append(f"no AUROC of {name}: {error}")
    return {
        "studies": len(chosen),
        "template_share": float(is_template_R.mean()),
        "distinct_reports": int((alike_T == alike_T[common]).sum()),
        "auroc": auroc,
        "notes": notes,
    }


def split_warnings(beside: dict[str, Any], clues: dict[str, Any]) -> list[str]:
    """What a reader of scores on this split should know first."""
    found = []
    words = {"seen_in_train": "of reports occur word for word in train", "normal": "of studies are normal"}
    for split, measures in beside.items():
        for measure, one in measures.items():
            if min(one["above"], one["below"]) < RARE:
                found.append(
                    f"{split} is no random split: {100 * one['value']:.1f} % {words[measure]}, {100 * one['mean']:.1f} % (sd "
                    f"{100 * one['deviation']:.1f}) in {DRAWS} random splits of the same sizes"
                )
    telling = {name: area for name, area in clues.get("auroc", {}).items() if area > TELLING}
    if telling:
        areas = ", ".join(f"{name.replace('_', ' ')} {area:.2f}" for name, area in telling.items())
        found.append(
            f"wording can be told without the lungs: who has the most frequent report or a near duplicate "
            f"({100 * clues['template_share']:.1f} % of studies), AUROC by {areas}"
        )
    return found


def _normal(studies: Sequence[Study], labeler: Labeler) -> NDArray[np.bool_]:
    if (coded := coded_normal(studies)) is not None:
        return np.array(coded)
    return is_normal(labeler.label([f"{study.findings}\n{study.impression}" for study in studies]))


def _random_split(patient_R: Ints, split_R: Ints, seed: int) -> Ints:
    """The splits of the studies (R,) with patients in random order, cut where the old sizes end."""
    patients, rows_of_R = np.unique(patient_R, return_inverse=True)
    rank_P = np.random.default_rng(seed).permutation(len(patients))
    order_R = np.argsort(rank_P[rows_of_R], kind="stable")
    drawn_R = np.empty_like(split_R)
    drawn_R[order_R] = np.sort(split_R)
    # A patient at a cut goes where the first of its studies went.
    _, first_P = np.unique(rows_of_R[order_R], return_index=True)
    found_R: Ints = drawn_R[order_R][first_P][rows_of_R]
    return found_R


def _beside(value: float, random: Sequence[float]) -> dict[str, float]:
    random_D = np.array(random)
    return {
        "value": value,
        "mean": float(random_D.mean()),
        "deviation": float(random_D.std(ddof=1)),
        "above": float((random_D >= value).mean()),
        "below": float((random_D <= value).mean()),
    }


def _table(studies: Sequence[Study], facts: Callable[[Study], Counter[str]]) -> Singles:
    counts = [facts(study) for study in studies]
    return fact_tables(counts, counts[:1])[0]


def _auroc(features_RF: Singles, is_template_R: NDArray[np.bool_], patient_R: Ints) -> float:
    """The mean over folds, within each of which all studies are scored by one fit."""
    count = len(features_RF)
    patients, rows_of_R = np.unique(patient_R, return_inverse=True)
    fold_R = (np.random.default_rng(0).permutation(len(patients)) % _FOLDS)[rows_of_R]
    space = Space.fit(features_RF, _COMPONENTS)
    smoother = Smoother.fit(space.project(features_RF), np.arange(count), strength=_STRENGTH)
    score_R = expected(smoother.left_out(fold_R, count), is_template_R[:, None].astype(np.float32))[:, 0]
    areas = [
        finding_scores(score_R[fold_R == fold].astype(np.float64), is_template_R[fold_R == fold], 0.5)["auroc"][0]
        for fold in range(_FOLDS)
    ]
    return float(np.nanmean(areas))
