from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chi2_contingency

from rayscribe.data.audit import _equal_rates_p, audit
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import Manifest
from rayscribe.data.near_duplicates import near_duplicates
from rayscribe.data.resplit import read_split, stratified_split, write_split
from rayscribe.errors import InputError
from rayscribe.labels import POSITIVE
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.pages.audit import audit_page, audit_text
from rayscribe.study import Study


def study(name: str, split: str, findings: str, **more: object) -> Study:
    return Study(id=name, split=split, findings=findings, images=(), **more)  # type: ignore[arg-type]


def triples(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[i : i + 3]) for i in range(len(words) - 2)} or {text}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("abcd"), min_size=6, max_size=14).map(" ".join), min_size=2, max_size=12, unique=True
    )
)
def test_near_duplicates_are_those_of_an_exhaustive_search(texts: list[str]) -> None:
    expected = []
    for i, first in enumerate(texts):
        for j in range(i + 1, len(texts)):
            a, b = triples(first), triples(texts[j])
            if len(a & b) >= 0.8 * len(a | b):
                expected.append((i, j))
    assert near_duplicates(texts) == expected


@pytest.mark.parametrize("counts", [[(30, 100), (50, 100), (9, 40)], [(30, 100), (50, 100)]])
def test_the_test_of_equal_rates_is_pearsons(counts: list[tuple[int, int]]) -> None:
    table = np.array([[hit, total - hit] for hit, total in counts])
    assert _equal_rates_p(counts) == pytest.approx(chi2_contingency(table, correction=False).pvalue)


def test_every_fault_of_a_split_is_found(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(good)
    bad.write_bytes(good.read_bytes()[:100])
    normal = "The heart is normal in size. The lungs are clear without focal consolidation or effusion."
    studies = [
        study("a", "train", normal, subject="p1", sha256=("1",)),
        study("b", "train", "There is a large right pleural effusion and cardiomegaly.", subject="p2", sha256=("2",)),
        study("c", "test", normal.upper().replace(",", ""), subject="p1", sha256=("3",)),
        study("d", "test", f"{normal} Unchanged.", subject="p3", sha256=("2",)),
        study("e", "test", "", impression="No acute disease.", subject="p4", sha256=("4",)),
    ]
    studies[0] = Study(id="a", split="train", findings=normal, images=(good, bad), subject="p1", sha256=("1", "9"))
    result, _ = audit(Manifest(studies=tuple(studies), provenance={}), RuleLabeler())
    copies = result["copies_of_train"]["test"]
    assert copies["same_report"]["ids"] == ["c"]
    assert copies["near_report"]["ids"] == ["c", "d"]
    assert copies["same_image"]["ids"] == ["d"]
    assert copies["same_patient"]["ids"] == ["c"]
    assert result["patients"]["in_several_splits"] == 1
    assert result["splits"]["test"]["no_findings"] == 1
    assert result["images"]["unreadable"] == 1
    text = audit_text(result)
    for words in (
        "33 % of reports occur word for word",
        "share an image file",
        "1 patients",
        "cannot be read",
        "no findings",
    ):
        assert words in text
    assert str(bad) in audit_page(result)


@pytest.mark.slow
def test_the_published_iu_split_shows_its_copies_and_its_shift(iu_root: Path) -> None:
    studies = read_iu_xray(iu_root, layout="r2gen")
    result, _ = audit(Manifest(studies=tuple(studies), provenance={}), RuleLabeler(), read_images=False)
    same = result["copies_of_train"]["test"]["same_report"]
    assert (same["studies"], round(same["share"], 2)) == (277, 0.47)
    rates = result["label_shift"]["normal (the source's codes)"]["rates"]
    assert {split: round(rate, 3) for split, rate in rates.items()} == {"train": 0.330, "val": 0.331, "test": 0.520}
    assert result["label_shift"]["normal (the source's codes)"]["p_holm"] < 1e-10
    assert any("47 %" in warning for warning in result["warnings"])


@pytest.mark.slow
def test_a_new_split_keeps_copies_together_and_labels_even(iu_root: Path, tmp_path: Path) -> None:
    studies = read_iu_xray(iu_root, layout="r2gen")
    manifest = Manifest(studies=tuple(studies), provenance={})
    _, copies = audit(manifest, RuleLabeler(), read_images=False)
    labels = RuleLabeler().label([one.findings for one in studies])
    split = stratified_split(studies, copies, labels)
    write_split(tmp_path / "split.csv", split)
    assert read_split(tmp_path / "split.csv") == split
    again = [
        Study(id=one.id, split=split[one.id], findings=one.findings, images=(), problems=one.problems)
        for one in studies
    ]
    result, _ = audit(Manifest(studies=tuple(again), provenance={}), RuleLabeler(), read_images=False)
    assert result["copies_of_train"]["test"]["near_report"]["studies"] == 0
    assert result["copies_of_train"]["val"]["near_report"]["studies"] == 0
    sizes = {name: facts["studies"] for name, facts in result["splits"].items()}
    assert sizes["test"] == pytest.approx(590, abs=12)
    assert sizes["val"] == pytest.approx(296, abs=12)
    positive = labels == POSITIVE
    places = np.array([split[one.id] for one in studies])
    for name in ("train", "val", "test"):
        assert np.abs(positive[places == name].mean(0) - positive.mean(0)).max() < 0.03


def test_a_split_table_with_other_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("id,split\na,dev\n")
    with pytest.raises(InputError, match="line 2: split 'dev'"):
        read_split(tmp_path / "split.csv")
    (tmp_path / "split.csv").write_text("id,split\na,train\na,test\n")
    with pytest.raises(InputError, match="duplicate study a"):
        read_split(tmp_path / "split.csv")


@pytest.mark.slow
def test_kaggle_and_open_i_code_the_same_problems(iu_root: Path) -> None:
    kaggle = {one.id: one.problems for one in read_iu_xray(iu_root, layout="kaggle")}
    openi = {one.id: one.problems for one in read_iu_xray(iu_root, layout="openi")}
    assert len(kaggle) == len(json.loads((iu_root / "annotation.json").read_text())["train"]) + 296 + 590
    assert all(set(kaggle[name]) == set(openi[name]) for name in kaggle)
