"""A published R2Gen or R2GenCMN checkpoint (.pth) to a model folder. Which of the two it is shows in its names."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from rayscribe.checkpoint import save_model
from rayscribe.config import BackboneConfig, RunConfig, TextConfig
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.split_reports import cleaned_report
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.methods import find_method
from rayscribe.methods.build import build_model
from rayscribe.methods.method import TrainedModel
from rayscribe.methods.published_names import WORDS, converted, sizes_of
from rayscribe.methods.r2gen_cmn import R2GenCmnSettings


def convert(
    checkpoint: Path,
    data: Path,
    out: Path,
    *,
    threshold: int,
    max_length: int,
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu",
) -> None:
    """Writes the model folder `out`. The checkpoint lacks its vocabulary, which is built again from the manifest."""
    if (out / "model.json").exists():
        raise InputError(f"{out}: holds a model already; give another --out, or delete the folder")
    stored = _read(checkpoint)
    published = {name.removeprefix("module."): tensor for name, tensor in stored["state_dict"].items()}
    with _naming(checkpoint):
        sizes, method = sizes_of(published)
    config: RunConfig[Any] = RunConfig(
        system="r2gen_cmn" if isinstance(method, R2GenCmnSettings) else "r2gen",
        method=method,
        text=TextConfig(cleaning=cleaning, threshold=threshold, max_length=max_length, legacy_ids=True),
        backbone=BackboneConfig(name="resnet101", trainable=True),
        model=sizes,
    )
    manifest = read_manifest(data)
    tokenizer = _vocabulary(manifest, config.text, rows=published[WORDS].shape[0], checkpoint=checkpoint)
    model = build_model(config, tokenizer.size)
    with _naming(checkpoint):
        model.load_state_dict(converted(published, config, model.state_dict()))
    facts = {"imported_from": checkpoint.name, "epoch": stored.get("epoch", "?")}
    about = manifest.provenance | {"digest": manifest.digest()}
    save_model(
        out,
        TrainedModel(
            method=find_method(config.system),
            model=model,
            tokenizer=tokenizer,
            config=config,
            data=about,
            training=facts,
        ),
    )


@contextmanager
def _naming(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{checkpoint}: {error}") from error


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{checkpoint}: no such checkpoint; check the path") from error
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError, KeyError, ValueError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{checkpoint}: not a checkpoint that can be read without running its code ({reason})"
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("state_dict"), dict):
        raise InputError(
            f"{checkpoint}: no state_dict in it; give the file that R2Gen or R2GenCMN saved as model_best.pth"
        )
    return stored


def _vocabulary(manifest: Manifest, text: TextConfig, *, rows: int, checkpoint: Path) -> Tokenizer:
    reports = [report for study in manifest.split("train") if (report := cleaned_report(study, text))]
    tokenizer = Tokenizer.build(reports, threshold=text.threshold, legacy_ids=True)
    if tokenizer.size == rows:
        return tokenizer
    counts = {}
    for threshold in range(1, 21):
        try:
            counts[threshold] = Tokenizer.build(reports, threshold=threshold, legacy_ids=True).size
        except InputError:  # no word is that frequent
            break
    fitting = [str(threshold) for threshold, size in counts.items() if size == rows]
    advice = (
        f"--threshold {fitting[0]} fits"
        if fitting
        else "no threshold from 1 to 20 fits: the checkpoint is of other reports, another split or another cleaning"
    )
    raise InputError(
        f"{checkpoint}: the weights are for {rows} token ids, but the training reports of the manifest give "
        f"{tokenizer.size} at threshold {text.threshold}; {advice}"
    )
