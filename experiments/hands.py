"""Five drawn radiologists with habits: do the floors see who dictates, and does consensus, aimed at findings, ignore it?

    python experiments/fetch_weights.py mobilenetv2_100 --out weights
    python experiments/hands.py --weights weights/mobilenetv2_100.safetensors --out runs/hands

For each seed a world of 1,000 studies (`rayscribe prepare phantom --hands 5`), and consensus on it with four aims. It writes
whole training reports, whose hand is known. Printed for each aim: overlap, macro F1, and how often a draft is in the words of
the hand that dictated, beside what chance gives and the floors. A seed adds lines to OUT/results.jsonl; those that are there
are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.api.models import open_reporter
from rayscribe.cli.prepare import write_phantom_manifest
from rayscribe.config import BackboneConfig
from rayscribe.data.audit import find_copies
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.split_reports import cleaned_report
from rayscribe.drafts import DecodingConfig
from rayscribe.evaluation.evaluate import evaluate_predictions
from rayscribe.evaluation.protocol import Protocol
from rayscribe.evaluation.split_audit import wording_clues
from rayscribe.methods.consensus import consensus
from rayscribe.training.run import train_method

AIMS = {
    "findings": {"compose": False},
    "clinical": {"compose": False, "aim": "utility", "utility": "clinical=1"},
    "bleu4": {"compose": False, "aim": "utility", "utility": "bleu4=1"},
    "cider": {"compose": False, "aim": "utility", "utility": "cider=1"},
}
SCORES = ("bleu4", "rouge_l", "cider", "ce_f1_macro_14_uncertain_negative", "ce_f1_micro_14_uncertain_negative")
FLOORS = ("best_constant", "always_normal", "corners", "scanner", "context_form", "thumbnails")


def hands_of(data: Path) -> dict[str, str]:
    """The hand of every study."""
    with open(data.with_suffix("") / "truth.csv", newline="") as file:
        return {row["id"]: row["hand"] for row in csv.DictReader(file)}


def aimed(name: str, data: Path, manifest: Manifest, options: Any) -> dict[str, Any]:
    """Fits with this aim and scores the test part."""
    base = consensus()
    backbone = BackboneConfig(name=options.backbone, weights=str(options.weights), trainable=False)
    config = replace(base, method=replace(base.method, **AIMS[name]), backbone=backbone)
    run = data.parent / f"{data.stem}-{name}"
    if not (run / "model.safetensors").exists():
        train_method(config, data, run, features=options.features)
    writer = open_reporter(run, device="cpu")
    studies = writer.studies(manifest, "test")
    drafts = writer.reporter(studies, states=None, features=options.features).draft(studies, DecodingConfig())
    reports = {study.id: draft.reports[0] for study, draft in zip(studies, drafts, strict=True)}
    result = evaluate_predictions(reports, manifest, split="test", protocol=Protocol())
    hands, by_report = hands_of(data), {}
    for study in manifest.split("train"):
        by_report.setdefault(cleaned_report(study, config.text), set()).add(hands[study.id])
    own = [float(hands[study]) in map(float, by_report[text]) for study, text in reports.items()]
    chance = [len(by_report[text]) / 5 for text in reports.values()]
    return {
        "scores": {score: result["scores"][score]["value"] for score in SCORES},
        "floors": {
            floor: {score: one["scores"][score]["value"] for score in SCORES}
            for floor, one in result["floors"].items()
            if floor in FLOORS
        },
        "distinct": len(set(reports.values())),
        "own_hand": float(np.mean(own)),
        "own_hand_by_chance": float(np.mean(chance)),
        "alarms": result["alarms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(line["seed"], line["aim"]) for line in lines}
    for seed in range(options.seeds):
        data = options.out / f"world-{seed}.parquet"
        if not data.exists():
            write_phantom_manifest(data, PhantomConfig(studies=options.studies, seed=seed, size=256, hands=5))
        manifest = read_manifest(data)
        for aim in AIMS:
            if (seed, aim) not in done:
                clues = wording_clues(manifest.studies, find_copies(manifest.studies))
                line = {"seed": seed, "aim": aim, "clues": clues.get("auroc", {})} | aimed(aim, data, manifest, options)
                lines.append(line)
                with open(results, "a") as file:
                    file.write(json.dumps(line) + "\n")
    table(lines)


def table(lines: list[dict[str, Any]]) -> None:
    """Means and standard deviations over the seeds."""

    def row(name: str, values: list[list[float]]) -> None:
        cells = [f"{np.mean(one):.3f} ({np.std(one, ddof=min(1, len(one) - 1)):.3f})" for one in values]
        print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))

    print(f"{'':24}" + "".join(f"{name[:16]:>18}" for name in (*SCORES, "distinct", "own hand", "by chance")))
    for aim in AIMS:
        mine = [line for line in lines if line["aim"] == aim]
        scores = [[line["scores"][score] for line in mine] for score in SCORES]
        row(aim, [*scores, *([line[key] for line in mine] for key in ("distinct", "own_hand", "own_hand_by_chance"))])
    first = [line for line in lines if line["aim"] == "findings"]
    for floor in FLOORS:
        row(f"floor {floor}", [[line["floors"][floor][score] for line in first] for score in SCORES])
    for name in ("corners", "scanner", "context_form"):
        if areas := [line["clues"][name] for line in first if name in line["clues"]]:
            row(f"AUROC by {name}", [areas])


if __name__ == "__main__":
    main()
