"""ITHN's claim as an experiment on drawn X-rays: do increasingly hard negatives tell images and reports apart?

    .venv/bin/python experiments/ithn.py --out runs/ithn-phantom        # 15 small models; an hour on one core; resumes

Arms, each over the same seeds and studies, all with R2GenCMN as host:

    without     no negatives; the alignment heads are learned beside the host and do not reach it (`--method.ithn.probe`)
    published   ITHN: negatives slide from the mined to the true report and lower the diagonal
    mined       the mined negatives, never harder, as one more report to choose from (`--method.ithn.contrast column`)
    line        as published, but as one more report to choose from
    words       as line, but the mined report is read before the study's own image, so that words alone tell it apart

Every distinct test report is read in front of every test image, so that no score sees the report's own image. Two scores:
alignment (cosine of image and report so read) and likelihood (log p(report | image), less its mean over all images). From each:
recall@1 and @5 of the true report, and how often it scores above the most similar other report ("hard") or a random one.
"Own image" is the alignment as it is trained: each report read in front of its own image, whose traces the decoder's states
carry; it can be solved without reading. Beside them BLEU-4, CIDEr and the share of distinct reports of what the models write.

Shapes: I, J test images, M distinct test reports, B studies, T tokens, D width.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import plugged  # the file beside this one
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from rayscribe.cli.main import run as run_verb
from rayscribe.cli.prepare import write_phantom_manifest
from rayscribe.config import RunConfig
from rayscribe.data.dataset import Row, StudyDataset, collate
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.mining import mine
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.split_reports import SplitReports, cleaned_report
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.files import write_text
from rayscribe.inference.reporter import generate_reports
from rayscribe.methods import find_method, find_recipe
from rayscribe.methods.build import build_model
from rayscribe.methods.ithn import HardNegativeTask, IthnSettings
from rayscribe.methods.method import Feed
from rayscribe.methods.r2gen_cmn import R2GenCmnSettings
from rayscribe.metrics.diversity import diversity
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.models.layers import Encoded, pooled
from rayscribe.models.report_model import ReportModel
from rayscribe.training.run import train_method

ARMS = {
    "without": IthnSettings(negative="mined", contrast="column", probe=True),
    "published": IthnSettings(),
    "mined": IthnSettings(negative="mined", contrast="column"),
    "line": IthnSettings(contrast="column"),
    "words": IthnSettings(contrast="column", read_before="own_image"),
}
ALPHA = 0.1  # the paper's .01 is for 100 epochs; over 12, .1 takes lambda from .90 to .30
TESTED = 160  # test studies: the pairs grow with their square
Values = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--studies", type=int, default=720, help="drawn; 60 %% train, 5 %% val, the rest test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    drawn, mined = arguments.out / "phantom.parquet", arguments.out / "mined.parquet"
    if not mined.exists():
        write_phantom_manifest(
            drawn, PhantomConfig(studies=arguments.studies, size=104, variety=0.2, train=0.6, val=0.05)
        )
        run_verb(["build", "negatives", str(drawn), "--out", str(mined)])
    found: dict[str, list[dict[str, list[float]]]] = {arm: [] for arm in ARMS}
    for seed in range(arguments.seeds):
        for arm, ithn in ARMS.items():
            run = arguments.out / f"{arm}-{seed}"
            scores = run / "retrieval.json"
            if not scores.exists():
                config = settings_of(ithn, seed)
                train_method(config, mined, run, resume=(run / "state.pt").exists())
                write_text(scores, json.dumps(measured(config, read_manifest(mined), run)))
            found[arm].append(json.loads(scores.read_text()))
    print(table(found))


def settings_of(ithn: IthnSettings, seed: int) -> RunConfig[Any]:
    """The demo's sizes and rates with R2GenCMN as host; the last epoch counts, so that no arm is favoured by selection."""
    base = find_recipe("demo")
    host = replace(
        base,
        system="r2gen_cmn",
        method=R2GenCmnSettings(memory_heads=base.method.memory_heads, memory_size=512),
        train=replace(base.train, min_epochs=base.train.epochs),
        seed=seed,
    )
    return plugged(host, "ithn", replace(ithn, alpha=ALPHA, width=128))


@torch.inference_mode()
def measured(config: RunConfig[Any], manifest: Manifest, run: Path) -> dict[str, list[float]]:
    """Per test study: ranks and wins by both scores; and the scores of the reports that the model writes."""
    studies = manifest.split("test")[:TESTED]
    reports = [cleaned_report(study, config.text) for study in studies]
    tokenizer = Tokenizer.load(run / "vocabulary.json")
    task = trained_task(config, manifest, tokenizer, run)
    data = StudyDataset(SplitReports(studies, reports), tokenizer, text=config.text, images=config.images)
    distinct = list(dict.fromkeys(reports))
    own_I = np.array([distinct.index(report) for report in reports])
    align_IM, likely_IM = pair_scores(task, data, tokenizer, config, distinct)
    random_I = (own_I + np.random.default_rng(0).integers(1, len(distinct), len(own_I))) % len(distinct)
    # One stand-in study a distinct report: the nearest other report of each.
    near = mine([studies[reports.index(text)] for text in distinct], distinct, top=1)
    hard_I = np.array([near[text][0][0] for text in own_I])
    values: dict[str, list[float]] = own_image_recall(task, data, np.array(own_I))
    for name, score_IM in (("alignment", align_IM), ("likelihood", likely_IM)):
        true_I = score_IM[np.arange(len(own_I)), own_I]
        rank_I = 1 + (score_IM > true_I[:, None]).sum(1)
        values[f"{name} recall@1"] = (rank_I <= 1).tolist()
        values[f"{name} recall@5"] = (rank_I <= 5).tolist()
        for kind, other_I in (("hard", hard_I), ("random", random_I)):
            values[f"{name} above {kind}"] = (true_I > score_IM[np.arange(len(own_I)), other_I]).tolist()
    written = generate_reports(task.model, tokenizer, data, config.decoding)
    overlap = overlap_scores(written, reports)
    values |= {"BLEU-4": [overlap["bleu4"]], "CIDEr": [overlap["cider"]]}
    values |= {"distinct": [diversity(written)["distinct_ratio"]], "reports": [len(distinct)]}
    return values


def own_image_recall(task: HardNegativeTask, data: StudyDataset, own_I: NDArray[np.int64]) -> dict[str, list[float]]:
    """Among the other studies' reports with other words and the true one, each in front of its own image."""
    read = [task.embedded(collate([data.item(Row(row, 0))])) for row in range(len(data))]
    score_IJ = (torch.cat([image for image, _ in read]) @ torch.cat([text for _, text in read]).T).double().numpy()
    above_IJ = (score_IJ > score_IJ.diagonal()[:, None]) & (own_I[:, None] != own_I)
    rank_I = 1 + above_IJ.sum(1)
    return {f"own image recall@{k}": (rank_I <= k).tolist() for k in (1, 5)}


def trained_task(config: RunConfig[Any], manifest: Manifest, tokenizer: Tokenizer, run: Path) -> HardNegativeTask:
    """The task as it was after the last epoch: heads are in the training state alone, not in the exported model."""
    model: ReportModel = build_model(config, tokenizer.size)
    feed = Feed(studies=len(manifest.split("train")), batches_per_epoch=1, training=tuple, validation=tuple)
    nothing = (None, [])  # of the host, and no mined partners: it is only measured
    task = find_method(config.system).task(config, model, nothing, feed)
    task.load_state_dict(torch.load(run / "state.pt", weights_only=True)["task"])
    assert isinstance(task, HardNegativeTask)
    return task.eval()


def pair_scores(
    task: HardNegativeTask, data: StudyDataset, tokenizer: Tokenizer, config: RunConfig[Any], distinct: Sequence[str]
) -> tuple[Values, Values]:
    """(I, M) each: every image with every report, the report read in front of that image."""
    ids = [tokenizer.encode(report, max_length=config.text.max_length) for report in distinct]
    longest = max(map(len, ids))
    tokens_MT = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
    is_target_MT = torch.tensor([[True] * len(one) + [False] * (longest - len(one)) for one in ids])[:, 1:]
    align, likely = [], []
    for row in tqdm(range(len(data)), desc="pairs", unit="image", leave=False):
        batch = collate([data.item(Row(row, 0))])
        seen = task.model.see(batch)
        encoded = task.model.encode(batch)
        one = Encoded(encoded.features_BND.expand(len(ids), -1, -1), encoded.has_patch_BN.expand(len(ids), -1))
        hidden_MTD = task.model.decoder(tokens_MT[:, :-1], one)
        image_D = F.normalize(task.image(pooled(seen)), dim=-1)[0]
        text_MD = F.normalize(task.text(pooled(Encoded(hidden_MTD, is_target_MT))), dim=-1)
        align.append(text_MD @ image_D)
        likely.append(_log_likelihood_M(task.model.decoder.head(hidden_MTD), tokens_MT, is_target_MT))
    likely_IM = torch.stack(likely)
    return torch.stack(align).double().numpy(), (likely_IM - likely_IM.mean(0)).double().numpy()


def _log_likelihood_M(logits_MTW: Tensor, tokens_MT: Tensor, is_target_MT: Tensor) -> Tensor:
    loss_MT = F.cross_entropy(logits_MTW.transpose(1, 2), tokens_MT[:, 1:], reduction="none")
    return -(loss_MT * is_target_MT).sum(1)


def table(found: dict[str, list[dict[str, list[float]]]]) -> str:
    """Means over seeds with 95 % intervals over studies; in brackets the paired difference from `without`."""
    names = list(found["without"][0])
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in names:
        cells = []
        for arm, seeds in found.items():
            value_S = [float(np.mean(one[name])) for one in seeds]
            cell = f"{np.mean(value_S):.3f} (sd {np.std(value_S, ddof=1) if len(value_S) > 1 else 0:.3f})"
            if len(seeds[0][name]) > 1 and arm != "without":
                difference_I = _over_seeds(seeds, name) - _over_seeds(found["without"], name)
                low, high = interval(difference_I)
                cell += f", {difference_I.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
            elif len(seeds[0][name]) > 1:
                low, high = interval(_over_seeds(seeds, name))
                cell += f" [{low:.3f}, {high:.3f}]"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _over_seeds(seeds: Sequence[dict[str, list[float]]], name: str) -> Values:
    return np.mean([one[name] for one in seeds], axis=0, dtype=np.float64)


def interval(values_I: Values) -> tuple[float, float]:
    """95 % percentile interval of the mean over studies, 10,000 resamples."""
    random = np.random.default_rng(0)
    means = [values_I[random.integers(0, len(values_I), len(values_I))].mean() for _ in range(10_000)]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


if __name__ == "__main__":
    main()
