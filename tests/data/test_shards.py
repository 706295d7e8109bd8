"""Shards: the same pictures as the files, every study once an epoch over processes and workers, readable by WebDataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayscribe.config import ImageConfig, TextConfig
from rayscribe.data.dataset import Order, Row, StudyDataset, load_batches
from rayscribe.data.images import read_checked_image, read_image
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.shard_writing import write_shards
from rayscribe.data.shards import shard_numbers
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError


@pytest.fixture(scope="module")
def shards(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "out"
    write_shards(read_manifest(world), folder, side=48, studies_per_shard=7)
    return folder


def dataset(manifest: Manifest, *, training: bool = True) -> StudyDataset:
    studies = manifest.split("train")
    images = ImageConfig(size=40, resize=48)
    blank, words = [""] * len(studies), Tokenizer(words=())
    return StudyDataset(
        SplitReports(studies, blank), words, text=TextConfig(), images=images, augment=1 if training else None
    )


def test_crops_from_shards_are_those_from_the_files(world: Path, shards: Path) -> None:
    whole, small = dataset(read_manifest(world)), dataset(read_manifest(shards / "data.parquet"))
    assert [study.id for study in whole.studies] == [study.id for study in small.studies]
    for place in range(len(whole)):
        assert np.array_equal(whole.item(Row(place, 3)).images, small.item(Row(place, 3)).images)


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (3, 2)])
def test_every_study_comes_once_an_epoch(shards: Path, processes: int, workers: int) -> None:
    data = dataset(read_manifest(shards / "data.parquet"))
    order = Order(lengths=[2] * len(data), batch_size=6, bucket=False, seed=4, shards=shard_numbers(data.studies))
    for epoch in (0, 1):
        seen: Counter[int] = Counter()
        for rank in range(processes):
            rows = order.rows(epoch, accumulate=1, rank=rank, processes=processes)
            for batch in load_batches(data, rows, workers=workers):
                counted = batch.has_token_BT.any(1)
                seen.update(batch.rows_B[counted].tolist())
        assert seen == Counter(range(len(data)))
    assert order.batches(0) == order.batches(0) != order.batches(1)


@pytest.mark.parametrize("bucket", [False, True])
def test_few_shards_are_read_at_a_time(bucket: bool) -> None:
    shard = [study // 100 for study in range(4000)]
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 60, 4000).tolist()
    order = Order(lengths=lengths, batch_size=16, bucket=bucket, seed=0, shards=shard)
    batches = order.batches(0)
    assert Counter(study for batch in batches for study in batch) == Counter(range(4000))
    for start in range(0, len(batches), 10):
        assert len({shard[study] for batch in batches[start : start + 10] for study in batch}) <= 16
    together = [{shard[study] for study in batch} for batch in batches]
    assert np.mean([len(one) for one in together]) > 4  # and still a mixture


def test_an_interrupted_call_goes_on_to_the_same_bytes(world: Path, shards: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)

    def stop(parts: list[object]) -> list[object]:
        return parts[:3]

    with pytest.raises(KeyError):
        write_shards(manifest, tmp_path / "out", side=48, studies_per_shard=7, progress=stop)  # type: ignore[arg-type]
    assert len(list((tmp_path / "out").glob("*.tar"))) == 3 and not (tmp_path / "out" / "data.parquet").exists()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    write_shards(manifest, tmp_path / "out", side=48, studies_per_shard=7)
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == when for name, when in before.items())
    first, second = ({path.name: path.read_bytes() for path in one.glob("*.tar")} for one in (shards, tmp_path / "out"))
    assert first == second
    with pytest.raises(InputError, match="of other data or another size"):
        write_shards(manifest, tmp_path / "out", side=64, studies_per_shard=7)
    with pytest.raises(InputError, match="files other than shards"):
        write_shards(manifest, world.parent)


def test_webdataset_reads_them_as_its_own(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    names = sorted(map(str, shards.glob("train-*.tar")))
    samples = list(webdataset.WebDataset(names, shardshuffle=False).decode("l8"))
    studies = {study.id: study for study in read_manifest(shards / "data.parquet").split("train")}
    assert {sample["json"]["id"] for sample in samples} == set(studies) and len(samples) == len(studies)
    for sample in samples[:5]:
        study = studies[sample["json"]["id"]]
        assert np.array_equal(sample["0.png"], read_image(study.images[0]))


def test_faults_name_the_shard_and_what_to_do(shards: Path, tmp_path: Path) -> None:
    studies = read_manifest(shards / "data.parquet").studies
    study = studies[0]
    shard = study.images[0].parent
    with pytest.raises(InputError, match=r"contains no 999.0.png; write the shards again"):
        read_image(shard / "999.0.png")
    with pytest.raises(InputError, match="no such shard"):
        read_image(tmp_path / "nothing.tar" / "0.0.png")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut.tar: (damaged shard|truncated|contains no)"):
        read_image(cut / max(path.name for one in studies for path in one.images if path.parent == shard))
    with pytest.raises(InputError, match="changed since the manifest was written"):
        read_checked_image(study.images[0], "0" * 64)


def test_the_verbs_read_shards_like_files(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    told = rayscribe("shard", world, "--out", tmp_path / "out", "--side", 64, "--studies-per-shard", 20)
    assert "60 studies" in told
    assert "shards" in rayscribe("info", tmp_path / "out" / "data.parquet")
    flags = ["--backbone.name", "test_resnet", "--images.size", 64, "--images.resize", 64, "--train.epochs", 1]
    flags += ["--cohort.findings", "No Finding"]
    rayscribe(
        "classify", "train", "multilabel", "--data", tmp_path / "out" / "data.parquet", "--run", tmp_path / "r", *flags
    )
    manifest = read_manifest(tmp_path / "out" / "data.parquet")
    assert manifest.counts() == read_manifest(world).counts()
    assert replace(manifest.studies[0], images=(), sha256=()) == replace(
        read_manifest(world).studies[0], images=(), sha256=()
    )


def test_a_damaged_note_of_the_source_is_a_message(world: Path, tmp_path: Path) -> None:
    (tmp_path / "shards.json").write_text('{"digest": ')
    with pytest.raises(InputError, match=r"shards\.json: damaged"):
        write_shards(read_manifest(world), tmp_path)
