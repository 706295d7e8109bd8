"""Settings of consensus by leave-one-out on train, with val beside it: encoders, layers, pixels, grid, components.

    python experiments/fetch_weights.py mobilenetv2_100 tf_efficientnet_lite0 --out weights
    python experiments/consensus_settings.py iu.parquet --weights weights --features cache --out settings.jsonl

Both encoders with two layers are read side by side once for each size of the images; every smaller choice is a part of these
channels, because a composite is its parts in a row. The test split is never read. Each choice adds a line to the file of
results; one that is there is not run again.

Shapes: V views, N patches, C channels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.config import BackboneConfig, ImageConfig
from rayscribe.data.features import FeatureCache, cached_features
from rayscribe.data.manifest import read_manifest
from rayscribe.data.split_reports import SplitReports
from rayscribe.drafts import DecodingConfig
from rayscribe.labels import NOT_MENTIONED, POSITIVE
from rayscribe.methods.consensus import consensus
from rayscribe.methods.consensus_fit import fitted_on
from rayscribe.methods.consensus_reporter import ConsensusReporter
from rayscribe.methods.consensus_studies import LearnedStudies, PooledViews
from rayscribe.metrics.clinical import clinical
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.models.backbones import Backbone

MOBILENET, LITE = "mobilenetv2_100", "tf_efficientnet_lite0"
WIDTHS = ((MOBILENET, 1, 1280), (MOBILENET, 2, 320), (LITE, 1, 1280), (LITE, 2, 320))
"Encoder, layer and channels of the composite, in their order."

ENCODERS = {"mobilenetv2": (MOBILENET,), "efficientnet-lite0": (LITE,), "both": (MOBILENET, LITE)}
CHOICES = [  # size, encoder, layers, grid, components
    *((224, "mobilenetv2", 1, grid, components) for grid in (1, 2, 4) for components in (400, 800)),
    *((224, "both", 2, grid, components) for grid in (1, 2) for components in (400, 800)),
    (224, "both", 2, 4, 400),
    *((224, encoder, layers, 2, 400) for encoder in ENCODERS for layers in (1, 2)),
    *((320, encoder, layers, 2, 400) for encoder in ENCODERS for layers in (1, 2)),
    *((320, "mobilenetv2", 1, grid, 400) for grid in (1, 4)),
]


def channels(encoder: str, layers: int) -> np.ndarray:
    """Places of the composite's channels that this choice reads."""
    found, at = [], 0
    for name, layer, width in WIDTHS:
        if name in ENCODERS[encoder] and layer <= layers:
            found.append(np.arange(at, at + width))
        at += width
    return np.concatenate(found)


def maps(split: SplitReports, cache: FeatureCache, kept_C: np.ndarray) -> Iterator[np.ndarray]:
    """Features of one study after the other, of these channels (V, N, C)."""
    for study in split.studies:
        yield np.stack([cache[sha256][:, kept_C] for sha256 in study.sha256])


def scored(
    choice: tuple[int, str, int, int, int], training: SplitReports, validation: SplitReports, cache: FeatureCache
) -> dict[str, Any]:
    """Fits one choice, and drafts val."""
    _, encoder, layers, grid, components = choice
    began, run = time.monotonic(), consensus()
    run = replace(run, method=replace(run.method, grid=grid, components=components, compose=False))
    kept_C, reading = channels(encoder, layers), {"views": run.method.views, "grid": grid}
    views = PooledViews.of(maps(training, cache, kept_C), **reading)
    fitted = fitted_on(run, LearnedStudies.of(training, views), lambda text: None)
    drafts = ConsensusReporter(run, fitted).draft(list(maps(validation, cache, kept_C)), DecodingConfig())
    reports = [one.reports[0] for one in drafts]
    own, wanted = (
        np.where(RuleLabeler().label(texts) == POSITIVE, POSITIVE, NOT_MENTIONED).astype(np.int8)
        for texts in (reports, validation.reports)
    )
    return {
        "choice": list(choice),
        "leave_one_out": fitted.scores["leave_one_out_macro_f1"],
        "strength": fitted.texts["strength"],
        "gamma": fitted.texts["gamma"],
        "val_macro_f1": clinical(own, wanted).scores()["ce_f1_macro_14_uncertain_negative"],
        "val_distinct": len(set(reports)),
        "val_studies": len(reports),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the manifest")
    parser.add_argument("--weights", type=Path, required=True, help="the folder that fetch_weights.py wrote")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results, a line a choice")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = [tuple(line["choice"]) for line in lines]
    manifest, text = read_manifest(options.data), consensus().text
    training, validation = (SplitReports.read(manifest, split, text, print) for split in ("train", "val"))
    backbone = Backbone(
        BackboneConfig(
            name=MOBILENET,
            weights=str(options.weights / f"{MOBILENET}.safetensors"),
            layers=2,
            beside=(f"{LITE}={options.weights / LITE}.safetensors",),
            trainable=False,
        )
    )
    for size in (224, 320):
        images = ImageConfig(size=size, resize=max(size, 256))
        both = [*training.studies, *validation.studies]
        missing = [one for one in dict.fromkeys(CHOICES) if one[0] == size and one not in done]
        cache = cached_features(both, backbone, images, folder=options.features) if missing else None
        for choice in missing:
            assert cache is not None
            lines.append(scored(choice, training, validation, cache))
            with open(options.out, "a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    print("| pixels | encoder | layers | grid | components | leave-one-out macro F1 | val macro F1 | val distinct |")
    print("|---|---|---|---|---|---|---|---|")
    for line in lines:
        size, encoder, layers, grid, components = line["choice"]
        print(
            f"| {size} | {encoder} | {layers} | {grid} | {components} | {line['leave_one_out']:.3f} "
            f"| {line['val_macro_f1']:.3f} | {line['val_distinct']} of {line['val_studies']} |"
        )


if __name__ == "__main__":
    main()
