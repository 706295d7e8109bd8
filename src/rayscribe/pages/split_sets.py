"""The scores of a set of splits: for a terminal, and as a page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from rayscribe.evaluation.split_sets import alarm_text
from rayscribe.metrics.families import headline_names
from rayscribe.pages.layout import bullets, definitions, page, table

_LEAST_WIDTH = 9
_EXPLAINED = "sd, low, high: standard deviation, smallest and largest value over the splits; floors: their means"


def split_set_text(result: Mapping[str, Any]) -> str:
    """What `rayscribe evaluate` prints of a set: alarms, then every headline score over the splits beside its floors."""
    signature, summary = result["signature"], result["summary"]
    studies = [one["studies"] for one in result["splits"].values()]
    size = str(studies[0]) if len(set(studies)) == 1 else f"{min(studies)} to {max(studies)}"
    names, floors = headline_names(summary["model"]), summary["floors"]
    first = max(len(name) for name in names) + 1
    columns = ["model", "sd", "low", "high", *floors]
    widths = [max(_LEAST_WIDTH, len(name) + 2) for name in columns]
    lines = [f"ALARM  {alarm_text(alarm)}" for alarm in result["alarms"]]
    lines += [
        f"{len(studies)} splits, {size} studies each, split {signature['split']}, {signature['section']}, "
        f"references {signature['references']}, labels by {signature['labeler']}",
        " " * first + "".join(f"{name:>{width}}" for name, width in zip(columns, widths)),
    ]
    for name in names:
        cells = [_number(value, 4) for value in _row(summary["model"][name], floors, name)]
        lines.append(f"{name:{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths)))
    lines += [_EXPLAINED, *(f"note: {note}" for note in result["notes"])]
    return "\n".join([*lines, result["disclaimer"]])


def split_set_page(result: Mapping[str, Any]) -> str:
    """The same as a page, with the scores and alarms of every split. It quotes no report."""
    summary, splits = result["summary"], result["splits"]
    names, floors = headline_names(summary["model"]), summary["floors"]
    alarms = [alarm_text(alarm) for alarm in result["alarms"]]
    over = [
        [html.escape(name), *(_number(value, 3) for value in _row(summary["model"][name], floors, name))]
        for name in names
    ]
    header = ["score", "mean", "sd", "low", "high", *(html.escape(name.replace("_", " ")) for name in floors)]
    body = "\n".join(
        [
            bullets(alarms, kind="alarms") if alarms else '<p class="fine">No alarm in any split.</p>',
            f"<p>{len(splits)} splits of one data set.</p>",
            "<h2>Scores over the splits</h2>",
            table(header, over),
            f"<p>{_EXPLAINED}.</p>",
            bullets(result["notes"]),
            "<h2>Every split</h2>",
            _every_split(result, names),
            *(_alarms_of(name, one["alarms"]) for name, one in splits.items() if one["alarms"]),
            "<h2>Protocol</h2>",
            definitions(result["signature"]),
        ]
    )
    return page("Evaluation of chest X-ray reports over several splits", body)


def _row(score: Mapping[str, Any], floors: Mapping[str, Any], name: str) -> list[float | None]:
    """The model's mean, deviation and range, and the mean of every floor."""
    own = [score[key] for key in ("mean", "deviation", "low", "high")]
    return own + [floor[name]["mean"] if name in floor else None for floor in floors.values()]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _every_split(result: Mapping[str, Any], names: Sequence[str]) -> str:
    splits = result["splits"]
    counts = [
        ["studies", *(str(one["studies"]) for one in splits.values())],
        ["training studies", *(str(result["training_studies"][name]) for name in splits)],
    ]
    rows = []
    for name in names:
        scores = [one["scores"][name] for one in splits.values()]
        cells = [f"<b>{one['value']:.3f}</b> ({one['low']:.3f} to {one['high']:.3f})" for one in scores]
        rows.append([html.escape(name), *cells])
    caption = "With 95 % intervals over the studies of the split"
    return table(["score", *map(html.escape, splits)], [*counts, *rows], caption=caption)


def _alarms_of(split: str, alarms: Sequence[str]) -> str:
    return f"<h3>Alarms of {html.escape(split)}</h3>" + bullets(alarms)
