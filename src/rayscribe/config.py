"""One run's settings: what a recipe returns, what the command line changes, what the run folder keeps as YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rayscribe.config_checks import check_together
from rayscribe.config_methods import DiagnosisConfig, DistillConfig, IthnConfig, JimaConfig, KifConfig, need
from rayscribe.data.images import ImageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """From a report to token ids."""

    section: Literal["findings", "impression", "findings+impression"] = "findings"
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu"
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
class BackboneConfig:
    """The image encoder: any timm model."""

    name: str = "resnet101"
    weights: str = ""
    """empty: random; a local .safetensors or .pth file; the folder of a classifier or report model with this encoder; or
    `pretrained`, which downloads timm's weights"""
    trainable: bool = True
    "false: frozen, and its features are computed once and cached"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    checks_norm: bool = True
    "`pretrained`: a mean or deviation other than that of the weights is refused; false: yours are meant"


DIAGNOSING = ("promptmrg", "kif")
"Methods with a disease head and a prompt."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The encoder-decoder. Defaults are R2Gen's (spec of the released code)."""

    method: Literal["baseline", "r2gen", "r2gen_cmn", "jima", "promptmrg", "kif"] = "baseline"
    width: int = 512
    heads: int = 8
    feedforward: int = 512
    encoder_layers: int = 3
    decoder_layers: int = 3
    dropout: float = 0.1
    patch_dropout: float = 0.5
    memory_slots: int = 3
    "R2Gen: rows of the relational memory"
    memory_heads: int = 8
    memory_size: int = 2048
    "R2GenCMN: rows of the cross-modal memory"
    memory_top: int = 32
    "R2GenCMN: rows that answer a query, for each head"
    memory_queries: Literal["shared", "separate", "visual", "text"] = "shared"
    "R2GenCMN: one memory for patches and words, one for each, or for one of them only"
    memory_residual: bool = True
    "R2GenCMN: responses are added to what asked (released code); false: they replace it (paper)"
    decoder: Literal["own", "bert"] = "own"
    "PromptMRG, KIF: our decoder, or a BERT decoder of these sizes that looks at the image encoder's own features"
    decoder_weights: str = ""
    "folder of a BERT on disk, which the BERT decoder starts from; empty: random"

    def __post_init__(self) -> None:
        for flag, heads in (("--model.heads", self.heads), ("--model.memory-heads", self.memory_heads)):
            need(heads >= 1 and self.width % heads == 0, flag, heads, f"must divide --model.width {self.width}")
        need(
            1 <= self.memory_top <= self.memory_size,
            "--model.memory-top",
            self.memory_top,
            f"between 1 and --model.memory-size {self.memory_size}",
        )
        need(self.width % 2 == 0, "--model.width", self.width, "must be even, for the sines and cosines of positions")
        need(self.decoder_layers >= 1, "--model.decoder-layers", self.decoder_layers, "at least 1")
        is_bert, diagnoses = self.decoder == "bert", self.method in DIAGNOSING
        need(diagnoses or not is_bert, "--model.decoder", self.decoder, f"for {' and '.join(DIAGNOSING)} only")
        unused = bool(self.decoder_weights) and not is_bert
        need(not unused, "--model.decoder-weights", self.decoder_weights, "needs --model.decoder bert")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The one training loop."""

    epochs: int = 100
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
    lr_backbone: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = True
    weight_decay: float = 5e-5
    clip_value: float | None = 0.1
    clip_norm: float | None = None
    schedule: Literal["constant", "step", "cosine", "plateau"] = "step"
    step_epochs: int = 50
    gamma: float = 0.1
    "what the rates are multiplied with at a step, or after a plateau of the validation loss"
    plateau_epochs: int = 2
    "plateau: epochs without a lower validation loss that are waited for"
    warmup_steps: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    workers: int = 2
    "processes that read images; cached features need none"
    checkpoint_minutes: float = 10.0
    "minutes between training states that `--resume` continues from; one is written after every epoch as well"

    def __post_init__(self) -> None:
        need(self.epochs >= 1, "--train.epochs", self.epochs, "at least 1")
        need(self.min_epochs <= self.epochs, "--train.min-epochs", self.min_epochs, "more than --train.epochs")
        need(self.batch_size >= 1, "--train.batch-size", self.batch_size, "at least 1")
        need(self.accumulate >= 1, "--train.accumulate", self.accumulate, "at least 1")
        need(0 <= self.label_smoothing < 1, "--train.label-smoothing", self.label_smoothing, "at least 0, below 1")
        both = self.clip_value is not None and self.clip_norm is not None
        need(not both, "--train.clip-norm", self.clip_norm, "clip by value or by norm; give --train.clip-value None")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingConfig:
    """How tokens are chosen. Defaults are R2Gen's search: three beams, sum of log-probabilities, nothing blocked."""

    strategy: Literal["beam", "sample"] = "beam"
    beams: int = 3
    "1 is greedy"
    length_penalty: float = 0.0
    "alpha of Wu et al. (2016); 0 compares plain sums of log-probabilities"
    block_ngrams: int = 0
    "no n-gram of this length occurs twice; 0 blocks nothing"
    min_tokens: int = 0
    "words before the end is allowed"
    max_tokens: int | None = None
    "words at the most; the training length when empty"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    "tokens below this share of the likeliest one's probability are never drawn; 0: no bound"
    seed: int = 0
    "of the sampling"

    def __post_init__(self) -> None:
        need(self.beams >= 1, "--decoding.beams", self.beams, "at least 1")
        need(0 <= self.length_penalty <= 100, "--decoding.length-penalty", self.length_penalty, "between 0 and 100")
        need(self.block_ngrams >= 0, "--decoding.block-ngrams", self.block_ngrams, "not negative; 0 blocks nothing")
        need(self.min_tokens >= 0, "--decoding.min-tokens", self.min_tokens, "not negative")
        need(
            1e-4 <= self.temperature <= 1e4,
            "--decoding.temperature",
            self.temperature,
            "between 0.0001 and 10000; --decoding.beams 1 is greedy",
        )
        need(0 <= self.seed < 2**63, "--decoding.seed", self.seed, "between 0 and 2^63 - 1")
        need(0 < self.top_p <= 1, "--decoding.top-p", self.top_p, "above 0, at most 1")
        need(self.top_k >= 0, "--decoding.top-k", self.top_k, "not negative; 0 takes all")
        need(0 <= self.min_p < 1, "--decoding.min-p", self.min_p, "at least 0, below 1")
        tokens = self.max_tokens
        need(tokens is None or 1 <= tokens <= 512, "--decoding.max-tokens", tokens, "between 1 and 512")


PRESETS: dict[str, DecodingConfig] = {
    # Koehler, Hsieh and Tang (2024), the notebooks that write reports with Llama-3.2-Vision.
    "koehler": DecodingConfig(strategy="sample", temperature=1.5, min_p=0.1, max_tokens=128),
    "greedy": DecodingConfig(beams=1),
}
"Decodings by name, for `--preset`."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result, next to the manifest."""

    text: TextConfig = field(default_factory=TextConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    ithn: IthnConfig = field(default_factory=IthnConfig)
    jima: JimaConfig = field(default_factory=JimaConfig)
    diagnosis: DiagnosisConfig = field(default_factory=DiagnosisConfig)
    kif: KifConfig = field(default_factory=KifConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    seed: int = 9223
    "of the weights, the order and the augmentation; the recipes say whose script it is from"

    @property
    def system(self) -> str:
        """The method with what was plugged into its training."""
        plugged = {"ISD": self.distill.teacher, "ITHN": self.ithn.enabled}
        return " + ".join([self.model.method, *(name for name, is_in in plugged.items() if is_in)])

    @property
    def learns_entities(self) -> bool:
        """Whether the training needs the clinical words of every report."""
        return self.model.method == "jima"

    @property
    def diagnoses(self) -> bool:
        """Whether the method has a disease head, which needs states of the conditions."""
        return self.model.method in DIAGNOSING

    @property
    def prompts(self) -> bool:
        """Whether the decoder reads the states of a diagnosis before it writes."""
        return self.diagnoses and self.diagnosis.prompt

    @property
    def retrieves(self) -> bool:
        """Whether the method looks at similar training reports."""
        return self.diagnoses and self.diagnosis.memory

    def __post_init__(self) -> None:
        check_together(self)
