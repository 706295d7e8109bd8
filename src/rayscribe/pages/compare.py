"""The table of a comparison: for a terminal, for LaTeX, and as a page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from rayscribe.metrics.statistics import p_text
from rayscribe.pages.layout import bullets, definitions, page, table

_LEVEL = 0.05
_SMALL_BOUNDS = r" {{\scriptsize [{:.3f}, {:.3f}]}}"
_DETECTABLE = " Detectable: the smallest true difference that so many studies show with power .8."


def compare_text(result: Mapping[str, Any]) -> str:
    """One block per score: every system with its interval, its difference from the first, and p."""
    lines = [f"ALARM  {name}: {alarm}" for name, system in result["systems"].items() for alarm in system["alarms"]]
    width = max(len(name) for name in [*result["systems"], "constant report"]) + 2
    for name in result["names"]:
        lines.append(name)
        if name in result["floor"]:
            lines.append(f"  {'constant report':{width}}{result['floor'][name]:>8.4f}")
        for system, facts in result["systems"].items():
            score, test = facts["scores"][name], result["differences"].get(system, {}).get(name)
            line = f"  {system:{width}}{score['value']:>8.4f}{_bounds(score, '  [{:.4f}, {:.4f}]')}{_spread(score)}"
            if test:
                line += (
                    f"  {test['difference']:+.4f}{_bounds(test, ' [{:+.4f}, {:+.4f}]')}{_p(test, ' p ')}{_mark(test)}"
                )
            lines.append(line)
    lines += [f"differences and *: against {result['against']}; {result['test']}", f"intervals: {result['interval']}"]
    lines += [f"note: {note}" for note in result["notes"]]
    return "\n".join([*lines, result["disclaimer"]])


def compare_latex(result: Mapping[str, Any]) -> str:
    """A tabular for booktabs; an asterisk marks a corrected p below .05 against the first system."""
    names = result["names"]
    lines = [
        f"% {result['disclaimer']}",
        f"% {result['test']}; {result['interval']}",
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        r"\toprule",
        " & ".join(["", *(_tex(name) for name in names)]) + r" \\",
        r"\midrule",
    ]
    if result["floor"]:
        cells = [f"{result['floor'][name]:.3f}" if name in result["floor"] else "--" for name in names]
        lines.append(" & ".join([r"\emph{constant report}", *cells]) + r" \\")
    for system, facts in result["systems"].items():
        cells = []
        for name in names:
            score, test = facts["scores"][name], result["differences"].get(system, {}).get(name)
            mark = r"\textsuperscript{*}" if test and _mark(test) else ""
            cells.append(f"{score['value']:.3f}{mark}{_bounds(score, _SMALL_BOUNDS)}")
        lines.append(" & ".join([_tex(system), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def compare_page(result: Mapping[str, Any]) -> str:
    """Scores of every system, differences from the first, seeds, protocol."""
    alarms = [f"{name}: {alarm}" for name, system in result["systems"].items() for alarm in system["alarms"]]
    systems = list(result["systems"])
    body = "\n".join(
        [
            bullets(alarms, kind="alarms"),
            f"<p>{html.escape(_size(result))}, one protocol. Intervals: {html.escape(result['interval'])}.</p>",
            "<h2>Scores</h2>",
            table(["score", "constant report", *map(html.escape, systems)], [_row(result, n) for n in result["names"]]),
            f"<h2>Differences from {html.escape(result['against'])}</h2>",
            *(_differences(name, tests) for name, tests in result["differences"].items()),
            f"<p>{html.escape(result['test'])}.{'' if 'splits' in result else _DETECTABLE}</p>",
            bullets(result["notes"]),
            "<h2>Protocol</h2>",
            definitions(result["signature"]),
        ]
    )
    return page("Comparison of report generators", body)


def _row(result: Mapping[str, Any], name: str) -> list[str]:
    floor = result["floor"].get(name)
    cells = []
    for facts in result["systems"].values():
        score = facts["scores"][name]
        cells.append(f"<b>{score['value']:.3f}</b>{_bounds(score, ' ({:.3f} to {:.3f})')}{html.escape(_spread(score))}")
    return [html.escape(name), "–" if floor is None else f"{floor:.3f}", *cells]


def _differences(name: str, tests: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [
            html.escape(score),
            f"<b>{test['difference']:+.3f}</b>",
            _bounds(test, "{:+.3f} to {:+.3f}"),
            "" if test["p"] is None else html.escape(p_text(test["p"])),
            html.escape(_p(test)) + _mark(test),
            *([f"{test['detectable']:.3f}"] if "detectable" in test else []),
        ]
        for score, test in tests.items()
    ]
    header = ["score", "difference", "95 % interval", "p", "p, Holm", "detectable"]
    return table(header[: len(rows[0])], rows, caption=html.escape(name))


def _size(result: Mapping[str, Any]) -> str:
    if "splits" not in result:
        return f"{result['studies']} studies"
    return ", ".join(f"{split}: {count} studies" for split, count in result["studies"].items())


def _bounds(facts: Mapping[str, Any], form: str) -> str:
    """The interval; empty where there is none, as over a single split."""
    return "" if facts["low"] is None else form.format(facts["low"], facts["high"])


def _p(test: Mapping[str, Any], before: str = "") -> str:
    return "" if test["p_holm"] is None else before + p_text(test["p_holm"])


def _mark(test: Mapping[str, Any]) -> str:
    return " *" if test["p_holm"] is not None and test["p_holm"] < _LEVEL else ""


def _spread(score: Mapping[str, Any]) -> str:
    """Deviation and values of the seeds, or of the splits."""
    if score["deviation"] is None:
        return ""
    values = score["values"].values() if "values" in score else score["seeds"]
    return f" sd {score['deviation']:.4f} of {', '.join(f'{value:.4f}' for value in values)}"


def _tex(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text
