"""`rayscribe resplit`: random splits that keep sizes, label shares and whatever must stay together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rayscribe.data.manifest import Manifest, read_manifest, write_manifest

Command = Callable[..., str]


def test_splits_differ_and_keep_their_sizes(rayscribe: Command, world: Path, tmp_path: Path) -> None:
    rayscribe("resplit", world, "--seeds", 3, "--out", tmp_path / "splits")
    before = read_manifest(world)
    found = [read_manifest(tmp_path / "splits" / f"split-{seed}.parquet") for seed in range(3)]
    tests = [frozenset(study.id for study in one.split("test")) for one in found]
    assert len(set(tests)) == 3
    for seed, one in enumerate(found):
        assert {study.id for study in one.studies} == {study.id for study in before.studies}
        assert all(abs(count - before.counts()[name]) <= 1 for name, count in one.counts().items())
        assert one.provenance["resplit"] == {"seed": seed, "kept_together": "patients", "from": before.digest()}
        assert all(image.is_file() for study in one.studies for image in study.images)


def test_the_same_seed_draws_the_same_split(rayscribe: Command, world: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        rayscribe("resplit", world, "--seeds", 1, "--out", tmp_path / name)
    first, second = (read_manifest(tmp_path / name / "split-0.parquet") for name in ("first", "second"))
    assert first.digest() == second.digest()


@pytest.mark.parametrize("flag", ["--no-shared-reports", "--group-near-duplicates"])
def test_reports_and_patients_stay_together(flag: str, rayscribe: Command, world: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    rows = [replace(study, subject=f"p{place // 3}") for place, study in enumerate(manifest.studies)]
    rows = [replace(study, findings=rows[place % 20].findings) for place, study in enumerate(rows)]
    write_manifest(tmp_path / "data.parquet", Manifest(studies=tuple(rows), provenance=manifest.provenance))
    rayscribe("resplit", tmp_path / "data.parquet", "--seeds", 2, flag, "--out", tmp_path / "splits")
    for seed in range(2):
        studies = read_manifest(tmp_path / "splits" / f"split-{seed}.parquet").studies
        for key in ("findings", "subject"):
            splits: dict[str, set[str]] = {}
            for study in studies:
                splits.setdefault(study.findings if key == "findings" else study.subject, set()).add(study.split)
            assert all(len(one) == 1 for one in splits.values())


def test_what_cannot_be_split_is_named(rayscribe: Command, world: Path, tmp_path: Path) -> None:
    assert "--seeds 0" in rayscribe("resplit", world, "--seeds", 0, "--out", tmp_path / "x", code=1)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    assert "is not empty" in rayscribe("resplit", world, "--out", tmp_path / "x", code=1)
