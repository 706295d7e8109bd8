"""Consensus on several splits of a data set: findings, overlap and distinct reports, mean and standard deviation.

    rayscribe resplit iu.parquet --seeds 5 --out splits                          # and with --no-shared-reports
    python experiments/consensus.py splits --weights mobilenetv2_100.safetensors --features cache --out runs

Each split's model is fitted on its training studies alone; strength, thresholds and gamma are chosen there by leaving groups
out. A split's test part is scored once, here. Each split adds a line to OUT/results.jsonl; one that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.api.models import open_reporter
from rayscribe.config import BackboneConfig
from rayscribe.data.manifest import read_manifest
from rayscribe.data.split_reports import cleaned_report
from rayscribe.drafts import DecodingConfig
from rayscribe.labels import OBSERVATIONS, POSITIVE
from rayscribe.methods.consensus import consensus
from rayscribe.metrics.classification import finding_scores
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.training.run import train_method


def scored(data: Path, run: Path, options: Any, part: str) -> dict[str, Any]:
    """Fits on a split and scores its test part."""
    run_config = consensus()
    method = replace(run_config.method, aim=options.aim, utility=options.utility)
    backbone = BackboneConfig(name=options.backbone, weights=str(options.weights), trainable=False)
    config = replace(run_config, method=method, backbone=backbone)
    fitted = train_method(config, data, run, features=options.features).scores
    writer, manifest = open_reporter(run, device="cpu"), read_manifest(data)
    studies = writer.studies(manifest, part)
    reporter = writer.reporter(studies, states=None, features=options.features)
    drafts = reporter.draft(studies, DecodingConfig())
    references = [cleaned_report(study, config.text) for study in studies]
    own, wanted = (RuleLabeler().label(texts) == POSITIVE for texts in ([one.reports[0] for one in drafts], references))
    normal = np.zeros_like(wanted)
    normal[:, OBSERVATIONS.index("No Finding")] = True
    f1 = f1_by_observation(own, wanted)
    auroc = {
        name: float(
            finding_scores(np.array([one.probabilities[name] for one in drafts]), wanted[:, place], 0.5)["auroc"][0]
        )
        for place, name in enumerate(OBSERVATIONS)
        if name in drafts[0].probabilities and wanted[:, place].sum() >= 5
    }
    seen = {cleaned_report(study, config.text) for study in manifest.split("train")}
    return {
        "data": str(data),
        "fitted": fitted,
        "macro_f1": float(f1.mean()),
        "macro_f1_always_normal": float(f1_by_observation(normal, wanted).mean()),
        "micro_f1_without_no_finding": micro(own[:, 1:], wanted[:, 1:]),
        "f1": dict(zip(OBSERVATIONS, f1.tolist(), strict=True)),
        "auroc": auroc,
        "distinct": len({one.reports[0] for one in drafts}),
        "studies": len(studies),
        "seen_in_train": float(np.mean([reference in seen for reference in references])),
        **overlap_scores([one.reports[0] for one in drafts], references),
    }


def f1_by_observation(own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """0 where nothing is positive in either."""
    found: np.ndarray = 2 * (own & wanted).sum(0) / np.maximum(1, own.sum(0) + wanted.sum(0))
    return found


def micro(own: np.ndarray, wanted: np.ndarray) -> float:
    return float(2 * (own & wanted).sum() / max(1, own.sum() + wanted.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, help="a folder of manifests, or one manifest")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="test")
    parser.add_argument("--aim", default="findings")
    parser.add_argument("--utility", default="bleu4=1,cider=1")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    manifests = sorted(options.splits.glob("*.parquet")) if options.splits.is_dir() else [options.splits]
    for data in manifests:
        if str(data) not in {line["data"] for line in lines}:
            lines.append(scored(data, options.out / data.stem, options, options.part))
            with open(results, "a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    for name in (
        "macro_f1",
        "macro_f1_always_normal",
        "micro_f1_without_no_finding",
        "bleu4",
        "rouge_l",
        "cider",
        "distinct",
    ):
        values = [line[name] for line in lines]
        print(
            f"{name:28} {np.mean(values):8.4f} +- {np.std(values, ddof=min(1, len(values) - 1)):.4f}   {np.round(values, 4)}"
        )
    for name in OBSERVATIONS:
        areas = [line["auroc"][name] for line in lines if name in line["auroc"]]
        f1 = np.mean([line["f1"][name] for line in lines])
        print(f"{name:28} F1 {f1:.3f}   AUROC {np.mean(areas) if areas else float('nan'):.3f} ({len(areas)} splits)")


if __name__ == "__main__":
    main()
