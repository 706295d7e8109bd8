"""ISD, information self-distillation, of KIF-ISD (spec A2.6): a frozen earlier generation teaches the same method again.

A plug-in: it wraps the task of any method and disappears when the model is exported. It adds two losses to the host's: the
student's word scores follow the teacher's (response; Hinton et al., 2015, with the temperature of the released code), and
studies that are similar for the teacher are similar for the student (relation; after Tung and Mori, 2019). The teacher reads
the same images and words without gradients and never changes. "Iterative" is `train METHOD+isd --generations 3`: each
generation trains from scratch and learns from the best checkpoint of the one before.

Differences from the released code (spec A2.9, rows 6 to 9, 11):

* the teacher builds no graph for unused gradients; the student's gradients are the same;
* pads and the prompt do not count, and the response loss is a mean over target tokens, whatever the reports' length.
  `--method.isd.reduction batchmean` is the released sum over all positions, pads too, divided by the number of studies;
* similarities of features and of states are normalised separately, then averaged: joined as released (`--method.isd.grams
  joined`), the features' are thousands of times larger and the states have no effect. Methods without a disease head
  compare features only;
* the relational loss is a mean over studies; its default weight of 16 makes it the released sum over a batch of 16;
* states are compared before the logit adjustment.

Shapes: B studies, T positions, W words, N patches, C channels, S states, O conditions, F all values of a study in one row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rayscribe.config import RunConfig
from rayscribe.data.dataset import Order, Sampler
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.methods.compose import PLUS, host_run
from rayscribe.methods.method import (
    CardLine,
    Feed,
    Host,
    Inputs,
    Known,
    Method,
    Published,
    Source,
    Start,
    TrainedModel,
    no_inputs,
    no_resources,
)
from rayscribe.methods.promptmrg import STATE_SCORES
from rayscribe.methods.promptmrg_reports import retrieval_digest
from rayscribe.models.folder import REPORT_MODEL, format_of
from rayscribe.models.report_model import Reading, ReportModel
from rayscribe.settings import need
from rayscribe.study import Batch
from rayscribe.task import HostTask, studies_of, target_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class IsdSettings:
    """Self-distillation from a frozen teacher, around any method."""

    teacher: str = ""
    "folder of a trained model; empty: no distillation. Set by `--generations`"
    temperature: float = 4.0
    "softmax temperature of teacher and student (released code)"
    response: float = 1.0
    "weight of the response loss (KL divergence of the word scores); 0.01 with --method.isd.reduction batchmean, as released"
    reduction: Literal["token", "batchmean"] = "token"
    "reduction of the response loss: mean over target tokens, or the released sum over all positions, pads too, per study"
    relation: float = 16.0
    "weight of the relational loss, a mean over studies; the released code sums over its batch of 16"
    grams: Literal["separate", "joined"] = "separate"
    "similarities of features and of states: normalised separately, or joined unscaled as released"
    features: Literal["backbone", "encoded"] = "backbone"
    "features to compare: the image encoder's, or the decoder's input (for frozen image encoders)"

    def __post_init__(self) -> None:
        need(self.temperature > 0, "--method.isd.temperature", self.temperature, "above 0")
        for flag, weight in (("response", self.response), ("relation", self.relation)):
            need(weight >= 0, f"--method.isd.{flag}", weight, "a weight is not negative")

    def check(self, run: RunConfig[Any]) -> None:
        """Accepts every run: nothing conflicts with distillation."""
        return None


class DistillTask(HostTask[Any]):
    """The student's own losses on its draws, plus the losses against its teacher on the same studies."""

    def __init__(self, student: HostTask[Any], teacher: HostTask[Any], config: IsdSettings) -> None:
        super().__init__()
        self.student, self.teacher, self.config = student, teacher, config
        self.leaves_out_parameters = student.leaves_out_parameters
        self.teacher.requires_grad_(False).eval()

    @property
    def model(self) -> ReportModel:
        """The student's model."""
        return self.student.model

    def train(self, mode: bool = True) -> DistillTask:
        """Sets the student's mode; the teacher stays in evaluation mode, without dropout and with fixed running means."""
        super().train(mode)
        self.teacher.eval()
        return self

    def draws(self, order: Order) -> Sampler:
        """The student's draws."""
        return self.student.draws(order)

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Starts the student's epoch."""
        self.student.start_epoch(epoch, scores)

    def reported(self, draw: Any) -> Batch | None:
        """The student's reported studies."""
        return self.student.reported(draw)

    def read(self, batch: Batch) -> Reading:
        """The student's reading."""
        return self.student.read(batch)

    def losses(self, reading: Reading | None, draw: Any) -> dict[str, Tensor]:
        """The student's losses plus `response` and `relation`, which are NaN in steps without reports."""
        own = self.student.losses(reading, draw)
        batch = self.reported(draw)
        if reading is None or batch is None:  # a step in which the student does not learn reports
            nothing = own["loss"].new_full((), torch.nan)
            return {"report": own["loss"], **own, "response": nothing, "relation": nothing}
        with torch.no_grad():
            taught = self.teacher.read(batch)
            taught_BTW = self.teacher.model.score(taught).logits_BTW
        # Differences between close scores need float32, whatever the run's precision.
        with torch.autocast(taught_BTW.device.type, enabled=False):
            response = self._response(self.model.score(reading).logits_BTW, taught_BTW, batch)
            relation = self._relation(reading, taught, batch)
        loss = own["loss"] + self.config.response * response + self.config.relation * relation
        return {"report": own["loss"], **own, "loss": loss, "response": response, "relation": relation}

    def _response(self, student_BTW: Tensor, teacher_BTW: Tensor, batch: Batch) -> Tensor:
        """T^2 KL(teacher || student) of the softened word scores."""
        kl_BT = softened_kl(student_BTW.float(), teacher_BTW.float(), self.config.temperature)
        if self.config.reduction == "batchmean":
            return kl_BT.sum() / studies_of(batch)
        return (kl_BT * batch.has_token_BT[:, 1:]).sum() / target_tokens(batch)

    def _relation(self, student: Reading, teacher: Reading, batch: Batch) -> Tensor:
        counts_B = batch.has_token_BT.any(1)
        pairs = [(self._features_BF(student), self._features_BF(teacher))]
        own, its = (reading.encoded.extras.get(STATE_SCORES) for reading in (student, teacher))
        if own is not None and its is not None:
            pairs.append((own.float().flatten(1), its.float().flatten(1)))
        if self.config.grams == "joined":
            apart_B = _apart_B([_gram(own, counts_B) for own, _ in pairs], [_gram(its, counts_B) for _, its in pairs])
        else:
            apart = [_apart_B([_gram(own, counts_B)], [_gram(its, counts_B)]) for own, its in pairs]
            apart_B = torch.stack(apart).mean(0)
        return (apart_B * counts_B).sum() / studies_of(batch)

    def _features_BF(self, reading: Reading) -> Tensor:
        seen = reading.seen if self.config.features == "backbone" else reading.encoded
        return (seen.features_BND.float() * seen.has_patch_BN[:, :, None]).flatten(1)


def softened_kl(student_BTW: Tensor, teacher_BTW: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) at every position (B, T); exactly 0 where both are equal."""
    student, teacher = (F.log_softmax(scores / temperature, dim=-1) for scores in (student_BTW, teacher_BTW))
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def _gram(x_BF: Tensor, counts_B: Tensor) -> Tensor:
    """Inner products of all pairs of studies that count (B, B)."""
    x_BF = x_BF * counts_B[:, None]
    return x_BF @ x_BF.T


def _apart_B(own: list[Tensor], its: list[Tensor]) -> Tensor:
    """Distance between the directions of a study's similarities to the others, for student and teacher (B)."""
    rows, others = (F.normalize(torch.cat(grams, dim=1), dim=1) for grams in (own, its))
    return torch.linalg.vector_norm(rows - others, dim=1)


def _inputs(run: RunConfig[Any], source: Source) -> Inputs:
    teacher = run.method.plug_in.teacher
    if not teacher:
        raise InputError(f"{run.system}: needs a teacher; give --generations 2 or more, or --method.isd.teacher MODEL")
    weights = Path(teacher) / "model.safetensors"
    if not weights.is_file() or format_of(Path(teacher)) != REPORT_MODEL:
        raise InputError(f"{teacher}: not a rayscribe report model (--method.isd.teacher)")

    def known(start: Start) -> Known:
        trained = start.open_model(Path(teacher))
        _check_teacher(run, trained, Path(teacher), start)
        own = {
            "system": trained.config.system,
            "weights_sha256": sha256_of(weights),
            "seed": trained.config.seed,
            "epoch": trained.training.get("epoch"),
            "validation": trained.training.get("validation"),
        }
        lineage = [*trained.training.get("lineage", []), own]
        return Known(value=trained, facts={"lineage": lineage}, origins=[trained.data])

    return Inputs(digests=[sha256_of(weights)], known=known)


def _check_teacher(run: RunConfig[Any], teacher: TrainedModel, folder: Path, start: Start) -> None:
    """Raises InputError if it reads other words, other images or other reports than the student."""
    theirs, method = teacher.config, teacher.method.innermost
    reads_no_more = method.inputs is no_inputs and method.resources is no_resources
    differing = {
        "method": not reads_no_more and method.name != run.system.split(PLUS)[0],
        "vocabulary": teacher.tokenizer.digest() != start.tokenizer.digest(),
        "number of ids per report (--text.max-length)": theirs.text.max_length != run.text.max_length,
        "image size": theirs.images.size != run.images.size,
        "retrieved reports": retrieval_digest(teacher.resources) not in ("", retrieval_digest(start.resources)),
        "frozen image encoder": not run.backbone.trainable
        and teacher.model.backbone.fingerprint() != start.model.backbone.fingerprint(),
    }
    if found := [name for name, differs in differing.items() if differs]:
        raise InputError(
            f"{folder}: the teacher has another {found[0]} than this run; train one with the same settings"
        )


def _around(run: RunConfig[Any], settings: IsdSettings, host: Host, known: TrainedModel, feed: Feed) -> HostTask[Any]:
    taught_as = known.config
    while PLUS in taught_as.system:
        taught_as = host_run(taught_as)
    # A teacher of another method needs no inputs; one of the same method knows what the student knows.
    method = known.method.innermost
    teacher = method.task(taught_as, known.model, _innermost_known(run, host.known), feed)
    return DistillTask(host.task, teacher, settings)


def _innermost_known(run: RunConfig[Any], known: Any) -> Any:
    """What the method inside all plug-ins knows; a composed method knows one thing per part."""
    for _ in range(run.system.count(PLUS)):
        known = known[0]
    return known


def _generation(run: RunConfig[Any], teacher: Path | None) -> RunConfig[Any]:
    """Without a teacher, the first generation is the host alone."""
    if teacher is None:
        return run if run.method.plug_in.teacher else host_run(run)
    return replace(run, method=replace(run.method, plug_in=replace(run.method.plug_in, teacher=str(teacher))))


def _card(trained: TrainedModel) -> list[CardLine]:
    teachers = trained.training.get("lineage", [])
    eldest = ", ".join(f"{one['system']} {one['weights_sha256'][:12]}" for one in teachers)
    return [("taught by", f"{len(teachers)} generations before it: {eldest}")] if teachers else []


METHOD = Method(
    name="isd",
    settings=IsdSettings,
    published=(
        Published(setting="method.reduction", value="batchmean", source="released code: a sum over pads too"),
        Published(setting="method.response", value=0.01, source="released code, for its batchmean"),
        Published(setting="method.grams", value="joined", source="released code: similarities joined unscaled"),
    ),
    around=_around,
    generation=_generation,
    inputs=_inputs,
    card=_card,
)
