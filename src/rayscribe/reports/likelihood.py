"""Probabilities in words, on the calibrated scale of the IPCC (Mastrandrea et al., 2010, table 1).

Its terms overlap (likely is 66 to 100 %); here every probability gets the narrowest term that contains it.
"""

from __future__ import annotations

SCALE: tuple[tuple[float, str], ...] = (
    (0.99, "virtually certain"),
    (0.90, "very likely"),
    (0.66, "likely"),
    (0.33, "about as likely as not"),
    (0.10, "unlikely"),
    (0.01, "very unlikely"),
    (0.0, "exceptionally unlikely"),
)
"Lowest probability of each term, and the term."


def likelihood_phrase(probability: float) -> str:
    """The term for a calibrated probability in [0, 1]."""
    return next(term for least, term in SCALE if probability >= least)
