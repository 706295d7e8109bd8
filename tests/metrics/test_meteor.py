from __future__ import annotations

import gzip
import importlib.util
import json
import locale
import random
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rayscribe.data.cleaning import clean_r2gen_iu
from rayscribe.errors import InputError
from rayscribe.metrics import meteor_align
from rayscribe.metrics.meteor import (
    METEOR_COLUMNS,
    MeteorResources,
    find_resources,
    meteor_name,
    meteor_score,
    meteor_statistics,
)
from rayscribe.metrics.meteor_align import MOST_MATCHES, Matchers
from rayscribe.metrics.meteor_resources import read_lexicon
from rayscribe.metrics.stemmer import stem

Floats = NDArray[np.float64]
Program = Callable[[list[str], list[str]], tuple[Floats, Floats, float]]
STEMS_ONLY = MeteorResources()


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    """The released program: rows with our columns, the score of every pair, the score of all pairs together."""
    java, found = shutil.which("java"), importlib.util.find_spec("pycocoevalcap")
    if java is None or found is None or not found.submodule_search_locations:
        pytest.skip("needs java and pycocoevalcap to run the released METEOR")
    with subprocess.Popen(
        [java, "-jar", "-Xmx2G", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"],
        cwd=Path(found.submodule_search_locations[0]) / "meteor",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as process:
        given_lines, answers = process.stdin, process.stdout
        assert given_lines is not None and answers is not None

        def answer(line: str, count: int) -> list[str]:
            given_lines.write(line + "\n")
            given_lines.flush()
            return [answers.readline().strip() for _ in range(count)]

        def scored(hypotheses: list[str], references: list[str]) -> tuple[Floats, Floats, float]:
            lines = [answer(f"SCORE ||| {r} ||| {h}", 1)[0] for h, r in zip(hypotheses, references, strict=True)]
            *segments, corpus = answer(" ||| ".join(["EVAL", *lines]), len(lines) + 1)
            rows = np.array([line.split() for line in lines], np.float64)[:, : len(METEOR_COLUMNS)]
            complete = (rows[:, 4:20:2].sum(1) == rows[:, 0]) & (rows[:, 5:20:2].sum(1) == rows[:, 1])
            rows[complete & (rows[:, 20] == 1), 20] = 0  # its sums leave them out too
            return rows, np.array(segments, np.float64), float(corpus)

        yield scored


def assert_equal_to(program: Program, hypotheses: list[str], references: list[str]) -> Floats:
    rows, segments, corpus = program(hypotheses, references)
    ours = meteor_statistics(hypotheses, references, find_resources())
    np.testing.assert_array_equal(ours, rows)
    np.testing.assert_allclose(meteor_score(ours), segments, atol=1e-12)
    assert corpus_score(ours) == pytest.approx(corpus, abs=1e-12)
    return ours


def corpus_score(rows: Floats) -> float:
    return float(meteor_score(rows.sum(0, keepdims=True))[0])


def nearest(reference: str, reports: list[str]) -> str:
    """The report that shares most words."""
    words = set(reference.split())
    return max(reports, key=lambda report: len(words & set(report.split())) / len(words | set(report.split())))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clean", "pairs"),
    [(clean_r2gen_iu, 2200), (lambda report: " ".join(report.split()), 800)],
    ids=["cleaned", "as written"],
)
def test_real_reports_score_as_in_the_released_program(
    iu_root: Path, program: Program, clean: Callable[[str], str], pairs: int
) -> None:
    annotation = json.loads((iu_root / "annotation.json").read_text())
    generator = random.Random(0)
    train = [clean(record["report"]) for record in annotation["train"]]
    references = [clean(record["report"]) for split in ("test", "train") for record in annotation[split]][:pairs]
    hypotheses = [nearest(reference, generator.sample(train, generator.choice([1, 8, 30]))) for reference in references]
    rows = assert_equal_to(program, hypotheses, references)
    matched = dict(zip(METEOR_COLUMNS, rows.sum(0), strict=True))
    assert all(matched[f"{matcher}_reference_content"] for matcher in ("exact", "stem", "synonym", "paraphrase"))


UNUSUAL = [
    ("", "the heart is normal ."),
    ("the heart is normal .", ""),
    ("", ""),
    ("heart", "heart"),
    ("heart", "hearts"),
    ("big", "large"),
    (".", "."),
    ("the the the the heart the", "the heart the the"),
    ("the " * 300, "the " * 250),
    ("the heart is " * 100, "is the the heart " * 75),
    (" ".join(f"word{i % 37}" for i in range(300)), " ".join(f"word{i % 41}" for i in range(300))),
    ("No. 5 rib, Mr. Smith's x-ray at 3 p.m. ...", "no 5 ribs ; mr. smith 's x ray at 3 pm"),
    ("size is 1,000 mm, not 1.5cm.Lungs clear..", "size : 1000 mm , not 1.5 cm . lungs clear ...."),
    ("a well-inflated lung -- no (obvious) <unk> / effusion", "well inflated lungs – no obvious <unk> or effusion"),
    ("it’s ``quoted'' “text” don't 80's", 'it\'s "quoted" text do not 80s'),
    (
        "naïve Größe ΣΑΣ İstanbul 日本語 \U0001f600. x\u0301\u00a0y\u2003z",
        "naïve größe σας istanbul 日本語 \U0001f600 x y z",
    ),
    ("there is evidence of an enlarged heart in spite of that", "the heart is enlarged despite evidence for this"),
]


@pytest.mark.slow
def test_unusual_texts_score_as_in_the_released_program(program: Program) -> None:
    assert_equal_to(program, [pair[0] for pair in UNUSUAL], [pair[1] for pair in UNUSUAL])


def test_the_name_says_which_matchers_were_active(tmp_path: Path) -> None:
    assert meteor_name(MeteorResources()) == "meteor_exact_stem"
    assert meteor_name(MeteorResources(jar=tmp_path)) == "meteor_exact_stem_synonym"
    assert meteor_name(MeteorResources(paraphrases=tmp_path)) == "meteor_exact_stem_paraphrase"
    assert meteor_name(MeteorResources(tmp_path, tmp_path)) == "meteor"
    assert meteor_name(find_resources()) == "meteor"


def test_resources_are_empty_where_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert find_resources() == MeteorResources()


def test_stems_match_without_resources_and_synonyms_only_with_them() -> None:
    def score(hypothesis: str, reference: str, resources: MeteorResources) -> float:
        return corpus_score(meteor_statistics([hypothesis], [reference], resources))

    synonyms = MeteorResources(find_resources().jar)
    assert score("lungs inflated", "lung inflation", STEMS_ONLY) > 0
    assert score("big", "large", STEMS_ONLY) == 0
    assert score("big", "large", synonyms) > 0


def test_sums_of_rows_are_the_statistics_of_the_corpus() -> None:
    hypotheses = ["the heart is enlarged .", "lungs are clear .", ""]
    references = ["the heart is large .", "the lungs are clear .", "no effusion ."]
    rows = meteor_statistics(hypotheses, references, STEMS_ONLY)
    weights = np.array([[2, 0, 1], [0, 1, 0]])
    again = meteor_statistics([hypotheses[i] for i in (0, 0, 2)], [references[i] for i in (0, 0, 2)], STEMS_ONLY)
    assert meteor_score(weights @ rows) == pytest.approx([corpus_score(again), meteor_score(rows)[1]])


def test_equal_reports_score_one_and_reports_without_a_common_word_zero() -> None:
    hypotheses = ["the heart is normal .", "clear lungs", "", "no effusion", ""]
    references = ["the heart is normal .", "big heart", "no effusion", "", ""]
    assert meteor_score(meteor_statistics(hypotheses, references, STEMS_ONLY)).tolist() == [1, 0, 0, 0, 0]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_has_a_score_between_zero_and_one(hypothesis: str, reference: str) -> None:
    scores = meteor_score(meteor_statistics([hypothesis, reference], [reference, hypothesis], STEMS_ONLY))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_decimal_comma_changes_nothing() -> None:
    pairs = ["a 1.5 cm nodule , 2,000 times"], ["a nodule of 1,5 cm , 2,000 times"]
    expected = meteor_statistics(*pairs, STEMS_ONLY)
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        try:
            np.testing.assert_array_equal(meteor_statistics(*pairs, STEMS_ONLY), expected)
        finally:
            locale.setlocale(locale.LC_ALL, before)
        return
    pytest.skip("needs a locale with a decimal comma, such as de_DE.UTF-8")


def test_a_cut_off_paraphrase_table_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"0.1\nno sign of\nwithout\n" * 50)
    (tmp_path / "whole.gz").write_bytes(whole)
    (tmp_path / "cut.gz").write_bytes(whole[:-9])
    texts = ["no sign of fluid"], ["without fluid"]
    rows = meteor_statistics(*texts, MeteorResources(paraphrases=tmp_path / "whole.gz"))
    assert corpus_score(rows) > corpus_score(meteor_statistics(*texts, STEMS_ONLY))
    with pytest.raises(InputError, match="truncated; reinstall pycocoevalcap"):
        meteor_statistics(*texts, MeteorResources(paraphrases=tmp_path / "cut.gz"))


def test_progress_sees_every_pair_and_unequal_lengths_are_refused() -> None:
    seen = []

    def progress(pairs: Iterable[object]) -> Iterator[object]:
        for pair in pairs:
            seen.append(pair)
            yield pair

    meteor_statistics(["a", "a", "b"], ["a", "a", "c"], STEMS_ONLY, progress=progress)
    assert len(seen) == 3
    assert meteor_statistics([], [], STEMS_ONLY).shape == (0, len(METEOR_COLUMNS))
    with pytest.raises(InputError, match="1 hypotheses for 2 references"):
        meteor_statistics(["a"], ["a", "b"], STEMS_ONLY)


def test_stems_are_those_of_the_older_snowball() -> None:
    words = "skies dying effusions consolidation enlarged hopping hoping twice generously university yearly proceed's"
    stems = "sky die effus consolid enlarg hop hope twice generous univers year proceed"
    assert [stem(word) for word in words.split()] == stems.split()


def test_a_word_that_recurs_thousands_of_times_costs_a_bounded_number_of_matches() -> None:
    for words, others in (("opacity", "opacity"), ("opacity", "opacities"), ("heart lung", "lung hearts heart")):
        hypothesis, reference = tuple(words.split()) * 3000, tuple(others.split()) * 3000
        found = Matchers(read_lexicon(None), {}).matches(hypothesis, reference)
        assert sum(len(matches) for matches in found) <= 2 * MOST_MATCHES
    text = "opacity " * 3000
    assert meteor_score(meteor_statistics([text], [text], STEMS_ONLY)).tolist() == [1]


def test_the_search_leaves_out_only_what_the_beam_would_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    def extended_in_full(paths: list[Any], options: list[Any], here: int) -> list[Any]:
        extended = []
        for path in paths:
            rank, end, covered_hypothesis, covered_reference, chain = path
            if covered_reference & here:
                extended.append(path)
                continue
            for match, own, wanted, cost, start, option_end, distance in options:
                if not (covered_hypothesis & own or covered_reference & wanted):
                    better = rank + cost + meteor_align._CHUNK * (end not in (-1, start))
                    covered = covered_hypothesis | own, covered_reference | wanted
                    extended.append((better, option_end, *covered, (chain, match)))
                    rank += distance
            extended.append((rank + meteor_align._CHUNK * (end != -1), -1, *path[2:]))
        return extended

    generator = random.Random(3)
    words = "heart hearts lung lungs is are clear big large opacity opacities no .".split()
    texts = [
        " ".join(generator.choices(generator.sample(words, generator.choice([2, 5, 13])), k=length))
        for length in [5, 20, 60, 90] * 20
    ]
    pairs = texts, generator.sample(texts, len(texts))
    ours = meteor_statistics(*pairs, MeteorResources(find_resources().jar))
    monkeypatch.setattr(meteor_align, "_extended", extended_in_full)
    np.testing.assert_array_equal(ours, meteor_statistics(*pairs, MeteorResources(find_resources().jar)))
