"""Evaluates a model on the validation split during training, to select the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch

from rayscribe.data.dataset import Row, StudyDataset, load_batches
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.drafts import DecodingConfig
from rayscribe.inference.reporter import BATCH, generate_reports
from rayscribe.metrics.clinical import clinical
from rayscribe.metrics.diversity import diversity
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.models.report_model import ReportModel
from rayscribe.progress import ProgressBar, progress_bar
from rayscribe.study import Batch
from rayscribe.task import report_loss_B
from rayscribe.training.processes import Processes

_CLINICAL = "ce_f1_example_14_uncertain_negative"


def read_once(data: StudyDataset, own: range, *, workers: int) -> Iterator[Any]:
    """Batches of the studies `own`, in order."""
    rows = [[Row(row, 0) for row in own[start : start + BATCH]] for start in range(0, len(own), BATCH)]
    return load_batches(data, rows, workers=workers)


def validate(
    model: ReportModel,
    data: StudyDataset,
    tokenizer: Tokenizer,
    decoding: DecodingConfig,
    *,
    workers: int,
    group: Processes,
    notify: Callable[[str], None],
) -> dict[str, float]:
    """Scores of generated validation reports against their full references; every process generates its share.

    `ce_f1` is example-based, over the 14 observations, uncertain as negative, by the built-in rules.
    """
    bar: ProgressBar = partial(progress_bar, desc="validation", unit="batch", leave=False, is_shown=group.rank == 0)
    written = generate_reports(model, tokenizer, data, decoding, progress=bar)
    loss, tokens = _loss_sums(model, read_once(data, range(len(data)), workers=workers))
    shares = group.gather((written, list(data.reports), loss, tokens))
    hypotheses = [text for share in shares for text in share[0]]
    references = [text for share in shares for text in share[1]]
    scores = overlap_scores(hypotheses, references)
    labeler = RuleLabeler()
    labels = clinical(labeler.label(hypotheses), labeler.label(references))
    scores["ce_f1"] = float(labels.scores()[_CLINICAL])
    scores["loss"] = sum(share[2] for share in shares) / sum(share[3] for share in shares)
    scores["distinct_ratio"] = diversity(hypotheses)["distinct_ratio"]
    notify("validation " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    return scores


@torch.no_grad()
def _loss_sums(model: ReportModel, batches: Iterable[Batch]) -> tuple[float, int]:
    """Summed negative log-likelihood and the number of target tokens."""
    device = model.decoder.head.weight.device
    loss, tokens = 0.0, 0
    for batch in batches:
        batch = batch.to(device)
        loss += float(report_loss_B(model(batch), batch).sum())
        tokens += int(batch.has_token_BT[:, 1:].sum())
    return loss, tokens
