"""Which node of the knowledge graph drew which patch: a drawing of KIF's attention for one drawn study.

    .venv/bin/python experiments/kif_attention.py --model runs/kif-phantom/kif-0 --data runs/kif-phantom/world.parquet \
        --features runs/kif-phantom/features --out attention.png

Takes the first test study with at least two findings, or `--study ID`. Above, every film with the node that each patch
attends to more than an average patch of the test split does; below, how strongly the patches attend to the six nodes that
differ most from patch to patch, from the least (dark) to the most. Means over heads of the last layer. Nobody tells the nodes
what they mean: they start as words without a sense, and no loss speaks of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from rayscribe.checkpoint import load_model
from rayscribe.data.conditions import study_conditions
from rayscribe.data.dataset import Row, StudyDataset, collate
from rayscribe.data.images import evaluation_square, read_image
from rayscribe.data.manifest import read_manifest
from rayscribe.data.split_reports import SplitReports, cleaned_report
from rayscribe.labels import POSITIVE
from rayscribe.methods.kif_isd import KnowledgeStage
from rayscribe.methods.method import Lookup, TrainedModel
from rayscribe.study import Study

_SHOWN = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--study")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trained = load_model(arguments.model)
    studies = [study for study in read_manifest(arguments.data).split("test") if len(study.images) == 2]
    reports = [cleaned_report(study, trained.config.text) for study in studies]
    positive_SO = study_conditions("rules", [study.id for study in studies], reports).states_RO == POSITIVE
    place = int(np.argmax(positive_SO[:, :12].sum(1) >= 2))
    if arguments.study:
        place = [study.id for study in studies].index(arguments.study)
    weights_SPN = attention(trained, studies, arguments.features)
    draw(trained, studies[place], reports[place], weights_SPN[place], weights_SPN.mean((0, 1)), arguments.out)


@torch.no_grad()
def attention(trained: TrainedModel, studies: list[Study], features: Path | None) -> NDArray[np.float32]:
    """Mean over heads, of the patches of all views one after another (S, P, N)."""
    model, config = trained.model, trained.config
    (stage,) = [stage for stage in model.stages if isinstance(stage, KnowledgeStage)]
    data = StudyDataset(
        SplitReports.blank(studies),
        trained.tokenizer,
        text=config.text,
        images=config.images,
        extras=trained.resources.extras(studies, Lookup(features=features)),
    )
    found: list[Tensor] = []
    for start in range(0, len(studies), 16):
        batch = collate([data.item(Row(row, 0)) for row in range(start, min(start + 16, len(studies)))])
        found.append(stage.attend(model.see(batch))[1].mean(1))
    weights: NDArray[np.float32] = torch.cat(found).numpy()
    return weights


def draw(
    trained: TrainedModel,
    study: Study,
    report: str,
    weights_PN: NDArray[np.float32],
    usual_N: NDArray[np.float32],
    out: Path,
) -> None:
    names = next(stage.graph.names for stage in trained.model.stages if isinstance(stage, KnowledgeStage))
    squares = [evaluation_square(read_image(path), trained.config.images) for path in study.images]
    side = round((len(weights_PN) / len(squares)) ** 0.5)
    views = weights_PN.reshape(len(squares), side, side, -1)
    above = np.log(views / usual_N)
    shown = np.argsort(-weights_PN.std(0) / usual_N)[:_SHOWN]
    size = squares[0].shape[0]
    figure = Figure(figsize=(2.2 * _SHOWN, 11), layout="constrained")
    top, low = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    for axes, square, one in zip(top.subplots(1, len(squares)), squares, above, strict=True):
        axes.imshow(square, cmap="gray", vmin=0, vmax=255, extent=(0, size, size, 0))
        for row in range(side):
            for column in range(side):
                centre = ((column + 0.5) * size / side, (row + 0.5) * size / side)
                name = names[int(one[row, column].argmax())].replace(" ", "\n")
                axes.text(*centre, name, color="#ffd43b", ha="center", va="center", fontsize=10, weight="bold")
        for line in range(1, side):
            axes.axhline(line * size / side, color="white", linewidth=0.4)
            axes.axvline(line * size / side, color="white", linewidth=0.4)
        axes.set_axis_off()
    even = f"(evenly spread, a node had {1 / len(names):.3f})"
    top.suptitle(f"the node that each patch attends to more than usual {even}\n{report}", fontsize=11, wrap=True)
    grid = low.subplots(len(squares), _SHOWN, squeeze=False)
    for row, square in enumerate(squares):
        for column, node in enumerate(shown):
            axes = grid[row, column]
            axes.imshow(square, cmap="gray", vmin=0, vmax=255, extent=(0, size, size, 0))
            weights = views[row, :, :, node]
            axes.imshow(
                weights,
                cmap="inferno",
                alpha=0.55,
                extent=(0, size, size, 0),
                vmin=weights_PN[:, node].min(),
                vmax=weights_PN[:, node].max(),
            )
            axes.set_axis_off()
            if not row:
                least, most = weights_PN[:, node].min(), weights_PN[:, node].max()
                axes.set_title(f"{names[int(node)]}\n{least:.3f} to {most:.3f}", fontsize=9)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main()
