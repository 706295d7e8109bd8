"""What a clause says of its subject: "effusions are unchanged" says that there are some."""

from __future__ import annotations

from collections.abc import Sequence

from rayscribe.metrics.phrases import word_set

LASTING = word_set(
    """unchanged stable similar same persistent increased increasing decreased decreasing larger smaller bigger better worse
    worsened worsening improved improving progressed progressing enlarging enlarged resolving small tiny trace minimal mild
    moderate large severe chronic grown"""
)
"What a sentence says only of a finding that is there."

LASTING_VERBS = word_set("persists persist persisted remains remain recurs recurred reaccumulated grew")
"Verbs with the same meaning."


def lasts(texts: Sequence[str], at: int, *, is_bare: bool) -> bool:
    """Whether the words from `at` on say that their subject lasts, as in "at both bases is unchanged".

    `is_bare` also accepts an adjective without a verb.
    """
    while at < len(texts) and texts[at] in _PLACES:
        at += 1
    if at == len(texts):
        return False
    if texts[at] in LASTING_VERBS:
        return set(texts[at + 1 : at + 2]).isdisjoint(_ABSENT)
    has_verb = texts[at] in _BE
    while at < len(texts) and (texts[at] in _BE or texts[at] in _DEGREES):
        if texts[at] == "not" and set(texts[at + 1 : at + 3]) & _NOT_YET:
            return True
        at += 1
    if at == len(texts):
        return False
    if texts[at] == "again":
        return True
    if texts[at] not in LASTING:
        return False
    return has_verb or (is_bare and (at + 1 == len(texts) or texts[at + 1] in _AFTER_BARE))


_PLACES = word_set(
    """in on at of the both left right side sided base apex bilateral bilaterally bibasilar lower upper middle mid lung
    lobe basilar zone hemithorax chest pleural space also size volume which that component"""
)
_BE = word_set("is are was were has have been appears appear being looks seems")
_DEGREES = word_set(
    """slightly mildly minimally still only also not significantly essentially grossly largely overall relatively very
    a little bit somewhat moderately markedly now much even rather"""
)
_NOT_YET = word_set("changed resolved cleared increased decreased different improved worsened enlarged")
_ABSENT = word_set("absent resolved excluded unlikely")
_AFTER_BARE = word_set(", ; and since from in compared to on at by with as than")
