"""The folder that README and docs speak of: front.png, side.png, iu.parquet, runs/r2gen, runs/findings, predictions.jsonl."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rayscribe
from conftest import small_config
from rayscribe.config import RunConfig
from rayscribe.data.manifest import read_manifest, write_manifest


def lay_out(folder: Path, world: Path, served: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills `folder` and makes it the working directory."""
    manifest = read_manifest(world)
    write_manifest(folder / "iu.parquet", manifest)
    study = next(study for study in manifest.split("test") if len(study.images) > 1)
    for name, image in zip(("front.png", "side.png"), study.images, strict=False):
        (folder / name).symlink_to(image)
    (folder / "runs").mkdir()
    for name in ("r2gen", "findings"):
        (folder / "runs" / name).symlink_to(served[name])
    lines = [json.dumps({"id": one.id, "report": one.findings}) for one in manifest.split("test")]
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(folder)


def make_recipes_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`rs.recipe` keeps methods and checks changes, and gives sizes that train in a second."""
    whole = rayscribe.recipe

    def small(name: str, changes: Any = None, *, as_published: bool = False) -> Any:
        run, sizes = whole(name, changes, as_published=as_published), small_config(epochs=1)
        if not isinstance(run, RunConfig):  # a classifier, which no page trains
            return run
        backbone = replace(sizes.backbone, trainable=run.backbone.trainable)
        return replace(run, text=sizes.text, images=sizes.images, backbone=backbone, train=sizes.train)

    monkeypatch.setattr(rayscribe, "recipe", small)
