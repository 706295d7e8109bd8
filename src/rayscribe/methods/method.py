"""What a method is: one frozen record of what a paper changes of the baseline.

A run asks its record in this order: `prepare`, `resources` and `inputs` (before anything is written), `stages`, `norms` and
`prompt` (the model), `task` (the losses), `card` and `said` (what people are shown). A method with a `fit` of its own skips
model and task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rayscribe.config import MethodSettings, RunConfig
from rayscribe.data.dataset import Extras
from rayscribe.data.images import Grey
from rayscribe.data.manifest import Manifest
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import FixedNorms, PatchEmbedding, ReportModel
from rayscribe.progress import ProgressBar
from rayscribe.study import Batch, Study
from rayscribe.task import HostTask, ReportTask, Task

S = TypeVar("S", bound=MethodSettings)
CardLine = tuple[str, str]
"A row of the model card's table: what, and its value."
Findings = dict[str, str]
"Names of conditions and their states, in words."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Where features of studies are cached, and on which device they are computed."""

    features: Path | None = None
    "folder of the feature cache; the user's cache folder when None"
    device: torch.device | None = None
    progress: ProgressBar = iter


class Resources(Protocol):
    """What a model takes from files beside its weights and words; a copy of it travels in the model folder."""

    def digests(self) -> list[str]:
        """Of all that the files hold."""

    def save(self, folder: Path) -> None:
        """Writes a copy into a model's folder; every file is replaced as a whole."""

    def check(self, run: RunConfig[Any], source: Source) -> None:
        """Raises InputError where the files do not go with the data of the run."""

    def extras(self, studies: Sequence[Study], lookup: Lookup) -> Extras:
        """What studies of a manifest bring from here."""

    def image_extras(self, studies: Sequence[Sequence[Grey]]) -> dict[str, Tensor]:
        """The same for studies of loose image files, one row a study."""

    def least_side(self) -> int:
        """Pixels that the shorter side of an image needs for it."""


@dataclass(frozen=True, slots=True)
class NoResources:
    """Of a model that is its weights and words."""

    def digests(self) -> list[str]:
        return []

    def save(self, folder: Path) -> None:
        return None

    def check(self, run: RunConfig[Any], source: Source) -> None:
        return None

    def extras(self, studies: Sequence[Study], lookup: Lookup) -> Extras:
        return {}

    def image_extras(self, studies: Sequence[Sequence[Grey]]) -> dict[str, Tensor]:
        return {}

    def least_side(self) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The data of a run before it starts."""

    manifest: Manifest
    path: Path
    "of the manifest, to name it"
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a run makes what its method needs beside the manifest."""

    features: Path | None = None
    "folder of the feature cache, beside which it is kept; the user's cache folder when None"
    notify: Callable[[str], None] = print
    progress: Callable[[str], ProgressBar] = lambda name: iter
    "a progress bar of that name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a run has before its first step."""

    training: SplitReports
    validation: SplitReports
    "this process's share"
    tokenizer: Tokenizer
    model: ReportModel
    resources: Resources
    open_model: Callable[[Path], TrainedModel]
    "loads a model folder"
    notify: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a task knows of the training data."""

    value: Any = None
    "in the method's own type"
    facts: Mapping[str, Any] = field(default_factory=dict)
    "for the model folder: JSON values"
    origins: Sequence[Mapping[str, Any]] = ()
    "provenance of other models that are learned from; the terms of their data hold for this model too"


def _nothing_known(start: Start) -> Known:
    return Known()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a task wants to know of the training data: read early, made when the run has all that it needs."""

    digests: Sequence[str] = ()
    "of the files that it comes from"
    with_negatives: bool = False
    "the manifest's mined negatives are part of what is learned"
    known: Callable[[Start], Known] = _nothing_known


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What a task can read while it trains."""

    studies: int
    batches_per_epoch: int
    training: Callable[[], Iterable[Batch]]
    "this process's share of the training studies, uncropped"
    validation: Callable[[], Iterable[Batch]]
    "this process's share of the validation studies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Whether the states of the conditions stand in front of a report, and how many states each can have."""

    states: int = 0
    "0: no prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a plug-in goes around."""

    method: Method[Any]
    task: HostTask[Any]
    known: Any


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with all that is needed to use it and to know where it comes from."""

    method: Method[Any]
    model: ReportModel
    tokenizer: Tokenizer
    config: RunConfig[Any]
    data: dict[str, Any]
    "the manifest's provenance and digest; `terms` says what the training data allow"
    training: dict[str, Any]
    "epoch, step, validation scores, and what the method adds"
    resources: Resources = field(default_factory=NoResources)


Features = NDArray[Any]
"A study's features of the frozen image encoder (V views, N patches, C channels), float16."


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a method with a `fit` of its own learns from."""

    training: SplitReports
    validation: SplitReports
    features: Callable[[Sequence[Study]], list[Features]]
    "of studies, computed once and cached"
    notify: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What such a `fit` returns, and what its `reporter` is made from. The image encoder is saved beside it."""

    weights: Mapping[str, Tensor]
    texts: Mapping[str, Any] = field(default_factory=dict)
    "JSON values"
    scores: Mapping[str, float] = field(default_factory=dict)
    "on the validation split"


class Drafter(Protocol):
    """The reporter of a method with a `fit` of its own."""

    def draft(self, studies: Sequence[Features], decoding: DecodingConfig) -> list[Draft]:
        """One draft a study, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A setting in which our default differs from the paper or its released code."""

    setting: str
    "its path in RunConfig, such as text.legacy_ids"
    value: Any
    source: str


def file_digest(source: str, *, built_in: str, flag: str, what: str) -> list[str]:
    """Of the file that a setting names; none for what is built in. Raises InputError where there is no such file."""
    if source == built_in:
        return []
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file of {what} ({flag})")
    return [sha256_of(Path(source))]


def patch_embedding(run: RunConfig[Any], channels: int, words: int, resources: Resources) -> list[nn.Module]:
    """The baseline's stage: backbone channels to model width. BERT's decoder looks at the channels themselves."""
    if run.model.decoder == "bert":
        return []
    return [PatchEmbedding(channels, run.model.width, run.model.patch_dropout)]


def fixed_norms(run: RunConfig[Any]) -> nn.Module:
    """Ordinary layer norms."""
    return FixedNorms(3 * run.model.decoder_layers, run.model.width)


def no_prompt(run: RunConfig[Any]) -> Prompt:
    return Prompt()


def report_task(run: RunConfig[Any], model: ReportModel, known: Any, feed: Feed) -> HostTask[Any]:
    """The report's negative log-likelihood alone."""
    return ReportTask(model, label_smoothing=run.train.label_smoothing)


def no_inputs(run: RunConfig[Any], source: Source) -> Inputs:
    return Inputs()


def prepares_nothing(run: RunConfig[Any], source: Source, preparation: Preparation) -> tuple[RunConfig[Any], Source]:
    """The run and its data as they are."""
    return run, source


def no_resources(run: RunConfig[Any], folder: Path | None) -> Resources:
    return NoResources()


def no_own_words(run: RunConfig[Any], model: ReportModel, vectors: Callable[[Sequence[str]], Any]) -> str:
    return ""


def says_nothing(model: ReportModel, batch: Batch, encoded: Encoded) -> list[Findings]:
    return [{} for _ in batch.rows_B]


def no_lines(trained: TrainedModel) -> list[CardLine]:
    return []


@dataclass(frozen=True, kw_only=True)
class Method(Generic[S]):
    """What a paper changes of the baseline; every default is the baseline's own part.

    `run` is the run's settings, of which `run.method` are the method's own. A plug-in (`around`) brings settings, prepare,
    inputs, generation and card beside it, which get the run with the plug-in: its own settings are `run.method.plug_in`. A
    method with a `fit` brings a reporter and may bring `prepare`, and `inputs` for their digests; the other parts are of the
    gradient loop. Raises ValueError for a record that brings parts which nobody would ask for.
    """

    name: str
    settings: type[S]
    "frozen dataclass beside the method; its `check(run)` says what does not go together"
    recipes: Mapping[str, Callable[[], RunConfig[Any]]] = field(default_factory=dict)
    "published settings by name; a plug-in's are of methods with it"
    published: Sequence[Published] = ()
    "what `--as-published` switches"
    fit: Callable[[RunConfig[S], Material], Fitted] | None = None
    "None: the gradient loop"
    reporter: Callable[[RunConfig[S], Fitted], Drafter] | None = None
    "None: the report model's; a method with a `fit` needs one"
    stages: Callable[[RunConfig[S], int, int, Resources], list[nn.Module]] = patch_embedding
    "run, channels, words of the vocabulary, resources: what stands between image encoder and patch encoder"
    norms: Callable[[RunConfig[S]], nn.Module] = fixed_norms
    "of the decoder"
    prompt: Callable[[RunConfig[S]], Prompt] = no_prompt
    copy_words: Callable[[RunConfig[S], ReportModel, Callable[[Sequence[str]], Any]], str] = no_own_words
    "starts the method's own words from a BERT on disk: run, model, vectors of words; returns what to say"
    task: Callable[[RunConfig[S], ReportModel, Any, Feed], Any] = report_task
    "run, model, `Known.value`, feed: a HostTask, or a Task where a plug-in is the last"
    around: Callable[[RunConfig[S], S, Host, Any, Feed], Task[Any]] | None = None
    "a plug-in: the run of the host, the plug-in's settings, the host, `Known.value`, feed"
    host: Method[Any] | None = None
    "of a composed record: what the last plug-in goes around"
    defaults: Callable[[RunConfig[Any]], Any] | None = None
    "a plug-in's settings around this host's run, where some hosts need others than the usual ones"
    is_last: bool = False
    "a plug-in that no other can go around"
    generation: Callable[[RunConfig[S], Path | None], RunConfig[S]] | None = None
    "settings of a run taught by the model of the one before (None: the first); no function where runs teach nothing"
    prepare: Callable[[RunConfig[S], Source, Preparation], tuple[RunConfig[S], Source]] = prepares_nothing
    "makes what the settings do not name, such as a retrieval index; the run that names it, for `inputs` and `resources` alone"
    inputs: Callable[[RunConfig[S], Source], Inputs] = no_inputs
    resources: Callable[[RunConfig[S], Path | None], Resources] = no_resources
    "of a model's folder; None: the files that the settings name"
    said: Callable[[ReportModel, Batch, Encoded], list[Findings]] = says_nothing
    "what a reader is shown beside the report, a study each"
    card: Callable[[TrainedModel], list[CardLine]] = no_lines

    def __post_init__(self) -> None:
        if (self.fit is None) != (self.reporter is None):
            raise ValueError(f"the method {self.name}: a fit needs a reporter, and a reporter a fit")
        usual = {
            "stages": self.stages is patch_embedding,
            "norms": self.norms is fixed_norms,
            "prompt": self.prompt is no_prompt,
            "copy_words": self.copy_words is no_own_words,
            "task": self.task is report_task,
            "resources": self.resources is no_resources,
            "said": self.said is says_nothing,
        }
        unasked = [part for part, is_usual in usual.items() if not is_usual]
        if unasked and (self.fit is not None or (self.around is not None and self.host is None)):
            kind = "a method with a fit" if self.fit is not None else "a plug-in"
            raise ValueError(f"the method {self.name}: {kind} has no {', '.join(unasked)}")

    @property
    def innermost(self) -> Method[Any]:
        """The method that all plug-ins go around."""
        return self if self.host is None else self.host.innermost

    @property
    def is_plug_in(self) -> bool:
        return self.around is not None
