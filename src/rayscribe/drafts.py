"""What a model says of a study, how its words are chosen, and what everybody asks of a model that writes.

Shapes: T words, V views, S patches along a side of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rayscribe.settings import need
from rayscribe.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingConfig:
    """How tokens are chosen. Defaults are R2Gen's search: three beams, sum of log-probabilities, nothing blocked."""

    strategy: Literal["beam", "sample"] = "beam"
    beams: int = 3
    "hypotheses that are searched side by side; 1 is greedy"
    length_penalty: float = 0.0
    "alpha of Wu et al. (2016); 0 compares plain sums of log-probabilities"
    block_ngrams: int = 0
    "no n-gram of this length occurs twice; 0 blocks nothing"
    min_tokens: int = 0
    "words before the end is allowed"
    max_tokens: int | None = None
    "words at the most; the training length when empty"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    "tokens below this share of the likeliest one's probability are never drawn; 0: no bound"
    seed: int = 0
    "of the sampling"

    def __post_init__(self) -> None:
        need(self.beams >= 1, "--decoding.beams", self.beams, "at least 1")
        need(0 <= self.length_penalty <= 100, "--decoding.length-penalty", self.length_penalty, "between 0 and 100")
        need(self.block_ngrams >= 0, "--decoding.block-ngrams", self.block_ngrams, "not negative; 0 blocks nothing")
        need(self.min_tokens >= 0, "--decoding.min-tokens", self.min_tokens, "not negative")
        need(
            1e-4 <= self.temperature <= 1e4,
            "--decoding.temperature",
            self.temperature,
            "between 0.0001 and 10000; --decoding.beams 1 is greedy",
        )
        need(0 <= self.seed < 2**63, "--decoding.seed", self.seed, "between 0 and 2^63 - 1")
        need(0 < self.top_p <= 1, "--decoding.top-p", self.top_p, "above 0, at most 1")
        need(self.top_k >= 0, "--decoding.top-k", self.top_k, "not negative; 0 takes all")
        need(0 <= self.min_p < 1, "--decoding.min-p", self.min_p, "at least 0, below 1")
        tokens = self.max_tokens
        need(tokens is None or 1 <= tokens <= 512, "--decoding.max-tokens", tokens, "between 1 and 512")


PRESETS: dict[str, DecodingConfig] = {
    # Koehler, Hsieh and Tang (2024), the notebooks that write reports with Llama-3.2-Vision.
    "koehler": DecodingConfig(strategy="sample", temperature=1.5, min_p=0.1, max_tokens=128),
    "greedy": DecodingConfig(beams=1),
}
"Decodings by name, for `--preset`."


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStudy:
    """A training study that speaks for a draft."""

    id: str
    share: float
    "of all that speaks for it, in [0, 1]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a model says of one study."""

    reports: list[str]
    "n-best, best first"
    warnings: list[str] = field(default_factory=list)
    diagnosis: dict[str, str] = field(default_factory=dict)
    "states by condition, which the model reads before it writes; empty for methods without a disease head"
    attention: list[NDArray[np.float32]] = field(default_factory=list)
    "of every report: where the decoder looked while it wrote a word (T, V, S, S); empty for models that do not tell"
    log_probabilities: list[float] = field(default_factory=list)
    "of every report; empty for models that do not tell"
    probabilities: dict[str, float] = field(default_factory=dict)
    "calibrated, by observation; empty for models that give none"
    expected: dict[str, float] = field(default_factory=dict)
    "scores that the best report is expected to get, by utility; empty for models that do not tell"
    studies: list[TrainingStudy] = field(default_factory=list)
    "training studies that speak most for the best report; empty for models that do not tell"


class Reporter(Protocol):
    """Anything that writes reports for the studies of a manifest."""

    def draft(self, studies: Sequence[Study], decoding: DecodingConfig) -> list[Draft]:
        """One draft a study, in their order."""


def first_reports(drafts: Sequence[Draft]) -> list[str]:
    """The best report of every draft."""
    return [draft.reports[0] for draft in drafts]
