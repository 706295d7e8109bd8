"""A score file as lines for a terminal: alarms first, then every headline score with its interval and its floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayscribe.metrics.families import headline_names
from rayscribe.metrics.statistics import p_text

SHOWN_FLOORS = (
    *("best_constant", "always_normal", "every_finding", "corners", "scanner", "context_form", "thumbnails"),
    *("constant", "most_frequent", "most_similar", "nearest_image", "template", "classifier_template", "shuffled"),
)
"Floors of the page, in order."
_PRINTED = (*SHOWN_FLOORS[:7], "most_similar", "classifier_template", "shuffled")
"Those for which a terminal has room."


def summary(result: Mapping[str, Any]) -> str:
    """The text that `rayscribe evaluate` prints."""
    signature = result["signature"]
    lines = [f"ALARM  {alarm}" for alarm in result["alarms"]]
    lines += [
        f"{result['studies']} studies, split {signature['split']}, {signature['section']}, "
        f"references {signature['references']}, labels by {signature['labeler']}",
        *_table(result),
    ]
    if not result["floors"].get("constant"):
        lines.append("No constant floor: it is chosen on train and val, which this manifest lacks.")
    lines += [f"note: {note}" for note in result["notes"]]
    lines += [_subset_line(result), _diversity_line(result), f"interval: {result['interval']}", result["disclaimer"]]
    return "\n".join(lines)


def _table(result: Mapping[str, Any]) -> list[str]:
    floors = [name for name in _PRINTED if name in result["floors"]]
    names = headline_names(result["scores"])
    width = max(len(name) for name in names) + 1
    header = f"{'':{width}}{'model':>8}{'95 % interval':>18}" + "".join(f"{name:>17}" for name in floors) + f"{'p':>8}"
    lines = [header]
    for name in names:
        score = result["scores"][name]
        bounds = f"[{score['low']:.4f}, {score['high']:.4f}]"
        beside = [_floor(result["floors"][floor], name) for floor in floors]
        test = floor_test(result, name)
        lines.append(
            f"{name:{width}}{score['value']:>8.4f}{bounds:>18}"
            + "".join(f"{text:>17}" for text in beside)
            + f"{p_text(test['p_holm']) if test else '':>8}"
        )
    about = (
        "p: model against the constant report, clinical scores against always normal; paired randomisation test, Holm"
    )
    return [*lines, about]


def floor_test(result: Mapping[str, Any], name: str) -> Mapping[str, float] | None:
    """The test of a score against a floor: clinical ones against always normal where there is such a report, else constant."""
    found: Mapping[str, float] | None = result.get("against_always_normal", {}).get(name)
    return found or result["against_constant"].get(name)


def _floor(floor: Mapping[str, Any], name: str) -> str:
    return f"{floor['scores'][name]['value']:.4f}" if name in floor["scores"] else "-"


def _subset_line(result: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {part['scores']['bleu4']['value']:.4f} ({part['studies']})"
        for name, part in result["subsets"].items()
        if part["scores"]
    ]
    return f"bleu4 by subset: {', '.join(parts)}; normal by {result['normal_by']}"


def _diversity_line(result: Mapping[str, Any]) -> str:
    diverse: Mapping[str, float] = result["diversity"]
    tests: Sequence[str] = [
        f"{name} {test['value']:.3f} against {test['permuted']:.3f} shuffled (p {p_text(test['p'])})"
        for name, test in result["grounding"].items()
    ]
    return (
        f"distinct reports {diverse['distinct_ratio']:.3f} of all; the most frequent {diverse['top_share']:.3f}\n"
        f"own image or any other: {'; '.join(tests)}"
    )
