"""Which studies are written together, and that one study's fault or end is not another's. And which model makes room."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rayscribe.drafts import DecodingConfig, Draft
from rayscribe.errors import InputError
from rayscribe.inference.images import ImageStudy
from rayscribe.models.decoding import Steps
from rayscribe.serve.batching import Batcher, BatchKey, Cancelled, DraftRequest
from rayscribe.serve.store import ModelStore

KEY = BatchKey(model="a", decoding=DecodingConfig(), best=1, with_states=False)


class HeldService:
    """Notes what is written together. The first batch waits until `open` is set; a study named `bad` cannot be written."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Event()
        self.batches: list[tuple[BatchKey, list[str]]] = []
        self.batcher = Batcher(self._write, size=3, note=lambda size: None)
        self.pool = ThreadPoolExecutor(16)

    def _write(self, key: BatchKey, studies: Sequence[ImageStudy], steps: Steps) -> list[Draft]:
        names = [study.warnings[0] for study in studies]
        self.begun.set()
        assert self.open.wait(30)
        for _ in steps(range(3)):
            pass
        if "bad" in names:
            raise InputError("bad: has no report")
        self.batches.append((key, names))
        return [Draft(reports=[name], warnings=[], diagnosis={}) for name in names]

    def ask(self, name: str, key: BatchKey = KEY, stop: threading.Event | None = None) -> Future[Draft]:
        """Returns when the ticket waits."""
        study = ImageStudy(images=[], warnings=[name])
        request = DraftRequest(key=key, study=study, stop=stop or threading.Event(), on_progress=lambda share: None)
        before = len(self.batcher._queue)
        asked = self.pool.submit(self.batcher.submit, request)
        while len(self.batcher._queue) == before and not self.begun.wait(0.01):
            pass
        return asked


@pytest.fixture
def service() -> Iterator[HeldService]:
    made = HeldService()
    made.batcher.start()
    made.ask("first")
    assert made.begun.wait(30)
    yield made
    made.open.set()
    made.batcher.stop()
    made.pool.shutdown()


def waiting(service: HeldService, names: Sequence[str], keys: Sequence[BatchKey]) -> list[Future[Draft]]:
    asked = []
    for name, key in zip(names, keys, strict=True):
        asked.append(service.ask(name, key))
        while len(service.batcher._queue) < len(asked):
            time.sleep(0.001)
    return asked


def test_only_studies_of_one_batch_key_are_written_together_the_longest_waiting_first(service: HeldService) -> None:
    others = [replace(KEY, **change) for change in ({"model": "b"}, {"best": 2}, {"with_states": True})]  # type: ignore[arg-type]
    others.append(replace(KEY, decoding=DecodingConfig(beams=1)))
    asked = waiting(
        service, ["b1", "a1", "c1", "d1", "b2", "a2", "e1"], [others[0], KEY, *others[1:3], others[0], KEY, others[3]]
    )
    service.open.set()
    assert [one.result().reports for one in asked] == [["b1"], ["a1"], ["c1"], ["d1"], ["b2"], ["a2"], ["e1"]]
    assert [names for _, names in service.batches] == [["first"], ["b1", "b2"], ["a1", "a2"], ["c1"], ["d1"], ["e1"]]
    assert [key for key, _ in service.batches[1:]] == [others[0], KEY, *others[1:]]


def test_no_batch_is_larger_than_it_may_be(service: HeldService) -> None:
    waiting(service, [str(number) for number in range(7)], [KEY] * 7)
    service.open.set()
    service.batcher.stop()
    assert [len(names) for _, names in service.batches] == [1, 3, 3, 1]


def test_a_study_that_cannot_be_written_does_not_keep_others_from_it(service: HeldService) -> None:
    asked = waiting(service, ["one", "bad", "two"], [KEY] * 3)
    service.open.set()
    assert [asked[0].result().reports, asked[2].result().reports] == [["one"], ["two"]]
    with pytest.raises(InputError, match="bad: has no report"):
        asked[1].result()


def test_a_batch_ends_when_nobody_wants_it_and_not_before(service: HeldService) -> None:
    stops = [threading.Event() for _ in range(2)]
    asked = []
    for name, stop in zip(("wanted", "unwanted"), stops):
        asked.append(service.ask(name, stop=stop))
        while len(service.batcher._queue) < len(asked):
            time.sleep(0.001)
    stops[1].set()
    service.open.set()
    assert asked[0].result().reports == ["wanted"]
    service.open.clear()
    service.begun.clear()
    lost = threading.Event()
    alone = service.ask("alone", stop=lost)
    lost.set()
    service.open.set()
    with pytest.raises(Cancelled):
        alone.result()


def test_the_model_that_was_used_the_longest_ago_makes_room(served: dict[str, Path], tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(served["r2gen"], tmp_path / name)) for name in ("a", "b", "c")]
    weights = (folders[0] / "model.safetensors").stat().st_size
    said: list[tuple[str, str]] = []
    store = ModelStore(folders, memory=2.5 * weights, note=lambda name, event: said.append((name, event)))
    for name in ("a", "b", "a", "c", "a"):
        store.writer(store.entries[name])
    assert said == [("a", "loaded"), ("b", "loaded"), ("b", "dropped for another"), ("c", "loaded")]


def test_two_that_ask_for_a_model_at_once_load_it_once(served: dict[str, Path]) -> None:
    said: list[tuple[str, str]] = []
    store = ModelStore([served["r2gen"]], memory=2**30, note=lambda name, event: said.append((name, event)))
    with ThreadPoolExecutor(4) as pool:
        writers = list(pool.map(lambda _: store.writer(store.entries["r2gen"]), range(4)))
    assert said == [("r2gen", "loaded")] and all(writer is writers[0] for writer in writers)
