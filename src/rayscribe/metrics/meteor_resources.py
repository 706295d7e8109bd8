"""What METEOR 1.5 knows about English: tokens, function words, synonyms and paraphrases.

The tables belong to METEOR; they are read from an installed pycocoevalcap and are not part of this package.
"""

from __future__ import annotations

import importlib.util
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import compress
from pathlib import Path

from rayscribe.errors import InputError

Words = tuple[str, ...]
Paraphrases = Mapping[Words, tuple[Words, ...]]
PHRASE_WORDS = 7  # the longest phrase of the paraphrase table


@dataclass(frozen=True, slots=True)
class MeteorResources:
    """Paths of METEOR's tables; exact matches and stems need none."""

    jar: Path | None = None
    "meteor-1.5.jar, a zip file with the synonyms, the function words and the abbreviations"
    paraphrases: Path | None = None
    "paraphrase-en.gz"


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The tables inside the jar, as text that is parsed word by word, on demand."""

    function_words: frozenset[str]
    abbreviations: Mapping[str, bool]
    "words that keep their full stop; True if only before a number"
    sets: Mapping[str, str]
    "a word's synonym sets, separated by spaces"
    bases: Mapping[str, tuple[str, ...]]
    "the base forms of an irregular form"


def find_resources() -> MeteorResources:
    """Paths of METEOR's tables in the installed pycocoevalcap; empty if it is not installed."""
    found = importlib.util.find_spec("pycocoevalcap")
    for place in (found and found.submodule_search_locations) or ():
        jar = Path(place) / "meteor" / "meteor-1.5.jar"
        paraphrases = Path(place) / "meteor" / "data" / "paraphrase-en.gz"
        return MeteorResources(jar if jar.is_file() else None, paraphrases if paraphrases.is_file() else None)
    return MeteorResources()


@cache
def read_lexicon(jar: Path | None) -> Lexicon:
    """The jar's English tables, cached; empty without a jar."""
    if jar is None:
        return Lexicon(frozenset(), {}, {}, {})
    with zipfile.ZipFile(jar) as tables:

        def lines(name: str) -> list[str]:
            return tables.read(name).decode("utf-8").splitlines()

        prefixes = [line.split() for line in lines("nonbreaking/english.prefixes")]
        exceptions = lines("synonym/english.exceptions")
        sets = lines("synonym/english.synsets")
        function_words = frozenset(lines("function/english.words"))
    bases: dict[str, tuple[str, ...]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2]):
        for form in forms.split():
            bases[form] = (*bases.get(form, ()), base)
    return Lexicon(
        function_words,
        {words[0]: words[1:2] == ["#NUMERIC_ONLY#"] for words in prefixes if words and words[0][0] != "#"},
        dict(zip(sets[::2], sets[1::2])),
        bases,
    )


_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""), ("est", ""), ("er", "e"),
    ("est", "e"),
)  # fmt: skip


def synonym_sets(word: str, lexicon: Lexicon) -> frozenset[str]:
    """The synonym sets of a word and of its base forms."""
    bases = lexicon.bases.get(word) or (_base(word, lexicon.sets),)
    return frozenset(name for form in (word, *bases) for name in lexicon.sets.get(form, "").split())


def _base(word: str, known: Mapping[str, str]) -> str:
    """The first known form under WordNet's detachment rules, in METEOR's order."""
    if word.endswith("ss") or len(word) <= 2:
        return word
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and (form := word.removesuffix(ending) + replacement) in known:
            return form
    return ""


def read_paraphrases(table: Path, first: Collection[Words], second: Collection[Words]) -> Paraphrases:
    """Paraphrases from a phrase of `first` to one of `second` or the reverse, in the table's order.

    The table (3 lines per entry: probability, phrase, paraphrase) is far larger than one set of reports needs, so it is read
    once and only matching entries are kept. Raises InputError if the file is truncated.
    """
    sides = {" ".join(words).encode(): words for words in (*first, *second)}
    in_first = {" ".join(words).encode() for words in first}
    in_second = {" ".join(words).encode() for words in second}
    found: dict[Words, list[Words]] = {}
    for lines in _entries(table):
        entries = zip(lines[1::3], lines[2::3])
        for phrase, paraphrase in compress(entries, map(sides.__contains__, lines[1::3])):
            if (phrase in in_first and paraphrase in in_second) or (phrase in in_second and paraphrase in in_first):
                found.setdefault(sides[phrase], []).append(sides[paraphrase])
    return {phrase: tuple(paraphrases) for phrase, paraphrases in found.items()}


def _entries(table: Path) -> Iterator[list[bytes]]:
    """The lines of the table, block by block; every block ends with a whole entry."""
    inflate, rest = zlib.decompressobj(wbits=31), b""
    carried: list[bytes] = []
    with table.open("rb") as file:
        while packed := file.read(1 << 16):
            lines = (rest + inflate.decompress(packed)).split(b"\n")
            rest = lines.pop()
            lines = carried + lines
            whole = len(lines) // 3 * 3
            carried = lines[whole:]
            yield lines[:whole]
    if not inflate.eof:
        raise InputError(f"{table}: truncated; reinstall pycocoevalcap")


_ALPHA = "A-Za-zŠŽšžŸÀ-ÖØ-öø-ž\u0400-\u04ff\u0500-\u0527\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
_SPACES = re.compile("[ \u2000-\u200a\u202f\u205f\u3000\u00a0]+")
_TRIMMED = "".join(map(chr, range(0x21)))
_BEFORE_DOTS = (re.compile(rf"([^0-9{_ALPHA}\s.'`,\-‘’])", re.ASCII), r" \1 ")
_AFTER_DOTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("([^0-9]),([^0-9])", r"\1 , \2"),
        ("([0-9]),([^0-9])", r"\1 , \2"),
        ("([^0-9]),([0-9])", r"\1 , \2"),
        ("[`‘’]", "'"),
        ("[“”]|''", ' " '),
        ("–", "-"),
        ("--", "-"),
        (rf"([0-9{_ALPHA}.])-([0-9{_ALPHA}])", r"\1 \2"),
        (rf"([^{_ALPHA}])'([^{_ALPHA}])", r"\1 ' \2"),
        (rf"([^{_ALPHA}0-9])'([{_ALPHA}])", r"\1 ' \2"),
        (rf"([{_ALPHA}])'([^{_ALPHA}])", r"\1 ' \2"),
        (rf"([{_ALPHA}])'([{_ALPHA}])", r"\1 '\2"),
        ("([0-9])'(s)", r"\1 '\2"),
    )
)


def tokens(text: str, abbreviations: Mapping[str, bool]) -> Words:
    """METEOR's English normalisation (option -norm, punctuation kept), in lower case."""
    pattern, replacement = _BEFORE_DOTS
    text = pattern.sub(replacement, f" {text} ")
    # Runs of full stops are spelled out, as METEOR does, so that the rules for single stops leave them alone.
    text = re.sub(r"\.(\.+)", r" DOTMULTI\1", text)
    while "DOTMULTI." in text:
        text = re.sub(r"DOTMULTI\.([^.])", r"DOTDOTMULTI \1", text)
        text = text.replace("DOTMULTI.", "DOTDOTMULTI")
    for pattern, replacement in _AFTER_DOTS:
        text = pattern.sub(replacement, text)
    words = [word for word in re.split("[ \t\n\r\f]+", text) if word]
    text = " ".join(_closed(word, following, abbreviations) for word, following in zip(words, [*words[1:], ""]))
    while "DOTDOTMULTI" in text:
        text = text.replace("DOTDOTMULTI", "DOTMULTI.")
    text = _SPACES.sub(" ", text.replace("DOTMULTI", ".")).strip(_TRIMMED)
    return tuple(word for word in re.split("[ \t\n\r\f]+", text.lower()) if word)


def _closed(word: str, following: str, abbreviations: Mapping[str, bool]) -> str:
    """The word with a sentence-final full stop split off; "p.m." loses its stops."""
    if len(word) < 2 or not word.endswith("."):
        return word
    start = word[:-1]
    if "." in start and re.search(f"[{_ALPHA}]", start):
        return word.replace(".", "")
    numeric_only = abbreviations.get(start)
    stays = numeric_only is False or re.match("[a-z]", following) or (numeric_only and re.match("[0-9]", following))
    return word if stays else f"{start} ."
