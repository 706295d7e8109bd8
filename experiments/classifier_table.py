"""The classifier table of Koehler, Hsieh and Tang (2024) on a manifest: six findings, PA, one image a patient; two classifiers.

    rayscribe prepare mimic-cxr FOLDER --out mimic.parquet                       # also writes mimic.chexpert.csv
    python experiments/classifier_table.py --data mimic.parquet --labels mimic.chexpert.csv --out runs/table \
        --network="--backbone.weights pretrained" --linear="--backbone.weights pretrained"

Trains `classify train binary` (their recipe, a network a finding) and `classify train linear` on the same cohort and scores
both with `classify test`. Each step prints its command; run it again to resume. The test split is scored once per classifier.
Writes OUT/table.md; a finding without studies of both kinds in a split has no row.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayscribe.cli.main import run
from rayscribe.files import write_text

PRINTED = ("Pneumonia", "Pleural Effusion", "Pneumothorax", "Atelectasis", "Cardiomegaly", "Consolidation")
COHORT = ["--cohort.views", "pa", "--cohort.one-per-subject", "--cohort.uncertain", "drop", "--cohort.blank", "drop"]
SCORES = ("accuracy", "f1", "auroc")


def tested(recipe: str, changes: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one recipe, or reads the scores of an earlier call."""
    folder, scores = options.out / recipe, options.out / f"{recipe}.json"
    if not scores.exists():
        cached = [] if options.features is None else ["--features", str(options.features)]
        if (folder / "config.yaml").exists():
            train = ["classify", "train", "--resume", "--run", str(folder)]
        else:
            cohort = ["--cohort.labels", options.labels, "--cohort.findings", *options.findings, *COHORT]
            train = ["classify", "train", recipe, "--data", str(options.data), "--run", str(folder), *cached]
            train += [*cohort, *changes]
        told(train)
        models = sorted(str(path.parent) for path in [*folder.glob("model.json"), *folder.glob("*/model.json")])
        told(["classify", "test", *models, "--data", str(options.data), "--json", str(scores), *cached])
    found: dict[str, Any] = json.loads(scores.read_text())["findings"]
    return found


def told(command: list[str]) -> None:
    """Prints and runs a command of rayscribe."""
    print(f"rayscribe {shlex.join(command)}", flush=True)
    run(command)


def table(results: dict[str, dict[str, Any]], findings: Sequence[str]) -> str:
    """Markdown: the columns of the published table for every recipe, with 95 % intervals of the AUC."""
    heads = [f"{recipe}: {score}" for recipe in results for score in ("accuracy", "F1", "AUC")]
    lines = ["| finding | n | present | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for name in findings:
        rows = [result[name] for result in results.values() if name in result]
        if len(rows) == len(results):
            cells = [shown(row["scores"][score], score) for row in rows for score in SCORES]
            lines.append(f"| {name} | {rows[0]['studies']} | {rows[0]['present']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown(score: dict[str, float], name: str) -> str:
    """A score; the area with its interval."""
    interval = f" [{score['low']:.3f}, {score['high']:.3f}]" if name == "auroc" else ""
    return f"{score['value']:.3f}{interval}"


def main() -> None:
    """Reads the options and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the manifest")
    parser.add_argument("--labels", default="codes", help="a table of the 14 observations, `rules` or `codes`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--findings", nargs="+", default=PRINTED, help="names as the labels spell them")
    parser.add_argument("--features", type=Path, help="folder of the feature cache")
    parser.add_argument("--network", default="", help="further options of `classify train binary`, in one text")
    parser.add_argument("--linear", default="", help="further options of `classify train linear`, in one text")
    options = parser.parse_args()
    results = {
        "binary": tested("binary", shlex.split(options.network), options),
        "linear": tested("linear", shlex.split(options.linear), options),
    }
    text = table(results, options.findings)
    write_text(options.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
