"""One run in order: read the manifest, build the model, fit, keep the best. Read this first.

The test split is never read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rayscribe.build import Training, build_model, build_task
from rayscribe.checkpoint import TrainedModel, save_model
from rayscribe.config import RunConfig
from rayscribe.data.dataset import Order, Row, StudyDataset, cleaned_report, collate, load_batches
from rayscribe.data.entities import LEXICON, EntityTargets, study_entities
from rayscribe.data.features import cached_features
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.pairs import mined_partners
from rayscribe.distributed import Processes, processes
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.metrics.diversity import diversity
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.predict import BATCH, generate_reports
from rayscribe.run_folder import RunFolder
from rayscribe.study import Batch, Study
from rayscribe.task import Task, report_loss_B
from rayscribe.tokenizer import Tokenizer
from rayscribe.train import Progress, fit


def train(
    config: RunConfig,
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    features: Path | None = None,
    say: Callable[[str], None] = print,
) -> Progress:
    """Trains `config` on the manifest `data` into the folder `run`, which is then a model folder as well."""
    with processes() as group:
        say = say if group.rank == 0 else _silent
        group_size_fits(config, group)
        manifest = read_manifest(data)
        folder = RunFolder(run, config, data_digest=_digest(manifest, config), resume=resume, writes=group.rank == 0)
        group.wait()
        training, validation = (_Part.read(manifest, split, config, say) for split in ("train", "val"))
        tokenizer = Tokenizer.build(
            training.reports, threshold=config.text.threshold, legacy_ids=config.text.legacy_ids
        )
        entities = _entities(config, training, tokenizer, say) if config.learns_entities else None
        partners: list[list[int]] = []
        if config.ithn.enabled:
            partners = mined_partners(
                manifest, training.studies, config.text, candidates=config.ithn.candidates, data=data
            )
        torch.manual_seed(config.seed)
        model = build_model(config, tokenizer.size)
        if not config.backbone.weights:
            say(
                f"note: {config.backbone.name} starts from random weights; --backbone.weights takes a file or `pretrained`"
            )
        if config.train.precision == "bfloat16" and group.device.type == "cpu" and not _is_fast_in_bfloat16():
            say("note: this processor multiplies bfloat16 far more slowly than float32; --train.precision float32")
        say(f"{config.system}: {_millions(model)} million parameters, vocabulary {tokenizer.size}")
        cache = None
        if not config.backbone.trainable:
            bar: Callable[[Iterable[Any]], Iterable[Any]] = partial(
                tqdm, desc="image features", unit="block", disable=group.rank > 0
            )
            cache = cached_features(
                [*training.studies, *validation.studies],
                model.backbone,
                config.images,
                folder=features,
                device=group.device,
                progress=bar,
            )
        dataset = partial(StudyDataset, tokenizer=tokenizer, text=config.text, images=config.images, cache=cache)
        train_set = dataset(training.studies, training.reports, training=True, seed=config.seed)
        own = validation.share(group)
        val_set = dataset(own.studies, own.reports)
        order = Order(
            lengths=[len(tokenizer.encode(report, max_length=config.text.max_length)) for report in training.reports],
            batch_size=config.train.batch_size,
            bucket=config.train.bucket,
            seed=config.seed,
        )
        uncropped = dataset(training.studies, training.reports)
        known = Training(
            studies=len(training.studies),
            batches_per_epoch=len(order.batches(0)),
            partners=partners,
            entities=entities,
            batches=partial(_read_once, uncropped, config, group),
        )
        task = build_task(config, model, known).to(group.device)
        about = manifest.provenance | {"digest": manifest.digest()}

        def keep(epoch: int, scores: dict[str, float]) -> None:
            if group.rank == 0:
                facts = {"epoch": epoch + 1, "validation": scores, "processes": group.count}
                save_model(
                    run, TrainedModel(model=model, tokenizer=tokenizer, config=config, data=about, training=facts)
                )

        progress = fit(
            task,
            train_set,
            task.draws(order),
            config=config.train,
            seed=config.seed,
            run=folder,
            processes=group,
            validate=partial(_validate, task, val_set, tokenizer, config, group, say),
            keep=keep,
        )
        say(f"best: epoch {progress.best_epoch + 1}, validation {config.train.metric} {abs(progress.best):.4f}; {run}")
        return progress


@dataclass(frozen=True, slots=True)
class _Part:
    """The studies of one split that have the section, with their cleaned reports."""

    studies: list[Study]
    reports: list[str]

    @classmethod
    def read(cls, manifest: Manifest, split: str, config: RunConfig, say: Callable[[str], None]) -> _Part:
        pairs = [(study, cleaned_report(study, config.text)) for study in manifest.split(split)]
        kept = [(study, report) for study, report in pairs if report]
        if not kept:
            raise InputError(f"no study in split {split} has the section {config.text.section!r} (--text.section)")
        lacking = f", {len(pairs) - len(kept)} left out without {config.text.section}" if len(kept) < len(pairs) else ""
        say(f"{split}: {len(kept)} studies{lacking}")
        return cls([study for study, _ in kept], [report for _, report in kept])

    def share(self, group: Processes) -> _Part:
        return _Part(self.studies[group.rank :: group.count], self.reports[group.rank :: group.count])


def _digest(manifest: Manifest, config: RunConfig) -> str:
    """Of all data that the training reads."""
    digest = manifest.digest_with_negatives() if config.ithn.enabled else manifest.digest()
    if config.jima.entities == LEXICON:
        return digest
    path = Path(config.jima.entities)
    if not path.is_file():
        raise InputError(f"{path}: no such file of entities (--jima.entities)")
    return f"{digest} {sha256_of(path)}"


def _entities(config: RunConfig, training: _Part, tokenizer: Tokenizer, say: Callable[[str], None]) -> EntityTargets:
    ids = [study.id for study in training.studies]
    words = study_entities(config.jima.entities, ids, training.reports, section=config.text.section)
    targets = EntityTargets.build(words, tokenizer.words)
    found, studies = len(targets.places_E), len(training.studies)
    if not found:
        raise InputError(f"--jima.entities {config.jima.entities}: none of its words is in the training vocabulary")
    say(
        f"entities: {found / studies:.1f} a study, {len(set(targets.places_E.tolist()))} words ({config.jima.entities})"
    )
    return targets


def _read_once(data: StudyDataset, config: RunConfig, group: Processes) -> Iterable[Batch]:
    """This process's share of the studies, without gradients in mind: to measure them."""
    own = range(group.rank, len(data), group.count)
    rows = [[Row(row, 0) for row in own[start : start + BATCH]] for start in range(0, len(own), BATCH)]
    batches = load_batches(data, rows, workers=config.train.workers)
    return tqdm(batches, total=len(rows), desc="difficulty", unit="batch", leave=False, disable=group.rank > 0)  # type: ignore[arg-type]


def _validate(
    task: Task[Any],
    data: StudyDataset,
    tokenizer: Tokenizer,
    config: RunConfig,
    group: Processes,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Scores of generated validation reports against their full references; every process writes its share."""
    bar: Callable[[Iterable[Any]], Iterable[Any]] = partial(
        tqdm, desc="validation", unit="batch", leave=False, disable=group.rank > 0
    )
    written = generate_reports(task.model, tokenizer, data, config.decoding, progress=bar)
    shares = group.gather((written, list(data.reports), *_loss_sums(task, data)))
    hypotheses = [text for share in shares for text in share[0]]
    references = [text for share in shares for text in share[1]]
    scores = overlap_scores(hypotheses, references)
    scores["loss"] = sum(share[2] for share in shares) / sum(share[3] for share in shares)
    scores["distinct_ratio"] = diversity(hypotheses)["distinct_ratio"]
    say("validation " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    return scores


@torch.no_grad()
def _loss_sums(task: Task[Any], data: StudyDataset) -> tuple[float, int]:
    """Summed negative log-likelihood and the number of target tokens."""
    device = task.model.decoder.head.weight.device
    loss, tokens = 0.0, 0
    for start in range(0, len(data), BATCH):
        batch = collate([data.item(Row(row, 0)) for row in range(start, min(start + BATCH, len(data)))]).to(device)
        loss += float(report_loss_B(task.model(batch), batch).sum())
        tokens += int(batch.has_token_BT[:, 1:].sum())
    return loss, tokens


def group_size_fits(config: RunConfig, group: Processes) -> None:
    if config.ithn.enabled and config.train.batch_size < 2 * group.count:
        raise InputError(
            f"--train.batch-size {config.train.batch_size}: ITHN tells a study's report from those of the others in its batch; "
            f"give at least {2 * group.count} for {group.count} processes"
        )
    if config.train.batch_size % group.count:
        raise InputError(
            f"--train.batch-size {config.train.batch_size} cannot be shared equally by {group.count} processes"
        )


def _is_fast_in_bfloat16() -> bool:
    """Without AVX512 there are no instructions for it: measured 66 against .6 GFLOP/s."""
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")


def _millions(model: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f}"


def _silent(text: str) -> None:
    return None
