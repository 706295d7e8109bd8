"""The Snowball stemmer for English (porter2) as it stood when METEOR 1.5 was released.

Later versions of Snowball changed their exceptions and suffixes, so a current stemmer gives different METEOR scores. Algorithm:
M. Porter, "The English (Porter2) stemming algorithm", 2002; R1 and R2 are the regions of that description.
"""

from __future__ import annotations

import re

_WHOLE = {
    "skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl",
    "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl",
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}  # fmt: skip
_UNCHANGED_AFTER_PLURAL = frozenset(
    ("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed")
)
_VOWELS = frozenset("aeiouy")  # a "Y" is a consonant
_STEP_2 = {
    "ational": "ate", "ization": "ize", "fulness": "ful", "iveness": "ive", "ousness": "ous", "biliti": "ble",
    "lessli": "less", "tional": "tion", "alism": "al", "aliti": "al", "ation": "ate", "entli": "ent", "fulli": "ful",
    "iviti": "ive", "ousli": "ous", "abli": "able", "alli": "al", "anci": "ance", "ator": "ate", "enci": "ence",
    "izer": "ize", "bli": "ble", "ogi": "og", "li": "",
}  # fmt: skip
_STEP_3 = {
    "ational": "ate", "tional": "tion", "alize": "al", "icate": "ic", "iciti": "ic", "ative": "", "ical": "ic",
    "ness": "", "ful": "",
}  # fmt: skip
_STEP_4 = {
    "ement": "", "ance": "", "ence": "", "able": "", "ible": "", "ment": "", "ant": "", "ent": "", "ate": "", "ive": "",
    "ize": "", "iti": "", "ism": "", "ion": "", "ous": "", "ic": "", "al": "", "er": "",
}  # fmt: skip
_BEFORE = {"ogi": "l", "li": "cdeghkmnrt", "ion": "st"}  # suffixes that are removed only after one of these letters
_PREFIX_REGION = re.compile("gener|commun|arsen")
_REGION = re.compile("[aeiouy][^aeiouy]")
_SHORT_SYLLABLE = re.compile("(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy])$")


def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if len(word) < 3 or word in _WHOLE:
        return _WHOLE.get(word, word)
    word = word.removeprefix("'")
    if word.startswith("y"):
        word = "Y" + word[1:]
    word = re.sub("([aeiouy])y", r"\1Y", word)
    region_1, region_2 = _regions(word)
    word = _without_plural(word)
    if word not in _UNCHANGED_AFTER_PLURAL:
        word = _without_past(word, region_1)
        if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:
            word = word[:-1] + "i"
        word = _replaced(word, _STEP_2, region_1, region_2)
        word = _replaced(word, _STEP_3, region_1, region_2)
        word = _replaced(word, _STEP_4, region_2, region_2)
        word = _without_last_letter(word, region_1, region_2)
    return word.replace("Y", "y")


def _regions(word: str) -> tuple[int, int]:
    """Where R1 and R2 start: after the first consonant that follows a vowel, applied once and twice."""
    first = _PREFIX_REGION.match(word) or _REGION.search(word)
    region_1 = first.end() if first else len(word)
    second = _REGION.search(word, region_1)
    return region_1, second.end() if second else len(word)


def _without_plural(word: str) -> str:
    """Step 0 and step 1a."""
    for ending in ("'s'", "'s", "'"):
        if word.endswith(ending):
            word = word.removesuffix(ending)
            break
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and not _VOWELS.isdisjoint(word[:-2]):
        return word[:-1]
    return word


def _without_past(word: str, region_1: int) -> str:
    """Step 1b: "-ed" and "-ing"."""
    for suffix in ("eedly", "ingly", "edly", "eed", "ing", "ed"):
        if not word.endswith(suffix):
            continue
        start = len(word) - len(suffix)
        if suffix.startswith("eed"):
            return word[:start] + "ee" if start >= region_1 else word
        if _VOWELS.isdisjoint(word[:start]):
            return word
        word = word[:start]
        if word.endswith(("at", "bl", "iz")):
            return word + "e"
        if word.endswith(("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")):
            return word[:-1]
        return word + "e" if len(word) == region_1 and _SHORT_SYLLABLE.search(word) else word
    return word


def _replaced(word: str, endings: dict[str, str], region: int, region_2: int) -> str:
    """The word with its longest matching ending (they are sorted by length) replaced if that lies in its region."""
    for suffix, replacement in endings.items():
        if not word.endswith(suffix):
            continue
        start = len(word) - len(suffix)
        fits = start >= (region_2 if suffix == "ative" else region)
        if fits and suffix in _BEFORE:
            fits = word[start - 1 : start] in tuple(_BEFORE[suffix])
        return word[:start] + replacement if fits else word
    return word


def _without_last_letter(word: str, region_1: int, region_2: int) -> str:
    """Step 5."""
    start = len(word) - 1
    if word.endswith("e"):
        short = _SHORT_SYLLABLE.search(word[:-1]) is not None
        return word[:-1] if start >= region_2 or (start >= region_1 and not short) else word
    return word[:-1] if word.endswith("ll") and start >= region_2 else word
