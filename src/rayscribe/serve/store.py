"""The models of a service: folders loaded on first use, within a memory limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from rayscribe.api.models import open_reporter
from rayscribe.classifiers.folder import CLASSIFIER_FORMAT, TrainedClassifier, load_classifier
from rayscribe.errors import InputError
from rayscribe.inference.writer import Writer
from rayscribe.models.folder import FITTED, VISION_LLM, facts_of
from rayscribe.reports.document import Author
from rayscribe.reports.drafting import author_of
from rayscribe.serve.problems import Problem

_M = TypeVar("_M")

Kind = Literal["report", "vision-llm", "classifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model folder that the service offers."""

    name: str
    folder: Path
    kind: Kind
    system: str
    findings: tuple[str, ...]
    "of a classifier; empty otherwise"
    weights: int
    "bytes on disk, about the same in memory"
    author: Author | None
    "author of its drafts; None for a classifier"
    has_evidence: bool
    "whether its drafts tell where it looked"


class ModelStore:
    """Model folders by name, loaded one at a time; the least recently used ones are unloaded."""

    def __init__(self, folders: Sequence[Path], *, memory: float, note: Callable[[str, str], None]) -> None:
        """`memory` in bytes; `note` receives a model's name and what happens to it."""
        self.entries = {one.name: one for one in map(_entry_of, folders)}
        if len(self.entries) < len(folders):
            raise InputError(
                "two model folders have the same name; rename one of them, because requests choose models by name"
            )
        for one in self.entries.values():
            if one.weights > memory:
                raise InputError(
                    f"{one.folder}: {one.weights / 2**30:.2f} GiB of weights, but --memory-gib {memory / 2**30:.2f}"
                )
        self._memory, self._note = memory, note
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._books, self._loading = threading.Lock(), threading.Lock()

    def chosen(self, name: str | None, *, classifier: bool = False) -> ModelEntry | None:
        """The named model, or without a name the first of its kind; None if the service has none of that kind."""
        fitting = [one for one in self.entries.values() if (one.kind == "classifier") == classifier]
        if name is None:
            return fitting[0] if fitting else None
        if name not in [one.name for one in fitting]:
            known = ", ".join(one.name for one in fitting) or "none"
            raise Problem(
                422, f"no such {'classifier' if classifier else 'model'} in this service; choose one of: {known}"
            )
        return self.entries[name]

    def writer(self, model: ModelEntry) -> Writer:
        return self._opened(model, open_reporter)

    def classifier(self, model: ModelEntry) -> TrainedClassifier:
        return self._opened(model, load_classifier)

    def loaded(self) -> list[str]:
        with self._books:
            return list(self._open)

    def _opened(self, model: ModelEntry, load: Callable[[Path], _M]) -> _M:
        found = self._at_hand(model.name)
        if found is not None:
            return cast(_M, found)
        with self._loading:
            found = self._at_hand(model.name)
            if found is not None:  # another thread loaded it while this one waited
                return cast(_M, found)
            self._make_room(model.weights)
            try:
                opened = load(model.folder)
            except InputError as error:
                self._note(model.name, f"cannot be loaded: {error}")
                raise Problem(503, f"the model {model.name} cannot be loaded; the service's log says why") from error
            with self._books:
                self._open[model.name] = opened
            self._note(model.name, "loaded")
            return opened

    def _at_hand(self, name: str) -> Any:
        with self._books:
            if name in self._open:
                self._open.move_to_end(name)
            return self._open.get(name)

    def _make_room(self, weights: int) -> None:
        with self._books:
            while self._open and sum(self.entries[name].weights for name in self._open) + weights > self._memory:
                name, _ = self._open.popitem(last=False)
                self._note(name, "dropped for another")


def _entry_of(folder: Path) -> ModelEntry:
    """Raises InputError unless the folder contains a model."""
    facts = facts_of(folder)
    kinds: dict[str, Kind] = {CLASSIFIER_FORMAT: "classifier", VISION_LLM: "vision-llm"}
    kind = kinds.get(facts["format"], "report")
    author = None if kind == "classifier" else author_of(folder)
    base = Path(str(facts.get("base", {}).get("folder", ""))) if kind == "vision-llm" else None
    files = [*folder.rglob("*.safetensors"), *(base.glob("*.safetensors") if base and base.name else ())]
    return ModelEntry(
        name=folder.resolve().name,
        folder=folder,
        kind=kind,
        system=str(facts["config"]["backbone"]["name"]) if author is None else author.system,
        findings=tuple(facts["findings"]) if author is None else (),
        weights=sum(file.stat().st_size for file in files),
        author=author,
        has_evidence=facts["format"] not in (VISION_LLM, FITTED),
    )
