"""The 14 CheXpert observations, in the order of the CheXpert labeler (Irvin et al., 2019), and their states.

CheXbert writes the same names in another order; mixing the two up is a known bug of this field.

Shapes: R reports, O the 14 observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

OBSERVATIONS: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

CHEXBERT_ORDER: tuple[str, ...] = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
"The same in the order of CheXbert's classifiers, which PromptMRG's prompt follows."

AUXILIARY: tuple[str, ...] = (
    "Aorta Abnormal",
    "Bone/Spine Abnormal",
    "Hemidiaphragm Abnormal",
    "Lung Volume Abnormal",
)
"Four more conditions that few tables label; PromptMRG never released the rules that label them (issue 30)."

CONDITIONS: tuple[str, ...] = (*CHEXBERT_ORDER, *AUXILIARY)
"Order of the prompt (PromptMRG, issues 17 and 25)."

UNLABELLED = -100
"State of a condition that nobody labelled: left out of the loss, not mentioned in the prompt."

FIVE: tuple[str, ...] = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"The five of the CheXpert competition, which many papers score alone."

NOT_MENTIONED, POSITIVE, NEGATIVE, UNCERTAIN = 0, 1, 2, 3
"States of an observation in a report: the codes that CheXbert and PromptMRG use."

STATE_NAMES: dict[int, str] = {
    NOT_MENTIONED: "not mentioned",
    POSITIVE: "positive",
    NEGATIVE: "negative",
    UNCERTAIN: "uncertain",
}

CSV_STATES: dict[int, str] = {NOT_MENTIONED: "", POSITIVE: "1", NEGATIVE: "0", UNCERTAIN: "-1"}
"The same states as the CheXpert labeler writes them to a table."

Labels = NDArray[np.int8]


class Labeler(Protocol):
    """Reports to states. The built-in rules, CheXbert on disk and a table made elsewhere have this one shape."""

    @property
    def name(self) -> str:
        """What goes into the protocol's signature: two labelers' scores are not comparable."""
        ...

    def label(self, reports: Sequence[str]) -> Labels:
        """States (R, O) in the order of `OBSERVATIONS`."""
        ...
