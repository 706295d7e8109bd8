"""One run in order: read the manifest, build the model, fit, keep the best. Read this first, then `learner.py`.

The test split is never read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rayscribe.checkpoint import load_model, save_model
from rayscribe.config import RunConfig
from rayscribe.data.dataset import Order, StudyDataset
from rayscribe.data.features import FeatureCache
from rayscribe.data.shards import shard_numbers
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.inference.reporter import BATCH
from rayscribe.methods import find_method, run_from_yaml, taught_systems
from rayscribe.methods.build import build_model
from rayscribe.methods.method import Feed, Lookup, Start, TrainedModel
from rayscribe.models.bert_decoder import BertDecoder, start_from_bert, word_vectors
from rayscribe.models.report_model import ReportModel
from rayscribe.progress import ProgressBar, progress_bar
from rayscribe.settings import to_yaml
from rayscribe.study import Batch
from rayscribe.training.closed_form import fit_in_closed_form
from rayscribe.training.learner import (
    Learner,
    Place,
    Splits,
    model_data,
    note_random_weights,
    prepared_source,
    report_splits,
    run_learner,
)
from rayscribe.training.loop import Fitting, Progress
from rayscribe.training.processes import Processes, processes
from rayscribe.training.started import Started, begin_several
from rayscribe.training.validation import read_once, validate


def train_generations(config: RunConfig[Any], place: Place, *, generations: int) -> Path:
    """Teacher, student, its student, ...: each learns from the best checkpoint of the one before. Returns the last folder.

    The generations are RUN/generation-1, RUN/generation-2, ...; a single one is RUN itself.
    """
    check_generations(config, generations)
    with processes(place.device) as group:
        return train_in_group(config, place, group, generations=generations)


def check_generations(config: RunConfig[Any], generations: int) -> None:
    """Raises InputError for a number of generations that the method cannot have."""
    if generations < 1:
        raise InputError(f"--generations {generations}: at least 1")
    if generations > 1 and find_method(config.system).generation is None:
        teaching = " or ".join(taught_systems(config.system))
        advice = f"; train {teaching}" if teaching else ""
        raise InputError(f"--generations {generations}: {config.system} learns nothing from an earlier run{advice}")


def train_in_group(config: RunConfig[Any], place: Place, group: Processes, *, generations: int) -> Path:
    """`train_generations` by processes that have joined already."""
    taught = find_method(config.system).generation
    if generations == 1 or taught is None:
        _train(config, place, group)
        return place.run
    folders = [place.run / f"generation-{number}" for number in range(1, generations + 1)]
    if not place.resume and any(folder.exists() for folder in folders):
        raise InputError(f"{place.run}: already holds a run; continue it with --resume, or give another --run folder")
    teacher: Path | None = None
    if group.rank == 0:
        started = Started(data=place.data, features=place.features, generations=generations)
        begin_several(place.run, config, started, resume=place.resume)
    for number, folder in enumerate(folders, 1):
        place.of(group).notify(f"generation {number} of {generations}")
        goes_on = place.resume and (folder / "config.yaml").exists()
        own = taught(config, teacher)
        if goes_on and group.rank == 0:
            stored = folder / "config.yaml"
            kept = run_from_yaml(stored.read_text(encoding="utf-8"), stored)
            is_same = teacher is not None and kept.system == own.system and taught(kept, teacher) == own
            if kept != own and is_same:  # the folders were moved, or are named by another path
                write_text(stored, to_yaml(own))
        group.wait()  # before the first process makes the folder
        _train(own, replace(place, run=folder, resume=goes_on), group)
        teacher = folder
    return folders[-1]


def train_method(
    config: RunConfig[Any],
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    features: Path | None = None,
    notify: Callable[[str], None] = print,
    device: str | None = None,
) -> Progress:
    """Trains `config` on the manifest `data` into the folder `run`, which is then a model folder as well."""
    place = Place(data=data, run=run, resume=resume, features=features, notify=notify, device=device)
    with processes(place.device) as group:
        return _train(config, place, group)


def _train(config: RunConfig[Any], place: Place, group: Processes) -> Progress:
    place = place.of(group)
    if find_method(config.system).fit is not None:
        return fit_in_closed_form(config, place, group)
    return run_learner(ReportLearner(config, place, group), place, group)


class ReportLearner(Learner):
    """Report models: what their method reads, builds and learns."""

    report_model: ReportModel
    training: SplitReports
    validation: SplitReports
    tokenizer: Tokenizer

    def __init__(self, config: RunConfig[Any], place: Place, group: Processes) -> None:
        """Reads the manifest and the files beside it that the method names."""
        if config.train.batch_size % group.count:
            raise InputError(
                f"--train.batch-size {config.train.batch_size} cannot be shared equally by {group.count} processes"
            )
        self.config, self.place, self.group = config, place, group
        self.method = find_method(config.system)
        named, source = prepared_source(self.method, config, place, group)
        self.manifest = source.manifest
        self.resources = self.method.resources(named, None)
        self.resources.check(named, source)
        self.inputs = self.method.inputs(named, source)

    def digest(self) -> str:
        own = self.manifest.digest_with_negatives() if self.inputs.with_negatives else self.manifest.digest()
        return " ".join([own, *self.resources.digests(), *self.inputs.digests])

    def parse(self, text: str, source: Path) -> RunConfig[Any]:
        return run_from_yaml(text, source)

    def splits(self) -> Splits:
        text, notify = self.config.text, self.place.notify
        self.training, self.validation = (
            SplitReports.read(self.manifest, split, text, notify) for split in ("train", "val")
        )
        self.tokenizer = Tokenizer.build(self.training.reports, threshold=text.threshold, legacy_ids=text.legacy_ids)
        return report_splits(self.manifest, self.training, self.validation)

    def model(self) -> ReportModel:
        config, notify = self.config, self.place.notify
        model = build_model(config, self.tokenizer.size, self.resources)
        if config.model.decoder_weights:
            self._start_words(model)
        note_random_weights(config, notify)
        if config.train.precision == "bfloat16" and self.group.device.type == "cpu" and not _is_fast_in_bfloat16():
            notify("note: this processor multiplies bfloat16 far more slowly than float32; --train.precision float32")
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        notify(f"{config.system}: {millions:.1f} million parameters, vocabulary {self.tokenizer.size}")
        self.report_model = model
        self.known = self.inputs.known(
            Start(
                training=self.training,
                validation=self.validation.share(self.group.rank, self.group.count),
                tokenizer=self.tokenizer,
                model=model,
                resources=self.resources,
                open_model=load_model,
                notify=notify,
            )
        )
        return model

    def fitting(self, cache: FeatureCache | None, progress: ProgressBar) -> Fitting:
        config, group, workers = self.config, self.group, self.config.train.workers
        dataset = self._datasets(cache, progress)
        train_set = dataset(self.training, augment=config.seed)
        own = self.validation.share(group.rank, group.count)
        val_set = dataset(own)
        order = self._order()
        feed = Feed(
            studies=len(self.training.studies),
            batches_per_epoch=len(order.batches(0)),
            training=partial(self._training_batches, dataset(self.training)),
            validation=partial(read_once, val_set, range(len(val_set)), workers=workers),
        )
        task = self.method.task(config, self.report_model, self.known.value, feed).to(group.device)
        return Fitting(
            task=task,
            data=train_set,
            order=task.draws(order),
            validate=partial(
                validate,
                self.report_model,
                val_set,
                self.tokenizer,
                config.decoding,
                workers=workers,
                group=group,
                notify=self.place.notify,
            ),
            keep=self.keep,
            notify=self.place.notify,
        )

    def keep(self, epoch: int, scores: dict[str, float]) -> None:
        """Saves the model; only the first process does."""
        if self.group.rank > 0:
            return
        facts = {"epoch": epoch + 1, "validation": scores, "processes": self.group.count, **self.known.facts}
        best = TrainedModel(
            method=self.method,
            model=self.report_model,
            tokenizer=self.tokenizer,
            config=self.config,
            data=model_data(self.manifest.provenance, self.config, self.known.origins, self.manifest.digest()),
            training=facts,
            resources=self.resources,
        )
        save_model(self.place.run, best)

    def _start_words(self, model: ReportModel) -> None:
        """The BERT decoder, and the method's own words, start from a BERT on disk."""
        folder, words = Path(self.config.model.decoder_weights), self.tokenizer.words
        assert isinstance(model.decoder, BertDecoder)
        start_from_bert(model.decoder, folder, words, first=self.tokenizer.size - len(words))
        self.place.notify(f"decoder and {len(words)} words start from {folder}")
        if said := self.method.copy_words(self.config, model, partial(word_vectors, folder)):
            self.place.notify(said)

    def _datasets(self, cache: FeatureCache | None, progress: ProgressBar) -> Callable[..., StudyDataset]:
        """Makes data sets of studies and reports that share words, images and what the method looks up."""
        lookup = Lookup(features=self.place.features, device=self.group.device, progress=progress)
        extras = self.resources.extras([*self.training.studies, *self.validation.studies], lookup)
        return partial(
            StudyDataset,
            tokenizer=self.tokenizer,
            text=self.config.text,
            images=self.config.images,
            cache=cache,
            extras=extras,
        )

    def _order(self) -> Order:
        longest, train = self.config.text.max_length, self.config.train
        return Order(
            lengths=[len(self.tokenizer.encode(report, max_length=longest)) for report in self.training.reports],
            batch_size=train.batch_size,
            bucket=train.bucket,
            seed=self.config.seed,
            shards=shard_numbers(self.training.studies),
        )

    def _training_batches(self, data: StudyDataset) -> Iterable[Batch]:
        """This process's share of the training studies, to measure them."""
        group = self.group
        own = range(group.rank, len(data), group.count)
        batches = read_once(data, own, workers=self.config.train.workers)
        total = -(-len(own) // BATCH)
        return progress_bar(
            batches, total=total, desc="training studies", unit="batch", leave=False, is_shown=group.rank == 0
        )


def _is_fast_in_bfloat16() -> bool:
    """Without AVX512 there are no instructions for it: measured 66 against .6 GFLOP/s."""
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
