"""The text cleaning behind the published scores of this field, rule by rule.

Source: R2Gen's released tokenizer (Chen et al., EMNLP 2020), used unchanged by R2GenCMN, JIMA and ITHN. Its quirks are
reproduced, because scores are comparable only under the same cleaning: "and/or" becomes "andor", the list number in "11. "
loses its last digit, hyphens survive.
"""

import re
from collections.abc import Callable

_QUOTES_AND_SLASHES = str.maketrans("", "", "\"/\\'")
_PUNCTUATION = str.maketrans("", "", "!%&()*+,.:;<=>?@[]^_{}")


def clean_r2gen_iu(report: str) -> str:
    """R2Gen's cleaning for IU X-Ray: lower-case tokens separated by spaces; every sentence ends with " ."."""
    return _sentences(_repeat(report, "..", ".", times=3))


def clean_r2gen_mimic(report: str) -> str:
    """R2Gen's cleaning for MIMIC-CXR, which first removes line breaks, mask underscores and runs of spaces or stops."""
    report = report.replace("\n", " ")
    report = _repeat(report, "__", "_", times=7)
    report = _repeat(report, "  ", " ", times=6)
    return _sentences(_repeat(report, "..", ".", times=8))


CLEANINGS: dict[str, Callable[[str], str]] = {"r2gen-iu": clean_r2gen_iu, "r2gen-mimic": clean_r2gen_mimic}


def words_only(report: str) -> str:
    """Lower-case words without punctuation: to a reader, two reports with equal words are duplicates."""
    return " ".join(_WORD.findall(report.lower()))


def swap_sides(text: str) -> str:
    """The text with left and right exchanged, for an image that is flipped horizontally."""
    return _SIDE.sub(lambda match: _OTHER_SIDE[match[0]], text)


_WORD = re.compile(r"\w+")
_OTHER_SIDE = {"left": "right", "right": "left", "levo": "dextro", "dextro": "levo"}
_SIDE = re.compile(r"\b(?:left|right)|\b(?:levo|dextro)(?=scoli|curv|convex|card|rotat|position)")


def _repeat(text: str, old: str, new: str, *, times: int) -> str:
    for _ in range(times):
        text = text.replace(old, new)
    return text


def _sentences(report: str) -> str:
    report = report.replace("1. ", "")
    # The originals replace one number after another; texts such as ". 2. 3. " need the same order.
    for number in "2345":
        report = report.replace(f". {number}. ", ". ")
    for number in "2345":
        report = report.replace(f" {number}. ", ". ")
    sentences = report.strip().lower().split(". ")
    # An empty sentence stays and gives two stops in a row: the originals' filter for it never matches (11 IU reports).
    cleaned = [s.translate(_QUOTES_AND_SLASHES).strip().translate(_PUNCTUATION) for s in sentences]
    return " ".join((" . ".join(cleaned) + " .").split())
