"""ITHN: Voutharoja, Wang and Zhou, "Automatic Radiology Report Generation by Learning with Increasingly Hard Negatives",
ECAI 2023. A plug-in: it wraps the task of any model and disappears when the model is exported.

Every study comes with a mined negative, a similar study of another patient. Images and reports are projected to one space of
unit vectors. Max step: a harder negative report for each image, without gradients. Min step: the host's loss, an InfoNCE
in which that negative lowers the diagonal, and a term that pushes image and negative image apart.

The paper's text was not available; this follows its abstract, its figure and the released code, and departs from that code
where it contradicts them (spec 5.3 and 5.9; `--method.ithn.negative released` gives the code's form):

* a study's negative depends on that study alone; the code's matrix product mixes the batch;
* the harder negative stays between the mined report and the true one, has length 1 and passes no gradient (true alternation);
* words are averaged without padding, and both temperatures are clamped to a scale of at most 100.

`--method.ithn.contrast column` fixes a fault of the published loss, see `diagonal_loss`. `--method.ithn.read-before own_image`
fixes another: the decoder's states carry the image that it looks at, so a mined report that is read with its own image can
be told apart without its words.
`mined` keeps the mined negative as it is (a control). `ascent` is the general form of the max step: gradient ascent on the
sphere, starting from the study's last negative, within a radius of the mined one.

With several processes, the InfoNCE compares studies within one process; a process without a study of the last, small batch
adds 0 to the mean over processes.

Shapes: B studies, C columns (B + 1 reports) or channels, N patches, T positions, S training studies, D projected width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from rayscribe.config import RunConfig
from rayscribe.data.dataset import Order, Sampler
from rayscribe.errors import InputError
from rayscribe.methods.compose import Plugged, innermost
from rayscribe.methods.ithn_pairs import MinedPairs, mined_partners, prepare_negatives
from rayscribe.methods.jima import JimaSettings
from rayscribe.methods.method import Feed, Host, Inputs, Known, Method, Published, Source, Start
from rayscribe.methods.r2gen_cmn import R2GenCmnSettings, r2gen_cmn
from rayscribe.models.layers import Encoded, pooled
from rayscribe.models.report_model import Reading, ReportModel
from rayscribe.settings import need
from rayscribe.study import Batch, Pair
from rayscribe.task import HostTask, Task

_LARGEST_SCALE = 100.0
_PROBE = 1e-4
"A probe's weight: negligible in the norm that clips gradients, and Adam's steps do not depend on it."


_TERMS = ("align", "apart", "true_similarity", "mined_similarity", "harder_similarity")


@dataclass(frozen=True, slots=True, kw_only=True)
class IthnSettings:
    """Increasingly hard negatives, around any method. The default weights and alpha are the released code's."""

    negative: Literal["line", "mined", "ascent", "released"] = "line"
    """where the harder negative lies: on the line from the mined to the true report; always at the mined one; where gradient
    ascent moves it; or as in the released code, whose projection mixes the batch"""
    contrast: Literal["diagonal", "column"] = "diagonal"
    """effect of the harder negative: it lowers the true pair's score (released code), or it is one more candidate report.
    The former has a degenerate minimum, with all images and reports opposite to each other; see docs/papers.md"""
    read_before: Literal["mined_image", "own_image"] = "mined_image"
    """image that the decoder looks at while it reads the mined report behind the harder negative: that report's own (released
    code), or the study's, so that only the words differ"""
    report: float = 0.7
    "weight of the host's own loss"
    align: float = 0.1
    "weight of the alignment of images and reports"
    apart: float = 0.2
    "weight of the cosine of image and mined image"
    alpha: float = 0.01
    "how fast negatives harden: the mixing coefficient is exp(-alpha x epochs)"
    harden: Literal["epoch", "step"] = "epoch"
    candidates: int = 1
    "number of mined negatives per study, used in turn"
    image: Literal["backbone", "encoded"] = "backbone"
    "features to pool: the image encoder's, or the decoder's input (for frozen image encoders)"
    width: int = 512
    temperature: float = 0.07
    "initial value; both temperatures are learned"
    ascent_steps: int = 1
    "steps each time a study is seen"
    ascent_step: float = 0.05
    ascent_radius: float = 0.5
    "largest distance from the mined report, as a chord on the unit sphere"
    probe: bool = False
    "control: the host learns as without ITHN, and the alignment beside it without affecting it; `report` is ignored"

    def __post_init__(self) -> None:
        for flag, weight in (("report", self.report), ("align", self.align), ("apart", self.apart)):
            need(weight >= 0, f"--method.ithn.{flag}", weight, "a weight is not negative")
        need(self.width >= 1, "--method.ithn.width", self.width, "at least 1")
        need(self.alpha >= 0, "--method.ithn.alpha", self.alpha, "not negative; 0 keeps the mined negatives")
        need(self.candidates >= 1, "--method.ithn.candidates", self.candidates, "at least 1")
        need(0.01 <= self.temperature <= 10, "--method.ithn.temperature", self.temperature, "between 0.01 and 10")
        need(self.ascent_steps >= 1, "--method.ithn.ascent-steps", self.ascent_steps, "at least 1")
        need(self.ascent_step > 0, "--method.ithn.ascent-step", self.ascent_step, "above 0")
        need(0 < self.ascent_radius < 2, "--method.ithn.ascent-radius", self.ascent_radius, "above 0, below 2")

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError for flipped images, and for settings that do not work with JIMA."""
        flip = "a flip swaps left and right in the words and could turn a mined report into the true one; give --images.no-flip"
        need(not run.images.flip, "--images.flip", "", flip)
        if isinstance(innermost(run.method), JimaSettings):
            reached = "the report loss does not reach JIMA's image encoder; give --method.ithn.image encoded"
            need(self.image == "encoded", "--method.ithn.image", self.image, reached)
            need(
                self.harden == "epoch",
                "--method.ithn.harden",
                self.harden,
                "JIMA's epochs differ in length; give epoch",
            )


class HardNegativeTask(Task[Pair[Any, Any]]):
    """The host's losses on its draws, plus alignment of its reported studies against increasingly hard negatives."""

    epochs: Tensor
    batches: Tensor
    ascended_SD: Tensor

    def __init__(
        self,
        host: HostTask[Any],
        config: IthnSettings,
        *,
        studies: int,
        batches_per_epoch: int,
        partners: Sequence[Sequence[int]] = (),
    ) -> None:
        """`partners`: rows of every training study's mined negatives, the most similar first."""
        super().__init__()
        self.partners = partners
        self.host, self.config, self.batches_per_epoch = host, config, batches_per_epoch
        self.leaves_out_parameters = host.leaves_out_parameters
        width = host.model.decoder.head.in_features
        channels = host.model.backbone.channels if config.image == "backbone" else width
        self.image = nn.Linear(channels, config.width, bias=False)
        self.text = nn.Linear(width, config.width, bias=False)
        self.log_scales = nn.Parameter(torch.full((2,), math.log(1 / config.temperature)))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        rows = studies if config.negative == "ascent" else 0
        self.register_buffer("ascended_SD", torch.zeros(rows, config.width))

    @property
    def model(self) -> ReportModel:
        """The host's model."""
        return self.host.model

    def draws(self, order: Order) -> Sampler:
        """The host's draws, each paired with a mined negative."""
        return MinedPairs(
            order=self.host.draws(order), seed=order.seed, partners=self.partners, candidates=self.config.candidates
        )

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Starts the host's epoch and hardens the negatives."""
        self.host.start_epoch(epoch, scores)
        self.epochs.fill_(epoch + 1)  # the released code counts from 1

    def forward(self, draw: Pair[Any, Any]) -> dict[str, Tensor]:
        """The host's losses, alignment and image terms; the latter two are NaN in steps without reports."""
        batch = self.host.reported(draw.first)
        reading = None if batch is None else self.host.read(batch)
        host = self.host.losses(reading, draw.first)
        config = self.config
        if batch is None or reading is None:  # a step in which the host does not learn reports
            nothing = host["loss"].new_full((), torch.nan)
            return {"report": host["loss"], **host, "loss": self._weighted(host), **dict.fromkeys(_TERMS, nothing)}
        mined = wrong = self._read_mined(draw.second)
        if config.read_before == "own_image":
            hidden_BTD = self.model.decoder(draw.second.tokens_BT[:, :-1], reading.encoded)
            wrong = replace(mined, hidden_BTD=hidden_BTD)
        # bfloat16 cannot distinguish close neighbours.
        with torch.autocast(reading.hidden_BTD.device.type, enabled=False):
            terms = self._terms(reading, mined, wrong, batch, draw.second)
        beside = config.align * terms["align"] + config.apart * terms["apart"]
        loss = self._weighted(host) + (_PROBE * beside if config.probe else beside)
        return {"report": host["loss"], **host, "loss": loss, **terms}

    def _weighted(self, host: dict[str, Tensor]) -> Tensor:
        return host["loss"] if self.config.probe else self.config.report * host["loss"]

    def _read_mined(self, mined: Batch) -> Reading:
        """Reads the mined study; a probe must not affect the host, so it leaves the running means of batch norm unchanged."""
        if not (self.config.probe and self.training):
            return self.host.read(mined)
        self.model.eval()
        with torch.no_grad():
            reading = self.host.read(mined)
        self.model.train()
        return reading

    def _terms(
        self, true: Reading, mined: Reading, wrong: Reading, batch: Batch, mined_batch: Batch
    ) -> dict[str, Tensor]:
        """The alignment, the images' cosine, and the three similarities with the image that are logged (`_TERMS`)."""
        image_BD, text_BD = self._embedded(true, batch)
        mined_image_BD, mined_text_BD = self._embedded(mined, mined_batch)
        wrong_BD = mined_text_BD if wrong is mined else self._embedded(wrong, mined_batch)[1]
        harder_BD = self.harder(image_BD, text_BD, wrong_BD, batch.rows_B)
        counts_B = batch.has_token_BT.any(1)
        if self.training:
            self.batches += 1
        if self.config.negative != "released":
            with torch.no_grad():  # clamp the weight itself, so that it can recover
                self.log_scales.clamp_(max=math.log(_LARGEST_SCALE))
        both_BB = image_BD @ text_BD.T + mined_image_BD @ mined_text_BD.T
        harder_B = (image_BD * harder_BD).sum(-1)
        loss = diagonal_loss if self.config.contrast == "diagonal" else column_loss
        return {
            "align": loss(both_BB, harder_B, self.log_scales.exp(), counts_B),
            "apart": _mean((image_BD * mined_image_BD).sum(-1).abs(), counts_B),
            "true_similarity": _mean((image_BD * text_BD).sum(-1), counts_B),
            "mined_similarity": _mean((image_BD * wrong_BD).sum(-1), counts_B),
            "harder_similarity": _mean(harder_B, counts_B),
        }

    def mixing(self) -> float:
        """Lambda in [0, 1]: 1 takes the mined negative, 0 the hardest. Falls with epochs (1, 2, ...) or fractions (from 0)."""
        if self.config.negative == "mined":
            return 1.0
        passed = int(self.epochs) if self.config.harden == "epoch" else int(self.batches) / self.batches_per_epoch
        return math.exp(-self.config.alpha * passed)

    def embedded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images and reports as unit vectors (B, D), each report read with its image."""
        return self._embedded(self.host.read(batch), batch)

    def _embedded(self, reading: Reading, batch: Batch) -> tuple[Tensor, Tensor]:
        image = pooled(reading.seen if self.config.image == "backbone" else reading.encoded)
        is_word_BT = batch.has_token_BT[:, 1:]
        if self.config.negative == "released":
            is_word_BT = torch.ones_like(is_word_BT)
        text = pooled(Encoded(reading.hidden_BTD, is_word_BT))
        if self.config.probe:
            image, text = image.detach(), text.detach()
        return F.normalize(self.image(image), dim=-1), F.normalize(self.text(text), dim=-1)

    def harder(self, image_BD: Tensor, text_BD: Tensor, mined_BD: Tensor, rows_B: Tensor) -> Tensor:
        """The max step: a negative report (B, D) for every image."""
        if self.config.negative == "released":
            return batch_mixed(image_BD, text_BD, mined_BD, self.mixing())
        with torch.no_grad():
            if self.config.negative != "ascent":
                return F.normalize(on_the_line(image_BD, text_BD, mined_BD, self.mixing()), dim=-1)
            last_BD = self.ascended_SD[rows_B]
            start_BD = torch.where(last_BD.any(-1, keepdim=True), last_BD, mined_BD)
            harder_BD = ascended(image_BD, mined_BD, start_BD, self.config)
            if self.training:
                self._store(rows_B, harder_BD)
            return harder_BD

    def _store(self, rows_B: Tensor, harder_BD: Tensor) -> None:
        """Every process stores the negatives of all, because the first one's buffers are broadcast to the others."""
        found: list[tuple[Tensor, Tensor]] = [(rows_B, harder_BD)]
        if distributed.is_initialized():
            found = found * distributed.get_world_size()
            distributed.all_gather_object(found, (rows_B.cpu(), harder_BD.cpu()))
        for rows, harder in found:
            self.ascended_SD[rows.to(rows_B.device)] = harder.to(harder_BD.device)


def on_the_line(image_BD: Tensor, text_BD: Tensor, mined_BD: Tensor, mixing: float) -> Tensor:
    """From the mined report towards the point nearest to the image on the way to the true one, by 1 - `mixing`; (B, D).

    The image is projected onto the line from mined to true report, and clamped between the two (spec 5.3).
    """
    way_BD = text_BD - mined_BD
    length_B1 = way_BD.norm(dim=-1, keepdim=True)
    unit_BD = way_BD / length_B1.clamp(min=1e-12)
    along_B1 = ((image_BD - mined_BD) * unit_BD).sum(-1, keepdim=True).clamp(min=0).minimum(length_B1)
    return mined_BD + (1 - mixing) * along_B1 * unit_BD


def batch_mixed(image_BD: Tensor, text_BD: Tensor, mined_BD: Tensor, mixing: float) -> Tensor:
    """The released code's projection (B, D): products of whole batches, not clamped, not unit length, open to gradients."""
    way_BD = text_BD - mined_BD
    along_BB = (image_BD - mined_BD) @ way_BD.T
    hardest_BD = mined_BD + along_BB @ F.normalize(way_BD, dim=-1)
    return mixing * mined_BD + (1 - mixing) * hardest_BD


def ascended(image_BD: Tensor, mined_BD: Tensor, start_BD: Tensor, config: IthnSettings) -> Tensor:
    """Ascent of the alignment loss on the sphere (B, D), within a chord of `config.ascent_radius` of the mined report.

    The loss depends on a study's negative through the diagonal alone, so its gradient there is the image's vector times
    a positive factor; the slope on the sphere is that vector's tangent part.
    """
    at_BD = _held(start_BD, mined_BD, config.ascent_radius)
    for _ in range(config.ascent_steps):
        slope_BD = image_BD - (image_BD * at_BD).sum(-1, keepdim=True) * at_BD
        steep_B1 = slope_BD.norm(dim=-1, keepdim=True)
        # Near the top the slope is shorter than a step; it then is the step, which prevents overshooting.
        step_BD = slope_BD * (config.ascent_step / steep_B1.clamp(min=config.ascent_step))
        at_BD = _held(F.normalize(at_BD + step_BD, dim=-1), mined_BD, config.ascent_radius)
    return at_BD


def _held(at_BD: Tensor, centre_BD: Tensor, radius: float) -> Tensor:
    """The nearest unit vector within a chord of `radius` of the centre."""
    cosine_B1 = (at_BD * centre_BD).sum(-1, keepdim=True)
    smallest = 1 - radius**2 / 2
    aside_BD = F.normalize(at_BD - cosine_B1 * centre_BD, dim=-1)
    edge_BD = smallest * centre_BD + math.sqrt(1 - smallest**2) * aside_BD
    return torch.where(cosine_B1 >= smallest, at_BD, edge_BD)


def diagonal_loss(both_BB: Tensor, harder_B: Tensor, scales: Tensor, counts_B: Tensor) -> Tensor:
    """Symmetric InfoNCE whose diagonal the harder negative lowers (released code; spec 5.4).

    `both` is the sum of the cosines of true pairs and of mined pairs. It has a degenerate minimum: with every cosine at -1, the
    diagonal is -1 and everything else -2, so the loss is low although no pair is told apart.
    """
    logits_BB = (scales[0] * both_BB - torch.diag(scales[1] * harder_B)) / 3
    logits_BB = _only(logits_BB, counts_B)
    return _mean((logits_BB.logsumexp(1) + logits_BB.logsumexp(0)) / 2 - logits_BB.diagonal(), counts_B)


def column_loss(both_BB: Tensor, harder_B: Tensor, scales: Tensor, counts_B: Tensor) -> Tensor:
    """Symmetric InfoNCE in which the harder negative is one more candidate report for its image; ours."""
    logits_BB = _only(scales[0] * both_BB / 2, counts_B)
    reports_BC = torch.cat([logits_BB, scales[1] * harder_B[:, None]], dim=1)
    return _mean((reports_BC.logsumexp(1) + logits_BB.logsumexp(0)) / 2 - logits_BB.diagonal(), counts_B)


def _only(logits_BB: Tensor, counts_B: Tensor) -> Tensor:
    """Masks rows that do not count, both as anchors and as negatives."""
    own_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    return logits_BB.masked_fill(~(own_BB | (counts_B[:, None] & counts_B)), -torch.inf)


def _mean(values_B: Tensor, counts_B: Tensor) -> Tensor:
    return (values_B * counts_B).sum() / counts_B.sum().clamp(min=1)


def r2gen_cmn_ithn() -> RunConfig[Plugged[R2GenCmnSettings, IthnSettings]]:
    """R2GenCMN with increasingly hard negatives, as ITHN's released IU script trains it (spec 5.6)."""
    host = r2gen_cmn()
    return RunConfig(
        system="r2gen_cmn+ithn",
        method=Plugged(host=host.method, plug_in=IthnSettings()),
        train=replace(host.train, patience=25),
        seed=host.seed,
    )


def _defaults(host: RunConfig[Any]) -> IthnSettings:
    """Compares the decoder's input where no report loss reaches the image encoder."""
    return IthnSettings(image="encoded" if isinstance(innermost(host.method), JimaSettings) else "backbone")


def _inputs(run: RunConfig[Any], source: Source) -> Inputs:
    least = 2 * source.processes
    if run.train.batch_size < least:
        raise InputError(
            f"--train.batch-size {run.train.batch_size}: ITHN contrasts a study's report with the others in its "
            f"batch; give at least {least} for {source.processes} processes"
        )
    candidates = run.method.plug_in.candidates

    def known(start: Start) -> Known:
        studies = start.training.studies
        return Known(value=mined_partners(source.manifest, studies, run.text, candidates=candidates, data=source.path))

    return Inputs(with_negatives=True, known=known)


def _around(
    run: RunConfig[Any], settings: IthnSettings, host: Host, known: list[list[int]], feed: Feed
) -> Task[Pair[Any, Any]]:
    return HardNegativeTask(
        host.task, settings, studies=feed.studies, batches_per_epoch=feed.batches_per_epoch, partners=known
    )


METHOD = Method(
    name="ithn",
    settings=IthnSettings,
    recipes={"r2gen_cmn+ithn": r2gen_cmn_ithn},
    published=(
        Published(setting="method.negative", value="released", source="released code: its projection mixes the batch"),
    ),
    around=_around,
    defaults=_defaults,
    is_last=True,
    prepare=prepare_negatives,
    inputs=_inputs,
)
