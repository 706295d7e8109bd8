"""A vision LLM as a reporter: studies or pictures in, report texts out.

Shapes: B studies, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.errors import InputError
from rayscribe.models.decoding import Steps
from rayscribe.study import Study
from rayscribe.vision_llm.conversation import on_device
from rayscribe.vision_llm.folder import TrainedLlm
from rayscribe.vision_llm.pictures import Example, Examples, PromptStates

GENERATION_BATCH = 8  # studies per batch


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionLlmReporter:
    """A vision LLM that reads images from the files in a manifest."""

    trained: TrainedLlm
    states: PromptStates | None = None
    "a classifier's findings by study id, if the prompt includes them"

    def draft(self, studies: Sequence[Study], decoding: DecodingConfig) -> list[Draft]:
        examples = Examples(studies, self.trained.config, self.states)
        reports = [""] * len(studies)
        for start in range(0, len(studies), GENERATION_BATCH):
            batch = {row: examples[row] for row in range(start, min(start + GENERATION_BATCH, len(studies)))}
            for rows in as_many_pictures(batch):
                # Every batch of a sampled run has its own random stream.
                own = replace(decoding, seed=decoding.seed + rows[0])
                for row, best in zip(rows, written(self.trained, [batch[row] for row in rows], own), strict=True):
                    reports[row] = best[0]
        return [Draft(reports=[report]) for report in reports]


def as_many_pictures(batch: Mapping[int, Example]) -> list[list[int]]:
    """Rows grouped by number of pictures. In Mllama, text before the image also sees the padding for another study's second
    image, so a report would depend on its batch."""
    found: dict[int, list[int]] = {}
    for row, example in batch.items():
        found.setdefault(len(example.pictures), []).append(row)
    return list(found.values())


def written(
    trained: TrainedLlm, examples: Sequence[Example], decoding: DecodingConfig, *, best: int = 1, steps: Steps = iter
) -> list[list[str]]:
    """The `best` reports of every example, best first; the prompt's tokens are removed."""
    inputs = on_device(trained.conversation.inputs(examples), trained.device)
    chosen = generation_settings(trained, decoding, best)
    with torch.inference_mode(), trained.arithmetic(), torch.random.fork_rng():
        torch.manual_seed(decoding.seed)
        watched = StoppingCriteriaList([_Watched(steps(range(chosen.max_new_tokens)))])
        tokens_RT = trained.model.generate(**inputs, generation_config=chosen, stopping_criteria=watched)
    texts = trained.conversation.texts(tokens_RT, inputs["input_ids"].shape[1])
    return [texts[start : start + best] for start in range(0, len(texts), best)]


class _Watched(StoppingCriteria):
    """Never stops generation itself; the observer of the steps may raise."""

    def __init__(self, steps: Iterable[int]) -> None:
        self.steps = iter(steps)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        next(self.steps, None)
        return torch.zeros(len(input_ids), dtype=torch.uint8, device=input_ids.device) > 0


def generation_settings(trained: TrainedLlm, decoding: DecodingConfig, best: int) -> GenerationConfig:
    """Our settings as transformers'; of the base model's own, only the special tokens, because its defaults often sample."""
    if decoding.length_penalty:
        raise InputError(
            f"--decoding.length-penalty {decoding.length_penalty}: vision LLMs rank by the sum of log-probabilities; give 0"
        )
    own = trained.model.generation_config
    tokenizer = trained.conversation.processor.tokenizer
    samples = decoding.strategy == "sample"
    beams = 1 if samples else decoding.beams
    if best < 1:
        raise InputError(f"--best {best}: at least 1")
    if not samples and best > beams:
        raise InputError(f"--best {best}: at most --decoding.beams {beams}")
    return GenerationConfig(
        max_new_tokens=decoding.max_tokens or trained.config.text.max_new_tokens,
        min_new_tokens=decoding.min_tokens or None,
        num_beams=beams,
        num_return_sequences=best,
        length_penalty=0.0 if beams > 1 else None,
        no_repeat_ngram_size=decoding.block_ngrams or None,
        do_sample=samples,
        temperature=decoding.temperature if samples else None,
        top_k=decoding.top_k if samples else None,
        top_p=decoding.top_p if samples else None,
        min_p=(decoding.min_p or None) if samples else None,
        eos_token_id=own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        use_cache=True,
    )
