"""Hands: the radiologists of the phantom world. Each has habits of wording, a scanner and paperwork of their own.

Who dictates depends on nothing that a film shows of the chest. So whatever a score gains by knowing the hand is wording, which
is what the floors of `rayscribe evaluate` are there to show.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_HANDS = 5
_HABIT = 0.85  # share of choices that follow the hand's habit
_TITLES = (
    "Xray Chest PA and Lateral",
    "CHEST 2V FRONTAL/LATERAL",
    "Chest, 2 views, frontal and lateral",
    "PA and lateral chest x-XXXX XXXX at XXXX hours.",
    "chest radiograph",
)
_INDICATIONS = ("{0}.", "{1}", "{2}", "XXXX-year-old with {2}.", "{0}, XXXX")  # Sentence, CAPITALS, lower case
_COMPARISONS = ("None.", "NONE", "none available", "XXXX.", "")


@dataclass(frozen=True, slots=True)
class Hand:
    """One of the hands, 1 to 5; 0 is nobody in particular, without habits."""

    number: int = 0

    def any(self, rng: np.random.Generator, texts: Sequence[str], variety: float = 1.0) -> str:
        """One of the texts: usually the one that this hand is used to, else any; `variety` narrows the choice to the first."""
        draw, among = float(rng.random()), max(1, round(variety * len(texts)))
        if not self.number:
            return texts[int(draw * among)]
        if draw < _HABIT:
            return texts[zlib.crc32(f"{self.number} {texts[0]}".encode()) % len(texts)]
        return texts[int((draw - _HABIT) / (1 - _HABIT) * among)]

    def ordered(self, regions: Sequence[str]) -> list[str]:
        """The regions of a report in this hand's order."""
        order = list(regions)
        return order[self.number % len(order) :] + order[: self.number % len(order)] if self.number > 2 else order

    def title(self, usual: str) -> str:
        """The examination's title; `usual` for nobody in particular."""
        return _TITLES[self.number - 1] if self.number else usual

    def indication(self, usual: str) -> str:
        """The indication in this hand's form."""
        plain = usual.rstrip(".")
        return _INDICATIONS[self.number - 1].format(plain, plain.upper(), plain.lower()) if self.number else usual

    def comparison(self, usual: str) -> str:
        """The comparison in this hand's form."""
        return _COMPARISONS[self.number - 1] if self.number else usual

    def borders(self, drawn: Sequence[float]) -> list[float]:
        """Widths of the collimated borders, in half sides: the scanner's, changed a little by what was drawn."""
        if not self.number:
            return list(drawn)
        own = np.random.default_rng(self.number).uniform(0.0, 0.14, 4)
        return [float(width + 0.3 * (one - 0.005)) for width, one in zip(own, drawn)]

    def marker(self) -> tuple[float, float]:
        """Where the side marker lies, as shifts from its usual place."""
        return (-0.1 * (self.number % 3), 0.12 * (self.number // 2)) if self.number else (0.0, 0.0)


def drawn_hand(seed: int, index: int, hands: int) -> int:
    """The hand that dictates study `index`; 0 in a world of one hand. Changes nothing else about the study."""
    return int(np.random.default_rng([seed, index, 5]).integers(hands)) + 1 if hands > 1 else 0
