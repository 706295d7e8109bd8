"""JIMA: Li, Han, Wu, Huang and Huang, "Joint Imbalance Adaptation for Radiology Report Generation", J Healthc Inform Res 2025.

Two tasks with two curricula. The entity task predicts from the image which clinical words the report will contain (section 4.3
of the spec); it trains the image encoder. The report task writes from the image's features fused with that prediction (4.4); it
trains everything after the fusion, and its loss reaches neither the image encoder nor the entity head. Each task begins with
all studies and then keeps the hardest, fewer and fewer as it improves (4.5): studies whose entities (label imbalance) or whose
words (token imbalance) rank low among the predicted probabilities.

Where the released code contradicts the paper we follow the paper: the code keeps the easiest studies (`--method.order easy`),
takes one share for both tasks from validation BLEU-4, and leaves the frozen parts in training mode. Where the paper leaves it
open, the choice is ours (`docs/papers.md`): performance comes from the same ranks as difficulty, over the training studies,
smoothed; a share has a floor; entities are predicted from the mean over all views.

With cached features of a frozen image encoder the entity task can train only its head; `--method.adapter` inserts a trained
layer that stands in for the image encoder.

Shapes: B studies, N patches, C channels, A of the adapter (or C), V words of the vocabulary, W ids (V and the reserved ones),
T target positions, S training studies, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from rayscribe.config import RunConfig
from rayscribe.data.dataset import Order, Sampler
from rayscribe.data.entities import LEXICON, EntityTargets, study_entities
from rayscribe.errors import InputError
from rayscribe.methods.jima_curriculum import Measured, TwoTasks, chosen_S, entity_ranks, next_share, report_ranks
from rayscribe.methods.method import (
    CardLine,
    Feed,
    Inputs,
    Known,
    Method,
    Published,
    Resources,
    Source,
    Start,
    TrainedModel,
    file_digest,
)
from rayscribe.methods.r2gen import RELEASED_ORDER, need_own_decoder, r2gen_training
from rayscribe.models.layers import Encoded, Linear, pooled
from rayscribe.models.report_model import Reading, ReportModel
from rayscribe.settings import need
from rayscribe.study import Batch, Pair
from rayscribe.task import HostTask, report_loss_B, target_tokens

_HIDDEN = 512  # of the entity head, released code

Draw = Pair[Batch | None, Batch | None]
"Studies whose reports are learned, and studies whose entities are learned."


@dataclass(frozen=True, slots=True, kw_only=True)
class JimaSettings:
    """The two tasks and their curricula."""

    entities: str = "lexicon"
    "clinical words of the reports: `lexicon`, the built-in rules, or a file, such as `rayscribe build entities` makes"
    head: Literal["mlp", "patch"] = "mlp"
    "entity head: on the mean feature (released code), or on every patch, averaged (paper)"
    head_dropout: float = 0.1
    "dropout of the mlp's hidden layers (released code)"
    adapter: int = 0
    "width of a layer before everything else that the entity task trains; 0: none. For frozen image encoders"
    fusion: Literal["product", "none"] = "product"
    "how the prediction is fused with the patches; none: the decoder does not see it (an ablation)"
    training: Literal["joint", "alternating"] = "joint"
    "one step for both tasks, or alternating steps of one task"
    entity_weight: float = 0.5
    "weight of the entity loss (released code)"
    positive_weight: float = 1.0
    "weight of positive entities in the entity loss; a study contains few of the words"
    report_curriculum: bool = True
    "the report task keeps the studies whose words are hardest (token imbalance)"
    entity_curriculum: bool = True
    "the entity task keeps the studies whose entities are hardest (label imbalance)"
    order: Literal["hard", "easy", "random"] = "hard"
    "keep the hardest studies (paper), the easiest (released code), or as many random ones (a control)"
    warmup: int = 30
    "epochs on all studies (paper, IU X-Ray; 10 on MIMIC-CXR)"
    smoothing: float = 0.5
    "weight of earlier epochs in the smoothed performance; 0: none (paper)"
    floor: float = 0.1
    "smallest share of the studies to keep (released code)"
    split_entity_rank: bool = True
    "a report's difficulty averages its entities' and its other words' means (paper); false: all words (released code)"

    def __post_init__(self) -> None:
        need(0 <= self.head_dropout < 1, "--method.head-dropout", self.head_dropout, "at least 0, below 1")
        need(self.adapter >= 0, "--method.adapter", self.adapter, "not negative; 0 is none")
        need(self.entity_weight > 0, "--method.entity-weight", self.entity_weight, "above 0")
        need(self.positive_weight > 0, "--method.positive-weight", self.positive_weight, "above 0")
        need(self.warmup >= 1, "--method.warmup", self.warmup, "at least 1")
        need(0 <= self.smoothing < 1, "--method.smoothing", self.smoothing, "at least 0, below 1")
        need(0 < self.floor <= 1, "--method.floor", self.floor, "above 0, at most 1")

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError for a BERT decoder, flipped images, or a curriculum that never begins."""
        need_own_decoder(run)
        need(
            not run.images.flip,
            "--images.flip",
            "",
            "entities name sides of the unflipped image; give --images.no-flip",
        )
        curriculum = self.report_curriculum or self.entity_curriculum
        need(
            not curriculum or self.warmup < run.train.epochs,
            "--method.warmup",
            self.warmup,
            f"the curriculum would not begin within --train.epochs {run.train.epochs}; give a shorter warm-up, or "
            "--method.no-report-curriculum --method.no-entity-curriculum",
        )
        need(
            self.training == "joint" or run.train.accumulate == 1,
            "--train.accumulate",
            run.train.accumulate,
            "an alternating step takes one batch; give 1, or --method.training joint",
        )


class EntityFusion(nn.Module):
    """The stage in place of the patch embedding: predicts entities, fuses them with every patch, projects to model width."""

    def __init__(self, channels: int, words: int, width: int, dropout: float, config: JimaSettings) -> None:
        super().__init__()
        self.fuses = config.fusion == "product"
        self.adapter = Linear(channels, config.adapter) if config.adapter else None
        seen = config.adapter or channels
        is_mlp = config.head == "mlp"
        self.head = EntityHead(seen, words, config.head_dropout) if is_mlp else PatchEntityHead(seen, words)
        self.project = Linear(seen + words if self.fuses else seen, width)
        self.drop = nn.Dropout(dropout)

    def predict(self, seen: Encoded) -> Tensor:
        """Logits of the entities (B, V) for the entity task, with gradients."""
        return self.head(self._adapted(seen), drops=self.training)

    def forward(self, seen: Encoded) -> Encoded:
        """Features (B, N, C) to (B, N, D), without gradients before the fusion."""
        with torch.no_grad():  # the report loss trains nothing before the fusion
            features = self._adapted(seen)
            x_BNC = features.features_BND
            if self.fuses:
                x_BNC = fused(x_BNC, self.head(features, drops=False).sigmoid().to(x_BNC.dtype))
        return replace(seen, features_BND=self.drop(torch.relu(self.project(x_BNC))))

    def _adapted(self, seen: Encoded) -> Encoded:
        if self.adapter is None:
            return seen
        return replace(seen, features_BND=torch.relu(self.adapter(seen.features_BND)))


class EntityHead(nn.Module):
    """Released code: a perceptron with two hidden layers on the mean feature of all patches."""

    def __init__(self, channels: int, words: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList([Linear(channels, _HIDDEN), Linear(_HIDDEN, _HIDDEN), Linear(_HIDDEN, words)])

    def forward(self, features: Encoded, *, drops: bool) -> Tensor:
        """Logits (B, V); `drops` switches dropout."""
        x_BC = pooled(features)
        for layer in self.layers[:-1]:
            x_BC = F.dropout(torch.relu(layer(x_BC)), self.dropout, drops)
        return self.layers[-1](x_BC)


class PatchEntityHead(nn.Module):
    """Paper: every patch predicts, and the predictions are averaged."""

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.layer = Linear(channels, words)

    def forward(self, features: Encoded, *, drops: bool) -> Tensor:
        """The logit of the mean probability over patches (B, V)."""
        logits_BNV = self.layer(features.features_BND).float()
        logits_BNV = logits_BNV.masked_fill(~features.has_patch_BN[:, :, None], -torch.inf)
        # log of the sums of p and of 1 - p = p exp(-logit); their difference needs no count of patches.
        yes_BV = F.logsigmoid(logits_BNV).logsumexp(1)
        no_BNV = F.logsigmoid(-logits_BNV).masked_fill(~features.has_patch_BN[:, :, None], -torch.inf)
        return yes_BV - no_BNV.logsumexp(1)


def fused(x_BNC: Tensor, q_BV: Tensor) -> Tensor:
    """[X, q] * [q, X], element by element, with q attached to every patch (spec 4.4): (B, N, C + V)."""
    q_BNV = q_BV[:, None].expand(-1, x_BNC.shape[1], -1)
    return torch.cat([x_BNC, q_BNV], -1) * torch.cat([q_BNV, x_BNC], -1)


class CurriculumTask(HostTask[Draw]):
    """Both losses; and, before every epoch after the warm-up, how hard each study is and which studies each task keeps.

    In the buffers of two, reports come first and entities second. The choice of an epoch is part of the training state, so a
    run that resumes within an epoch continues with it.
    """

    measured_epoch: Tensor
    performance_2: Tensor
    shares_2: Tensor
    difficulty_2S: Tensor
    is_chosen_2S: Tensor

    def __init__(
        self,
        model: ReportModel,
        fusion: EntityFusion,
        config: JimaSettings,
        *,
        entities: EntityTargets,
        training: Callable[[], Iterable[Batch]],
        label_smoothing: float = 0.0,
    ) -> None:
        """`training` reads this process's share of the training studies, without random crops."""
        super().__init__()
        self.reporter, self.predict, self.config, self.entities = model, fusion.predict, config, entities
        self.training_batches, self.label_smoothing = training, label_smoothing
        self.leaves_out_parameters = config.training == "alternating"
        studies = len(entities.starts_S1) - 1
        self.register_buffer("measured_epoch", torch.full((), -1, dtype=torch.long))
        self.register_buffer("performance_2", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("shares_2", torch.ones(2, dtype=torch.float64))
        self.register_buffer("difficulty_2S", torch.zeros(2, studies))
        self.register_buffer("is_chosen_2S", torch.ones(2, studies, dtype=torch.bool))

    @property
    def model(self) -> ReportModel:
        """The report model."""
        return self.reporter

    def draws(self, order: Order) -> Sampler:
        """Batches of the studies that each task chose for the epoch."""
        return TwoTasks(order=order, chosen=self.chosen, alternating=self.config.training == "alternating")

    def chosen(self) -> tuple[Sequence[int], Sequence[int]]:
        """The rows of this epoch's studies: of the report task, of the entity task."""
        reports, entities = (row_S.nonzero().flatten().tolist() for row_S in self.is_chosen_2S)
        return reports, entities

    def reported(self, draw: Draw) -> Batch | None:
        """The report task's studies; None in an alternating step of the entity task."""
        return draw.first

    def read(self, batch: Batch) -> Reading:
        """Without gradients before the fusion, and with the image encoder's running means fixed."""
        backbone = self.model.backbone
        was_training = backbone.training
        backbone.eval()
        with torch.no_grad():
            seen = self.model.see(batch)
        backbone.train(was_training)
        return self.model.read(batch, seen)

    def losses(self, reading: Reading | None, draw: Draw) -> dict[str, Tensor]:
        """The weighted `loss`, both terms (NaN for a task that the step leaves out) and both shares."""
        found: dict[str, Tensor] = {}
        if draw.first is not None and reading is not None:
            loss_B = report_loss_B(self.model.score(reading), draw.first, smoothing=self.label_smoothing)
            found["report"] = loss_B.sum() / target_tokens(draw.first)
        if draw.second is not None:
            found["entities"] = self._entity_loss(draw.second)
        weights = {"report": 1.0, "entities": self.config.entity_weight}
        loss = torch.stack([weights[name] * value for name, value in found.items()]).sum()
        nothing = loss.new_full((), torch.nan)
        shares = {"report_share": self.shares_2[0], "entity_share": self.shares_2[1]}
        return {"loss": loss, "report": nothing, "entities": nothing} | found | shares

    def _entity_loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy, averaged over the vocabulary and then over the studies (spec 4.3)."""
        # Before torch 2.10, autocast reuses the casts of `read`, which carry no gradient, in this pass.
        torch.clear_autocast_cache()
        logits_BV = self.predict(self.model.see(batch)).float()
        weight = logits_BV.new_tensor(self.config.positive_weight)
        loss_BV = F.binary_cross_entropy_with_logits(
            logits_BV, self.entities.of(batch.rows_B), reduction="none", pos_weight=weight
        )
        counts_B = batch.has_token_BT.any(1)
        return (loss_BV.mean(1) * counts_B).sum() / (batch.targets_per_batch or counts_B.sum().clamp(min=1))

    def start_epoch(self, epoch: int, scores: dict[str, float]) -> None:
        """Measures difficulty and performance, then updates shares and choices, once per epoch from the end of the warm-up."""
        kept_2 = (self.config.report_curriculum, self.config.entity_curriculum)
        # First measured at the start of the last warm-up epoch, so that the next epoch has a value to compare with.
        if not any(kept_2) or epoch < self.config.warmup - 1 or int(self.measured_epoch) == epoch:
            return
        performance_2 = self._measure()
        before_2 = self.performance_2.tolist() if int(self.measured_epoch) >= 0 else performance_2
        for task, curriculum in enumerate(kept_2):
            now = self.config.smoothing * before_2[task] + (1 - self.config.smoothing) * performance_2[task]
            self.performance_2[task] = now
            if curriculum:
                share = next_share(float(self.shares_2[task]), before_2[task], now, floor=self.config.floor)
                self.shares_2[task] = share
                self.is_chosen_2S[task] = chosen_S(
                    self.difficulty_2S[task], share, order=self.config.order, seed=2 * epoch + task
                )
        self.measured_epoch.fill_(epoch)

    @torch.no_grad()
    def _measure(self) -> list[float]:
        """Computes the difficulty of every training study; returns the mean performance of both tasks."""
        self.eval()
        found = [self._measured(batch) for batch in self.training_batches()]
        self.train()
        if distributed.is_initialized():
            parts: list[list[Measured]] = [[] for _ in range(distributed.get_world_size())]
            distributed.all_gather_object(parts, found)
            found = [one for part in parts for one in part]
        for one in found:
            self.difficulty_2S[:, one.rows_B] = one.difficulty_2B.to(self.difficulty_2S.device)
        performance_2S = torch.cat([one.performance_2B for one in found], dim=1)
        return [float(row_S[row_S.isfinite()].mean()) for row_S in performance_2S.double()]

    def _measured(self, batch: Batch) -> Measured:
        batch = batch.to(self.difficulty_2S.device)
        reading = self.read(batch)
        is_entity_BV = self.entities.of(batch.rows_B).bool()
        reports = report_ranks(
            self.model.score(reading).logits_BTW,
            batch,
            is_entity_BV if self.config.split_entity_rank else None,
        )
        entities = entity_ranks(self.predict(reading.seen), is_entity_BV)
        difficulty_2B, performance_2B = (torch.stack(pair).cpu() for pair in zip(reports, entities, strict=True))
        return Measured(batch.rows_B.cpu(), difficulty_2B, performance_2B)


def jima() -> RunConfig[JimaSettings]:
    """JIMA on IU X-Ray: sizes, batch, beams and curriculum of the paper, the rest of the released script (spec 4.6).

    The paper's learning rates (4e-4 for the entity task, 1e-5 for the report task, x 0.8 every epoch) differ from those of the
    script that produced the published logs; its batches of 32, six layers and five beams differ from the paper's.
    """
    train = replace(
        r2gen_training(),
        lr=1e-4,  # IU script: lr_ed
        lr_backbone=5e-5,  # IU script: lr_ve
        clip_value=None,
        clip_norm=1.0,  # joint training; alternating training clips by value 0.1
    )
    return RunConfig(
        system="jima", method=JimaSettings(), train=train, seed=9
    )  # paper: 3 layers, 8 heads, 512; IU script


def _stages(run: RunConfig[JimaSettings], channels: int, words: int, resources: Resources) -> list[nn.Module]:
    return [EntityFusion(channels, words, run.model.width, run.model.patch_dropout, run.method)]


def _inputs(run: RunConfig[JimaSettings], source: Source) -> Inputs:
    digests = file_digest(run.method.entities, built_in=LEXICON, flag="--method.entities", what="entities")

    def known(start: Start) -> Known:
        return Known(value=_entities(run, start))

    return Inputs(digests=digests, known=known)


def _entities(run: RunConfig[JimaSettings], start: Start) -> EntityTargets:
    """The clinical words of every training study."""
    source, training = run.method.entities, start.training
    words = study_entities(source, training.ids, training.reports, section=run.text.section)
    targets = EntityTargets.build(words, start.tokenizer.words)
    found, studies = len(targets.places_E), len(training.studies)
    if not found:
        raise InputError(f"--method.entities {source}: none of its words is in the training vocabulary")
    start.notify(f"entities: {found / studies:.1f} per study, {len(set(targets.places_E.tolist()))} words ({source})")
    return targets


def _task(run: RunConfig[JimaSettings], model: ReportModel, known: EntityTargets, feed: Feed) -> HostTask[Any]:
    fusion = model.stages[0]
    assert isinstance(fusion, EntityFusion)
    smoothing = run.train.label_smoothing
    return CurriculumTask(model, fusion, run.method, entities=known, training=feed.training, label_smoothing=smoothing)


def _card(trained: TrainedModel) -> list[CardLine]:
    adapter = trained.config.method.adapter
    return [("adapter", f"width {adapter}, trained, behind the image encoder")] if adapter else []


METHOD = Method(
    name="jima",
    settings=JimaSettings,
    recipes={"jima": jima},
    published=(
        *RELEASED_ORDER,
        Published(setting="method.smoothing", value=0.0, source="paper, equation 2: not smoothed"),
    ),
    stages=_stages,
    task=_task,
    inputs=_inputs,
    card=_card,
)
