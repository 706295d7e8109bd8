"""Settings that belong to one method each; the rest of a run's settings are in `config.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayscribe.errors import InputError


def need(fits: bool, flag: str, value: object, what: str) -> None:
    """Raises InputError that names the flag, and its value where it has one, unless the setting fits."""
    if not fits:
        raise InputError(f"{flag} {value}".strip() + f": {what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IthnConfig:
    """Increasingly hard negatives beside any method; see `methods/ithn.py`. Weights and alpha are the released code's."""

    enabled: bool = False
    negative: Literal["line", "mined", "ascent", "released"] = "line"
    """Where the harder negative is: on the line from the mined to the true report; the mined one itself, never harder; where
    gradient ascent took it; or as in the released code, whose projection mixes the batch"""
    contrast: Literal["diagonal", "column"] = "diagonal"
    """What the harder negative does: it lowers the true pair's score (released code), or it is one more report to choose from.
    The first has a useless minimum, all images and reports opposite to each other; see docs/papers.md"""
    read_before: Literal["mined_image", "own_image"] = "mined_image"
    """Which image the decoder looks at while it reads the mined report that the harder negative is made from: that report's own
    (released code), or the study's, so that only the words differ"""
    report: float = 0.7
    "weight of the host's own loss"
    align: float = 0.1
    "weight of the alignment of images and reports"
    apart: float = 0.2
    "weight of the cosine of image and mined image"
    alpha: float = 0.01
    "how fast the negatives harden: the mixing coefficient is exp(-alpha x epochs)"
    harden: Literal["epoch", "step"] = "epoch"
    candidates: int = 1
    "how many mined negatives of a study take turns"
    image: Literal["backbone", "encoded"] = "backbone"
    "what is pooled: the image encoder's features, or what the decoder looks at (for frozen image encoders)"
    width: int = 512
    temperature: float = 0.07
    "at the start; both temperatures are learned"
    ascent_steps: int = 1
    "each time that a study is seen"
    ascent_step: float = 0.05
    ascent_radius: float = 0.5
    "how far from the mined report, as a chord on the sphere of radius 1"
    probe: bool = False
    "a control: the host learns as without ITHN and the alignment beside it, without reaching it; `report` does not count"

    def __post_init__(self) -> None:
        for flag, weight in (("report", self.report), ("align", self.align), ("apart", self.apart)):
            need(weight >= 0, f"--ithn.{flag}", weight, "a weight is not negative")
        need(self.width >= 1, "--ithn.width", self.width, "at least 1")
        need(self.alpha >= 0, "--ithn.alpha", self.alpha, "not negative; 0 keeps the mined negatives")
        need(self.candidates >= 1, "--ithn.candidates", self.candidates, "at least 1")
        need(0.01 <= self.temperature <= 10, "--ithn.temperature", self.temperature, "between 0.01 and 10")
        need(self.ascent_steps >= 1, "--ithn.ascent-steps", self.ascent_steps, "at least 1")
        need(self.ascent_step > 0, "--ithn.ascent-step", self.ascent_step, "above 0")
        need(0 < self.ascent_radius < 2, "--ithn.ascent-radius", self.ascent_radius, "above 0, below 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class JimaConfig:
    """JIMA's two tasks and their curricula; see `methods/jima.py`."""

    entities: str = "lexicon"
    "clinical words of the reports: `lexicon`, the built-in rules, or a file made by `rayscribe extract-entities` or elsewhere"
    head: Literal["mlp", "patch"] = "mlp"
    "predicts entities from the mean feature (released code), or from every patch, averaged (paper)"
    head_dropout: float = 0.1
    "of the mlp's hidden layers (released code)"
    adapter: int = 0
    "width of a layer that the entity task trains in front of everything; 0: none. For frozen image encoders"
    fusion: Literal["product", "none"] = "product"
    "how the prediction joins the patches; none: the decoder does not see it (an ablation)"
    training: Literal["joint", "alternating"] = "joint"
    "one step for both tasks, or steps of one task in turn"
    entity_weight: float = 0.5
    "of the entity loss (released code)"
    positive_weight: float = 1.0
    "of the entities that are there, in the entity loss; most words are no entity of a study"
    report_curriculum: bool = True
    "the report task keeps the studies whose words are hardest (token imbalance)"
    entity_curriculum: bool = True
    "the entity task keeps the studies whose entities are hardest (label imbalance)"
    order: Literal["hard", "easy", "random"] = "hard"
    "keep the hardest studies (paper), the easiest (released code), or as many at random (a control)"
    warmup: int = 30
    "epochs on all studies (paper, IU X-Ray; 10 on MIMIC-CXR)"
    smoothing: float = 0.5
    "what of the performance of the epochs before stays in the next; 0: none (paper)"
    floor: float = 0.1
    "the smallest share of the studies that is kept (released code)"
    split_entity_rank: bool = True
    "a report's difficulty is the mean of its entities' and of its other words' (paper); false: of all words (released code)"

    def __post_init__(self) -> None:
        need(0 <= self.head_dropout < 1, "--jima.head-dropout", self.head_dropout, "at least 0, below 1")
        need(self.adapter >= 0, "--jima.adapter", self.adapter, "not negative; 0 is none")
        need(self.entity_weight > 0, "--jima.entity-weight", self.entity_weight, "above 0")
        need(self.positive_weight > 0, "--jima.positive-weight", self.positive_weight, "above 0")
        need(self.warmup >= 1, "--jima.warmup", self.warmup, "at least 1")
        need(0 <= self.smoothing < 1, "--jima.smoothing", self.smoothing, "at least 0, below 1")
        need(0 < self.floor <= 1, "--jima.floor", self.floor, "above 0, at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisConfig:
    """PromptMRG's disease head, retrieved reports and diagnosis prompt; see `methods/promptmrg.py`."""

    labels: str = "rules"
    "states of the conditions: `rules`, the built-in labeler, or a table made by `rayscribe label` or elsewhere"
    retrieval: str = ""
    "folder made by `rayscribe build-retrieval`; empty needs --diagnosis.no-memory"
    memory: bool = True
    "the head also looks at the most similar training reports; false: at the image alone (an ablation)"
    reports: int = 21
    "how many of them (released code: clip_k)"
    priors: str = "training"
    "how often each condition is positive: `training`, counted, or a file like that of `rayscribe build-priors`"
    adjust: bool = True
    "logit adjustment by the priors, in training"
    adaptive: bool = True
    "after every epoch the priors become the mean probability of the true positives in the validation split"
    weight: float = 4.0
    "of the classification loss (released code: cls_weight)"
    prompt: bool = True
    "the states stand in front of the report; false: the head learns beside the decoder (an ablation)"
    training_prompt: Literal["gold", "predicted"] = "gold"
    "which states the decoder sees in training; gold in the released code"

    def __post_init__(self) -> None:
        need(self.reports >= 1, "--diagnosis.reports", self.reports, "at least 1")
        need(self.weight > 0, "--diagnosis.weight", self.weight, "above 0")
        unused = self.retrieval and not self.memory
        need(not unused, "--diagnosis.retrieval", self.retrieval, "is not read with --diagnosis.no-memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class KifConfig:
    """KIF's knowledge graph and its fusion with the patches; sizes of the released code. See `methods/kif_isd.py`."""

    graph: str = "published"
    "`published`, the 28 nodes of the paper, or a file made by `rayscribe build-graph`"
    width: int = 768
    hidden: int = 1024
    "of the feed-forward parts"
    layers: int = 2
    "of the graph attention, and of the patches' attention to the nodes"
    node_heads: int = 6
    patch_heads: int = 16
    dropout: float = 0.1
    masked: bool = True
    "a node attends to its neighbours; false: to every node (a control)"
    residual: bool = False
    "the patches are added to what the graph made of them; false: replaced by it (released code)"
    query: Literal["none", "findings"] = "none"
    "what joins the image's query to the retrieved reports: nothing (the released inference), or the names of 20 findings"

    def __post_init__(self) -> None:
        for flag, heads in (("--kif.node-heads", self.node_heads), ("--kif.patch-heads", self.patch_heads)):
            need(heads >= 1 and self.width % heads == 0, flag, heads, f"must divide --kif.width {self.width}")
        need(self.width % 2 == 0, "--kif.width", self.width, "must be even, for the sines and cosines of groups")
        need(self.hidden >= 1, "--kif.hidden", self.hidden, "at least 1")
        need(self.layers >= 1, "--kif.layers", self.layers, "at least 1")
        need(0 <= self.dropout < 1, "--kif.dropout", self.dropout, "at least 0, below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Self-distillation from a frozen teacher beside any method; see `methods/distill.py`."""

    teacher: str = ""
    "folder of a trained model; empty: no distillation. `--generations` fills it in"
    temperature: float = 4.0
    "of teacher and student (released code)"
    response: float = 1.0
    "weight of the response loss (KL divergence of the word scores); 0.01 with --distill.reduction batchmean, as released"
    reduction: Literal["token", "batchmean"] = "token"
    "of the response loss: mean over target tokens, or as released the sum over all positions, pads too, by studies"
    relation: float = 16.0
    "weight of the relational loss, a mean over studies; the released code sums over its batch of 16"
    grams: Literal["separate", "joined"] = "separate"
    "similarities of features and of states: each made comparable on its own, or joined unscaled as released"
    features: Literal["backbone", "encoded"] = "backbone"
    "which features are compared: the image encoder's, or what the decoder looks at (for frozen image encoders)"

    def __post_init__(self) -> None:
        need(self.temperature > 0, "--distill.temperature", self.temperature, "above 0")
        for flag, weight in (("response", self.response), ("relation", self.relation)):
            need(weight >= 0, f"--distill.{flag}", weight, "a weight is not negative")
