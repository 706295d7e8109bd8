"""Scores of a predictions file against a manifest split, with protocol, floors and diversity. Needs no model and no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rayscribe import __version__
from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.manifest import Manifest
from rayscribe.data.sections import section_text
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.metrics.diversity import diversity
from rayscribe.metrics.floors import best_constant
from rayscribe.metrics.overlap import overlap_scores
from rayscribe.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How references are made. Scores under different protocols are not comparable."""

    section: Literal["findings", "impression", "findings+impression"] = "findings"
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu"
    references: Literal["full", "r2gen_compat"] = "full"
    "full: the cleaned report. r2gen_compat: cut at `max_length` and rare words as <unk>, as the papers scored"
    max_length: int = 60
    "r2gen_compat: ids a report, begin and end included"
    threshold: int = 3
    "r2gen_compat: training words rarer than this are <unk>"


def read_predictions(path: Path) -> dict[str, str]:
    """Reports by study id from lines {"id": ..., "report": ...}."""
    if not path.is_file():
        raise InputError(f"{path}: no such predictions file; write one with `rayscribe generate`")
    predictions: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            study, report = record["id"], record["report"]
            if not (isinstance(study, str) and isinstance(report, str)):
                raise TypeError("both must be texts")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'{path}, line {number}: not {{"id": ..., "report": ...}} ({error!r})') from error
        if study in predictions:
            raise InputError(f"{path}, line {number}: study {study} stands twice")
        predictions[study] = report
    return predictions


def check_protocol(path: Path, protocol: Protocol) -> None:
    """Refuses to score predictions against another section or cleaning than their model was trained on."""
    meta = path.with_name(path.name + ".meta.json")
    if meta.exists():
        made = json.loads(meta.read_text())
        for name, asked in (("section", protocol.section), ("cleaning", protocol.cleaning)):
            if made.get(name, asked) != asked:
                raise InputError(f"{path}: written for {name} {made[name]}, not {asked}; give --{name} {made[name]}")


def evaluate(predictions: dict[str, str], manifest: Manifest, *, split: str, protocol: Protocol) -> dict[str, Any]:
    """The content of scores.json. Every study of the split that has the section must have a prediction."""
    references = reference_reports(manifest, split, protocol)
    missing = [study for study in references if study not in predictions]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(references)} studies of split {split} have no prediction, e.g. {missing[0]}; "
            "finish `rayscribe generate` (it goes on where it stopped), or name the right split"
        )
    hypotheses = [" ".join(predictions[study].lower().split()) for study in references]
    wanted = list(references.values())
    floors: dict[str, Any] = {}
    if manifest.counts()["train"] and manifest.counts()["val"]:
        constant = best_constant(
            list(reference_reports(manifest, "train", protocol).values()),
            list(reference_reports(manifest, "val", protocol).values()),
        )
        floors["constant"] = {"text": constant, "scores": _values([constant] * len(wanted), wanted)}
    return {
        "disclaimer": DISCLAIMER,
        "signature": signature(manifest, split, protocol),
        "studies": len(wanted),
        "scores": _values(hypotheses, wanted),
        "floors": floors,
        "diversity": diversity(hypotheses),
    }


def reference_reports(manifest: Manifest, split: str, protocol: Protocol) -> dict[str, str]:
    """Cleaned references by study id; studies without the section are left out."""
    clean = CLEANINGS[protocol.cleaning]

    def cleaned(name: str) -> dict[str, str]:
        texts = {s.id: section_text(s.findings, s.impression, protocol.section) for s in manifest.split(name)}
        return {study: clean(text) for study, text in texts.items() if text}

    reports = cleaned(split)
    if not reports:
        raise InputError(f"no study in split {split} has the section {protocol.section!r}")
    if protocol.references == "full":
        return reports
    tokenizer = Tokenizer.build(cleaned("train").values(), threshold=protocol.threshold, legacy_ids=True)
    return {
        study: tokenizer.decode(tokenizer.encode(report, max_length=protocol.max_length))
        for study, report in reports.items()
    }


def signature(manifest: Manifest, split: str, protocol: Protocol) -> dict[str, Any]:
    """Everything that two scores must share to stand in one table."""
    ids = sorted(study.id for study in manifest.split(split))
    return {
        **asdict(protocol),
        "split": split,
        "split_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "data_digest": manifest.digest(),
        "source": manifest.provenance.get("source", ""),
        "hypotheses": "lower case, words between spaces",
        "metrics": "rayscribe overlap 1 (pycocoevalcap without PTB tokeniser; cider is CIDEr-D)",
        "rayscribe": __version__,
    }


def summary(result: dict[str, Any]) -> str:
    """The table that is printed: every score beside its floor."""
    protocol = result["signature"]
    floor = result["floors"].get("constant", {}).get("scores", {})
    lines = [
        f"{result['studies']} studies, split {protocol['split']}, {protocol['section']}, "
        f"references {protocol['references']}",
        f"{'':10}{'model':>9}{'constant':>11}",
    ]
    below = []
    for name, score in result["scores"].items():
        beside = f"{floor[name]['value']:>11.4f}" if floor else ""
        lines.append(f"{name:10}{score['value']:>9.4f}{beside}")
        if floor and score["value"] <= floor[name]["value"]:
            below.append(name)
    if not floor:
        lines.append("No floor: it is chosen on train and val, which this manifest lacks.")
    diverse = result["diversity"]
    lines.append(
        f"distinct reports {diverse['distinct_ratio']:.3f} of all; the most frequent {diverse['top_share']:.3f}"
    )
    if below:
        lines.append(f"Not better than one constant sentence for every study: {', '.join(below)}.")
    lines.append(result["disclaimer"])
    return "\n".join(lines)


def _values(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, dict[str, float]]:
    return {name: {"value": value} for name, value in overlap_scores(hypotheses, references).items()}
