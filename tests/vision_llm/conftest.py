"""What the tests of vision LLMs share: a handful of drawn studies with short reports, tiny bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_idefics3, tiny_llava, tiny_mllama, tiny_qwen2_vl
from vision_llm_settings import REPORTS

from rayscribe.data.manifest import read_manifest, write_manifest

FAMILIES: dict[str, Callable[[Path], None]] = {
    "mllama": tiny_mllama,
    "idefics3": tiny_idefics3,
    "llava": tiny_llava,
    "qwen2_vl": tiny_qwen2_vl,
}


@pytest.fixture(scope="session")
def handful(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training studies with a report each, the same images once more as val and as test."""
    manifest = read_manifest(world)
    drawn = manifest.split("train")[:3]
    studies = tuple(
        replace(study, id=f"{split}-{place}", split=split, findings=report, impression="Drawn.", subject="")
        for split in ("train", "val", "test")
        for place, (study, report) in enumerate(zip(drawn, REPORTS, strict=True))
    )
    path = tmp_path_factory.mktemp("handful") / "handful.parquet"
    write_manifest(path, replace(manifest, studies=studies))
    return path


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder a family."""
    root = tmp_path_factory.mktemp("bases")
    for name, write in FAMILIES.items():
        write(root / name)
    return {name: root / name for name in FAMILIES}
