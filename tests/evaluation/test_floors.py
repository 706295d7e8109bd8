"""Floors that see a small picture, or its corners alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayscribe.data.manifest import read_manifest
from rayscribe.errors import InputError
from rayscribe.evaluation import floor_cache
from rayscribe.evaluation.expected_floors import AIMS, TrainingReports, best_constants, expected_reports
from rayscribe.evaluation.floor_cache import Choices, kept_choices, small_pictures
from rayscribe.evaluation.floor_features import context_form, corners, fact_tables, scanner_facts
from rayscribe.evaluation.floors import FloorScorers, floor_reports
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.labels import POSITIVE
from rayscribe.metrics.clinical import clinical, observation_counts
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.study import Study


def test_corners_see_nothing_else() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32 * 32)).astype(np.float32)
    changed = pixels.reshape(3, 32, 32).copy()
    changed[:, 7:25, :] = 0
    changed[:, :, 7:25] = 0
    assert np.array_equal(corners(pixels), corners(changed.reshape(3, -1)))
    assert corners(pixels).shape == (3, 4 * 49)
    changed[:, 0, 0] += 1
    assert not np.array_equal(corners(pixels), corners(changed.reshape(3, -1)))


TEXTS = ("the heart is enlarged .", "small left pleural effusion .", "the lungs are clear .")


def training_of(rows: list[int]) -> TrainingReports:
    return TrainingReports.of([f"{TEXTS[row]} view {at % 5} ." for at, row in enumerate(rows)], RuleLabeler())


def test_the_expected_report_of_every_aim_follows_what_the_features_tell() -> None:
    """Features that give the report away are followed, features that say nothing give one report to all."""
    generator = np.random.default_rng(0)
    rows = np.arange(90) % 3
    told = np.eye(3, dtype=np.float32)[rows] + 0.05 * generator.standard_normal((90, 3)).astype(np.float32)
    training = training_of(rows.tolist())
    found = expected_reports(training, told, np.eye(3, dtype=np.float32))
    for aim in AIMS:
        assert [training.candidates[place].split(" view")[0] for place in found[aim]] == list(TEXTS)
    nothing = expected_reports(training, np.zeros((90, 3), np.float32), told[:10] * 0)
    assert all(len(set(places.tolist())) == 1 for places in nothing.values())


def test_no_other_constant_scores_higher_on_the_references_it_was_chosen_on() -> None:
    candidates = [
        *TEXTS,
        "the lungs are clear . the heart is enlarged .",
        "small left pleural effusion . cardiomegaly .",
    ]
    references = [TEXTS[row] for row in (0, 0, 1, 2, 2, 2)]
    chosen = best_constants(candidates, references, RuleLabeler())
    wanted_RO = RuleLabeler().label(references)

    def scores(text: str) -> dict[str, float]:
        same = [text] * len(references)
        macro = clinical(RuleLabeler().label(same), wanted_RO).scores()["ce_f1_macro_14_uncertain_negative"]
        return overlap_scores(same, references) | {"findings": macro}

    for aim in AIMS:
        assert scores(chosen[aim])[aim] == pytest.approx(max(scores(text)[aim] for text in candidates))


def test_the_form_of_a_context_tells_shapes_and_no_word() -> None:
    one, other = (
        Study(id="a", images=(), indication=text, exam="CHEST 2 VIEWS")
        for text in ("Cough, XXXX for 3 days.", "Fever, XXXX since 5 weeks.")
    )
    assert {name for name in context_form(one) if "letters" not in name} == {
        name for name in context_form(other) if "letters" not in name
    }
    assert context_form(one)["indication: Capital , mask lower"] == 1
    assert context_form(one)["exam: CAPITALS number CAPITALS"] == 1
    assert not {"Cough", "days", "CHEST"} & {word for name in context_form(one) for word in name.split()}


def test_a_rare_fact_is_no_feature_and_an_unknown_one_counts_as_absent() -> None:
    small, large = (
        Study(id=str(rows), images=(Path("a.png"),), views=("pa",), sizes=((rows, 2000),)) for rows in (1000, 3000)
    )
    known, asked = fact_tables([scanner_facts(small)] * 6 + [scanner_facts(large)], [scanner_facts(large)])
    assert known.shape[1] == asked.shape[1] == sum(scanner_facts(small).values())
    assert (asked > 0).sum() < (known[0] > 0).sum() == known.shape[1]


def test_small_pictures_are_kept_by_the_hash_of_their_file(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCRIBE_CACHE", str(tmp_path / "kept"))
    studies = read_manifest(world).split("val")
    first = small_pictures(studies)
    fails = lambda path, sha256, at_least: pytest.fail(f"{path} was read again")  # noqa: E731
    monkeypatch.setattr(floor_cache, "read_checked_image", fails)
    assert np.array_equal(small_pictures(studies), first)
    monkeypatch.undo()
    assert np.array_equal(small_pictures(studies), first)


def test_a_picture_that_changed_since_the_manifest_is_not_kept_under_its_hash(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCRIBE_CACHE", str(tmp_path / "kept"))
    study, other = read_manifest(world).split("val")[:2]
    changed = replace(study, images=other.images[: len(study.images)])
    with pytest.raises(InputError, match="changed since the manifest was written"):
        small_pictures([changed])
    assert not np.array_equal(small_pictures([study]), small_pictures([other]))


def test_choices_are_made_once_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCRIBE_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> Choices:
        made.append(1)
        return {"bleu4": ["a", "b"]}

    assert kept_choices("one", make) == kept_choices("one", make) == {"bleu4": ["a", "b"]}
    assert kept_choices("another", make)
    assert len(made) == 2


def test_a_damaged_cache_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCRIBE_CACHE", str(tmp_path))
    (tmp_path / "floors.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"floors\.sqlite.*delete the file"):
        kept_choices("one", dict)


def test_floors_are_the_same_without_a_cache(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = read_manifest(world).split("val")
    first = small_pictures(studies)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYSCRIBE_CACHE", str(tmp_path / "file" / "folder"))
    assert np.array_equal(small_pictures(studies), first)


def test_a_report_of_every_finding_has_full_recall_of_what_has_a_sentence(world: Path) -> None:
    manifest = read_manifest(world)
    references = reference_reports(manifest, "test", Protocol())
    studies = [study for study in manifest.split("test") if study.id in references]
    scorers = FloorScorers(labeler=RuleLabeler(), read_images=False)
    floors, _ = floor_reports(manifest, studies, list(references.values()), Protocol(), scorers)
    (text,) = set(floors["every_finding"])
    stated_O = RuleLabeler().label([text])[0] == POSITIVE
    assert stated_O[1:].sum() >= 8
    scores = clinical(RuleLabeler().label(floors["every_finding"]), RuleLabeler().label(list(references.values())))
    counts = observation_counts(scores, "negative")
    assert all(
        one["recall"] == 1 for one, stated in zip(counts.values(), stated_O, strict=True) if stated and one["positives"]
    )
