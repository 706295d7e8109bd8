"""What a method is: one frozen record of what a paper changes in the baseline.

A run uses its record in this order: `prepare`, `resources` and `inputs` (before anything is written), `stages`, `norms` and
`prompt` (the model), `task` (the losses), `card` and `said` (what people read). A method with a `fit` of its own skips
model and task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rayscribe.config import MethodSettings, RunConfig
from rayscribe.data.dataset import Extras
from rayscribe.data.images import Grey
from rayscribe.data.manifest import Manifest
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.methods.fitted import Drafter, Fitted, Forgotten, Material
from rayscribe.models.layers import Encoded
from rayscribe.models.report_model import FixedNorms, PatchEmbedding, ReportModel
from rayscribe.progress import ProgressBar
from rayscribe.study import Batch, Study
from rayscribe.task import HostTask, ReportTask, Task

S = TypeVar("S", bound=MethodSettings)
CardLine = tuple[str, str]
"A row of the model card's table: name and value."
Findings = dict[str, str]
"Names of conditions and their states, in words."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Where features of studies are cached, and the device that computes them."""

    features: Path | None = None
    "folder of the feature cache; None: the user's cache folder"
    device: torch.device | None = None
    progress: ProgressBar = iter


class Resources(Protocol):
    """What a model reads from files besides its weights and words; a copy is part of the model folder."""

    def digests(self) -> list[str]:
        """Digests of everything that the files contain."""

    def save(self, folder: Path) -> None:
        """Writes a copy into a model folder; every file is replaced as a whole."""

    def check(self, run: RunConfig[Any], source: Source) -> None:
        """Raises InputError if the files do not match the data of the run."""

    def extras(self, studies: Sequence[Study], lookup: Lookup) -> Extras:
        """Extras of a batch that come from here, for studies of a manifest."""

    def image_extras(self, studies: Sequence[Sequence[Grey]]) -> dict[str, Tensor]:
        """The same for studies of loose image files: tensors by name, one row per study."""

    def least_side(self) -> int:
        """Shortest image side that it needs, in pixels."""


@dataclass(frozen=True, slots=True)
class NoResources:
    """Resources of a model that needs only its weights and words."""

    def digests(self) -> list[str]:
        """No digests."""
        return []

    def save(self, folder: Path) -> None:
        """Writes nothing."""
        return None

    def check(self, run: RunConfig[Any], source: Source) -> None:
        """Accepts every run."""
        return None

    def extras(self, studies: Sequence[Study], lookup: Lookup) -> Extras:
        """No extras."""
        return {}

    def image_extras(self, studies: Sequence[Sequence[Grey]]) -> dict[str, Tensor]:
        """No extras."""
        return {}

    def least_side(self) -> int:
        """0: images of any size will do."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The data of a run before it starts."""

    manifest: Manifest
    path: Path
    "path of the manifest, for messages"
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
    """What is available before a run's first step."""

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
    """What a task knows about the training data."""

    value: Any = None
    "of the method's own type"
    facts: Mapping[str, Any] = field(default_factory=dict)
    "JSON values for the model folder"
    origins: Sequence[Mapping[str, Any]] = ()
    "provenance of other models that the run learns from; the terms of their data apply to this model too"


def _nothing_known(start: Start) -> Known:
    return Known()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a task needs from the training data: declared early, computed once the run has all that it needs."""

    digests: Sequence[str] = ()
    "digests of the files that it comes from"
    with_negatives: bool = False
    "whether the manifest's mined negatives are part of what is learned"
    known: Callable[[Start], Known] = _nothing_known


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Data that a task can read during training."""

    studies: int
    batches_per_epoch: int
    training: Callable[[], Iterable[Batch]]
    "this process's share of the training studies, without random crops"
    validation: Callable[[], Iterable[Batch]]
    "this process's share of the validation studies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Whether the states of the conditions precede a report, and how many states each condition can have."""

    states: int = 0
    "0: no prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The method that a plug-in wraps."""

    method: Method[Any]
    task: HostTask[Any]
    known: Any


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with everything needed to use it and to know its origin."""

    method: Method[Any]
    model: ReportModel
    tokenizer: Tokenizer
    config: RunConfig[Any]
    data: dict[str, Any]
    "the manifest's provenance and digest; `terms` are those of the training data"
    training: dict[str, Any]
    "epoch, step, validation scores, and facts that the method adds"
    resources: Resources = field(default_factory=NoResources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A setting whose default here differs from the paper or its released code."""

    setting: str
    "its path in RunConfig, such as text.legacy_ids"
    value: Any
    source: str


def file_digest(source: str, *, built_in: str, flag: str, what: str) -> list[str]:
    """Digest of the file that a setting names; empty if it is built in. Raises InputError if there is no such file."""
    if source == built_in:
        return []
    if not Path(source).is_file():
        raise InputError(f"{source}: no such file of {what} ({flag})")
    return [sha256_of(Path(source))]


def patch_embedding(run: RunConfig[Any], channels: int, words: int, resources: Resources) -> list[nn.Module]:
    """The baseline's stage: backbone channels to model width; none for BERT's decoder, which reads the channels."""
    if run.model.decoder == "bert":
        return []
    return [PatchEmbedding(channels, run.model.width, run.model.patch_dropout)]


def fixed_norms(run: RunConfig[Any]) -> nn.Module:
    """The baseline's norms: ordinary layer norms."""
    return FixedNorms(3 * run.model.decoder_layers, run.model.width)


def no_prompt(run: RunConfig[Any]) -> Prompt:
    """The baseline's prompt: none."""
    return Prompt()


def report_task(run: RunConfig[Any], model: ReportModel, known: Any, feed: Feed) -> HostTask[Any]:
    """The report's negative log-likelihood alone."""
    return ReportTask(model, label_smoothing=run.train.label_smoothing)


def no_inputs(run: RunConfig[Any], source: Source) -> Inputs:
    """The baseline's inputs: nothing from the training data."""
    return Inputs()


def prepares_nothing(run: RunConfig[Any], source: Source, preparation: Preparation) -> tuple[RunConfig[Any], Source]:
    """The run and its data as they are."""
    return run, source


def no_resources(run: RunConfig[Any], folder: Path | None) -> Resources:
    """The baseline's resources: no files."""
    return NoResources()


def no_own_words(run: RunConfig[Any], model: ReportModel, vectors: Callable[[Sequence[str]], Any]) -> str:
    """Nothing to initialise from BERT; returns no note."""
    return ""


def says_nothing(model: ReportModel, batch: Batch, encoded: Encoded) -> list[Findings]:
    """No findings, one empty dictionary per study."""
    return [{} for _ in batch.rows_B]


def no_lines(trained: TrainedModel) -> list[CardLine]:
    """No additional lines in the model card."""
    return []


@dataclass(frozen=True, kw_only=True)
class Method(Generic[S]):
    """What a paper changes in the baseline; every default is the baseline's own part.

    `run` is the run's settings; `run.method` are the method's own. A plug-in (`around`) may also bring settings, prepare,
    inputs, generation and card, which receive the run with the plug-in: its own settings are `run.method.plug_in`. A method
    with a `fit` brings a reporter and may bring `prepare`, and `inputs` for their digests; the other parts belong to the
    gradient loop. Raises ValueError for a record with parts that are never used.
    """

    name: str
    settings: type[S]
    "frozen dataclass next to the method; its `check(run)` raises for settings that conflict"
    recipes: Mapping[str, Callable[[], RunConfig[Any]]] = field(default_factory=dict)
    "published settings by name; a plug-in's are for methods combined with it"
    published: Sequence[Published] = ()
    "changes that `--as-published` makes"
    fit: Callable[[RunConfig[S], Material], Fitted] | None = None
    "None: the gradient loop"
    reporter: Callable[[RunConfig[S], Fitted], Drafter] | None = None
    "None: the report model's; a method with a `fit` needs one"
    aims: Callable[[RunConfig[S], Fitted], Mapping[str, Drafter]] | None = None
    "the same fit under other aims, from wording to findings, for `rayscribe frontier`; None where there is one aim"
    forget: Callable[[RunConfig[S], Fitted, Sequence[str], Callable[[str], None]], Forgotten] | None = None
    "run, fit, ids of training studies, notify: the fit without them, exactly; None: it cannot be had from the folder"
    stages: Callable[[RunConfig[S], int, int, Resources], list[nn.Module]] = patch_embedding
    "run, channels, words of the vocabulary, resources: the stages between image encoder and patch encoder"
    norms: Callable[[RunConfig[S]], nn.Module] = fixed_norms
    "norms of the decoder"
    prompt: Callable[[RunConfig[S]], Prompt] = no_prompt
    copy_words: Callable[[RunConfig[S], ReportModel, Callable[[Sequence[str]], Any]], str] = no_own_words
    "initialises the method's own words from a BERT on disk: run, model, vectors of words; returns a note for the user"
    task: Callable[[RunConfig[S], ReportModel, Any, Feed], Any] = report_task
    "run, model, `Known.value`, feed: a HostTask, or a Task for a last plug-in"
    around: Callable[[RunConfig[S], S, Host, Any, Feed], Task[Any]] | None = None
    "a plug-in's task: the host's run, the plug-in's settings, the host, `Known.value`, feed"
    host: Method[Any] | None = None
    "in a composed record: the method that the last plug-in wraps"
    defaults: Callable[[RunConfig[Any]], Any] | None = None
    "a plug-in's settings for this host's run, if some hosts need different ones"
    is_last: bool = False
    "whether no other plug-in may follow this one"
    generation: Callable[[RunConfig[S], Path | None], RunConfig[S]] | None = None
    "settings of a run taught by the previous run's model (None: the first); None if runs teach nothing"
    prepare: Callable[[RunConfig[S], Source, Preparation], tuple[RunConfig[S], Source]] = prepares_nothing
    "makes what the settings do not name, such as a retrieval index; the run that names it, for `inputs` and `resources` alone"
    inputs: Callable[[RunConfig[S], Source], Inputs] = no_inputs
    resources: Callable[[RunConfig[S], Path | None], Resources] = no_resources
    "from a model folder; None: from the files that the settings name"
    said: Callable[[ReportModel, Batch, Encoded], list[Findings]] = says_nothing
    "findings to show next to the report, one dictionary per study"
    card: Callable[[TrainedModel], list[CardLine]] = no_lines

    def __post_init__(self) -> None:
        if (self.fit is None) != (self.reporter is None):
            raise ValueError(f"the method {self.name}: `fit` and `reporter` need each other; define both or neither")
        if self.forget is not None and self.fit is None:
            raise ValueError(f"the method {self.name}: without a `fit` of its own it cannot `forget`; remove it")
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
            raise ValueError(f"the method {self.name}: {kind} cannot have {', '.join(unasked)}; remove them")

    @property
    def innermost(self) -> Method[Any]:
        """The method inside all plug-ins."""
        return self if self.host is None else self.host.innermost

    @property
    def is_plug_in(self) -> bool:
        """Whether it wraps another method's training."""
        return self.around is not None
