"""Linear probe of frozen image encoders on chest X-rays: which pretrained network sees the most of what reports name?

    python experiments/probe_backbones.py                      # every ImageNet file in ../weights; table and CSV there

Only the IU X-Ray training split is read: one frontal image a study, stretched to 224 pixels, grey repeated three times,
the encoder's own normalisation. Five folds over studies; the L2 penalty is chosen inside each training part.
Standard errors are DeLong's, over studies. Encoders share studies and folds, so differences are surer than they look.

Shapes: N images or studies, S pixels a side, C colour channels, D features, L labels, P positives, Q negatives.
"""

import argparse
import csv
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

IMAGE_SIZE = 224
FOLDS = 5
FEWEST_POSITIVES = 40
L2_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
IMAGENET_NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study of the IU X-Ray training split."""

    uid: str
    frontal: list[Path]
    lateral: list[Path]
    labels: dict[str, float]
    """1 present, 0 absent or not mentioned, nan uncertain or not labelled."""


def training_studies(iu: Path) -> list[Study]:
    """The training studies that R2Gen's annotation.json lists; labels are CheXpert's and `Abnormal` from the MeSH."""
    annotation = json.loads((iu / "annotation.json").read_text())
    training_ids = {study["id"] for study in annotation["train"]}
    chexpert = {row["uid"]: row for row in rows(iu / "labels_chexpert_dhesin.csv")}
    names = [name for name in next(iter(chexpert.values())) if name != "uid"]
    studies = []
    for row in rows(iu / "reports.csv"):
        if row["r2gen_id"] not in training_ids:
            continue
        assert row["split_r2gen"] == "train", row["uid"]
        abnormal = {"normal": 0.0, "No Indexing": math.nan}.get(row["mesh"], 1.0)
        found = chexpert.get(row["uid"], dict.fromkeys(names, "nan"))
        present = {name: {"1.0": 1.0, "0.0": 0.0, "": 0.0}.get(found[name], math.nan) for name in names}
        views = {
            view: [iu / "images" / file for file in row[view].split(";") if file] for view in ("frontal", "lateral")
        }
        studies.append(Study(uid=row["uid"], labels={"Abnormal": abnormal} | present, **views))
    assert len(studies) == len(training_ids)
    return studies


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fold(key: str) -> int:
    """The fold of a study or patient, 0 to 4, from a hash, so that every script splits alike."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % FOLDS


def pixels(paths: list[Path], size: int) -> torch.Tensor:
    """Grey images stretched to `size`, NSS, bytes."""
    images_NSS = torch.empty(len(paths), size, size, dtype=torch.uint8)
    for n, path in enumerate(paths):
        with Image.open(path) as image:
            grey = image.convert("L").resize((size, size), Image.Resampling.BICUBIC)
        images_NSS[n] = torch.from_numpy(np.array(grey))
    return images_NSS


def normalised(images_NSS: torch.Tensor, mean: Triple, std: Triple) -> torch.Tensor:
    """The grey images three times, NCSS, less the mean and over the deviation of each colour channel."""
    mean_C11, std_C11 = (torch.tensor(values)[:, None, None] for values in (mean, std))
    images_NCSS = (images_NSS[:, None].float() / 255 - mean_C11) / std_C11
    return images_NCSS.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def encoded(network: Callable, images_NSS: torch.Tensor, mean: Triple, std: Triple, *, batch: int = 32) -> torch.Tensor:
    """What the network gives for each image, ND, in batches."""
    parts = images_NSS.split(batch)
    return torch.cat([network(normalised(part, mean, std)) for part in parts]).float().clone()


def linear_probe(features_ND: torch.Tensor, labels_NL: torch.Tensor, *, l2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights DL and biases L of one logistic regression a label, on standardised features; nan labels do not count."""
    mean_D, std_D = features_ND.mean(0), features_ND.std(0)
    std_D = torch.where(std_D > 1e-6 * std_D.max(), std_D, torch.inf)
    known_NL, wanted_NL = ~labels_NL.isnan(), labels_NL.nan_to_num()
    features_ND = (features_ND - mean_D) / std_D
    weight_DL = torch.zeros(features_ND.shape[1], labels_NL.shape[1], requires_grad=True)
    bias_L = torch.zeros(labels_NL.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_DL, bias_L], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        loss_NL = F.binary_cross_entropy_with_logits(features_ND @ weight_DL + bias_L, wanted_NL, reduction="none")
        loss = ((loss_NL * known_NL).sum(0) / known_NL.sum(0).clamp(min=1)).sum() + l2 / 2 * weight_DL.square().sum()
        loss.backward()
        return loss

    optimizer.step(loss)
    weight_DL = (weight_DL / std_D[:, None]).detach()
    return weight_DL, bias_L.detach() - mean_D @ weight_DL


def best_l2(features_ND: torch.Tensor, labels_NL: torch.Tensor, is_held_out_N: torch.Tensor) -> float:
    """The penalty with the highest AUROC, averaged over labels, on the images held out for the choice."""

    def quality(l2: float) -> float:
        weight_DL, bias_L = linear_probe(features_ND[~is_held_out_N], labels_NL[~is_held_out_N], l2=l2)
        return mean_auroc(features_ND[is_held_out_N] @ weight_DL + bias_L, labels_NL[is_held_out_N])

    return max(L2_PENALTIES, key=quality)


def auroc(scores_N: torch.Tensor, labels_N: torch.Tensor) -> tuple[float, float]:
    """Area under the ROC curve and its standard error (DeLong et al., 1988); nan without two of each class."""
    positives_P, negatives_Q = scores_N[labels_N == 1].double(), scores_N[labels_N == 0].double()
    if min(len(positives_P), len(negatives_Q)) < 2:
        return math.nan, math.nan
    wins_PQ = (torch.sign(positives_P[:, None] - negatives_Q) + 1) / 2
    variance = wins_PQ.mean(1).var() / len(positives_P) + wins_PQ.mean(0).var() / len(negatives_Q)
    return wins_PQ.mean().item(), variance.sqrt().item()


def mean_auroc(scores_NL: torch.Tensor, labels_NL: torch.Tensor) -> float:
    """AUROC averaged over the labels that have both classes."""
    return float(np.nanmean([auroc(scores_N, labels_N)[0] for scores_N, labels_N in zip(scores_NL.T, labels_NL.T)]))


def cross_validated(
    features_ND: torch.Tensor, labels_NL: torch.Tensor, fold_N: torch.Tensor
) -> list[tuple[float, float]]:
    """For each label, the mean of the folds' AUROCs and its standard error."""
    found = []
    for k in range(FOLDS):
        is_test_N = fold_N == k
        train_ND, train_NL = features_ND[~is_test_N], labels_NL[~is_test_N]
        l2 = best_l2(train_ND, train_NL, fold_N[~is_test_N] == (k + 1) % FOLDS)
        weight_DL, bias_L = linear_probe(train_ND, train_NL, l2=l2)
        scores_NL = features_ND[is_test_N] @ weight_DL + bias_L
        found.append([auroc(*pair) for pair in zip(scores_NL.T, labels_NL[is_test_N].T, strict=True)])
    area_KL, error_KL = np.array(found).transpose(2, 0, 1)
    return list(zip(area_KL.mean(0).tolist(), (np.square(error_KL).sum(0) ** 0.5 / FOLDS).tolist(), strict=True))


def encoder(path: Path) -> tuple[torch.nn.Module, Triple, Triple]:
    """The frozen network of a weight file, its normalisation's mean and its deviation, as the file states them."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    classes = weights["classifier.bias"].numel() if "classifier.bias" in weights else 0
    network = timm.create_model(metadata["architecture"], pretrained=False, num_classes=classes)
    network.load_state_dict(weights)
    network.reset_classifier(0)
    mean, std = (tuple(map(float, metadata[key].split())) for key in ("mean", "std"))
    return network.eval().to(memory_format=torch.channels_last), mean, std


def all_features(images_NSS: torch.Tensor, weights: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """What to probe: raw pixels, a random network and every ImageNet encoder in the folder, each made when called."""

    def random_network() -> torch.Tensor:
        torch.manual_seed(0)  # timm draws from the global generator
        network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=0).eval()
        return encoded(network.to(memory_format=torch.channels_last), images_NSS, *IMAGENET_NORM)

    def is_imagenet(path: Path) -> bool:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("trained_on") == "ImageNet-1k"  # a tuned file has seen these labels

    probes = {
        "pixels_32x32": lambda: F.adaptive_avg_pool2d(images_NSS[:, None].float(), 32).flatten(1),
        "mobilenetv2_100 random": random_network,
    }
    for path in sorted(filter(is_imagenet, weights.glob("*.safetensors"))):

        def pretrained(path: Path = path) -> torch.Tensor:
            network, mean, std = encoder(path)
            return encoded(network, images_NSS, mean, std)

        probes[path.stem] = pretrained
    return probes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iu", type=Path, default=Path("../shared/data/iu_xray"))
    parser.add_argument("--out", type=Path, default=Path("../weights"), help="folder with the weights and for the CSV")
    parser.add_argument("--studies", type=int, help="probe on this many studies only")
    options = parser.parse_args()
    torch.set_num_threads(1)

    studies = [study for study in training_studies(options.iu) if study.frontal][: options.studies]
    names = [name for name in studies[0].labels if sum(s.labels[name] == 1 for s in studies) >= FEWEST_POSITIVES]
    labels_NL = torch.tensor([[study.labels[name] for name in names] for study in studies])
    fold_N = torch.tensor([fold(study.uid) for study in studies])
    images_NSS = pixels([study.frontal[0] for study in studies], IMAGE_SIZE)

    scores = []
    print(f"{len(studies)} studies; AUROC (standard error)\n| encoder | {' | '.join(names)} | mean |")
    print("|---" * (len(names) + 2) + "|")
    for name, features in all_features(images_NSS, options.out).items():
        features_ND = features()
        found = cross_validated(features_ND, labels_NL, fold_N)
        cells = " | ".join(f"{area:.3f} ({error:.3f})" for area, error in found)
        print(f"| {name} | {cells} | {np.mean([area for area, _ in found]):.3f} |", flush=True)
        for target, labels_N, (area, error) in zip(names, labels_NL.T, found, strict=True):
            positives, negatives = (int((labels_N == value).sum()) for value in (1, 0))
            scores.append([name, features_ND.shape[1], target, positives, negatives, round(area, 4), round(error, 4)])
    with (options.out / "probe_backbones.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["encoder", "features", "target", "positives", "negatives", "auroc", "standard_error"])
        writer.writerows(scores)


if __name__ == "__main__":
    main()
