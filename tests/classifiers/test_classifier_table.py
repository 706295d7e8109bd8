"""The published classifier table in one command, on MIMIC-CXR's layout with invented patients."""

from __future__ import annotations

import csv
import hashlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mimic_rehearsal import write_layout
from PIL import Image

from rayscribe.data.manifest import read_manifest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "classifier_table.py"
PRINTED = ("Pneumonia", "Pleural Effusion", "Pneumothorax", "Atelectasis", "Cardiomegaly", "Consolidation")


def write_mimic(root: Path) -> None:
    """An image of its own for every file, and enough patients in every split."""
    write_layout(root, studies=600)
    generator = np.random.default_rng(0)
    for path in sorted(root.rglob("*.jpg")):
        path.unlink()
        Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    (table,) = root.glob("*split.csv")
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["split"] = ("train", "train", "validate", "test")[
            hashlib.sha256(row["subject_id"].encode()).digest()[0] % 4
        ]
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
def test_one_command_makes_the_table_and_a_second_call_reads_it(
    rayscribe: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mimic").mkdir()
    write_mimic(tmp_path / "mimic")
    data, labels, out = tmp_path / "mimic.parquet", tmp_path / "mimic.chexpert.csv", tmp_path / "table"
    rayscribe("prepare", "mimic-cxr", tmp_path / "mimic", "--out", data)
    sizes = "--backbone.name test_resnet --images.size 64 --images.resize 64"
    arguments = ["--data", data, "--labels", labels, "--out", out, "--features", tmp_path / "features"]
    arguments += [f"--network={sizes} --train.epochs 1 --train.workers 0", f"--linear={sizes}"]

    def called() -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    told = called()
    begun = [line.split()[2] for line in told.splitlines() if line.startswith("rayscribe classify")]
    assert begun == ["train", "test", "train", "test"]
    table = (out / "table.md").read_text()
    assert all(f"| {name} |" in table for name in PRINTED) and "linear: AUC" in table.splitlines()[0]
    for recipe in ("binary", "linear"):
        result = json.loads((out / f"{recipe}.json").read_text())
        for protocol in result["protocol"].values():
            assert (protocol["views"], protocol["one_per_subject"]) == ("pa", True)
            assert (protocol["uncertain"], protocol["blank"]) == ("drop", "drop")
    manifest = read_manifest(data)
    patients = {one.subject for one in manifest.split("test") if "pa" in one.views}
    assert max(one["studies"] for one in result["findings"].values()) <= len(patients)
    assert "classify" not in called() and (out / "table.md").read_text() == table
