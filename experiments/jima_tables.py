"""Score files as JIMA's tables 2 to 4 and its figure, beside the published numbers (IU X-Ray).

    .venv/bin/python experiments/jima_tables.py R2Gen=r2gen.json JIMA=jima.json [--plot deciles.png]

Published numbers: Li et al., 2025, tables 2, 3 and 4. They are not on our footing, and partly on none: `KNOWN` says what.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayscribe.metrics.imbalance import DECILES, SHARES

OVERLAP = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l")
# BLEU-1 to 4, METEOR, ROUGE-L, clinical F1; all x 100.
TABLE_2 = {
    "R2Gen": (48.80, 31.93, 23.24, 17.72, 20.21, 37.10, 63.62),
    "CMN": (45.53, 29.50, 21.47, 16.53, 18.99, 36.78, 64.83),
    "TIMER": (49.34, 32.49, 23.84, 18.61, 20.38, 38.25, 94.52),
    "JIMA": (50.50, 33.12, 24.15, 18.88, 21.16, 38.56, 96.58),
}
# F1 of infrequent and frequent words, for the shares 1/8, 1/6 and 1/4.
TABLE_3 = {
    "R2Gen": (4.46, 62.73, 2.80, 61.62, 1.16, 59.98),
    "CMN": (5.88, 55.86, 5.75, 65.12, 2.60, 63.92),
    "TIMER": (13.23, 61.89, 5.93, 67.79, 8.66, 64.00),
    "JIMA": (14.87, 62.55, 10.52, 68.82, 9.77, 66.23),
}
# BLEU-1 to 4, METEOR, ROUGE-L: normal, then abnormal.
TABLE_4 = {
    "R2Gen": ((50.50, 34.91, 25.86, 20.93, 23.66, 40.56), (42.67, 27.86, 18.47, 12.35, 15.04, 30.10)),
    "CMN": ((47.42, 32.80, 25.25, 18.72, 20.51, 38.69), (35.09, 21.42, 14.97, 11.32, 14.36, 29.85)),
    "TIMER": ((51.83, 32.43, 33.71, 20.19, 24.43, 39.39), (44.25, 26.73, 15.28, 10.76, 15.43, 33.26)),
    "JIMA": ((52.65, 37.06, 28.39, 21.56, 27.20, 42.33), (45.41, 27.95, 19.15, 15.68, 16.36, 34.59)),
}
KNOWN = """Published rows: a trained ResNet-101, cut and <unk>-mapped references; clinical F1 by a recipe that was not released
(a fine-tuned BioBERT; its size is that of a binary or micro F1, not of the 14-class macro F1). Infrequent words are there the
SUM of the bins' F1 with unclipped counts; ours beside it is the F1 of all of them together, and the published recipe in
brackets. TIMER's BLEU-3 on normal studies is above its BLEU-2, which cannot be. The released code of JIMA reaches BLEU-4 14.6
to 15.8 in its own logs; the paper's 18.88 was not reproduced by anybody."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", nargs="+", help="NAME=scores.json, as `rayscribe evaluate --json` writes them")
    parser.add_argument("--plot", type=Path, help="write the F1 by frequency of words there (PNG)")
    arguments = parser.parse_args()
    results = {
        name: json.loads(Path(path).read_text()) for name, path in (one.split("=", 1) for one in arguments.scores)
    }
    first = next(iter(results.values()))
    if any(result["signature"] != first["signature"] for result in results.values()):
        raise SystemExit("the score files were made under different protocols; `rayscribe compare` says which")
    for text in (table_2(results), table_3(results), table_4(results), observations(results), KNOWN):
        print(text, end="\n\n")
    if arguments.plot:
        draw(results, arguments.plot)


def table_2(results: Mapping[str, Any]) -> str:
    """Overlap and clinical F1: ours micro, macro, abnormal."""
    header = ["", *OVERLAP, "clinical F1", "CE micro", "CE macro", "abnormal F1"]
    rows = [[f"{name}, published", *(f"{value:.2f}" for value in row), "", "", ""] for name, row in TABLE_2.items()]
    for name, result in results.items():
        scores = {key.split("_exact")[0]: one["value"] for key, one in result["scores"].items()}
        clinical = [scores[f"ce_f1_{kind}_14_uncertain_negative"] for kind in ("micro", "macro")]
        rows.append(
            [name, *_percent(scores[key] for key in OVERLAP), "", *_percent([*clinical, scores["abnormal_f1"]])]
        )
    return _markdown("Table 2", header, rows)


def table_3(results: Mapping[str, Any]) -> str:
    """Rare against frequent words; in brackets the published recipe."""
    header = ["", *(f"{kind} 1/{share}" for share in SHARES for kind in ("infreq", "freq"))]
    rows = [[f"{name}, published", *(f"{value:.2f}" for value in row)] for name, row in TABLE_3.items()]
    for name, result in results.items():
        clean, published = result["imbalance"]["scores"], result["imbalance"]["published"]
        keys = [f"token_f1_{kind}_{share}" for share in SHARES for kind in ("infreq", "freq")]
        cells = [f"{100 * clean[key]['value']:.2f} ({100 * published[f'{key}_published']:.2f})" for key in keys]
        rows.append([name, *cells])
    return _markdown("Table 3", header, rows)


def table_4(results: Mapping[str, Any]) -> str:
    """Overlap on normal and on abnormal studies."""
    header = ["", *(f"{kind} {name}" for kind in ("normal", "abnormal") for name in OVERLAP)]
    rows = [
        [f"{name}, published", *(f"{value:.2f}" for part in parts for value in part)] for name, parts in TABLE_4.items()
    ]
    for name, result in results.items():
        cells = []
        for kind in ("normal", "abnormal"):
            scores = result["subsets"][kind]["scores"]
            values = {key.split("_exact")[0]: one["value"] for key, one in scores.items()}
            cells += _percent(values[key] for key in OVERLAP)
        rows.append([name, *cells])
    return _markdown("Table 4", header, rows)


def observations(results: Mapping[str, Any]) -> str:
    """F1 by observation, the most frequent first."""
    tables = {name: result["observations"]["uncertain_negative"] for name, result in results.items()}
    first = next(iter(tables.values()))
    rows = []
    for observation in sorted(first, key=lambda one: -first[one]["positives"]):
        cells = [f"{100 * table[observation]['f1']['value']:.1f}" for table in tables.values()]
        rows.append([observation, str(first[observation]["positives"]), *cells])
    return _markdown("F1 by observation", ["", "positives", *tables], rows)


def draw(results: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    places = range(1, DECILES + 1)
    for name, result in results.items():
        scores = result["imbalance"]["scores"]
        axes.plot(places, [scores[f"token_f1_decile_{place}"]["value"] for place in places], marker="o", label=name)
    axes.set_xticks(list(places))
    axes.set_xlabel("decile of the training vocabulary, the most frequent words first")
    axes.set_ylabel("F1 of words")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _percent(values: Any) -> list[str]:
    return [f"{100 * value:.2f}" for value in values]


def _markdown(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join([f"{title} (x 100)", "", *lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    main()
