"""Builds the index of training reports, see `retrieval.py`: by TF-IDF and a linear map fitted here, or by a CLIP on disk.

The aligned kind: reports as TF-IDF vectors, reduced by a truncated singular value decomposition; images as features of a frozen
encoder, mapped to the reports by ridge regression. Its strength is chosen, and the recall measured, on training studies held
out from the fit. Only the training split is read.

Shapes: R training reports, W words, C channels, M width of the space, F names of findings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from rayscribe.config import BackboneConfig, ImageConfig, TextConfig
from rayscribe.data.manifest import Manifest
from rayscribe.data.mining import Texts
from rayscribe.data.retrieval import ABOUT, BANK, RETRIEVAL_FORMAT, Retrieval, study_hash
from rayscribe.data.retrieval_encoders import CLIP_FOLDER, ENCODER, INSTALL_BERT, study_features
from rayscribe.data.sections import section_text
from rayscribe.data.split_reports import cleaned_report
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import sha256_of, whole_file, write_text
from rayscribe.models.backbones import Backbone
from rayscribe.progress import ProgressBar
from rayscribe.study import Study

# Spec A2.1; each name is embedded on its own.
_FINDINGS = (
    *("normal", "cardiomegaly", "scoliosis", "fractures", "effusion", "thickening", "pneumothorax", "hernia"),
    *("calcinosis", "emphysema", "pneumonia", "edema", "atelectasis", "cicatrix", "opacity", "lesion"),
    *("airspace disease", "hypoinflation", "medical device", "other"),
)
_FOLDS = 5
_STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
_JUDGED = 5000  # studies for measuring recall; all 270,000 would take hours
_ALIKE = 1e-5  # cosines of reports with the same words differ by rounding


@dataclass(frozen=True, slots=True)
class RetrievalRecall:
    """Share of held-out training images that find their own report among the `top` nearest of all."""

    top: int
    found: float
    chance: float


def training_part(manifest: Manifest, text: TextConfig) -> tuple[list[Study], list[str]]:
    """The training studies that have the section, and their cleaned reports. Raises InputError if there are too few."""
    pairs = [(study, report) for study in manifest.split("train") if (report := cleaned_report(study, text))]
    if len(pairs) < 2 * _FOLDS:
        raise InputError(f"{len(pairs)} training studies have the section {text.section!r}; too few for an index")
    return [study for study, _ in pairs], [report for _, report in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedConfig:
    """How images and reports enter one space: a frozen encoder, and a linear map fitted to the reports' vectors."""

    encoder: BackboneConfig
    images: ImageConfig
    width: int = 512
    "width of the reports' vectors"
    features: Path | None = None
    "folder of the feature cache; empty: the user's cache folder"


def build_aligned(
    manifest: Manifest, text: TextConfig, config: AlignedConfig, out: Path, *, top: int, progress: ProgressBar
) -> RetrievalRecall:
    """Writes an index of the aligned kind. Raises InputError if the reports have too few words for a space."""
    studies, reports = training_part(manifest, text)
    bank_RM, findings_FM = report_vectors(reports, _FINDINGS, config.width)
    backbone = Backbone(config.encoder).eval()
    means_RC = study_features(studies, backbone, config.images, config.features, None, progress)
    centre_C = means_RC.mean(0)
    x_RC = F.normalize(means_RC - centre_C, dim=-1)
    strength, queries_RM = held_out_queries(x_RC, bank_RM, top)
    map_CM = ridge(x_RC, bank_RM, [strength])[0]
    net = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    with whole_file(out / ENCODER) as temporary:
        save_file(net | {"centre": centre_C, "map": map_CM.contiguous()}, temporary)
    kept = asdict(config.encoder.without_weights()) | {"trainable": False}
    about = {"kind": "aligned", "ridge": strength, "backbone": kept, "images": asdict(config.images)}
    _write(out, about, manifest, text, studies, {"bank": bank_RM, "findings": findings_FM, "queries": queries_RM})
    return recall_of(queries_RM, bank_RM, top)


def report_vectors(reports: Sequence[str], findings: Sequence[str], width: int) -> tuple[Tensor, Tensor]:
    """Unit vectors of the reports (R, M) and, in the same space, of the findings' names (F, M); zero if no word is known.

    M is `width`, or the largest multiple of 8 below it that the reports' words allow.
    """
    texts = Texts.of([*reports, *findings])
    own, names = texts.part(torch.arange(len(reports))), texts.part(torch.arange(len(reports), len(texts.starts_N)))
    lengths_R = torch.diff(own.starts_N, append=torch.tensor([len(own.words_G)]))
    places_2G = torch.stack([torch.arange(len(reports)).repeat_interleave(lengths_R), own.words_G])
    size = (len(reports), texts.vocabulary)
    sparse_RW = torch.sparse_coo_tensor(places_2G, own.weights_G, size, check_invariants=False)
    width = min(width, len(reports), texts.vocabulary) // 8 * 8
    if width < 8:
        raise InputError("the training reports have fewer than 8 distinct words; too few to compare them")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, directions_WM = torch.svd_lowrank(sparse_RW, q=width, niter=4)
    known_W = torch.zeros(texts.vocabulary, dtype=torch.bool).index_fill(0, own.words_G, True)
    # For other words the directions contain only rounding errors, which would be scaled to unit length.
    directions_WM = directions_WM * known_W[:, None]
    return tuple(F.normalize(part.times(directions_WM), dim=-1) for part in (own, names))  # type: ignore[return-value]


def ridge(x_RC: Tensor, y_RM: Tensor, strengths: Sequence[float]) -> list[Tensor]:
    """For each strength, the map (C, M) that minimises squared error plus strength times its squared size."""
    x, y = x_RC.double(), y_RM.double()
    values_C, vectors_CC = torch.linalg.eigh(x.T @ x)
    turned_CM = vectors_CC.T @ (x.T @ y)
    return [(vectors_CC @ (turned_CM / (values_C[:, None].clamp(min=0) + one))).float() for one in strengths]


def held_out_queries(x_RC: Tensor, bank_RM: Tensor, top: int) -> tuple[float, Tensor]:
    """The best strength, and every training study's query (R, M) by the map fitted on the four folds without it."""
    generator = torch.Generator().manual_seed(0)
    fold_R = torch.randperm(len(x_RC), generator=generator) % _FOLDS
    judged = torch.randperm(len(x_RC), generator=generator)[:_JUDGED]
    held = [fold_R == fold for fold in range(_FOLDS)]
    maps = [ridge(x_RC[~held_R], bank_RM[~held_R], _STRENGTHS) for held_R in held]

    def queries(place: int) -> Tensor:
        queries_RM = torch.empty_like(bank_RM)
        for held_R, of_fold in zip(held, maps):
            queries_RM[held_R] = F.normalize(x_RC[held_R] @ of_fold[place], dim=-1)
        return queries_RM

    best = max(range(len(_STRENGTHS)), key=lambda place: recall_of(queries(place), bank_RM, top, judged).found)
    return _STRENGTHS[best], queries(best)


def recall_of(queries_RM: Tensor, bank_RM: Tensor, top: int, rows: Tensor | None = None) -> RetrievalRecall:
    """Recall over these studies, or over a fixed sample of them. Ties between equal reports count as a random draw."""
    if rows is None:
        rows = torch.randperm(len(bank_RM), generator=torch.Generator().manual_seed(0))[:_JUDGED]
    found = 0.0
    for rows_B in rows.split(256):
        scores_BR = queries_RM[rows_B] @ bank_RM.T
        own_B1 = scores_BR.gather(1, rows_B[:, None])
        better_B, alike_B = (scores_BR > own_B1 + _ALIKE).sum(1), (scores_BR >= own_B1 - _ALIKE).sum(1)
        found += float(((top - better_B) / (alike_B - better_B)).clamp(0, 1).sum())
    return RetrievalRecall(top=top, found=found / len(rows), chance=min(1.0, top / len(bank_RM)))


def build_clip(
    manifest: Manifest, text: TextConfig, clip: Path, out: Path, *, top: int, progress: ProgressBar
) -> RetrievalRecall:
    """Writes an index from the CLIP in the folder `clip`, as transformers saves one. Reports are embedded as written."""
    if not clip.is_dir():
        raise InputError(f"{clip}: no such CLIP folder (--clip)")
    # transformers silently invents a missing tokenizer and missing weights.
    if not any((clip / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        raise InputError(f"{clip}: has no tokenizer (tokenizer.json); save the CLIP's there as well")
    try:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPVisionModelWithProjection
    except ImportError as error:
        raise InputError(f"--by clip needs the library transformers ({error}); {INSTALL_BERT}") from error
    studies, _ = training_part(manifest, text)
    read: Any = CLIPModel.from_pretrained  # its types omit the second result
    try:
        model, loaded = read(clip, local_files_only=True, use_safetensors=True, output_loading_info=True)
        processor = CLIPImageProcessor.from_pretrained(clip, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(clip, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{clip}: not a complete CLIP in safetensors ({error}); give what save_pretrained wrote"
        ) from error
    if lacking := sorted(loaded["missing_keys"]):
        raise InputError(
            f"{clip}: lacks {len(lacking)} CLIP weights, e.g. {lacking[0]}; give what save_pretrained wrote"
        )
    model.eval()
    vision = CLIPVisionModelWithProjection(_vision_config(model))
    vision.vision_model.load_state_dict(model.vision_model.state_dict())
    vision.visual_projection.load_state_dict(model.visual_projection.state_dict())
    longest = model.config.text_config.max_position_embeddings

    def embedded(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        with torch.no_grad():
            hidden = model.text_model(tokens["input_ids"], tokens["attention_mask"]).pooler_output
            return F.normalize(model.text_projection(hidden), dim=-1)

    reports = [section_text(study.findings, study.impression, text.section) for study in studies]
    blocks = [reports[start : start + 64] for start in range(0, len(reports), 64)]
    bank_RM = torch.cat([embedded(block) for block in progress(blocks)])
    vision.save_pretrained(out / CLIP_FOLDER)
    processor.save_pretrained(out / CLIP_FOLDER)
    about = {"kind": "clip", "clip": clip.name}
    _write(out, about, manifest, text, studies, {"bank": bank_RM, "findings": embedded(_FINDINGS)})
    queries_RM = Retrieval.load(out).study_vectors(studies, progress=progress)
    return recall_of(queries_RM, bank_RM, top)


def _vision_config(model: Any) -> Any:
    """Configuration of the vision part, with the projection's width added."""
    config = copy.deepcopy(model.config.vision_config)
    config.projection_dim = model.config.projection_dim
    return config


def _write(
    out: Path,
    about: dict[str, Any],
    manifest: Manifest,
    text: TextConfig,
    studies: Sequence[Study],
    vectors: dict[str, Tensor],
) -> None:
    """Writes the bank, then retrieval.json with the hashes of all files."""
    with whole_file(out / BANK) as temporary:
        save_file({name: tensor.half().contiguous() for name, tensor in vectors.items()}, temporary)
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != ABOUT)
    record = {
        "format": RETRIEVAL_FORMAT,
        "disclaimer": DISCLAIMER,
        **about,
        "reports": len(studies),
        "width": vectors["bank"].shape[1],
        "section": text.section,
        "cleaning": text.cleaning,
        "digest": manifest.digest(),
        "sha256": {path.relative_to(out).as_posix(): sha256_of(path) for path in files},
        "findings": _FINDINGS,
        "ids": [study.id for study in studies],
        "subjects": [study.subject for study in studies],
        "identities": [study_hash(study.id, study.sha256) for study in studies],
    }
    write_text(out / ABOUT, json.dumps(record, indent=1) + "\n")
