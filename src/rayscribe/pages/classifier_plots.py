"""Plots of a classifier's scores: ROC, precision and recall, calibration; one panel per finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rayscribe.errors import DISCLAIMER
from rayscribe.metrics.classification import CALIBRATION_BINS, precision_recall_curve, roc_curve
from rayscribe.pages.plots import axes_of, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _FLOOR = "#1f5fa8", "#9a9a9a"


def write_curves(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes roc, precision_recall and calibration as SVG and PNG; returns the files."""
    kinds: dict[str, Callable[[Axes, Mapping[str, Any]], None]] = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "calibration": _calibration,
    }
    written = []
    for kind, draw in kinds.items():
        count = len(result["findings"])
        columns = min(4, count)
        rows = -(-count // columns)
        figure, panels = axes_of(3 * columns, 3 * rows + 0.5, columns, rows)
        for axes in panels[count:]:
            axes.set_axis_off()
        for axes, (name, one) in zip(panels[:count], result["findings"].items(), strict=True):
            draw(axes, one)
            axes.set_title(f"{name} ({one['present']} of {one['studies']})", fontsize=9)
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
        figure.supxlabel(DISCLAIMER, fontsize=8)
        written += save_figure(figure, folder, kind)
    return written


def _roc(axes: Axes, one: Mapping[str, Any]) -> None:
    wrong, found = roc_curve(*_arrays(one))
    axes.plot([0, 1], [0, 1], color=_FLOOR, linestyle="--", linewidth=1)
    axes.plot(wrong, found, color=_LINE)
    axes.set_xlabel("1 - specificity", fontsize=8)
    axes.set_ylabel("sensitivity", fontsize=8)
    axes.annotate(_told(one["scores"]["auroc"], "AUROC"), (0.98, 0.04), ha="right", fontsize=8)


def _precision_recall(axes: Axes, one: Mapping[str, Any]) -> None:
    recall, precision = precision_recall_curve(*_arrays(one))
    axes.axhline(one["prevalence"], color=_FLOOR, linestyle="--", linewidth=1)
    axes.step(recall, precision, where="pre", color=_LINE)
    axes.set_xlabel("recall", fontsize=8)
    axes.set_ylabel("precision", fontsize=8)
    axes.annotate(_told(one["scores"]["average_precision"], "AP"), (0.98, 0.92), ha="right", fontsize=8)


def _calibration(axes: Axes, one: Mapping[str, Any]) -> None:
    probability_R, is_present_R = _arrays(one)
    bin_R = np.minimum((probability_R * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    filled = [place for place in range(CALIBRATION_BINS) if (bin_R == place).any()]
    said = [probability_R[bin_R == place].mean() for place in filled]
    true = [is_present_R[bin_R == place].mean() for place in filled]
    axes.plot([0, 1], [0, 1], color=_FLOOR, linestyle="--", linewidth=1)
    axes.plot(said, true, color=_LINE, marker="o", markersize=3)
    axes.set_xlabel("probability", fontsize=8)
    axes.set_ylabel("share present", fontsize=8)
    axes.annotate(_told(one["scores"]["calibration_error"], "error"), (0.98, 0.04), ha="right", fontsize=8)


def _arrays(one: Mapping[str, Any]) -> tuple[Any, Any]:
    return np.array(one["curve"]["probability"]), np.array(one["curve"]["present"], bool)


def _told(score: Mapping[str, float], name: str) -> str:
    return f"{name} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
