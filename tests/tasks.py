"""A method's task for a model, outside a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rayscribe.config import RunConfig
from rayscribe.methods import find_method
from rayscribe.methods.method import Feed
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch


def build_task(
    config: RunConfig[Any],
    model: ReportModel,
    known: Any = None,
    *,
    studies: int = 6,
    training: Callable[[], Iterable[Batch]] = tuple,
    validation: Callable[[], Iterable[Batch]] = tuple,
) -> Any:
    """`known`: what the method knows of the training data; with a plug-in, the host's and its own."""
    feed = Feed(studies=studies, batches_per_epoch=1, training=training, validation=validation)
    return find_method(config.system).task(config, model, known, feed)
