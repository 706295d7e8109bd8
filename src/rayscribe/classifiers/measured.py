"""What is measured on studies with known findings: logits, validation scores, and the decisions that follow from them.

Shapes: R studies, L findings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.classifiers.cohort import Cohort
from rayscribe.classifiers.folder import calibrated
from rayscribe.classifiers.task import finding_loss_B
from rayscribe.config import ImageConfig, TextConfig
from rayscribe.data.dataset import StudyDataset
from rayscribe.data.features import FeatureCache
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.metrics.classification import best_f1_threshold, calibration, finding_scores, sigmoid
from rayscribe.models.classifier import Classifier
from rayscribe.study import Study
from rayscribe.training.validation import read_once

Logits = NDArray[np.float64]

NO_TEXT = Tokenizer(words=())  # images only: begin and end


def image_set(
    studies: list[Study],
    images: ImageConfig,
    cache: FeatureCache | None,
    *,
    augment: int | None = None,
) -> StudyDataset:
    """The images of studies, without words."""
    return StudyDataset(
        SplitReports.blank(studies),
        NO_TEXT,
        text=TextConfig(),
        images=images,
        cache=cache,
        augment=augment,
    )


@torch.inference_mode()
def logits_of(
    model: Classifier, data: StudyDataset, *, workers: int = 0, progress: Callable[[Any], Any] = iter
) -> Logits:
    """Logits of all studies (R, L), in order."""
    model.eval()
    device = model.weight.device
    batches = progress(read_once(data, range(len(data)), workers=workers))
    found = [model(batch.to(device)).double().cpu().numpy() for batch in batches]
    return np.concatenate(found) if found else np.zeros((0, model.findings))


def validation_scores(logits_RL: Logits, known_RL: NDArray[np.float32]) -> dict[str, float]:
    """The loss, and the means over findings of the areas under the ROC and precision-recall curves."""
    known = torch.from_numpy(known_RL)
    loss = float(finding_loss_B(torch.from_numpy(logits_RL), known).mean())
    found = []
    for logit_R, known_R in zip(logits_RL.T, known_RL.T, strict=True):
        is_known_R = ~np.isnan(known_R)
        found.append(finding_scores(sigmoid(logit_R[is_known_R]), known_R[is_known_R] == 1, 0.5))
    means = {name: float(np.nanmean([one[name][0] for one in found])) for name in ("auroc", "average_precision")}
    return {"loss": loss, **means}


def decisions(
    logits_RL: Logits, known_RL: NDArray[np.float32]
) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    """Thresholds of the calibrated probabilities, and the calibration itself, from the validation studies."""
    thresholds, slopes = [], []
    for logit_R, known_R in zip(logits_RL.T, known_RL.T, strict=True):
        is_known_R = ~np.isnan(known_R)
        logit_R, is_present_R = logit_R[is_known_R], known_R[is_known_R] == 1
        slopes.append(calibration(logit_R, is_present_R))
        probability_R1 = calibrated(logit_R[:, None], (slopes[-1],))
        thresholds.append(best_f1_threshold(probability_R1[:, 0], is_present_R))
    return tuple(thresholds), tuple(slopes)


def notify_counts(training: Cohort, validation: Cohort, notify: Callable[[str], None]) -> None:
    for split, cohort in (("train", training), ("val", validation)):
        left_out = "".join(f", {count} left out with {reason}" for reason, count in cohort.left_out.items())
        counts = "; ".join(f"{name} {'/'.join(map(str, cohort.counts(name)))}" for name in cohort.findings)
        notify(f"{split}: {len(cohort.studies)} studies{left_out}; with/without: {counts} ({cohort.source})")
