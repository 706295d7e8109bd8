"""One run in order: read the manifest, build the model, fit, keep the best. Read this first.

The test split is never read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rayscribe.checkpoint import TrainedModel, save_model
from rayscribe.config import RunConfig
from rayscribe.config_methods import DistillConfig
from rayscribe.data.dataset import Order, StudyDataset
from rayscribe.data.features import cached_features
from rayscribe.data.manifest import read_manifest
from rayscribe.data.pairs import mined_partners
from rayscribe.data.shards import shard_numbers
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.inference.reporter import BATCH
from rayscribe.methods.build import Training, build_model, build_task
from rayscribe.methods.resources import Resources
from rayscribe.models.folder import origin_of
from rayscribe.models.report_model import ReportModel
from rayscribe.provenance import inherited
from rayscribe.seen import check_unseen, write_seen
from rayscribe.study import Batch
from rayscribe.training.folder import RunFolder
from rayscribe.training.inputs import Part, Teacher, data_digest, diagnoses_of, entities_of, start_words
from rayscribe.training.loop import Progress, fit
from rayscribe.training.processes import Processes, processes
from rayscribe.training.validation import read_once, validate


def train_generations(
    config: RunConfig,
    data: Path,
    run: Path,
    *,
    generations: int,
    resume: bool = False,
    features: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Teacher, student, its student, ...: each learns from the best checkpoint of the one before. Returns the last folder.

    The generations are RUN/generation-1, RUN/generation-2, ...; a single one is RUN itself.
    """
    if generations < 1:
        raise InputError(f"--generations {generations}: at least 1")
    if generations == 1 and not config.distill.teacher and config.distill != DistillConfig():
        raise InputError("--distill: its settings need --distill.teacher, or --generations of 2 or more")
    folders = [run / f"generation-{number}" for number in range(1, generations + 1)] if generations > 1 else [run]
    if generations > 1 and not resume and any(folder.exists() for folder in folders):
        raise InputError(f"{run}: already holds a run; continue it with --resume, or give another --run folder")
    with processes() as group:  # joined once for all of them
        for number, folder in enumerate(folders, 1):
            if generations > 1 and group.rank == 0:
                say(f"generation {number} of {generations}")
            goes_on = resume and (folder / "config.yaml").exists()
            group.wait()  # before the first process makes the folder
            _train(config, data, folder, group=group, resume=goes_on, features=features, say=say)
            config = replace(config, distill=replace(config.distill, teacher=str(folder)))
    return folders[-1]


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
        return _train(config, data, run, group=group, resume=resume, features=features, say=say)


def _train(
    config: RunConfig,
    data: Path,
    run: Path,
    *,
    group: Processes,
    resume: bool,
    features: Path | None,
    say: Callable[[str], None],
) -> Progress:
    say = say if group.rank == 0 else _silent
    group_size_fits(config, group)
    manifest = read_manifest(data)
    resources = Resources.chosen(config)
    resources.check(manifest, config, data)
    digest = data_digest(manifest, config, resources)
    folder = RunFolder(run, config, data_digest=digest, resume=resume, writes=group.rank == 0)
    if group.rank == 0:
        resources.save(run)
    group.wait()
    training, validation = (Part.read(manifest, split, config, say) for split in ("train", "val"))
    if config.backbone.weights:
        kept_apart = [study for study in manifest.studies if study.split in ("val", "test")]
        check_unseen(Path(config.backbone.weights), kept_apart, "val and test")
    if group.rank == 0:
        write_seen(run, training.studies, config.backbone.weights)
    tokenizer = Tokenizer.build(training.reports, threshold=config.text.threshold, legacy_ids=config.text.legacy_ids)
    entities = entities_of(config, training, tokenizer, say) if config.learns_entities else None
    partners: list[list[int]] = []
    if config.ithn.enabled:
        partners = mined_partners(manifest, training.studies, config.text, candidates=config.ithn.candidates, data=data)
    torch.manual_seed(config.seed)
    model = build_model(config, tokenizer.size, resources)
    if config.model.decoder_weights:
        start_words(config, model, tokenizer, say)
    _say_start(config, model, tokenizer, group, say)
    teacher = Teacher.load(config, tokenizer, model, resources) if config.distill.teacher else None
    bar: Callable[[Iterable[Any]], Iterable[Any]] = partial(
        tqdm, desc="image features", unit="block", disable=group.rank > 0
    )
    studies = [*training.studies, *validation.studies]
    cache = None
    if not config.backbone.trainable:
        cache = cached_features(
            studies, model.backbone, config.images, folder=features, device=group.device, progress=bar
        )
    dataset = partial(
        StudyDataset,
        tokenizer=tokenizer,
        text=config.text,
        images=config.images,
        cache=cache,
        neighbours=resources.neighbours(studies, config, features=features, device=group.device, progress=bar),
    )
    train_set = dataset(training.studies, training.reports, training=True, seed=config.seed)
    own = validation.share(group)
    val_set = dataset(own.studies, own.reports)
    order = Order(
        lengths=[len(tokenizer.encode(report, max_length=config.text.max_length)) for report in training.reports],
        batch_size=config.train.batch_size,
        bucket=config.train.bucket,
        seed=config.seed,
        shards=shard_numbers(training.studies),
    )
    diagnoses = None
    if config.diagnoses:
        again = partial(read_once, val_set, range(len(val_set)), workers=config.train.workers)
        diagnoses = diagnoses_of(config, training, own, again, say)
    uncropped = dataset(training.studies, training.reports)
    known = Training(
        studies=len(training.studies),
        batches_per_epoch=len(order.batches(0)),
        partners=partners,
        entities=entities,
        batches=partial(_difficulty_batches, uncropped, config, group),
        diagnoses=diagnoses,
        teacher=(teacher.trained.config, teacher.trained.model) if teacher else None,
    )
    task = build_task(config, model, known).to(group.device)
    origins = [*origin_of(config.backbone.weights), *([teacher.trained.data] if teacher else [])]
    about = inherited(manifest.provenance, origins) | {"digest": manifest.digest()}

    def keep(epoch: int, scores: dict[str, float]) -> None:
        if group.rank == 0:
            facts = {
                "epoch": epoch + 1,
                "validation": scores,
                "processes": group.count,
                "lineage": teacher.lineage if teacher else [],
            }
            best = TrainedModel(
                model=model, tokenizer=tokenizer, config=config, data=about, training=facts, resources=resources
            )
            save_model(run, best)

    progress = fit(
        task,
        train_set,
        task.draws(order),
        config=config.train,
        seed=config.seed,
        run=folder,
        processes=group,
        validate=partial(
            validate,
            model,
            val_set,
            tokenizer,
            config.decoding,
            workers=config.train.workers,
            group=group,
            say=say,
        ),
        keep=keep,
    )
    say(f"best: epoch {progress.best_epoch + 1}, validation {config.train.metric} {abs(progress.best):.4f}; {run}")
    return progress


def _difficulty_batches(data: StudyDataset, config: RunConfig, group: Processes) -> Iterable[Batch]:
    """JIMA: this process's share of the training studies, without gradients in mind: to measure them."""
    own = range(group.rank, len(data), group.count)
    batches = read_once(data, own, workers=config.train.workers)
    return tqdm(
        batches, total=-(-len(own) // BATCH), desc="difficulty", unit="batch", leave=False, disable=group.rank > 0
    )


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


def _say_start(
    config: RunConfig, model: ReportModel, tokenizer: Tokenizer, group: Processes, say: Callable[[str], None]
) -> None:
    """What is trained, and what the user may not have meant."""
    if not config.backbone.weights:
        say(f"note: {config.backbone.name} starts from random weights; --backbone.weights takes a file or `pretrained`")
    if config.train.precision == "bfloat16" and group.device.type == "cpu" and not _is_fast_in_bfloat16():
        say("note: this processor multiplies bfloat16 far more slowly than float32; --train.precision float32")
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    say(f"{config.system}: {millions:.1f} million parameters, vocabulary {tokenizer.size}")


def _is_fast_in_bfloat16() -> bool:
    """Without AVX512 there are no instructions for it: measured 66 against .6 GFLOP/s."""
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")


def _silent(text: str) -> None:
    return None
