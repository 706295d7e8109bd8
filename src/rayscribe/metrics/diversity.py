"""How many different reports a system writes: the quickest check for a collapsed model."""

from collections import Counter
from collections.abc import Sequence


def diversity(hypotheses: Sequence[str]) -> dict[str, float]:
    """Number and share of distinct reports, share of the most frequent one, distinct words, empty reports, distinct-1..4.

    Shares are in [0, 1]. distinct-n (Li et al., 2016): distinct n-grams over all n-grams of the set.
    """
    counts = Counter(" ".join(text.split()) for text in hypotheses)
    texts = [text.split() for text in hypotheses]
    found: dict[str, float] = {
        "distinct_reports": len(counts),
        "distinct_ratio": len(counts) / len(hypotheses),
        "top_share": max(counts.values()) / len(hypotheses),
        "words": len({word for words in texts for word in words}),
        "empty_reports": counts[""],
    }
    for order in range(1, 5):
        grams = [gram for words in texts for gram in zip(*(words[i:] for i in range(order)))]
        found[f"distinct_{order}"] = len(set(grams)) / len(grams) if grams else 0.0
    return found


def against_references(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Vocabulary coverage in [0, 1], mean length over the references' mean length, and the references' own diversity."""
    given, wanted = [text.split() for text in hypotheses], [text.split() for text in references]
    same = diversity(references)
    seen, known = {word for words in given for word in words}, {word for words in wanted for word in words}
    return {
        "vocabulary_coverage": len(seen & known) / len(known),
        "length_ratio": sum(map(len, given)) / sum(map(len, wanted)),
        "reference_distinct_ratio": same["distinct_ratio"],
        "reference_top_share": same["top_share"],
    }
