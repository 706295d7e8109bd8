"""PromptMRG: Jin, Che, Lin and Chen, "PromptMRG: Diagnosis-Driven Prompts for Medical Report Generation", AAAI 2024.

A disease head looks at the image and at the most similar training reports and gives each of 18 conditions one of four states
(spec A1.3). The states stand in front of the report in the decoder: those of the reference in training, the head's own
afterwards. In training the head's score of "positive" is lowered by the logarithm of the condition's prior, so that rare
conditions need a wide margin; after every epoch the priors follow how well each condition is recognised on the validation split
(spec A1.4).

What differs from the released code, which reads labels, priors and retrieved reports from files that nobody can make again:

* labels are the built-in rules' or a table's; a condition that nobody labelled is left out of the loss and of the prompt;
* retrieved reports never are the study's own or its patient's; the index is part of the model folder;
* priors have a floor, and one without a positive validation study stays as it was, instead of becoming not a number;
* shifted logits are new tensors, so what distillation compares is never shifted;
* states are no words, so none can be written; they stand before the begin token instead of after it;
* the image's vector is the mean over all views; the released code reads the first image only.

The decoder is ours, or BERT's (`--model.decoder bert`, sizes of the paper).

Shapes: B studies, N patches, C channels, K retrieved reports, M their width, S = 4 states, O = 18 conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from rayscribe.config_methods import DiagnosisConfig
from rayscribe.data.conditions import CONDITIONS, UNLABELLED, Conditions
from rayscribe.labels import CSV_STATES, NOT_MENTIONED, POSITIVE
from rayscribe.models.layers import Encoded, Linear, pooled
from rayscribe.models.report_model import Reading, ReportModel
from rayscribe.study import Batch
from rayscribe.task import HostTask, report_loss_B, studies_of, target_tokens

STATES = len(CSV_STATES)
HEADS = 8  # of the attention to retrieved reports, released code
_HIDDEN = 2048
_LAYERS = 2
_DROPOUT = 0.1
_LEAST_PRIOR = 1e-3


class DiagnosisStage(nn.Module):
    """The first stage: what the backbone sees, and retrieved reports, to the states of the conditions."""

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
            assert seen.retrieved_BKM is not None, "this model needs the retrieved reports of a study"
            x_BC = torch.cat([image_BC, self.memory(image_BC, seen.retrieved_BKM)], dim=-1)
        return self.classify(x_BC).unflatten(-1, (STATES, len(CONDITIONS)))

    def forward(self, seen: Encoded) -> Encoded:
        scores_BSO = self.scores(seen)
        states_BO = self.predicted(scores_BSO)
        if (
            seen.states_BO is not None
        ):  # those of the reference in training, or a classifier's; its own where they are unknown
            states_BO = torch.where(seen.states_BO == UNLABELLED, states_BO, seen.states_BO)
        return replace(seen, states_BO=states_BO, state_scores_BSO=scores_BSO)

    def predicted(self, scores_BSO: Tensor) -> Tensor:
        """The likeliest states (B, O); conditions that nobody labelled are not mentioned."""
        return scores_BSO.argmax(1).masked_fill(~self.is_labelled_O, NOT_MENTIONED)


class ReportMemory(nn.Module):
    """Retrieved reports read by the image, in the manner of DETR: they attend to each other, then the query to them.

    With `findings` (F, M), the names of findings in the retrieval's space, the query takes in what it finds among them first;
    for every study on its own, in training as afterwards (spec A2.5).
    """

    findings_FM: Tensor

    def __init__(self, channels: int, width: int, *, findings_FM: Tensor | None = None) -> None:
        super().__init__()
        self.width = width
        self.query = nn.Linear(channels, width)
        self.ask = None
        if findings_FM is not None:
            self.ask = nn.MultiheadAttention(width, HEADS, _DROPOUT, batch_first=True)
            self.register_buffer("findings_FM", findings_FM)
        self.reports = MemoryTransformer(width)

    def forward(self, image_BC: Tensor, retrieved_BKM: Tensor) -> Tensor:
        query_B1M = self.query(image_BC)[:, None]
        if self.ask is not None:
            findings_BFM = self.findings_FM.to(query_B1M.dtype).expand(len(query_B1M), -1, -1)
            query_B1M = query_B1M + self.ask(query_B1M, findings_BFM, findings_BFM, need_weights=False)[0]
        return self.reports(retrieved_BKM.to(query_B1M.dtype), query_B1M)


class MemoryTransformer(nn.Module):
    """Two encoder layers over the retrieved reports, two decoder layers that start from zero and are told the query in each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, HEADS, _HIDDEN, _DROPOUT, batch_first=True) for _ in range(_LAYERS)
        )
        self.decoder = nn.ModuleList(QueryLayer(width) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, retrieved_BKM: Tensor, query_B1M: Tensor) -> Tensor:
        """(B, M)"""
        for layer in self.encoder:
            retrieved_BKM = layer(retrieved_BKM)
        answer_B1M = torch.zeros_like(query_B1M)
        for layer in self.decoder:
            answer_B1M = layer(answer_B1M, query_B1M, retrieved_BKM)
        answer_B1M = self.norm(answer_B1M)
        return answer_B1M[:, 0]


class QueryLayer(nn.Module):
    """A decoder layer of DETR: the query is added to what asks, not to what is answered; norms come last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(width, HEADS, _DROPOUT, batch_first=True)
        self.reports = nn.MultiheadAttention(width, HEADS, _DROPOUT, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Dropout(_DROPOUT), nn.Linear(_HIDDEN, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, answer_B1M: Tensor, query_B1M: Tensor, retrieved_BKM: Tensor) -> Tensor:
        asks = answer_B1M + query_B1M
        found, _ = self.own(asks, asks, answer_B1M, need_weights=False)
        answer_B1M = self.norms[0](answer_B1M + self.drop(found))
        found, _ = self.reports(answer_B1M + query_B1M, retrieved_BKM, retrieved_BKM, need_weights=False)
        answer_B1M = self.norms[1](answer_B1M + self.drop(found))
        answer_B1M = self.norms[2](answer_B1M + self.drop(self.feed_forward(answer_B1M)))
        return answer_B1M


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnoses:
    """What is known of the conditions in training and validation."""

    training: Conditions
    validation: Conditions
    "of this process's share"
    validation_batches: Callable[[], Iterable[Batch]]
    "reads that share"
    rates_O: NDArray[np.float64]
    "how often each condition is positive, before the first epoch"


class DiagnosisTask(HostTask[Batch]):
    """The report's loss plus `weight` times the loss of the states, whose priors follow the validation split."""

    states_RO: Tensor
    priors_O: Tensor
    measured_epoch: Tensor

    def __init__(
        self,
        model: ReportModel,
        stage: DiagnosisStage,
        config: DiagnosisConfig,
        *,
        known: Diagnoses,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.reporter, self.config, self.known, self.label_smoothing = model, config, known, label_smoothing
        self.diagnose = stage.scores
        self.is_labelled_O = torch.from_numpy(known.training.is_labelled_O)
        stage.is_labelled_O.copy_(self.is_labelled_O)
        rates_O = torch.from_numpy(known.rates_O)
        self.register_buffer("states_RO", torch.from_numpy(known.training.states_RO), persistent=False)
        self.register_buffer("priors_O", priors(rates_O, torch.ones(len(CONDITIONS)), self.is_labelled_O))
        self.register_buffer("measured_epoch", torch.zeros((), dtype=torch.long))

    @property
    def model(self) -> ReportModel:
        return self.reporter

    def reported(self, draw: Batch) -> Batch:
        return draw

    def read(self, batch: Batch) -> Reading:
        """With the states of the reference in front of the report, unless the settings say otherwise."""
        seen = self.model.see(batch)
        if self.config.training_prompt == "gold":
            states_BO = self.states_RO[batch.rows_B].long()
            seen = replace(seen, states_BO=states_BO.masked_fill(states_BO == UNLABELLED, NOT_MENTIONED))
        return self.model.read(batch, seen)

    def losses(self, reading: Reading | None, draw: Batch) -> dict[str, Tensor]:
        assert reading is not None and reading.encoded.state_scores_BSO is not None
        output = self.model.score(reading)
        report = report_loss_B(output, draw, smoothing=self.label_smoothing).sum() / target_tokens(draw)
        shift_O = self.priors_O.log() if self.config.adjust else torch.zeros_like(self.priors_O)
        loss_B = state_loss_B(reading.encoded.state_scores_BSO, self.states_RO[draw.rows_B].long(), shift_O)
        diagnosis = (loss_B * draw.has_token_BT.any(1)).sum() / studies_of(draw)
        return {"loss": report + self.config.weight * diagnosis, "report": report, "diagnosis": diagnosis}

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        if not (self.config.adjust and self.config.adaptive) or int(self.measured_epoch) == epoch:
            return
        recognised_O, positives_O = self._measure()
        rates_O = (recognised_O / positives_O).cpu()  # not a number where no study is positive
        self.priors_O.copy_(priors(rates_O, self.priors_O.cpu(), self.is_labelled_O))
        self.measured_epoch.fill_(epoch)

    @torch.no_grad()
    def _measure(self) -> tuple[Tensor, Tensor]:
        """Over the validation studies in which a condition is positive: summed probability of "positive", and their number."""
        self.eval()
        device = self.priors_O.device
        sums_2O = torch.zeros(2, len(CONDITIONS), device=device)
        states_RO = torch.from_numpy(self.known.validation.states_RO).to(device)
        for batch in self.known.validation_batches():
            batch = batch.to(device)
            is_positive_BO = (states_RO[batch.rows_B] == POSITIVE).float()
            probability_BO = self.diagnose(self.model.see(batch)).float().softmax(1)[:, POSITIVE]
            sums_2O += torch.stack([(probability_BO * is_positive_BO).sum(0), is_positive_BO.sum(0)])
        self.train()
        if distributed.is_initialized():
            distributed.all_reduce(sums_2O)
        return sums_2O[0], sums_2O[1]


def priors(rates_O: Tensor, before_O: Tensor, is_labelled_O: Tensor) -> Tensor:
    """Rates over the largest of them, at least .001; 1, which shifts nothing, where nobody labelled.

    Where a rate is not a number the prior stays as it was `before`.
    """
    rates_O = torch.where(rates_O.isfinite(), rates_O, before_O).float()
    largest = rates_O[is_labelled_O].max().clamp(min=_LEAST_PRIOR)
    return (rates_O / largest).clamp(_LEAST_PRIOR, 1).masked_fill(~is_labelled_O, 1.0)


def state_loss_B(scores_BSO: Tensor, states_BO: Tensor, shift_O: Tensor) -> Tensor:
    """Cross-entropy of the states, averaged over a study's labelled conditions; "positive" is shifted by `shift_O`."""
    shift_SO = torch.zeros(scores_BSO.shape[1:], device=scores_BSO.device)
    shift_SO[POSITIVE] = shift_O
    loss_BO = F.cross_entropy(scores_BSO.float() + shift_SO, states_BO, ignore_index=UNLABELLED, reduction="none")
    return loss_BO.sum(1) / (states_BO != UNLABELLED).sum(1).clamp(min=1)
