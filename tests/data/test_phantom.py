from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayscribe.data.audit import find_copies
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.phantom import draw_films, draw_study, write_phantom
from rayscribe.data.phantom_drawing import draw_frontal
from rayscribe.data.phantom_truth import PhantomConfig, PhantomFinding, PhantomStudy, Truth
from rayscribe.errors import InputError
from rayscribe.evaluation.split_audit import wording_clues
from rayscribe.labels import OBSERVATIONS

NORMAL = Truth(id="CXR1_IM-0001", seed=5)

FINDINGS = [
    PhantomFinding(observation="Enlarged Cardiomediastinum", size="small"),
    PhantomFinding(observation="Cardiomegaly", size="small"),
    PhantomFinding(observation="Lung Lesion", side="left", size="small", zone="lower", kind="nodule"),
    PhantomFinding(observation="Lung Lesion", side="left", size="large", zone="middle", kind="mass"),
    PhantomFinding(observation="Lung Lesion", side="right", size="small", zone="upper", kind="granuloma"),
    PhantomFinding(observation="Lung Lesion", side="right", size="moderate", zone="middle", kind="cavity"),
    PhantomFinding(observation="Lung Opacity", side="left", size="small", zone="middle"),
    PhantomFinding(observation="Edema", side="both", size="small"),
    PhantomFinding(observation="Consolidation", side="right", size="small", zone="lower"),
    PhantomFinding(observation="Atelectasis", side="left", size="small"),
    PhantomFinding(observation="Pneumothorax", side="right", size="small"),
    PhantomFinding(observation="Pleural Effusion", side="left", size="small"),
    PhantomFinding(observation="Pleural Other", side="right", size="small", kind="lateral"),
    PhantomFinding(observation="Pleural Other", side="left", size="small", kind="apical"),
    PhantomFinding(observation="Fracture", side="left", kind="rib"),
    PhantomFinding(observation="Fracture", side="right", kind="clavicle"),
    PhantomFinding(observation="Support Devices", side="left", kind="pacemaker"),
    PhantomFinding(observation="Support Devices", side="right", kind="central line"),
    PhantomFinding(observation="Support Devices", kind="wires"),
    PhantomFinding(observation="Support Devices", kind="tube"),
]

WORDS = {
    "Enlarged Cardiomediastinum": r"widen|contour is",
    "Cardiomegaly": r"cardiomegaly|heart is \w+ enlarged|enlargement",
    "Lung Lesion": r"nodule|\bmass\b|granuloma|lesion",
    "Lung Opacity": r"opacity",
    "Edema": r"edema",
    "Consolidation": r"consolidation",
    "Pneumonia": r"pneumonia",
    "Atelectasis": r"atelectasis",
    "Pneumothorax": r"pneumothorax",
    "Pleural Effusion": r"effusion",
    "Pleural Other": r"thickening|scarring",
    "Fracture": r"fracture",
    "Support Devices": r"pacemaker|central|wires|endotracheal",
}


@pytest.fixture(scope="module")
def studies() -> list[PhantomStudy]:
    config = PhantomConfig(size=16, rare=0.2)
    return [draw_study(index, config) for index in range(400)]


def frontal(*findings: PhantomFinding, size: int = 128) -> np.ndarray:
    return draw_films(replace(NORMAL, findings=findings), size=size, noise=0.0)[0].astype(int)


def heart_width(film: np.ndarray) -> int:
    profile = film[round(0.60 * len(film)) : round(0.66 * len(film))].mean(0)
    is_bright = profile > (profile[20:-20].min() + profile.max()) / 2
    middle = len(film) // 2
    left = int(np.argmin(is_bright[middle::-1]))
    return left + int(np.argmin(is_bright[middle:]))


def told(text: str) -> str:
    """The sentences that deny nothing."""
    return " ".join(s for s in text.lower().split(".") if not re.search(r"\b(no|not|without)\b", s))


def test_equal_seeds_give_equal_studies() -> None:
    first, second = (draw_study(3, PhantomConfig(size=64, seed=9)) for _ in range(2))
    assert first.truth == second.truth
    assert (first.findings, first.impression) == (second.findings, second.impression)
    for one, other in zip(first.images, second.images, strict=True):
        assert one.dtype == np.uint8
        assert one.tobytes() == other.tobytes()
    assert draw_study(3, PhantomConfig(size=64, seed=10)).truth != first.truth


def test_a_study_does_not_depend_on_how_many_there_are() -> None:
    few, many = (draw_study(4, PhantomConfig(size=32, studies=count)) for count in (5, 5000))
    assert few.truth == many.truth and few.findings == many.findings
    assert all(np.array_equal(one, other) for one, other in zip(few.images, many.images, strict=True))


@pytest.mark.parametrize("size", ["small", "moderate", "large"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_an_effusion_on_the_right_is_bright_on_the_left_of_the_film(side, size) -> None:
    change = frontal(PhantomFinding(observation="Pleural Effusion", side=side, size=size)) - frontal()
    low = change[70:88]
    image_left, image_right = low[:, 14:36].mean(), low[:, 92:114].mean()
    here, there = (image_left, image_right) if side == "right" else (image_right, image_left)
    assert here > 15
    assert abs(there) < 1


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("zone", ["upper", "middle", "lower"])
def test_a_consolidation_is_bright_in_its_zone_of_its_side(side, zone) -> None:
    change = frontal(PhantomFinding(observation="Consolidation", side=side, size="moderate", zone=zone)) - frontal()
    rows, columns = np.nonzero(change > 25)
    assert (columns.mean() < 64) == (side == "right")
    middle = {"upper": (24, 50), "middle": (46, 70), "lower": (64, 90)}[zone]
    assert middle[0] < rows.mean() < middle[1]


def test_a_larger_heart_is_wider() -> None:
    hearts = [
        (),
        *((PhantomFinding(observation="Cardiomegaly", size=size),) for size in ("small", "moderate", "large")),
    ]
    widths = [heart_width(frontal(*heart)) for heart in hearts]
    assert widths == sorted(set(widths))
    assert widths[-1] > 1.25 * widths[0]


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda f: f"{f.observation} {f.kind}")
def test_every_finding_can_be_seen_on_a_small_frontal_film(finding) -> None:
    change = np.abs(frontal(finding) - frontal())
    assert (change > 12).sum() >= 25
    if finding.side in ("left", "right") and finding.kind not in ("pacemaker", "central line"):
        columns = np.nonzero(change > 12)[1]
        assert (np.mean(columns < 64) > 0.9) == (finding.side == "right")


@pytest.mark.slow
def test_no_finding_of_a_study_hides_another(studies) -> None:
    for study in studies[:150]:
        whole = draw_frontal(study.truth, 128, 0.0).astype(int)
        for finding in study.truth.findings:
            others = tuple(other for other in study.truth.findings if other != finding)
            without = draw_frontal(replace(study.truth, findings=others), 128, 0.0).astype(int)
            assert (np.abs(whole - without) > 10).sum() >= 20, (finding, study.truth)


def test_air_bronchograms_tell_pneumonia_from_consolidation() -> None:
    consolidation = PhantomFinding(observation="Consolidation", side="left", size="large", zone="upper")
    pneumonia = replace(consolidation, observation="Pneumonia")
    assert (frontal(consolidation) - frontal(consolidation, pneumonia) > 12).sum() >= 25


@pytest.mark.parametrize("size", [33, 64, 320])
def test_a_film_of_another_size_shows_the_same_patient(size) -> None:
    for film, reference in zip(*(draw_films(NORMAL, size=s, noise=0.0) for s in (size, 128)), strict=True):
        assert film.shape == (size, size)
        small, other = (np.asarray(Image.fromarray(f).resize((32, 32))).ravel() for f in (film, reference))
        assert np.corrcoef(small, other)[0, 1] > 0.98


def test_reports_tell_exactly_the_findings_that_are_present(studies) -> None:
    for study in studies:
        text = told(study.findings)
        for observation, words in WORDS.items():
            assert bool(re.search(words, text)) == (study.truth.find(observation) is not None), (observation, text)


def test_impressions_tell_no_finding_that_is_absent(studies) -> None:
    for study in studies:
        for observation, words in WORDS.items():
            if re.search(words, told(study.impression)):
                assert study.truth.find(observation), (observation, study.impression)


def test_reports_deny_no_finding_that_is_present(studies) -> None:
    for study in studies:
        denied = " ".join(s for s in study.findings.lower().split(".") if re.search(r"\b(no|not|without)\b", s))
        for finding in study.truth.findings:
            assert not re.search(WORDS[finding.observation], denied), (finding, study.findings)


def test_the_sides_in_a_report_are_those_of_the_truth(studies) -> None:
    for study in studies:
        named = [finding.side for finding in study.truth.findings if finding.observation != "Edema"]
        for text in (study.findings, study.impression):
            words = re.findall(r"[a-z]+", text.lower())
            for side in ("right", "left"):
                if side in words:
                    assert side in named, text
        words = re.findall(r"[a-z]+", study.findings.lower())
        assert {"right", "left"} & set(words) == set(named) - {"none", "both"}
        assert ({"bilateral", "bibasilar"} & set(words) != set()) == ("both" in named)


def test_the_side_and_size_stand_in_the_sentence_of_the_finding(studies) -> None:
    for study in studies:
        effusion = study.truth.find("Pleural Effusion")
        if effusion:
            sentence = next(s for s in study.findings.lower().split(".") if "effusion" in s)
            assert effusion.size in sentence
            assert ("bilateral" if effusion.side == "both" else effusion.side) in sentence


def test_reports_have_15_to_55_words_and_a_small_vocabulary(studies) -> None:
    assert all(15 <= len(study.findings.split()) <= 55 for study in studies)
    assert all(study.impression for study in studies)
    vocabulary = {word for study in studies for word in re.findall(r"[a-z-]+", study.findings.lower())}
    assert 130 <= len(vocabulary) <= 300


def test_normal_reports_repeat_themselves(studies) -> None:
    normal = [study.findings for study in studies if not study.truth.findings]
    assert len(set(normal)) < 0.8 * len(normal)


def test_shares_are_those_of_the_config(studies) -> None:
    rares = ("Lung Lesion", "Pneumothorax", "Fracture", "Pleural Other")
    assert np.mean([study.truth.labels[0] == 0 for study in studies]) == pytest.approx(0.6, abs=0.07)
    assert np.mean([any(map(study.truth.find, rares)) for study in studies]) == pytest.approx(0.2, abs=0.06)
    assert np.mean([len(study.images) == 2 for study in studies]) == pytest.approx(0.9, abs=0.05)
    assert all(sum(study.truth.labels[i] for study in studies) for i in range(len(OBSERVATIONS)))


def test_shares_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="rare <= abnormal"):
        PhantomConfig(abnormal=0.1, rare=0.2)
    with pytest.raises(InputError, match="at most 1"):
        PhantomConfig(train=0.9, val=0.2)


@pytest.mark.parametrize("layout", ["r2gen", "kaggle", "openi"])
def test_every_layout_is_read_back_as_it_was_drawn(layout, tmp_path) -> None:
    config = PhantomConfig(studies=10, size=24, layout=layout)
    write_phantom(tmp_path, config)
    read = read_iu_xray(tmp_path)
    assert len(read) == 10
    with open(tmp_path / "truth.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for index, study in enumerate(read):
        drawn = draw_study(index, config)
        assert study.findings == drawn.findings
        assert study.impression == ("" if layout == "r2gen" else drawn.impression)
        assert [np.asarray(Image.open(path)).tolist() for path in study.images] == [i.tolist() for i in drawn.images]
        assert tuple(int(rows[study.id][name]) for name in OBSERVATIONS) == drawn.truth.labels
        details = json.loads(rows[study.id]["details"])
        assert tuple(PhantomFinding(**finding) for finding in details) == drawn.truth.findings
    if layout == "r2gen":
        assert [study.split for study in read] == ["train"] * 7 + ["val"] + ["test"] * 2


def test_an_interrupted_write_can_be_completed(tmp_path) -> None:
    def stopped(indices: Iterable[int]) -> Iterator[int]:
        for index in indices:
            if index == 3:
                raise KeyboardInterrupt
            yield index

    config = PhantomConfig(studies=6, size=24)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_phantom(whole, config)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(broken, config, stopped)
    assert not (broken / "phantom.json").exists()
    film = broken / "images" / "CXR1_IM-0001" / "0.png"
    written = film.stat().st_mtime_ns
    write_phantom(broken, config)
    assert film.stat().st_mtime_ns == written
    assert _contents(broken) == _contents(whole)


def test_a_complete_phantom_is_left_alone(tmp_path) -> None:
    config = PhantomConfig(studies=2, size=24)
    write_phantom(tmp_path, config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_phantom(tmp_path, config)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_another_config_or_other_files_in_the_folder_are_refused(tmp_path) -> None:
    config = PhantomConfig(studies=2, size=24)
    write_phantom(tmp_path / "phantom", config)
    with pytest.raises(ValueError, match=r"phantom: .*another config.*another folder"):
        write_phantom(tmp_path / "phantom", replace(config, seed=1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "annotation.json").write_text("{}")
    with pytest.raises(InputError, match="mine: contains other files"):
        write_phantom(tmp_path / "mine", config)


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_hands_change_wording_scanner_and_paperwork_but_no_truth(tmp_path: Path) -> None:
    plain, many = (PhantomConfig(studies=60, size=48, hands=hands) for hands in (1, 5))
    pairs = [(draw_study(index, plain), draw_study(index, many)) for index in range(60)]
    assert all(one.truth.findings == other.truth.findings for one, other in pairs)
    assert all(one.truth.hand == 0 for one, _ in pairs)
    assert {other.truth.hand for _, other in pairs} == {1, 2, 3, 4, 5}
    assert sum(one.findings != other.findings for one, other in pairs) > 40
    assert any((one.images[0] != other.images[0]).any() for one, other in pairs)
    write_phantom(tmp_path / "p", many)
    read = read_iu_xray(tmp_path / "p")
    assert [study.indication for study in read] == [other.indication for _, other in pairs]
    assert len({study.exam for study in read}) == 5


def test_the_form_of_the_context_tells_the_hand(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", PhantomConfig(studies=150, size=48, hands=5, abnormal=0.2))
    studies = read_iu_xray(tmp_path / "p")
    clues = wording_clues(studies, find_copies(studies), read_images=False)
    assert clues["auroc"]["context_form"] > 0.75


@pytest.mark.parametrize("hands", [0, 6])
def test_an_impossible_number_of_hands_is_refused(hands: int) -> None:
    with pytest.raises(InputError, match=f"hands {hands}: 1 to 5"):
        PhantomConfig(hands=hands)


def test_a_folder_that_an_older_version_drew_is_still_its_config(tmp_path: Path) -> None:
    config = PhantomConfig(studies=2, size=24)
    write_phantom(tmp_path / "p", config)
    mark = tmp_path / "p" / "phantom.json"
    settings = json.loads(mark.read_text())
    del settings["hands"]
    mark.write_text(json.dumps(settings))
    write_phantom(tmp_path / "p", config)
    with pytest.raises(InputError, match="another config"):
        write_phantom(tmp_path / "p", PhantomConfig(studies=2, size=24, hands=2))
