"""The table of a comparison: for a terminal, for LaTeX, and as a page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from rayscribe.metrics.statistics import p_text
from rayscribe.pages.layout import bullets, definitions, page, table

_LEVEL = 0.05


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
            line = f"  {system:{width}}{score['value']:>8.4f}  [{score['low']:.4f}, {score['high']:.4f}]{_seeds(score)}"
            if test:
                line += (
                    f"  {test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}] p {p_text(test['p_holm'])}"
                    f"{' *' if test['p_holm'] < _LEVEL else ''}"
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
            mark = r"\textsuperscript{*}" if test and test["p_holm"] < _LEVEL else ""
            cells.append(rf"{score['value']:.3f}{mark} {{\scriptsize [{score['low']:.3f}, {score['high']:.3f}]}}")
        lines.append(" & ".join([_tex(system), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def compare_page(result: Mapping[str, Any]) -> str:
    """Scores of every system, differences from the first, seeds, protocol."""
    alarms = [f"{name}: {alarm}" for name, system in result["systems"].items() for alarm in system["alarms"]]
    systems = list(result["systems"])
    body = "\n".join(
        [
            bullets(alarms, kind="alarms"),
            f"<p>{html.escape(str(result['studies']))} studies, one protocol. "
            f"Intervals: {html.escape(result['interval'])}.</p>",
            "<h2>Scores</h2>",
            table(["score", "constant report", *map(html.escape, systems)], [_row(result, n) for n in result["names"]]),
            f"<h2>Differences from {html.escape(result['against'])}</h2>",
            *(_differences(name, tests) for name, tests in result["differences"].items()),
            f"<p>{html.escape(result['test'])}. Detectable: the smallest true difference that so many studies show with "
            "power .8.</p>",
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
        cells.append(
            f"<b>{score['value']:.3f}</b> ({score['low']:.3f} to {score['high']:.3f}){html.escape(_seeds(score))}"
        )
    return [html.escape(name), "–" if floor is None else f"{floor:.3f}", *cells]


def _differences(name: str, tests: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [
            html.escape(score),
            f"<b>{test['difference']:+.3f}</b>",
            f"{test['low']:+.3f} to {test['high']:+.3f}",
            html.escape(p_text(test["p"])),
            html.escape(p_text(test["p_holm"])) + (" *" if test["p_holm"] < _LEVEL else ""),
            f"{test['detectable']:.3f}",
        ]
        for score, test in tests.items()
    ]
    header = ["score", "difference", "95 % interval", "p", "p, Holm", "detectable"]
    return table(header, rows, caption=html.escape(name))


def _seeds(score: Mapping[str, Any]) -> str:
    if score["deviation"] is None:
        return ""
    return f" sd {score['deviation']:.4f} of {', '.join(f'{seed:.4f}' for seed in score['seeds'])}"


def _tex(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text
