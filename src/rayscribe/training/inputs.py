"""What a run reads before it trains: the two splits, and what its method wants to know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rayscribe.checkpoint import TrainedModel, load_model
from rayscribe.config import RunConfig
from rayscribe.data.conditions import RULES, TRAINING, condition_rates, study_conditions
from rayscribe.data.dataset import cleaned_report
from rayscribe.data.entities import LEXICON, EntityTargets, study_entities
from rayscribe.data.manifest import Manifest
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.methods.kif_isd import KnowledgeStage, node_words
from rayscribe.methods.promptmrg import Diagnoses
from rayscribe.methods.resources import Resources
from rayscribe.models.bert_decoder import BertDecoder, start_from_bert, word_vectors
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch, Study
from rayscribe.training.processes import Processes

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """The studies of one split that have the section, with their cleaned reports."""

    studies: list[Study]
    reports: list[str]

    @classmethod
    def read(cls, manifest: Manifest, split: str, config: RunConfig, say: Say) -> Part:
        pairs = [(study, cleaned_report(study, config.text)) for study in manifest.split(split)]
        kept = [(study, report) for study, report in pairs if report]
        if not kept:
            raise InputError(f"no study in split {split} has the section {config.text.section!r} (--text.section)")
        lacking = f", {len(pairs) - len(kept)} left out without {config.text.section}" if len(kept) < len(pairs) else ""
        say(f"{split}: {len(kept)} studies{lacking}")
        return cls([study for study, _ in kept], [report for _, report in kept])

    def share(self, group: Processes) -> Part:
        return Part(self.studies[group.rank :: group.count], self.reports[group.rank :: group.count])


def data_digest(manifest: Manifest, config: RunConfig, resources: Resources) -> str:
    """Of all data that the training reads."""
    found = [manifest.digest_with_negatives() if config.ithn.enabled else manifest.digest(), *resources.digests()]
    for flag, what, source, built_in in (
        ("--jima.entities", "entities", config.jima.entities, LEXICON),
        ("--diagnosis.labels", "labels", config.diagnosis.labels, RULES),
        ("--diagnosis.priors", "priors", config.diagnosis.priors, TRAINING),
    ):
        if source != built_in:
            if not Path(source).is_file():
                raise InputError(f"{source}: no such file of {what} ({flag})")
            found.append(sha256_of(Path(source)))
    if config.distill.teacher:
        weights = Path(config.distill.teacher) / "model.safetensors"
        if not weights.is_file():
            raise InputError(f"{config.distill.teacher}: no rayscribe model (--distill.teacher)")
        found.append(sha256_of(weights))
    return " ".join(found)


def entities_of(config: RunConfig, training: Part, tokenizer: Tokenizer, say: Say) -> EntityTargets:
    """JIMA: the clinical words of every training study."""
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


def diagnoses_of(
    config: RunConfig, training: Part, validation: Part, batches: Callable[[], Iterable[Batch]], say: Say
) -> Diagnoses:
    """PromptMRG, KIF: states of the conditions; `validation` and `batches` are this process's share."""
    known, checked = (
        study_conditions(config.diagnosis.labels, [study.id for study in part.studies], part.reports)
        for part in (training, validation)
    )
    labelled = known.is_labelled_O
    if not labelled.any():
        raise InputError(f"--diagnosis.labels {config.diagnosis.labels}: no condition is labelled")
    rates_O = condition_rates(config.diagnosis.priors, known)
    say(f"conditions: {labelled.sum()} of {len(labelled)} labelled ({known.source})")
    return Diagnoses(training=known, validation=checked, validation_batches=batches, rates_O=rates_O)


def start_words(config: RunConfig, model: ReportModel, tokenizer: Tokenizer, say: Say) -> None:
    """The BERT decoder, and the words of the graph where they have its width, start from a BERT on disk."""
    folder = Path(config.model.decoder_weights)
    assert isinstance(model.decoder, BertDecoder)
    start_from_bert(model.decoder, folder, tokenizer.words, first=tokenizer.size - len(tokenizer.words))
    say(f"decoder and {len(tokenizer.words)} words start from {folder}")
    for stage in model.stages:
        if isinstance(stage, KnowledgeStage) and config.kif.width == config.model.width:
            words = node_words(stage.graph)
            say(f"{stage.copy_words(word_vectors(folder, words))} of {len(words)} words of the graph, too")


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """ISD: the generation before, and what its model folder says of it."""

    trained: TrainedModel
    lineage: list[dict[str, object]]
    "all generations before this one, the eldest first"

    @classmethod
    def load(cls, config: RunConfig, tokenizer: Tokenizer, model: ReportModel, resources: Resources) -> Teacher:
        """Raises InputError where it reads other words, other images or other reports than the student."""
        folder = Path(config.distill.teacher)
        trained = load_model(folder)
        theirs, needs = trained.config, (config.model.method, *_PLAIN)
        differing = {
            "method (--model.method)": theirs.model.method not in needs,
            "vocabulary": trained.tokenizer.digest() != tokenizer.digest(),
            "ids a report (--text.max-length)": theirs.text.max_length != config.text.max_length,
            "image size": theirs.images.size != config.images.size,
            "retrieved reports": trained.resources.retrieval is not None
            and trained.resources.digests()[:1] != resources.digests()[:1],
            "frozen image encoder": not config.backbone.trainable
            and trained.model.backbone.fingerprint() != model.backbone.fingerprint(),
        }
        if found := [name for name, differs in differing.items() if differs]:
            raise InputError(f"{folder}: the teacher has another {found[0]} than this run; train one with the same")
        own = {
            "system": theirs.system,
            "weights_sha256": sha256_of(folder / "model.safetensors"),
            "seed": theirs.seed,
            "epoch": trained.training.get("epoch"),
            "validation": trained.training.get("validation"),
        }
        return cls(trained=trained, lineage=[*trained.training.get("lineage", []), own])


_PLAIN = ("baseline", "r2gen", "r2gen_cmn")
"Methods whose models read images and words alone, so they can teach any other."
