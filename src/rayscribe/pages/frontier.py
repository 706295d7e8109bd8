"""The frontier of overlap against findings, as a picture and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rayscribe.evaluation.frontier import OVERLAPS, beaten
from rayscribe.metrics.clinical import DEFAULT_MACRO
from rayscribe.pages.plots import FLOOR_STYLES, axes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE, _SYSTEM = "#1f5fa8", "#d0021b"
_TITLES = {"bleu4": "BLEU-4", "cider": "CIDEr"}


def frontier_figure(result: Mapping[str, Any]) -> Figure:
    """A panel for each overlap score: the line of what one fit reaches when it aims, the floors, the systems in red."""
    figure, panels = axes_of(9, 4, columns=len(OVERLAPS))
    for axes, score in zip(panels, OVERLAPS, strict=True):
        aims = [point["scores"] for point in result["points"] if point["kind"] == "aim"]
        aims.sort(key=lambda scores: (scores[DEFAULT_MACRO], -scores[score]))
        best = [
            one for number, one in enumerate(aims) if all(one[score] > later[score] for later in aims[number + 1 :])
        ]
        axes.plot(
            [one[score] for one in best], [one[DEFAULT_MACRO] for one in best], color=_LINE, label="one fit, its aims"
        )
        axes.plot([one[score] for one in aims], [one[DEFAULT_MACRO] for one in aims], ".", color=_LINE)
        for floor, places in _by_floor(result["points"], score).items():
            marker, colour = FLOOR_STYLES[floor]
            axes.plot(*zip(*places), marker, color=colour, linestyle="", markersize=6, label=floor.replace("_", " "))
        for point in result["points"]:
            if point["kind"] == "system":
                place = point["scores"][score], point["scores"][DEFAULT_MACRO]
                axes.plot(*place, "o", color=_SYSTEM)
                axes.annotate(point["name"], place, color=_SYSTEM, xytext=(4, 4), textcoords="offset points")
        axes.set_xlabel(_TITLES[score])
        axes.grid(color="#eeeeee", linewidth=0.6)
    panels[0].set_ylabel("macro F1 of 14 observations")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=8, frameon=False, fontsize=9)
    return figure


def _by_floor(points: Sequence[Mapping[str, Any]], score: str) -> dict[str, list[tuple[float, float]]]:
    """Places of each floor, of all its aims."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point["kind"] == "floor":
            place = point["scores"][score], point["scores"][DEFAULT_MACRO]
            found.setdefault(point["name"].partition("/")[0], []).append(place)
    return found


def frontier_text(result: Mapping[str, Any]) -> str:
    """A line for each point, and which systems an aim beats."""
    lines = [f"{'':30}{'BLEU-4':>9}{'CIDEr':>9}{'macro F1':>10}{'distinct':>10}"]
    for point in result["points"]:
        scores = point["scores"]
        numbers = f"{scores['bleu4']:9.3f}{scores['cider']:9.3f}{scores[DEFAULT_MACRO]:10.3f}{point['distinct']:10}"
        lines.append(f"{point['kind'] + ' ' + point['name']:30}{numbers}")
    for point in result["points"]:
        if point["kind"] == "system":
            for score in OVERLAPS:
                if better := beaten(point, result["points"], score):
                    lines.append(f"{point['name']}: below the frontier in {_TITLES[score]} and findings ({better[0]})")
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"]), result["disclaimer"]])
