"""How many different reports a system writes: the quickest sign of a model that has collapsed."""

from collections import Counter
from collections.abc import Sequence


def diversity(hypotheses: Sequence[str]) -> dict[str, float]:
    """Share of distinct reports, share of the most frequent one, distinct words."""
    counts = Counter(" ".join(text.split()) for text in hypotheses)
    words = {word for text in hypotheses for word in text.split()}
    return {
        "distinct_ratio": len(counts) / len(hypotheses),
        "top_share": max(counts.values()) / len(hypotheses),
        "words": len(words),
    }
