"""A classifier's scores for a terminal or a document, laid out as the system's table: accuracy, F1, AUC by finding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_COLUMNS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
    "calibration_error": "calibration error",
}


def score_table(result: Mapping[str, Any]) -> str:
    """Markdown; every score with its 95 % interval, and its floor without images in brackets."""
    header = ["finding", "n", "present", *_COLUMNS.values()]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for name, one in result["findings"].items():
        cells = [_cell(one["scores"][key], one["floors"].get(key)) for key in _COLUMNS]
        lines.append(f"| {name} | {one['studies']} | {one['present']} | {' | '.join(cells)} |")
    means = " | ".join(f"{result['macro'][key]:.3f}" for key in _COLUMNS)
    lines.append(f"| mean of {len(result['findings'])} | | | {means} |")
    lines += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    one = next(iter(result["protocol"].values()))
    lines += [
        f"split {result['split']}; {result['intervals']}; in brackets what needs no image: the more frequent answer, "
        '"present" for all, chance, the prevalence',
        f"labels: {one['labels']}; uncertain {one['uncertain']}, not mentioned {one['blank']}; views {one['views']}; threshold "
        f"by {one['threshold']}; calibration by {one['calibration']}",
        str(result["disclaimer"]),
    ]
    return "\n".join(lines)


def _cell(score: Mapping[str, float], floor: float | None) -> str:
    if math.isnan(score["value"]):
        return "none"
    beside = "" if floor is None else f" [{floor:.3f}]"
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}){beside}"
