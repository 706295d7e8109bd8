"""PromptMRG: Jin, Che, Lin and Chen, "PromptMRG: Diagnosis-Driven Prompts for Medical Report Generation", AAAI 2024.

A disease head looks at the image and at the most similar training reports and assigns one of four states to each of 18
conditions (spec A1.3). The states precede the report in the decoder: the reference's in training, the head's own afterwards.
In training the head's score of "positive" is lowered by the logarithm of the condition's prior, so that rare conditions need a
wide margin; after every epoch the priors follow how well each condition is recognised on the validation split (spec A1.4).

Differences from the released code, which reads labels, priors and retrieved reports from files that cannot be reproduced:

* labels come from the built-in rules or from a table; an unlabelled condition is left out of the loss and of the prompt;
* retrieved reports never include the study's own or its patient's; the index is part of the model folder;
* priors have a floor, and one without a positive validation study keeps its value, instead of becoming NaN;
* shifted logits are new tensors, so distillation never compares shifted ones;
* states are not words, so none can be written; they precede the begin token instead of following it;
* the image's vector is the mean over all views; the released code reads only the first image.

The decoder is ours, or BERT's (`--model.decoder bert`, with the paper's sizes).

Shapes: B studies, N patches, C channels, K retrieved reports, M their width, S = 4 states, O = 18 conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from rayscribe.config import ModelConfig, RunConfig, TextConfig
from rayscribe.data.conditions import RULES, TRAINING, Conditions, condition_rates, study_conditions
from rayscribe.errors import InputError
from rayscribe.labels import CONDITIONS, CSV_STATES, NOT_MENTIONED, POSITIVE, STATE_NAMES, UNLABELLED
from rayscribe.methods.method import (
    CardLine,
    Feed,
    Findings,
    Inputs,
    Known,
    Method,
    Preparation,
    Prompt,
    Resources,
    Source,
    Start,
    TrainedModel,
    file_digest,
    patch_embedding,
)
from rayscribe.methods.promptmrg_reports import RETRIEVED, ReportBank, ReportMemory, prepared_index, report_bank
from rayscribe.methods.r2gen import r2gen_training
from rayscribe.models.layers import Encoded, Linear, pooled
from rayscribe.models.report_model import Reading, ReportModel
from rayscribe.settings import need
from rayscribe.study import GIVEN_STATES, Batch
from rayscribe.task import HostTask, report_loss_B, studies_of, target_tokens

STATE_SCORES = "state_scores_BSO"
"Extra of the decoder's input: the disease head's logits."
STATES = len(CSV_STATES)
_LEAST_PRIOR = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptMrgSettings:
    """Disease head, retrieved reports and diagnosis prompt."""

    labels: str = "rules"
    "states of the conditions: `rules`, the built-in labeler, or a table made by `rayscribe label` or another tool"
    retrieval: str = ""
    "folder made by `rayscribe build retrieval`; empty: training builds the index with the run's own image encoder"
    memory: bool = True
    "let the head also look at the most similar training reports; false: at the image alone (an ablation)"
    reports: int = 21
    "number of reports to retrieve (released code: clip_k)"
    priors: str = "training"
    "frequency of each condition: `training`, counted, or a file in the format of `rayscribe build priors`"
    adjust: bool = True
    "adjust logits by the priors during training"
    adaptive: bool = True
    "after every epoch, set the priors to the mean probability of the true positives in the validation split"
    weight: float = 4.0
    "weight of the classification loss (released code: cls_weight)"
    prompt: bool = True
    "put the states in front of the report; false: the head learns beside the decoder (an ablation)"
    training_prompt: Literal["gold", "predicted"] = "gold"
    "states that the decoder sees in training; gold in the released code"

    def __post_init__(self) -> None:
        need(self.reports >= 1, "--method.reports", self.reports, "at least 1")
        need(self.weight > 0, "--method.weight", self.weight, "above 0")
        unused = self.retrieval and not self.memory
        need(not unused, "--method.retrieval", self.retrieval, "not used with --method.no-memory; give one of them")

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError for flipped images with retrieved reports."""
        flips = self.memory and run.images.flip
        need(not flips, "--images.flip", "", "reports are retrieved for the unflipped image; give --images.no-flip")


class DiagnosisStage(nn.Module):
    """The first stage: from the backbone's features and retrieved reports to the states of the conditions."""

    is_labelled_O: Tensor

    def __init__(self, channels: int, memory: ReportMemory | None) -> None:
        super().__init__()
        self.memory = memory
        self.classify = Linear(channels + (memory.width if memory else 0), STATES * len(CONDITIONS))
        nn.init.normal_(self.classify.weight, std=0.001)  # released code
        nn.init.zeros_(self.classify.bias)
        self.register_buffer("is_labelled_O", torch.ones(len(CONDITIONS), dtype=torch.bool))

    def scores(self, seen: Encoded) -> Tensor:
        """Logits of the states of every condition (B, S, O)."""
        image_BC = pooled(seen)
        x_BC = image_BC
        if self.memory is not None:
            x_BC = torch.cat([image_BC, self.memory(image_BC, seen.extras[RETRIEVED])], dim=-1)
        return self.classify(x_BC).unflatten(-1, (STATES, len(CONDITIONS)))

    def forward(self, seen: Encoded) -> Encoded:
        """Features with the prompt (B, O): given states where known, else the predicted ones; adds the logits as an extra."""
        scores_BSO = self.scores(seen)
        states_BO = self.predicted(scores_BSO)
        given_BO = seen.extras.get(GIVEN_STATES)
        if (
            given_BO is not None
        ):  # those of the reference in training, or a classifier's; its own where they are unknown
            states_BO = torch.where(given_BO == UNLABELLED, states_BO, given_BO.long())
        return replace(seen, prompt_BO=states_BO, extras={**seen.extras, STATE_SCORES: scores_BSO})

    def predicted(self, scores_BSO: Tensor) -> Tensor:
        """The most probable states (B, O); conditions without labels are "not mentioned"."""
        return scores_BSO.argmax(1).masked_fill(~self.is_labelled_O, NOT_MENTIONED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnoses:
    """States of the conditions in training and validation."""

    training: Conditions
    validation: Conditions
    "of this process's share of the studies"
    rates_O: NDArray[np.float64]
    "frequency of each condition as positive, before the first epoch"


class DiagnosisTask(HostTask[Batch]):
    """The report's loss plus `weight` times the loss of the states; their priors follow the validation split."""

    states_RO: Tensor
    priors_O: Tensor
    measured_epoch: Tensor

    def __init__(
        self,
        model: ReportModel,
        stage: DiagnosisStage,
        config: PromptMrgSettings,
        *,
        known: Diagnoses,
        validation: Callable[[], Iterable[Batch]],
        label_smoothing: float = 0.0,
    ) -> None:
        """`validation` reads this process's share of the validation studies."""
        super().__init__()
        self.reporter, self.config, self.known, self.label_smoothing = model, config, known, label_smoothing
        self.validation_batches = validation
        self.diagnose = stage.scores
        self.is_labelled_O = torch.from_numpy(known.training.is_labelled_O)
        stage.is_labelled_O.copy_(self.is_labelled_O)
        rates_O = torch.from_numpy(known.rates_O)
        self.register_buffer("states_RO", torch.from_numpy(known.training.states_RO), persistent=False)
        self.register_buffer("priors_O", priors(rates_O, torch.ones(len(CONDITIONS)), self.is_labelled_O))
        self.register_buffer("measured_epoch", torch.zeros((), dtype=torch.long))

    @property
    def model(self) -> ReportModel:
        """The report model."""
        return self.reporter

    def reported(self, draw: Batch) -> Batch:
        """All studies of the batch."""
        return draw

    def read(self, batch: Batch) -> Reading:
        """With the reference's states in front of the report, unless the settings say otherwise."""
        seen = self.model.see(batch)
        if self.config.training_prompt == "gold":
            states_BO = self.states_RO[batch.rows_B].long()
            gold_BO = states_BO.masked_fill(states_BO == UNLABELLED, NOT_MENTIONED)
            seen = replace(seen, extras={**seen.extras, GIVEN_STATES: gold_BO})
        return self.model.read(batch, seen)

    def losses(self, reading: Reading | None, draw: Batch) -> dict[str, Tensor]:
        """`loss`, and its terms `report` and `diagnosis`."""
        assert reading is not None
        output = self.model.score(reading)
        report = report_loss_B(output, draw, smoothing=self.label_smoothing).sum() / target_tokens(draw)
        shift_O = self.priors_O.log() if self.config.adjust else torch.zeros_like(self.priors_O)
        loss_B = state_loss_B(reading.encoded.extras[STATE_SCORES], self.states_RO[draw.rows_B].long(), shift_O)
        diagnosis = (loss_B * draw.has_token_BT.any(1)).sum() / studies_of(draw)
        return {"loss": report + self.config.weight * diagnosis, "report": report, "diagnosis": diagnosis}

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Updates the priors from the validation split, once per epoch."""
        if not (self.config.adjust and self.config.adaptive) or int(self.measured_epoch) == epoch:
            return
        recognised_O, positives_O = self._measure()
        rates_O = (recognised_O / positives_O).cpu()  # NaN where no study is positive
        self.priors_O.copy_(priors(rates_O, self.priors_O.cpu(), self.is_labelled_O))
        self.measured_epoch.fill_(epoch)

    @torch.no_grad()
    def _measure(self) -> tuple[Tensor, Tensor]:
        """Per condition, over its positive validation studies: summed probability of "positive", and number of studies."""
        self.eval()
        device = self.priors_O.device
        sums_2O = torch.zeros(2, len(CONDITIONS), device=device)
        states_RO = torch.from_numpy(self.known.validation.states_RO).to(device)
        for batch in self.validation_batches():
            batch = batch.to(device)
            is_positive_BO = (states_RO[batch.rows_B] == POSITIVE).float()
            probability_BO = self.diagnose(self.model.see(batch)).float().softmax(1)[:, POSITIVE]
            sums_2O += torch.stack([(probability_BO * is_positive_BO).sum(0), is_positive_BO.sum(0)])
        self.train()
        if distributed.is_initialized():
            distributed.all_reduce(sums_2O)
        return sums_2O[0], sums_2O[1]


def priors(rates_O: Tensor, before_O: Tensor, is_labelled_O: Tensor) -> Tensor:
    """Rates relative to the largest, at least .001; 1, which shifts nothing, for conditions without labels.

    Where a rate is NaN the prior keeps its value in `before_O`.
    """
    rates_O = torch.where(rates_O.isfinite(), rates_O, before_O).float()
    largest = rates_O[is_labelled_O].max().clamp(min=_LEAST_PRIOR)
    return (rates_O / largest).clamp(_LEAST_PRIOR, 1).masked_fill(~is_labelled_O, 1.0)


def state_loss_B(scores_BSO: Tensor, states_BO: Tensor, shift_O: Tensor) -> Tensor:
    """Cross-entropy of the states, averaged over a study's labelled conditions (B); `shift_O` shifts "positive"."""
    shift_SO = torch.zeros(scores_BSO.shape[1:], device=scores_BSO.device)
    shift_SO[POSITIVE] = shift_O
    loss_BO = F.cross_entropy(scores_BSO.float() + shift_SO, states_BO, ignore_index=UNLABELLED, reduction="none")
    return loss_BO.sum(1) / (states_BO != UNLABELLED).sum(1).clamp(min=1)


def promptmrg() -> RunConfig[PromptMrgSettings]:
    """PromptMRG as its released script trains it (Jin et al., 2024; spec A1.5), with a decoder of our size.

    The script's warm-up lasts 2,000 steps of its first epoch (MIMIC-CXR); its cosine ends at a tenth of the rate instead of 0.
    It clips every gradient at .1.
    """
    train = replace(
        r2gen_training(),
        epochs=6,
        patience=6,
        metric="ce_f1",
        label_smoothing=0.1,  # med.py
        optimizer="adamw",
        amsgrad=False,
        lr=5e-5,
        lr_backbone=5e-5,
        weight_decay=0.05,
        clip_value=0.1,
        schedule="cosine",
        warmup_steps=2000,
    )
    return RunConfig(
        system="promptmrg",
        method=PromptMrgSettings(),
        text=TextConfig(max_length=100),  # words of a cleaned report
        model=ModelConfig(encoder_layers=0, patch_dropout=0.1),
        train=train,
        seed=456789,
    )


def bert_sizes(model: ModelConfig) -> ModelConfig:
    """The published decoder's sizes: BERT's, with attention to the image encoder's own features (spec B1)."""
    return replace(model, decoder="bert", width=768, heads=12, feedforward=3072, decoder_layers=12, dropout=0.1)


def promptmrg_bert() -> RunConfig[PromptMrgSettings]:
    """The same with the published BERT decoder."""
    run = promptmrg()
    return replace(run, model=bert_sizes(run.model))


def diagnosis_resources(name: str, settings: PromptMrgSettings, folder: Path | None) -> ReportBank:
    """The reports to retrieve, from the model folder or the settings; empty without --method.memory."""
    if not settings.memory:
        return ReportBank(None, settings.reports)
    return report_bank(name, settings.retrieval, folder, reports=settings.reports)


def prepared_retrieval(
    run: RunConfig[Any], settings: PromptMrgSettings, source: Source, preparation: Preparation
) -> PromptMrgSettings:
    """The settings with an index of the training reports, where they want one and name none."""
    if settings.retrieval or not settings.memory:
        return settings
    found = prepared_index(run.system, run, source, preparation, reports=settings.reports)
    return replace(settings, retrieval=str(found))


def diagnosis_stage(channels: int, bank: ReportBank, *, asks_findings: bool = False) -> DiagnosisStage:
    """The disease head over `bank`; `asks_findings`: the image's query includes the names of findings."""
    memory = None
    if bank.retrieval is not None:
        findings_FM = torch.from_numpy(bank.retrieval.findings_FM) if asks_findings else None
        memory = ReportMemory(channels, bank.retrieval.width, findings_FM=findings_FM)
    return DiagnosisStage(channels, memory)


def diagnosis_prompt(settings: PromptMrgSettings) -> Prompt:
    """The prompt of the conditions' states, or none."""
    return Prompt(states=STATES if settings.prompt else 0)


def diagnosis_inputs(settings: PromptMrgSettings) -> Inputs:
    """States of the conditions in training and validation, and the frequency of each as positive."""
    of_labels = file_digest(settings.labels, built_in=RULES, flag="--method.labels", what="labels")
    of_priors = file_digest(settings.priors, built_in=TRAINING, flag="--method.priors", what="priors")

    def known(start: Start) -> Known:
        training, validation = (
            study_conditions(settings.labels, part.ids, part.reports) for part in (start.training, start.validation)
        )
        labelled = training.is_labelled_O
        if not labelled.any():
            raise InputError(f"--method.labels {settings.labels}: no condition is labelled")
        rates_O = condition_rates(settings.priors, training)
        start.notify(f"conditions: {labelled.sum()} of {len(labelled)} labelled ({training.source})")
        return Known(value=Diagnoses(training=training, validation=validation, rates_O=rates_O))

    return Inputs(digests=[*of_labels, *of_priors], known=known)


def diagnosis_task(
    run: RunConfig[Any], settings: PromptMrgSettings, model: ReportModel, known: Diagnoses, feed: Feed
) -> HostTask[Any]:
    """The report's loss plus that of the states, from `known` labels."""
    stage, smoothing = model.stages[0], run.train.label_smoothing
    assert isinstance(stage, DiagnosisStage)
    return DiagnosisTask(model, stage, settings, known=known, validation=feed.validation, label_smoothing=smoothing)


def said_states(model: ReportModel, batch: Batch, encoded: Encoded) -> list[Findings]:
    """The states in each study's prompt, in words; conditions neither labelled nor given are left out."""
    stage, states_BO = model.stages[0], encoded.prompt_BO
    assert isinstance(stage, DiagnosisStage) and states_BO is not None
    is_known_BO = stage.is_labelled_O.expand(states_BO.shape).cpu()
    if GIVEN_STATES in batch.extras:
        is_known_BO = is_known_BO | (batch.extras[GIVEN_STATES] != UNLABELLED).cpu()
    return [
        {
            name: STATE_NAMES[state]
            for name, state, is_known in zip(CONDITIONS, states_O, is_known_O, strict=True)
            if is_known
        }
        for states_O, is_known_O in zip(states_BO.tolist(), is_known_BO.tolist(), strict=True)
    ]


def diagnosis_line(settings: PromptMrgSettings) -> CardLine:
    """The model card's line about conditions, labels and retrieval."""
    labels = "the built-in rules" if settings.labels == RULES else Path(settings.labels).name
    memory = f", {settings.reports} retrieved reports a study" if settings.memory else ""
    return "diagnosis", f"{len(CONDITIONS)} conditions, labels of {labels}{memory}"


def _stages(run: RunConfig[PromptMrgSettings], channels: int, words: int, resources: Resources) -> list[nn.Module]:
    assert isinstance(resources, ReportBank)
    return [diagnosis_stage(channels, resources), *patch_embedding(run, channels, words, resources)]


def _card(trained: TrainedModel) -> list[CardLine]:
    return [diagnosis_line(trained.config.method)]


METHOD = Method(
    name="promptmrg",
    settings=PromptMrgSettings,
    recipes={"promptmrg": promptmrg, "promptmrg_bert": promptmrg_bert},
    stages=_stages,
    prompt=lambda run: diagnosis_prompt(run.method),
    task=lambda run, model, known, feed: diagnosis_task(run, run.method, model, known, feed),
    prepare=lambda run, source, ready: (
        replace(run, method=prepared_retrieval(run, run.method, source, ready)),
        source,
    ),
    inputs=lambda run, source: diagnosis_inputs(run.method),
    resources=lambda run, folder: diagnosis_resources(run.system, run.method, folder),
    said=said_states,
    card=_card,
)
