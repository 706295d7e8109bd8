"""Which images and words of a study a vision LLM is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rayscribe.data.manifest import read_manifest
from rayscribe.labels import CONDITIONS, NEGATIVE, POSITIVE, UNLABELLED
from rayscribe.study import Study
from rayscribe.vision_llm.config import LlmConfig, PictureConfig, PromptConfig, ResponseConfig
from rayscribe.vision_llm.pictures import Examples, chosen_views, instruction_text, learnable, picture, response_text


def study(*views: str, findings: str = "") -> Study:
    return Study(
        id="s", images=tuple(Path(f"{place}.png") for place in range(len(views))), views=views, findings=findings
    )


def test_frontal_images_come_first_and_alone_where_asked() -> None:
    assert chosen_views(study("lateral", "pa", "ap"), PromptConfig(max_views=2)) == [1, 2]
    assert chosen_views(study("lateral", "pa"), PromptConfig()) == [1, 0]
    assert chosen_views(study("lateral", "pa"), PromptConfig(views="frontal")) == [1]
    assert chosen_views(study("lateral"), PromptConfig(views="frontal")) == [0]


def test_reports_outside_the_wanted_length_are_left_out() -> None:
    studies = [study("pa", findings=" ".join(["word"] * words)) for words in (0, 19, 20, 65, 66)]
    kept = learnable(studies, ResponseConfig(min_words=20, max_words=65))
    assert [len(one.findings.split()) for one in kept] == [20, 65]
    assert len(learnable(studies, ResponseConfig())) == 4  # a study without the section is never learned


def test_reports_are_as_written_unless_cleaning_is_asked_for() -> None:
    one = study("pa", findings="Heart  size\nnormal. No XXXX.")
    assert response_text(one, ResponseConfig()) == "Heart size normal. No XXXX."
    assert response_text(one, ResponseConfig(cleaning="r2gen-iu")).startswith("heart size normal .")


def test_the_prompt_names_what_a_classifier_knows_and_nothing_else() -> None:
    states_O = np.full(len(CONDITIONS), UNLABELLED, np.int8)
    states_O[CONDITIONS.index("Cardiomegaly")] = POSITIVE
    states_O[CONDITIONS.index("Edema")] = NEGATIVE
    told = instruction_text(PromptConfig(instruction="Look."), states_O)
    assert told == "Look. A classifier's findings, present: Cardiomegaly; absent: Edema."
    assert instruction_text(PromptConfig(instruction="Look.")) == "Look."


def test_pictures_are_rgb_at_their_own_resolution_or_224() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (80, 60)).astype(np.uint8)
    whole = picture(grey, PictureConfig())
    assert whole.mode == "RGB" and whole.size == (60, 80)
    assert np.array_equal(np.asarray(whole)[..., 1], grey)
    assert picture(grey, PictureConfig(legacy_224=True)).size == (224, 224)


def test_examples_read_the_files_that_the_manifest_names(world: Path) -> None:
    studies = read_manifest(world).split("val")
    config = LlmConfig(prompt=PromptConfig(max_views=1))
    found = Examples(studies, config)[0]
    assert len(found.pictures) == 1 and found.response == " ".join(studies[0].findings.split())
    both = Examples([replace(studies[0])], LlmConfig())[0]
    assert len(both.pictures) == len(studies[0].images[:2])


def test_a_picture_of_224_keeps_its_proportions_on_black() -> None:
    shown = np.asarray(picture(np.full((300, 150), 200, np.uint8), PictureConfig(legacy_224=True)))[..., 0]
    assert shown.shape == (224, 224) and not shown[:, :56].any() and not shown[:, 168:].any()
    assert (shown[:, 56:168] == 200).all()
