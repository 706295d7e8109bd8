"""A study as input of a vision LLM: pictures, an instruction, and the report to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.images import Grey, read_checked_image
from rayscribe.data.sections import section_text
from rayscribe.labels import CONDITIONS, NEGATIVE, POSITIVE, UNCERTAIN
from rayscribe.study import Study, is_frontal
from rayscribe.vision_llm.config import LlmConfig, PictureConfig, PromptConfig, ResponseConfig

PromptStates = Mapping[str, NDArray[np.int8]]
"States of the 18 conditions, by study id."


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One study as the model receives it."""

    pictures: list[Image.Image]
    instruction: str
    response: str = ""
    "empty if there is nothing to learn"


def response_text(study: Study, text: ResponseConfig) -> str:
    """The report to learn; empty if the study lacks the section."""
    report = section_text(study.findings, study.impression, text.section)
    if not report:
        return ""
    return " ".join(report.split()) if text.cleaning == "none" else CLEANINGS[text.cleaning](report)


def learnable(studies: Sequence[Study], text: ResponseConfig) -> list[Study]:
    """The studies with a report of the allowed length."""
    longest = text.max_words or float("inf")
    return [study for study in studies if text.min_words <= _words(response_text(study, text)) <= longest]


def _words(report: str) -> float:
    return len(report.split()) or -1.0


def chosen_views(study: Study, prompt: PromptConfig) -> list[int]:
    """Indices of the images to show, frontal ones first."""
    views = study.views or ("",) * len(study.images)
    places = sorted(range(len(views)), key=lambda place: not is_frontal(views[place]))
    if prompt.views == "frontal":
        places = [place for place in places if is_frontal(views[place])] or places
    return places[: prompt.max_views]


def picture(image: Grey, config: PictureConfig) -> Image.Image:
    """An RGB image, as processors expect."""
    shown = Image.fromarray(image)
    if config.legacy_224:
        shown = ImageOps.pad(shown, (224, 224), Image.Resampling.LANCZOS, color=0)
    return shown.convert("RGB")


def instruction_text(prompt: PromptConfig, states_O: NDArray[np.int8] | None = None) -> str:
    """The instruction, followed by a classifier's findings; unknown conditions are not mentioned."""
    if states_O is None:
        return prompt.instruction
    told = {POSITIVE: "present", UNCERTAIN: "uncertain", NEGATIVE: "absent"}
    parts = [
        f"{word}: {', '.join(names)}"
        for state, word in told.items()
        if (names := [name for name, found in zip(CONDITIONS, states_O.tolist(), strict=True) if found == state])
    ]
    return f"{prompt.instruction} A classifier's findings, {'; '.join(parts) or 'none'}."


class Examples(Dataset[Example]):
    """Studies, read lazily. `states`: a classifier's findings, for the prompt."""

    def __init__(self, studies: Sequence[Study], config: LlmConfig, states: PromptStates | None = None) -> None:
        self.studies, self.config, self.states = studies, config, states

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> Example:
        study = self.studies[index]
        images = [
            read_checked_image(study.images[place], study.sha256[place])
            for place in chosen_views(study, self.config.prompt)
        ]
        return Example(
            pictures=[picture(image, self.config.images) for image in images],
            instruction=instruction_text(self.config.prompt, None if self.states is None else self.states[study.id]),
            response=response_text(study, self.config.text),
        )
