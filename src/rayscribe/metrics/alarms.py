"""Warnings in words at the top of a summary, for cases in which a score alone would mislead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayscribe.metrics.grounding import FEWEST_STUDIES

FEW = 0.25
"A distinct ratio below this share of the references' own is a collapse."
REPEATED = 0.25
"One report for more than this share of the studies is a collapse too, unless the references repeat themselves as much."
BARE = 0.05
"Smallest vocabulary coverage without an alarm: words used over words of the references."
SHORT, LONG = 0.5, 2.0
"Bounds of the mean length over the references' mean length."
LEVEL = 0.05


def alarms(
    studies: int,
    diverse: Mapping[str, float],
    grounding: Mapping[str, Mapping[str, float]],
    below: Sequence[str],
    reached: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Warnings as sentences; empty if there are none.

    `below`: scores on which one report for every study does as well; `reached`: those on which reports chosen without the
    lung do, by the words for what they are chosen by.
    """
    found = []
    distinct = int(diverse["distinct_reports"])
    if diverse["distinct_ratio"] < FEW * diverse["reference_distinct_ratio"] or _repeats(diverse):
        found.append(
            f"COLLAPSED: {distinct} distinct reports for {studies} studies; "
            f"the most frequent one covers {100 * diverse['top_share']:.0f} % of them"
        )
    if diverse["empty_reports"]:
        found.append(f"EMPTY: {int(diverse['empty_reports'])} of {studies} reports are empty")
    if diverse["vocabulary_coverage"] < BARE:
        found.append(f"FEW WORDS: {100 * diverse['vocabulary_coverage']:.1f} % of the references' words are used")
    if not SHORT <= diverse["length_ratio"] <= LONG:
        found.append(f"LENGTH: reports are {diverse['length_ratio']:.2f} times as long as their references")
    for name, test in grounding.items():
        if test["p"] > LEVEL and studies >= FEWEST_STUDIES:
            found.append(
                f"NOT GROUNDED: reassigning the reports to other studies at random does not lower {name.replace('_', ' ')} "
                f"(p = {test['p']:.3f}): the model may ignore the image"
            )
    if below:
        found.append(f"BELOW THE FLOOR: no better than one report for every study in {', '.join(below)}")
    found += [
        f"NO LUNG NEEDED: no better than reports chosen by {words} in {', '.join(names)}"
        for words, names in (reached or {}).items()
        if names
    ]
    return found


def _repeats(diverse: Mapping[str, Any]) -> bool:
    return bool(diverse["top_share"] > max(REPEATED, 2 * diverse["reference_top_share"]))
