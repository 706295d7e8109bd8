"""Fine-tunes one pretrained encoder on real chest X-rays, to name what their reports and labels name.

    python experiments/tune_backbone.py mobilenetv2_100        # reads and writes ../weights; run it again to resume

All layers, multi-label: CheXpert labels and `Abnormal` of the IU X-Ray training split (frontal and lateral images,
each with its study's labels), and the NIH labels as outputs of their own. A hash of the study's uid decides: four
fifths train, the last fifth scores a linear probe of the frozen encoder before tuning, and the tuned network. Nothing
is chosen by that fifth. The tuned file is for local research: IU X-Ray's terms allow no derivatives.

Shapes: B, N images, S pixels a side, D features, L outputs, U studies.
"""

import argparse
import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from probe_backbones import (
    FEWEST_POSITIVES,
    IMAGE_SIZE,
    Triple,
    auroc,
    best_l2,
    cross_validated,
    encoded,
    encoder,
    fold,
    linear_probe,
    normalised,
    pixels,
    rows,
    training_studies,
)
from safetensors import safe_open
from safetensors.torch import save_file

CROP_FROM = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images in one row order: where each is, which study it belongs to, and what the study shows."""

    paths: list[Path]
    studies: list[str]
    """An IU study's uid; an NIH image is a study of its own."""
    fold_N: torch.Tensor
    """From a hash of the IU study or the NIH patient."""
    labels_NL: torch.Tensor
    """1 present, 0 absent, nan unknown."""
    label_names: list[str]

    def where(self, is_wanted_N: torch.Tensor) -> "Images":
        """Only the wanted images, in the same order."""
        chosen = is_wanted_N.nonzero()[:, 0].tolist()
        return replace(
            self,
            paths=[self.paths[n] for n in chosen],
            studies=[self.studies[n] for n in chosen],
            fold_N=self.fold_N[chosen],
            labels_NL=self.labels_NL[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """How to fine-tune."""

    epochs: int = 4
    batch: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of the steps that raise the learning rate; a cosine lowers it after them."""
    has_frozen_norms: bool = False
    """True keeps ImageNet's batch norm statistics."""
    seed: int = 0


def labelled_images(iu: Path, nih: Path) -> Images:
    """Every image of the IU training studies, then of the NIH subset; a data set's labels are unknown to the other."""
    films = rows(nih / "labels.csv")
    iu_studies = training_studies(iu)
    iu_names = list(iu_studies[0].labels)
    nih_names = sorted({name for film in films for name in film["labels"].split("|")})
    found: list[tuple[Path, str, int, list[float]]] = []
    for study in iu_studies:
        labels = [*study.labels.values(), *[math.nan] * len(nih_names)]
        found += [(path, study.uid, fold(study.uid), labels) for path in study.frontal + study.lateral]
    for film in films:
        labels = [math.nan] * len(iu_names) + [float(name in film["labels"].split("|")) for name in nih_names]
        found.append((nih / "images" / film["file"], film["file"], fold(film["patient_id"]), labels))
    paths, studies, folds, labels_of = zip(*found, strict=True)
    return Images(
        paths=list(paths),
        studies=list(studies),
        fold_N=torch.tensor(folds),
        labels_NL=torch.tensor(labels_of),
        label_names=iu_names + [f"NIH {name}" for name in nih_names],
    )


def tune(
    network: torch.nn.Module, images: Images, norm: tuple[Triple, Triple], *, config: TuneConfig, checkpoint: Path
) -> Iterator[dict[str, float]]:
    """Fine-tunes the network in place and gives each epoch's mean loss; goes on from the checkpoint if there is one."""
    images_NSS = pixels(images.paths, CROP_FROM)
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    steps = math.ceil(len(images.paths) / config.batch)
    total, warm = config.epochs * steps, config.warmup * config.epochs * steps

    def rate(step: int) -> float:
        return min((step + 1) / warm, (1 + math.cos(math.pi * max(0, step - warm) / (total - warm))) / 2)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first = saved["epochs"]
    for epoch in range(first, config.epochs):
        started, losses = time.monotonic(), []
        network.train()
        if config.has_frozen_norms:
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
        generator = torch.Generator().manual_seed(config.seed + epoch)
        for chosen_B in torch.randperm(len(images.paths), generator=generator).split(config.batch):
            if len(chosen_B) < 2:
                continue
            crops_BSS = random_crops(images_NSS[chosen_B], generator=generator)
            loss_B = label_loss(network(normalised(crops_BSS, *norm)), images.labels_NL[chosen_B])
            optimizer.zero_grad()
            loss_B.mean().backward()
            optimizer.step()
            schedule.step()
            losses.append(loss_B.mean().item())
        state = {name: part.state_dict() for name, part in parts.items()}
        partial = checkpoint.with_suffix(".partial")
        torch.save(state | {"epochs": epoch + 1}, partial)
        partial.replace(checkpoint)
        yield {"epoch": epoch + 1, "loss": sum(losses) / len(losses), "seconds": time.monotonic() - started}


def label_loss(logits_BL: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each image, averaged over the labels it has."""
    known_BL = ~labels_BL.isnan()
    loss_BL = F.binary_cross_entropy_with_logits(logits_BL, labels_BL.nan_to_num(), reduction="none")
    return (loss_BL * known_BL).sum(1) / known_BL.sum(1).clamp(min=1)


def random_crops(images_BSS: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """A square of 224 pixels from each image, at a place of its own."""
    corners = torch.randint(CROP_FROM - IMAGE_SIZE + 1, (len(images_BSS), 2), generator=generator).tolist()
    crops = [image[y : y + IMAGE_SIZE, x : x + IMAGE_SIZE] for image, (y, x) in zip(images_BSS, corners, strict=True)]
    return torch.stack(crops)


def per_study(values_NX: torch.Tensor, studies: list[str]) -> torch.Tensor:
    """Rows averaged over the images of each study, UX, in the order the studies first appear."""
    place = {study: u for u, study in enumerate(dict.fromkeys(studies))}
    place_N = torch.tensor([place[study] for study in studies])
    return torch.zeros(len(place), values_NX.shape[1]).index_add(0, place_N, values_NX) / place_N.bincount()[:, None]


def comparison(
    images: Images, logits: dict[str, torch.Tensor], features: dict[str, torch.Tensor]
) -> list[dict[str, str | int | float]]:
    """AUROC of each label over the held-out studies, by each name of `logits` (NL) and of `features` (ND).

    Features are scored where positives suffice, by a fresh probe, cross-validated within the held-out studies: the
    tuned network has seen none of the images that probe is fitted on.
    """
    labels_UL = per_study(images.labels_NL, images.studies)
    logits_UL = {name: per_study(values, images.studies) for name, values in logits.items()}
    features_UD = {name: per_study(values, images.studies) for name, values in features.items()}
    fold_U = torch.tensor([fold(f"within {study}") for study in dict.fromkeys(images.studies)])
    table = []
    for label, name in enumerate(images.label_names):
        positives, negatives = (int((labels_UL[:, label] == value).sum()) for value in (1, 0))
        if min(positives, negatives) < 2:
            continue
        row = {"label": name, "positives": positives, "negatives": negatives}
        for key, scores_UL in logits_UL.items():
            row[key], row[f"{key} se"] = auroc(scores_UL[:, label], labels_UL[:, label])
        is_known_U = ~labels_UL[:, label].isnan()
        for key, values_UD in features_UD.items() if positives >= FEWEST_POSITIVES else ():
            scored = cross_validated(values_UD[is_known_U], labels_UL[is_known_U, label, None], fold_U[is_known_U])
            row[key], row[f"{key} se"] = scored[0]
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="mobilenetv2_100", help="timm name of a file in the --out folder")
    parser.add_argument("--iu", type=Path, default=Path("../shared/data/iu_xray"))
    parser.add_argument("--nih", type=Path, default=Path("../shared/data/nih_subset"))
    parser.add_argument("--out", type=Path, default=Path("../weights"))
    parser.add_argument("--suffix", default="cxr", help="the output is <name>_<suffix>")
    parser.add_argument("--epochs", type=int, default=TuneConfig().epochs)
    parser.add_argument("--learning-rate", type=float, default=TuneConfig().learning_rate)
    parser.add_argument("--freeze-norms", action="store_true", help="keep ImageNet's batch norm statistics")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TuneConfig(
        epochs=options.epochs, learning_rate=options.learning_rate, has_frozen_norms=options.freeze_norms
    )
    result = options.out / f"{options.name}_{options.suffix}"

    images = labelled_images(options.iu, options.nih)
    train, held_out = (images.where(is_wanted_N) for is_wanted_N in (images.fold_N != 0, images.fold_N == 0))
    for part, use in ((train, "tuned on"), (held_out, "held out")):
        print(f"{use}: {len(part.paths)} images of {len(set(part.studies))} studies", flush=True)
    network, *norm = encoder(options.out / f"{options.name}.safetensors")
    train_NSS, held_out_NSS = pixels(train.paths, IMAGE_SIZE), pixels(held_out.paths, IMAGE_SIZE)
    features_ND, before_ND = encoded(network, train_NSS, *norm), encoded(network, held_out_NSS, *norm)
    l2 = best_l2(features_ND, train.labels_NL, train.fold_N == 1)  # one training fold chooses, then all are fitted
    weight_DL, bias_L = linear_probe(features_ND, train.labels_NL, l2=l2)
    before_NL = before_ND @ weight_DL + bias_L
    print(f"linear probe fitted, L2 penalty {l2}", flush=True)

    network.reset_classifier(len(images.label_names))
    with torch.no_grad():  # tuning starts from the probe
        network.classifier.weight.copy_(weight_DL.T)
        network.classifier.bias.copy_(bias_L)
    checkpoint = result.with_name(f"{result.name}.checkpoint.pt")
    for line in tune(network, train, tuple(norm), config=config, checkpoint=checkpoint):
        print(line, flush=True)
    network.eval()
    after_NL = encoded(network, held_out_NSS, *norm)
    network.reset_classifier(0)
    after_ND = encoded(network, held_out_NSS, *norm)

    logits = {"probe before": before_NL, "tuned": after_NL}
    table = comparison(held_out, logits, {"features before": before_ND, "features tuned": after_ND})
    for row in table:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    with result.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, max(table, key=len))
        writer.writeheader()
        writer.writerows(table)
    with safe_open(options.out / f"{options.name}.safetensors", framework="pt") as file:
        metadata = file.metadata()
    metadata |= {
        "trained_on": "ImageNet-1k, then IU X-Ray training split (four fifths) and NIH ChestX-ray14 subset",
        "license": f"{metadata['license']} before tuning; tuned: local research use, not to be published",
        "tuning": str(config),
    }
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, f"{result}.partial", metadata)
    Path(f"{result}.partial").chmod(0o644)
    Path(f"{result}.partial").replace(result.with_suffix(".safetensors"))
    checkpoint.unlink()


if __name__ == "__main__":
    main()
