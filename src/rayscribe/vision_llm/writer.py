"""A vision LLM's folder opened to write: for studies of a manifest, or for one study of loose image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rayscribe.data.images import ImageFile
from rayscribe.data.manifest import Manifest
from rayscribe.drafts import DecodingConfig, Draft, Reporter
from rayscribe.errors import InputError
from rayscribe.inference.images import ImageStudy, read_image_study
from rayscribe.labels import CONDITIONS, UNLABELLED
from rayscribe.models.decoding import Steps
from rayscribe.study import Study
from rayscribe.vision_llm.folder import TrainedLlm, load_llm
from rayscribe.vision_llm.pictures import Example, PromptStates, instruction_text, picture, response_text
from rayscribe.vision_llm.reporter import VisionLlmReporter, as_many_pictures, written


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionLlmWriter:
    """See `rayscribe.inference.writer.Writer`."""

    trained: TrainedLlm

    @classmethod
    def load(cls, folder: Path, device: torch.device, *, base: str | None, download: bool) -> VisionLlmWriter:
        return cls(trained=load_llm(folder, device, base=base, download=download))

    @property
    def protocol(self) -> dict[str, str]:
        text = self.trained.config.text
        return {"section": text.section} | ({} if text.cleaning == "none" else {"cleaning": text.cleaning})

    def check(self, *, states: bool, features: bool) -> None:
        if features:
            raise InputError("--features: a vision LLM reads images and has no feature cache; leave it out")
        self._check(states, "--states")

    def studies(self, manifest: Manifest, split: str) -> list[Study]:
        return [study for study in manifest.split(split) if response_text(study, self.trained.config.text)]

    def reporter(self, studies: Sequence[Study], *, states: PromptStates | None, features: Path | None) -> Reporter:
        return VisionLlmReporter(trained=self.trained, states=states)

    @property
    def needs_states(self) -> bool:
        return bool(self.trained.config.prompt.findings)

    def read(self, files: Sequence[ImageFile], *, states: Mapping[str, int] | None = None) -> ImageStudy:
        self._check(states is not None, "--classifier")
        most = self.trained.config.prompt.max_views
        if len(files) > most:
            raise InputError(f"{len(files)} images; this model reads at most {most} per study")
        return read_image_study(files, at_least=0, source=str(self.trained.data.get("source", "")), states=states)

    def draft(
        self, studies: Sequence[ImageStudy], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
    ) -> list[Draft]:
        examples = dict(enumerate(self._example(study) for study in studies))
        reports: dict[int, list[str]] = {}
        for rows in as_many_pictures(examples):
            found = written(self.trained, [examples[row] for row in rows], decoding, best=best, steps=steps)
            reports |= zip(rows, found, strict=True)
        return [Draft(reports=reports[row], warnings=study.warnings, diagnosis={}) for row, study in enumerate(studies)]

    def _example(self, study: ImageStudy) -> Example:
        config, states = self.trained.config, study.states
        states_O = None if states is None else np.array([states.get(name, UNLABELLED) for name in CONDITIONS], np.int8)
        return Example(
            pictures=[picture(image, config.images) for image in study.images],
            instruction=instruction_text(config.prompt, states_O),
        )

    def _check(self, given: bool, flag: str) -> None:
        """Checks that the prompt is the same as in training: with a classifier's findings, or without."""
        needed = self.needs_states
        if needed and not given:
            raise InputError(
                f"this model was trained with a classifier's findings in its prompt; give them with {flag}"
            )
        if given and not needed:
            raise InputError(f"{flag}: this model was trained without findings in its prompt")
