"""Drafts or classifies one study, for the synchronous and the asynchronous routes alike."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rayscribe.classifiers.folder import TrainedClassifier
from rayscribe.classifiers.predict import Classified, classified, evidence
from rayscribe.data.images import Upload
from rayscribe.drafts import Draft
from rayscribe.errors import DISCLAIMER
from rayscribe.inference.images import ImageStudy
from rayscribe.models.decoding import Steps
from rayscribe.reports.document import Document
from rayscribe.reports.drafting import document_of, findings_of, grids_of
from rayscribe.serve.batching import Batcher, BatchKey, Cancelled, DraftRequest
from rayscribe.serve.problems import Problem
from rayscribe.serve.store import ModelEntry, ModelStore
from rayscribe.serve.uploads import DraftOptions, FindingOptions

ProgressCallback = Callable[[float, str], None]
"Receives the completed share of the work, and the current stage."


class DraftService:
    """The models and the thread that drafts. Methods block, and may be called from many threads."""

    def __init__(self, store: ModelStore, *, batch: int, note: Callable[[int], None]) -> None:
        """`note` receives the number of studies in every batch."""
        self.store = store
        self._batcher = Batcher(self._write, size=batch, note=note)
        # Decoding an image takes many times its file's memory; decoding more in parallel than there are cores gains nothing.
        self._reading = threading.Semaphore(os.cpu_count() or 1)

    def start(self) -> None:
        self._batcher.start()

    def stop(self) -> None:
        """Returns once all submitted studies are drafted."""
        self._batcher.stop()

    def check(self, options: DraftOptions) -> None:
        """Raises Problem for invalid options, before any image is read."""
        options.decoded()
        self.store.chosen(options.model)
        self.store.chosen(options.classifier, classifier=True)

    def draft(
        self, images: Sequence[Upload], options: DraftOptions, stop: threading.Event, on_progress: ProgressCallback
    ) -> Document:
        """The draft. Raises Problem or InputError for what the client can fix, Cancelled once `stop` is set."""
        decoding, model = options.decoded(), self.store.chosen(options.model)
        if model is None:
            raise Problem(422, "this service has no report model, only classifiers: POST /v1/classify")
        on_progress(0.02, "reading the images")
        study, found = self._read(images, model, options.classifier, stop)
        on_progress(0.1, "waiting for the model")
        key = BatchKey(model=model.name, decoding=decoding, best=options.best, with_states=study.states is not None)
        request = DraftRequest(
            key=key,
            study=study,
            stop=stop,
            on_progress=lambda share: on_progress(0.1 + 0.85 * share, "writing"),
        )
        draft = self._batcher.submit(request)
        on_progress(0.97, "reading the draft")
        assert model.author is not None
        return document_of(
            draft,
            model.author,
            images=len(images),
            created=datetime.now(UTC),
            findings=() if found is None else findings_of(found),
        )

    def findings(self, images: Sequence[Upload], options: FindingOptions) -> dict[str, Any]:
        """A classifier's findings, and the images' evidence for one of them, ready for JSON."""
        entry = self._classifier(options.classifier)
        trained = self.store.classifier(entry)
        with self._reading:
            found = classified(trained, images)
            told = self._evidence(trained, found, options.evidence) if options.evidence else None
        return {
            "format": "rayscribe-findings-1",
            "disclaimer": DISCLAIMER,
            "classifier": entry.name,
            "findings": findings_of(found),
            "evidence": told,
            "warnings": found.warnings,
        }

    def _read(
        self, images: Sequence[Upload], model: ModelEntry, classifier: str | None, stop: threading.Event
    ) -> tuple[ImageStudy, Classified | None]:
        """Holds no model beyond this call: while a study waits for its batch, the store may unload the model."""
        with self._reading:
            if stop.is_set():
                raise Cancelled
            writer = self.store.writer(model)
            found = self._findings(images, classifier, is_needed=writer.needs_states)
            return writer.read(images, states=found.states() if found and writer.needs_states else None), found

    def _findings(self, images: Sequence[Upload], name: str | None, *, is_needed: bool) -> Classified | None:
        if name is None and not is_needed and self.store.chosen(None, classifier=True) is None:
            return None
        return classified(self.store.classifier(self._classifier(name)), images)

    def _classifier(self, name: str | None) -> ModelEntry:
        entry = self.store.chosen(name, classifier=True)
        if entry is None:
            raise Problem(422, "this service has no classifier; start it with --model CLASSIFIER_FOLDER as well")
        return entry

    def _evidence(self, trained: TrainedClassifier, found: Classified, finding: str) -> dict[str, Any]:
        if finding not in trained.findings:
            raise Problem(
                422, f"options: evidence: unknown finding; the classifier knows {', '.join(trained.findings)}"
            )
        name, map_VSS = evidence(trained, found, finding)
        return {"finding": name, "grids": grids_of(map_VSS)}

    def _write(self, key: BatchKey, studies: Sequence[ImageStudy], steps: Steps) -> list[Draft]:
        entry = self.store.entries[key.model]
        return self.store.writer(entry).draft(studies, key.decoding, best=key.best, steps=steps)
