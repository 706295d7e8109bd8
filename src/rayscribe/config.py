"""One run's settings: what a recipe returns, what the command line changes, what the run folder keeps as YAML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

from tyro.conf import Suppress

from rayscribe.drafts import DecodingConfig
from rayscribe.settings import need


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """From a report to token ids."""

    section: Literal["findings", "impression", "findings+impression"] = "findings"
    "the part of the report that is learned"
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu"
    "R2Gen's text cleaning for IU X-Ray or for MIMIC-CXR"
    threshold: int = 3
    "training words rarer than this become <unk>; 3 for IU X-Ray, 10 for MIMIC-CXR in R2Gen"
    max_length: int = 60
    "ids a report, begin and end included; 60 for IU X-Ray, 100 for MIMIC-CXR in R2Gen"
    legacy_ids: bool = False
    "R2Gen's ids: pad, begin and end are all 0, and a report that is cut loses its end"

    def __post_init__(self) -> None:
        need(self.threshold >= 1, "--text.threshold", self.threshold, "at least 1")
        need(self.max_length >= 3, "--text.max-length", self.max_length, "at least 3: begin, a word, end")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """From a radiograph of any size to the model's input square."""

    size: int = 224
    "side of the model's input"
    resize: int = 256
    "training: the shorter side becomes this, then a random square of `size` is cut out; evaluation stretches to `size`"
    crop: bool = True
    "training: that random square; false: stretched to `size` as in evaluation"
    rotation: float = 0.0
    "training: degrees that an image is turned by at most, either way, about its middle; what comes in is black"
    flip: bool = False
    """training: flip half of the studies left to right, and swap left and right in their reports. R2Gen flips the image
    alone, which contradicts the text; off by default"""

    def __post_init__(self) -> None:
        fits = 32 <= self.size <= self.resize
        need(fits, "--images.size", self.size, f"at least 32 and at most --images.resize {self.resize}")
        need(0 <= self.rotation <= 180, "--images.rotation", self.rotation, "between 0 and 180 degrees")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The image encoder: any timm model."""

    name: str = "resnet101"
    "a model of timm, such as resnet101, mobilenetv2_100 or vit_base_patch16_224"
    weights: str = ""
    """empty: random; a local .safetensors or .pth file; the folder of a classifier or report model with this encoder; or
    `pretrained`: timm's weights, from the hub's cache or downloaded"""
    layers: int = 1
    """how many of the network's last stages (of a transformer: blocks) are read; earlier ones are averaged to the grid of the
    last, and their channels stand behind its channels"""
    beside: tuple[str, ...] = ()
    """more encoders whose channels stand behind, as NAME=WEIGHTS with weights as above; each is normalised as timm says, or
    as NAME:MEAN:STD=WEIGHTS does, and reads as many layers"""
    trainable: bool = True
    "train the image encoder too; a frozen one computes its features once and caches them"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    checks_norm: bool = True
    "`pretrained`: a mean or deviation other than that of the weights is refused; false: yours are meant"

    def __post_init__(self) -> None:
        need(bool(self.name), "--backbone.name", self.name, "name a model of timm, such as resnet101")
        for flag, values, fits in (
            ("--backbone.mean", self.mean, all(math.isfinite(value) for value in self.mean)),
            ("--backbone.std", self.std, all(0 < value < math.inf for value in self.std)),
        ):
            need(fits, flag, values, "numbers; deviations above 0")
        need(self.layers >= 1, "--backbone.layers", self.layers, "at least 1")
        for one in self.beside:
            name, *norm = one.partition("=")[0].split(":")
            fits = (
                bool(name) and len(norm) in (0, 2) and all(map(_is_number, norm)) and (not norm or float(norm[1]) > 0)
            )
            need(
                fits, "--backbone.beside", one, "write NAME=WEIGHTS, or NAME:MEAN:STD=WEIGHTS with a deviation above 0"
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """All weights that the settings name, of every encoder."""
        named = (self.weights, *(one.partition("=")[2] for one in self.beside))
        return tuple(weights for weights in named if weights)

    @property
    def described(self) -> str:
        """One line for model cards: encoders, whether they are trained, and what they start from."""
        layers = f" ({self.layers} layers)" if self.layers > 1 else ""
        named = [(self.name, self.weights), *((one.partition("=")[0], one.partition("=")[2]) for one in self.beside)]
        names = " beside ".join(f"{name.partition(':')[0]}{layers}" for name, _ in named)
        starts = ", ".join(Path(weights).name or "random weights" for _, weights in named)
        return f"{names}, {'trained' if self.trainable else 'frozen'}, started from {starts}"

    def without_weights(self) -> BackboneConfig:
        """The same architecture, for weights that come from a model's own folder."""
        return replace(self, weights="", beside=tuple(one.partition("=")[0] for one in self.beside))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The encoder-decoder. Defaults are R2Gen's (spec of the released code)."""

    width: int = 512
    "of encoder and decoder states"
    heads: int = 8
    "attention heads; must divide the width"
    feedforward: int = 512
    "hidden units of a feed-forward part"
    encoder_layers: int = 3
    "layers of the patch encoder; 0 is none"
    decoder_layers: int = 3
    dropout: float = 0.1
    "share of the activations that are dropped, in encoder and decoder"
    patch_dropout: float = 0.5
    "share of the patch embedding's activations that are dropped"
    decoder: Literal["own", "bert"] = "own"
    "ours, or a BERT decoder of these sizes, which looks at the image encoder's own features; not every method takes it"
    decoder_weights: str = ""
    "folder of a BERT on disk, which the BERT decoder starts from; empty: random"

    def __post_init__(self) -> None:
        need(
            self.heads >= 1 and self.width % self.heads == 0,
            "--model.heads",
            self.heads,
            f"must divide --model.width {self.width}",
        )
        need(self.width % 2 == 0, "--model.width", self.width, "must be even, for the sines and cosines of positions")
        need(self.width >= 2, "--model.width", self.width, "at least 2")
        need(self.feedforward >= 1, "--model.feedforward", self.feedforward, "at least 1")
        need(self.encoder_layers >= 0, "--model.encoder-layers", self.encoder_layers, "not negative; 0 is none")
        for flag, share in (("--model.dropout", self.dropout), ("--model.patch-dropout", self.patch_dropout)):
            need(0 <= share < 1, flag, share, "at least 0, below 1")
        need(self.decoder_layers >= 1, "--model.decoder-layers", self.decoder_layers, "at least 1")
        unused = bool(self.decoder_weights) and self.decoder != "bert"
        need(not unused, "--model.decoder-weights", self.decoder_weights, "needs --model.decoder bert")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The one training loop."""

    epochs: int = 100
    "passes over the training studies, at most"
    patience: int = 50
    "epochs without a better validation score before the run stops"
    min_epochs: int = 0
    "epochs before which no checkpoint is selected; on IU X-Ray the first epochs tend to constant output"
    metric: Literal["bleu4", "rouge_l", "cider", "ce_f1", "auroc", "loss"] = "bleu4"
    """what selects the checkpoint, on the validation split; ce_f1 is example-based, over the 14 observations, by the rules;
    auroc is the classifiers', the mean over their findings"""
    label_smoothing: float = 0.0
    "of the report loss"
    batch_size: int = 16
    "studies a step, over all processes"
    accumulate: int = 1
    "batches a step"
    bucket: bool = True
    "batches of similar report length: less padding, other batch composition than the papers"
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-4
    "learning rate of everything but the image encoder"
    lr_backbone: float = 5e-5
    "learning rate of the image encoder"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = True
    weight_decay: float = 5e-5
    clip_value: float | None = 0.1
    "largest absolute value of a gradient; None clips nothing"
    clip_norm: float | None = None
    "largest norm of all gradients together; None clips nothing"
    schedule: Literal["constant", "step", "cosine", "plateau"] = "step"
    "how the learning rates fall"
    step_epochs: int = 50
    "step: epochs between two drops"
    gamma: float = 0.1
    "what the rates are multiplied with at a step, or after a plateau of the validation loss"
    plateau_epochs: int = 2
    "plateau: epochs without a lower validation loss that are waited for"
    warmup_steps: int = 0
    "steps over which the learning rates rise to their values"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    "of the forward and backward passes; weights stay float32"
    workers: int = 2
    "processes that read images; cached features need none"
    checkpoint_minutes: float = 10.0
    "minutes between training states that `--resume` continues from; one is written after every epoch as well"

    def __post_init__(self) -> None:
        need(self.epochs >= 1, "--train.epochs", self.epochs, "at least 1")
        need(self.patience >= 0, "--train.patience", self.patience, "not negative")
        need(0 < self.lr < math.inf, "--train.lr", self.lr, "a number above 0")
        need(0 <= self.lr_backbone < math.inf, "--train.lr-backbone", self.lr_backbone, "a number, not negative")
        need(all(0 <= beta < 1 for beta in self.betas), "--train.betas", self.betas, "each at least 0, below 1")
        need(0 < self.eps < 1, "--train.eps", self.eps, "above 0, below 1")
        need(0 <= self.weight_decay < 10, "--train.weight-decay", self.weight_decay, "at least 0, below 10")
        for flag, clip in (("--train.clip-value", self.clip_value), ("--train.clip-norm", self.clip_norm)):
            need(clip is None or 0 < clip < math.inf, flag, clip, "above 0, or None to clip nothing")
        need(self.step_epochs >= 1, "--train.step-epochs", self.step_epochs, "at least 1")
        need(0 < self.gamma <= 1, "--train.gamma", self.gamma, "above 0, at most 1")
        need(self.plateau_epochs >= 0, "--train.plateau-epochs", self.plateau_epochs, "not negative")
        need(self.warmup_steps >= 0, "--train.warmup-steps", self.warmup_steps, "not negative")
        need(self.workers >= 0, "--train.workers", self.workers, "not negative")
        minutes = self.checkpoint_minutes
        need(0 <= minutes < math.inf, "--train.checkpoint-minutes", minutes, "not negative")
        need(self.min_epochs <= self.epochs, "--train.min-epochs", self.min_epochs, "more than --train.epochs")
        need(self.batch_size >= 1, "--train.batch-size", self.batch_size, "at least 1")
        need(self.accumulate >= 1, "--train.accumulate", self.accumulate, "at least 1")
        need(0 <= self.label_smoothing < 1, "--train.label-smoothing", self.label_smoothing, "at least 0, below 1")
        both = self.clip_value is not None and self.clip_norm is not None
        need(not both, "--train.clip-norm", self.clip_norm, "clip by value or by norm; give --train.clip-value None")


F = TypeVar("F")


def with_frozen_encoder(config: F) -> F:
    """Settings of a run whose image encoder is frozen, with images as they are: its features are cached, so none is augmented.

    `config`: settings with `backbone` and `images`, a report model's or a classifier's.
    """
    run: Any = config
    frozen: F = replace(
        run,
        backbone=replace(run.backbone, trainable=False),
        images=replace(run.images, flip=False, rotation=0.0),
    )
    return frozen


class MethodSettings(Protocol):
    """The settings of a method: a frozen dataclass in the method's file, which says what does not go together."""

    def check(self, run: RunConfig[Any]) -> None:
        """Raises InputError that names a flag which does not go with the others of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSettings:
    """Of a method that has none of its own."""

    def check(self, run: RunConfig[Any]) -> None:
        return None


M = TypeVar("M", bound=MethodSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Generic[M]):
    """Everything that decides a run's result, next to the manifest."""

    system: Annotated[str, Suppress]  # chosen by name, never by a flag
    "the method, and behind every + what is plugged into its training"
    method: M
    text: TextConfig = field(default_factory=TextConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    seed: int = 9223
    "of the weights, the order and the augmentation; the recipes say whose script it is from"

    def __post_init__(self) -> None:
        need(0 <= self.seed < 2**63, "--seed", self.seed, "between 0 and 2^63 - 1")
        frozen, images = not self.backbone.trainable, self.images
        need(
            self.train.metric != "auroc", "--train.metric", "auroc", "reports have no ROC curve; it is for classifiers"
        )
        advice = "a frozen image encoder is fed from its cache,"
        need(not (frozen and images.flip), "--images.flip", "", f"{advice} unflipped")
        need(not (frozen and images.rotation), "--images.rotation", images.rotation, f"{advice} unrotated")
        self.method.check(self)
