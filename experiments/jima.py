"""JIMA's claim as an experiment on drawn X-rays with known imbalance: do its curricula raise rare words and abnormal studies?

    .venv/bin/python experiments/fetch_weights.py mobilenetv2_100 --out weights
    .venv/bin/python experiments/jima.py --weights weights/mobilenetv2_100.safetensors --out runs/jima-phantom

72 small models on cached features; about an hour on one core; resumes. Three worlds of 1,000 studies each:

    balanced    50 % normal, 20 % with a rare finding
    skewed      70 % normal,  5 % with a rare finding
    extreme     90 % normal, .5 % with a rare finding: two or three in training, so it asks about abnormal studies alone

Arms, each over the same seeds, on a frozen ImageNet MobileNetV2 (`--method.adapter`; the paper trains the image encoder):

    baseline    the plain encoder-decoder
    none        JIMA without either curriculum: entity task and fusion only
    full        both curricula, hardest first
    no_token    without the report task's curriculum
    no_label    without the entity task's curriculum
    no_fusion   both curricula, but the decoder does not see the predicted entities
    easiest     both curricula, easiest first, as the released code does
    random      both curricula, but as many studies at random: what shorter epochs do by themselves

A curriculum shortens the epochs, so the arms take unequally many steps ("steps" in the table); `random` takes about as many as
`full`, and tells the choice of studies from the shorter training. The last epoch counts, so no arm is favoured by selection.

Scores against the full test references. Two were named before any was read, because they are the claim: F1 of the words outside
the most frequent eighth of the training vocabulary, and abnormal F1 by the rule labeler; their p-values are corrected (Holm)
over all arms and worlds. The others are described, not tested. Intervals are over test studies with the seeds as they are; what
chance does in training shows in the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import train_and_write  # the file beside this one

from rayscribe.cli.prepare import write_phantom_manifest
from rayscribe.config import BackboneConfig, NoSettings, RunConfig
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.predictions import read_predictions
from rayscribe.evaluation.protocol import Protocol, reference_reports, training_reports
from rayscribe.methods import find_recipe
from rayscribe.methods.jima import JimaSettings
from rayscribe.metrics.clinical import clinical
from rayscribe.metrics.diversity import diversity
from rayscribe.metrics.imbalance import by_frequency, word_bins
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.overlap import overlap
from rayscribe.metrics.statistics import Rows, differences, holm, joined, p_text

WORLDS = {
    "balanced": PhantomConfig(abnormal=0.5, rare=0.2),
    "skewed": PhantomConfig(abnormal=0.3, rare=0.05),
    "extreme": PhantomConfig(abnormal=0.1, rare=0.005),
}
JIMA = JimaSettings(adapter=128, warmup=2)
ARMS = {
    "baseline": None,
    "none": replace(JIMA, report_curriculum=False, entity_curriculum=False),
    "full": JIMA,
    "no_token": replace(JIMA, report_curriculum=False),
    "no_label": replace(JIMA, entity_curriculum=False),
    "no_fusion": replace(JIMA, fusion="none"),
    "easiest": replace(JIMA, order="easy"),
    "random": replace(JIMA, order="random"),
}
SCORES = (
    *("token_f1_infreq_8", "token_f1_freq_8", "abnormal_f1", "normal_f1"),
    *("ce_f1_macro_14_uncertain_negative", "bleu4", "cider"),
)
CLAIMS = ("token_f1_infreq_8", "abnormal_f1")
AGAINST = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--plot", type=Path, help="write the drawing of the differences there (PNG)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for world in arguments.worlds:
        data = arguments.out / f"{world}.parquet"
        if not data.exists():
            write_phantom_manifest(
                data, replace(WORLDS[world], studies=1000, size=104, variety=0.2, train=0.5, val=0.05)
            )
        manifest = read_manifest(data)
        runs = {arm: [arguments.out / f"{world}-{arm}-{seed}" for seed in range(arguments.seeds)] for arm in ARMS}
        for seed in range(arguments.seeds):
            for arm, jima in ARMS.items():
                run = runs[arm][seed]
                config = settings_of(jima, seed, arguments.weights, arguments.epochs)
                train_and_write(config, data, run, arguments.out / "features")
        reports = {
            arm: [read_predictions(run / "predictions.jsonl") for run in arm_runs] for arm, arm_runs in runs.items()
        }
        found[world] = measured(manifest, reports)
        for arm, arm_runs in runs.items():
            found[world][arm]["steps"] = {"seeds": [steps(run) for run in arm_runs]}
        print(f"\n{world}\n{table(found[world])}")
    correct(found)
    (arguments.out / "scores.json").write_text(json.dumps(found, indent=1))
    if arguments.plot:
        draw(found, arguments.plot)


def settings_of(jima: JimaSettings | None, seed: int, weights: Path, epochs: int) -> RunConfig[Any]:
    """The demo's sizes and rates on a frozen image encoder."""
    base = find_recipe("demo")
    return replace(
        base,
        system="jima" if jima else "baseline",
        method=jima or NoSettings(),
        backbone=BackboneConfig(name="mobilenetv2_100", weights=str(weights), trainable=False),
        train=replace(base.train, epochs=epochs, min_epochs=epochs),
        seed=seed,
    )


def measured(manifest: Manifest, reports: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, dict[str, dict]]:
    """By arm and score: the value of every seed, and the paired difference of their mean from `none` with its interval."""
    protocol = Protocol()
    references = reference_reports(manifest, "test", protocol)
    wanted, labeler = list(references.values()), RuleLabeler(as_chexpert=False)
    labels = labeler.label(wanted)
    vocabulary = by_frequency(list(training_reports(manifest, protocol).values()))
    rows: dict[str, list[Rows]] = {}
    distinct: dict[str, list[float]] = {}
    for arm, seeds in reports.items():
        texts = [[written[id_] for id_ in references] for written in seeds]
        rows[arm] = [
            joined([overlap(own, wanted), clinical(labeler.label(own), labels), word_bins(own, wanted, vocabulary)])
            for own in texts
        ]
        distinct[arm] = [diversity(own)["distinct_ratio"] for own in texts]
    found: dict[str, dict[str, dict]] = {}
    for arm, seeds in rows.items():
        values = {name: [one.scores()[name] for one in seeds] for name in SCORES}
        found[arm] = {name: {"seeds": value} for name, value in values.items()} | {"distinct": {"seeds": distinct[arm]}}
        if arm != AGAINST:
            for name, one in differences(seeds, rows[AGAINST], names=SCORES).items():
                found[arm][name] |= {"difference": one.difference, "low": one.low, "high": one.high, "p": one.p}
    return found


def steps(run: Path) -> float:
    with open(run / "log.csv", newline="") as file:
        return float(sum(1 for _ in csv.DictReader(file)))


def correct(found: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> None:
    """Holm's correction of the claims over arms and worlds; prints it."""
    tested = [(world, arm, name) for world in found for arm in ARMS if arm != AGAINST for name in CLAIMS]
    corrected = holm([found[world][arm][name]["p"] for world, arm, name in tested])
    for (world, arm, name), p in zip(tested, corrected, strict=True):
        found[world][arm][name]["p_holm"] = p
        print(f"{world}, {arm}, {name}: p {p_text(p)} (Holm over {len(tested)})")


def table(found: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Mean over seeds (their standard deviation), and the difference from `none` with its 95 % interval."""
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in (*SCORES, "distinct", "steps"):
        cells = [cell(scores[name]) for scores in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(one: Mapping) -> str:
    spread = np.std(one["seeds"], ddof=1) if len(one["seeds"]) > 1 else 0.0
    text = f"{np.mean(one['seeds']):.3f} ({spread:.3f})"
    return text + (f", {one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" if "low" in one else "")


def draw(found: Mapping[str, Mapping[str, Mapping[str, Mapping]]], path: Path) -> None:
    """The differences from `none` with their intervals: rare words on the left, abnormal F1 on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    arms = [arm for arm in ARMS if arm != AGAINST]
    for axes, name, title in zip(panels, ("token_f1_infreq_8", "abnormal_f1"), ("F1 of rare words", "abnormal F1")):
        for number, (world, scores) in enumerate(found.items()):
            places = np.arange(len(arms)) + 0.22 * (number - 1)
            middle = np.array([scores[arm][name]["difference"] for arm in arms])
            ends = np.array([[scores[arm][name]["low"], scores[arm][name]["high"]] for arm in arms]).T
            axes.errorbar(middle, places, xerr=np.abs(ends - middle), fmt="o", capsize=3, label=world)
        axes.axvline(0, color="#999999", linewidth=1)
        axes.set_yticks(range(len(arms)), arms)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("difference from `none`, 95 % over studies")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    panels[1].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
