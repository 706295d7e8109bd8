"""Plots of a score file: floors, words, prevalence, subsets, sentences. SVG on the page, files for a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscribe.errors import InputError
from rayscribe.files import whole_file
from rayscribe.metrics.clinical import DEFAULT
from rayscribe.metrics.families import headline_names
from rayscribe.metrics.imbalance import DECILES
from rayscribe.metrics.similarity import SIMILARITY_BINS
from rayscribe.pages.summary import SHOWN_FLOORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MODEL, _SOFT = "#222222", "#1f5fa8", "#9a9a9a"
FLOOR_STYLES = {
    "constant": ("o", "#b5452c"),
    "most_frequent": ("D", "#c98a2b"),
    "always_normal": ("h", "#2f7d6d"),
    "every_finding": ("H", "#7d2f4f"),
    "most_similar": ("P", "#a2467f"),
    "best_constant": ("*", "#b5452c"),
    "corners": ("<", "#5b6bb5"),
    "scanner": (">", "#3a9bb0"),
    "context_form": ("d", "#8b3fb5"),
    "thumbnails": ("p", "#4f7a3a"),
    "nearest_image": ("s", "#7a7a7a"),
    "template": ("^", "#8a6d1f"),
    "classifier_template": ("v", "#5d7a1f"),
    "shuffled": ("x", "#444444"),
}
"Marker and colour of each floor."


def plots(result: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Every plot by name, with its caption."""
    found = {"floors": (_floors(result), "Scores with 95 % intervals, and what each floor reaches")}
    if result["imbalance"]:
        found["frequency"] = (
            _frequency(result),
            "Overlap of words by their frequency in training: decile 1 holds the most frequent words",
        )
    found["prevalence"] = (
        _prevalence(result),
        "F1 of every observation, the most frequent on top; the share is of the references",
    )
    found["subsets"] = (_subsets(result), f"Subsets of the split; normal by {result['normal_by']}")
    if result.get("sentence_similarity"):
        found["similarity"] = (
            _similarity(result["sentence_similarity"]),
            "Cosine of every report's sentence embedding with its reference's, beside floors of the same split",
        )
    return found


def svg(figure: Figure) -> str:
    """The plot as an SVG element to embed in a page."""
    target = io.StringIO()
    figure.savefig(target, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = target.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def write_plots(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes every plot as SVG and PNG; returns the files."""
    written = []
    for name, (figure, _) in plots(result).items():
        written += save_figure(figure, folder, name)
    return written


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes SVG and PNG; returns the files."""
    written = []
    for suffix in ("svg", "png"):
        path = folder / f"{name}.{suffix}"
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=suffix, bbox_inches="tight", dpi=200)
        written.append(path)
    return written


def axes_of(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure of this size in inches, and its panels row by row. Raises InputError without matplotlib."""
    try:
        import matplotlib  # half a second to import; only needed where something is drawn
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib; install it with: pip install 'rayscribe[plots]'") from error
    with matplotlib.rc_context({"svg.hashsalt": "rayscribe"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9)
    return figure, found


def _floors(result: Mapping[str, Any]) -> Figure:
    """One line per score, on a common scale of 0 to 1; CIDEr is divided by its maximum here."""
    names = headline_names(result["scores"])[::-1]
    figure, (axes,) = axes_of(8, 0.34 * len(names) + 1)
    scale = dict.fromkeys(names, 1.0)
    for name in names:
        if name.startswith("cider"):
            shown = [result["scores"][name]["high"]] + [f["scores"][name]["value"] for f in result["floors"].values()]
            scale[name] = max(1.0, *shown)
    for line, name in enumerate(names):
        score, by = result["scores"][name], scale[name]
        axes.plot([score["low"] / by, score["high"] / by], [line, line], color=_MODEL, linewidth=5, alpha=0.4)
        axes.plot(score["value"] / by, line, "|", color=_MODEL, markersize=14, markeredgewidth=2)
    for floor in SHOWN_FLOORS:
        scores = result["floors"].get(floor, {}).get("scores", {})
        marked = [(scores[name]["value"] / scale[name], line) for line, name in enumerate(names) if name in scores]
        marker, colour = FLOOR_STYLES[floor]
        if marked:
            axes.plot(*zip(*marked), marker, color=colour, markersize=6, linestyle="", label=floor)
    labels = [name if scale[name] == 1 else f"{name} / {scale[name]:.2g}" for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=5, frameon=False, fontsize=9)
    return figure


def _frequency(result: Mapping[str, Any]) -> Figure:
    figure, (axes,) = axes_of(8, 3)
    scores = [result["imbalance"]["scores"][f"token_f1_decile_{number}"] for number in range(1, DECILES + 1)]
    _bars(axes, [str(number) for number in range(1, DECILES + 1)], scores)
    axes.set_xlabel("decile of the training vocabulary, most frequent first")
    axes.set_ylabel("F1 of words")
    return figure


def _prevalence(result: Mapping[str, Any]) -> Figure:
    """One line per observation, the most frequent on top."""
    table = {name: one for name, one in result["observations"]["uncertain_negative"].items() if one["positives"]}
    order = sorted(table, key=lambda name: table[name]["prevalence"])
    figure, (axes,) = axes_of(8, 0.32 * len(order) + 0.8)
    for line, name in enumerate(order):
        f1 = table[name]["f1"]
        axes.plot([f1["low"], f1["high"]], [line, line], color=_MODEL, linewidth=5, alpha=0.4)
        axes.plot(f1["value"], line, "|", color=_MODEL, markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(order)), [f"{name}, {100 * table[name]['prevalence']:.1f} %" for name in order])
    axes.set_xlim(-0.01, 1)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_xlabel("F1 (uncertain as negative)")
    return figure


def _subsets(result: Mapping[str, Any]) -> Figure:
    shown = ("bleu4", "rouge_l", DEFAULT)
    figure, found = axes_of(8, 2.8, columns=len(shown))
    parts = {name: part for name, part in result["subsets"].items() if part["scores"]}
    for axes, name in zip(found, shown):
        scores = [part["scores"][name] for part in parts.values()]
        _bars(axes, [f"{label}\n({part['studies']})" for label, part in parts.items()], scores)
        axes.set_title(name.replace("_uncertain_negative", ""), fontsize=9)
        axes.tick_params(labelsize=8)
    return figure


def _similarity(found: Mapping[str, Any]) -> Figure:
    """The model's distribution as bars, three floors as lines; dashes are medians."""
    figure, (axes,) = axes_of(8, 3)
    edges = [place / SIMILARITY_BINS for place in range(SIMILARITY_BINS + 1)]
    axes.stairs(found["model"]["bins"], edges, fill=True, color=_MODEL, alpha=0.5, label="model")
    axes.axvline(found["model"]["median"], color=_MODEL, linestyle="--")
    for floor in ("constant", "most_similar", "shuffled"):
        if floor in found:
            colour = FLOOR_STYLES[floor][1]
            axes.stairs(found[floor]["bins"], edges, color=colour, label=floor)
            axes.axvline(found[floor]["median"], color=colour, linestyle="--", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("cosine with the reference")
    axes.set_ylabel("studies")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _bars(axes: Axes, labels: list[str], scores: list[Mapping[str, float]]) -> None:
    values = [score["value"] for score in scores]
    below = [max(0.0, score["value"] - score["low"]) for score in scores]
    above = [max(0.0, score["high"] - score["value"]) for score in scores]
    axes.bar(labels, values, color=_MODEL, alpha=0.75, yerr=[below, above], error_kw={"ecolor": _INK, "capsize": 3})
