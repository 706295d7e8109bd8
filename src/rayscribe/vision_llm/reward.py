"""The reward for a report: clinical F1 and overlap, minus penalties for repeated or unfinished reports.

        reward = clinical * F1 + overlap * ROUGE-L - repeated * share - unfinished * u

Shapes: R reports of one batch: several studies, each with one or more reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rayscribe.data.cleaning import CLEANINGS, words_only
from rayscribe.errors import InputError
from rayscribe.labels import Labeler
from rayscribe.metrics.clinical import clinical, is_positive
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap
from rayscribe.metrics.statistics import Floats
from rayscribe.settings import need

_F1 = "example_f1_14_uncertain_negative"
_RANGE = "a weight from 0 to 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Weights of four parts in [0, 1]: the reward lies between -(repeated + unfinished) and clinical + overlap.

    The weights are ours, from no paper.
    """

    clinical: float = 0.5
    "weight of the F1 over the 14 observations of the built-in labeler, uncertain as negative"
    overlap: float = 0.5
    "weight of ROUGE-L"
    repeated: float = 0.25
    "penalty for the share of the batch's reports on other studies that say the same"
    unfinished: float = 0.5
    "penalty for an empty report, and for one that was truncated at the token limit"
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu"
    "cleaning before ROUGE-L, and before reports are compared with one another"

    def __post_init__(self) -> None:
        need(0 <= self.clinical <= 1, "--reward.clinical", self.clinical, _RANGE)
        need(0 <= self.overlap <= 1, "--reward.overlap", self.overlap, _RANGE)
        need(0 <= self.repeated <= 1, "--reward.repeated", self.repeated, _RANGE)
        need(0 <= self.unfinished <= 1, "--reward.unfinished", self.unfinished, _RANGE)
        paid = self.clinical + self.overlap
        need(paid > 0, "--reward.clinical", self.clinical, "above 0, or --reward.overlap above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTrainConfig:
    """Group relative policy optimisation (Shao et al., 2024, "DeepSeekMath") with trl, for a model tuned by `llm train`."""

    reward: RewardConfig = field(default_factory=RewardConfig)
    steps: int = 200
    "optimiser steps"
    studies_per_step: int = 8
    "different studies per step"
    generations: int = 8  # trl's default; the paper has 64
    "reports sampled per study; each is compared with their mean"
    batch_size: int = 8
    "reports at once in the backward pass"
    lr: float = 1e-5  # ours, for adapters; the paper tunes all weights at 1e-6
    "constant learning rate"
    beta: float = 0.04  # the paper's
    "weight of the divergence from the initial adapters; 0: none, which saves a copy of them and a forward pass"
    temperature: float = 1.0  # the paper's
    "sampling temperature; validation is greedy"
    max_new_tokens: int = 0
    "tokens per report at most; 0: the model's own --text.max-new-tokens"
    evaluate_every: int = 20
    "steps between validations; each one keeps a checkpoint"
    val_studies: int = 0
    "number of validation studies, drawn once with the seed; 0: all"
    seed: int = 3407

    def __post_init__(self) -> None:
        reports = self.studies_per_step * self.generations
        need(self.steps >= 1, "--steps", self.steps, "at least 1")
        need(self.studies_per_step >= 2, "--studies-per-step", self.studies_per_step, "at least 2, to compare reports")
        need(
            self.generations >= 2,
            "--generations",
            self.generations,
            "at least 2: a report is compared with the others",
        )
        fits = self.batch_size >= 1 and reports % self.batch_size == 0
        need(fits, "--batch-size", self.batch_size, f"must divide --studies-per-step x --generations, {reports}")
        need(self.lr > 0, "--lr", self.lr, "above 0")
        need(self.beta >= 0, "--beta", self.beta, "not negative")
        need(self.temperature > 0, "--temperature", self.temperature, "above 0")
        need(0 <= self.max_new_tokens <= 512, "--max-new-tokens", self.max_new_tokens, "at most 512, or 0")
        need(self.evaluate_every >= 1, "--evaluate-every", self.evaluate_every, "at least 1")
        need(self.val_studies >= 0, "--val-studies", self.val_studies, "not negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardParts:
    """The parts of one report's reward, each in [0, 1]."""

    clinical: float
    overlap: float
    repeated: float
    unfinished: float

    def total(self, settings: RewardConfig) -> float:
        paid = settings.clinical * self.clinical + settings.overlap * self.overlap
        return paid - settings.repeated * self.repeated - settings.unfinished * self.unfinished


def report_rewards(
    written: Sequence[str],
    references: Sequence[str],
    settings: RewardConfig,
    *,
    cut: Sequence[bool] = (),
    labeler: Labeler | None = None,
) -> list[float]:
    """Rewards of report i against reference i; see `report_parts`."""
    return [parts.total(settings) for parts in report_parts(written, references, settings, cut=cut, labeler=labeler)]


def report_parts(
    written: Sequence[str],
    references: Sequence[str],
    settings: RewardConfig,
    *,
    cut: Sequence[bool] = (),
    labeler: Labeler | None = None,
) -> list[RewardParts]:
    """The parts of the rewards. Raises InputError for an empty reference.

    clinical    F1 of the observations that are positive in both. If neither has one (both only uncertain) the two agree: 1,
                where the corpus metrics have 0 / 0 = 0.
    overlap     ROUGE-L of the cleaned texts, as in `metrics/overlap.py`.
    repeated    of the batch's reports whose reference differs from reference i, the share that says the same as report i. Two
                texts say the same if their cleaned sentences are the same set. With equally many reports per study this is
                the mean over the other studies. 0 if all references say the same.
    unfinished  1 for an empty report, whose clinical and overlap are 0, and where `cut` is true.
    """
    for given, what in ((written, "reports"), (cut or written, "marks of being cut")):
        if len(given) != len(references):
            raise InputError(f"{len(given)} {what} for {len(references)} references")
    if bare := sum(not words_only(reference) for reference in references):
        raise InputError(f"{bare} of {len(references)} references are empty; exclude these studies")
    if not references:
        return []
    clean = CLEANINGS[settings.cleaning]
    cleaned, cleaned_references = [clean(text) for text in written], [clean(text) for text in references]
    has_words_R = np.array([bool(words_only(text)) for text in written])
    clinical_R = _clinical(written, references, labeler or RuleLabeler()) * has_words_R
    rows = overlap(cleaned, cleaned_references)
    overlap_R = rows.table_RK[:, rows.columns.index("rouge_l")] * has_words_R
    unfinished_R = ~has_words_R | (np.array(cut, bool) if cut else False)
    return [
        RewardParts(clinical=float(f1), overlap=float(shared), repeated=repeated, unfinished=float(unfinished))
        for f1, shared, repeated, unfinished in zip(
            clinical_R, overlap_R, _repeated(cleaned, cleaned_references), unfinished_R, strict=True
        )
    ]


def mean_parts(parts: Sequence[RewardParts], settings: RewardConfig) -> dict[str, float]:
    """`reward` and its four parts, averaged over the reports."""
    return {
        "reward": float(np.mean([one.total(settings) for one in parts])),
        "clinical": float(np.mean([one.clinical for one in parts])),
        "overlap": float(np.mean([one.overlap for one in parts])),
        "repeated": float(np.mean([one.repeated for one in parts])),
        "unfinished": float(np.mean([one.unfinished for one in parts])),
    }


def _clinical(written: Sequence[str], references: Sequence[str], labeler: Labeler) -> Floats:
    predicted_RO, reference_RO = labeler.label(written), labeler.label(references)
    rows = clinical(predicted_RO, reference_RO)
    neither_R = ~(is_positive(predicted_RO, "negative") | is_positive(reference_RO, "negative")).any(1)
    return np.where(neither_R, 1.0, rows.table_RK[:, rows.columns.index(_F1)])


def _repeated(cleaned: Sequence[str], references: Sequence[str]) -> list[float]:
    said, true = [_said(text) for text in cleaned], [_said(text) for text in references]
    pairs = list(zip(said, true, strict=True))
    same_text, same_reference, same_both = Counter(said), Counter(true), Counter(pairs)
    shares = []
    for text, reference in pairs:
        others = len(pairs) - same_reference[reference]
        shares.append((same_text[text] - same_both[text, reference]) / others if others else 0.0)
    return shares


def _said(cleaned: str) -> frozenset[str]:
    return frozenset(sentence for part in cleaned.split(" .") if (sentence := words_only(part)))
