"""How references and reports are made comparable, and the signature that two scores must share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rayscribe import __version__
from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.manifest import Manifest
from rayscribe.data.sections import section_text, split_sections
from rayscribe.data.tokenizer import UNKNOWN, Tokenizer
from rayscribe.errors import InputError

INFORMATION = ("rayscribe", "data_digest", "source")
"Keys of a signature that say where a score comes from and need not be equal: images and versions may differ."

_UNKNOWN_LETTERS = "qunknownq"  # survives every cleaning


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


def check_protocol(path: Path, protocol: Protocol) -> None:
    """Refuses to score predictions against another section or cleaning than their model was trained on."""
    meta = path.with_name(path.name + ".meta.json")
    if meta.exists():
        made = json.loads(meta.read_text())
        for name, asked in (("section", protocol.section), ("cleaning", protocol.cleaning)):
            if made.get(name, asked) != asked:
                raise InputError(f"{path}: written for {name} {made[name]}, not {asked}; give --{name} {made[name]}")


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


def training_reports(manifest: Manifest, protocol: Protocol) -> dict[str, str]:
    """Full cleaned training reports by id; none when the manifest has no training split."""
    full = Protocol(section=protocol.section, cleaning=protocol.cleaning)
    return reference_reports(manifest, "train", full) if manifest.counts()["train"] else {}


def written_reports(
    predictions: Mapping[str, str], references: Mapping[str, str], split: str, protocol: Protocol
) -> list[str]:
    """The reports for `references`, in their order, under the same cleaning.

    A text of cleaned words stays as it is (our models write such). Any other is brought to the protocol's section when it has
    headings, and cleaned as the references are.
    """
    missing = [study for study in references if study not in predictions]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(references)} studies of split {split} have no prediction, e.g. {missing[0]} "
            f"(the file's ids look like {next(iter(predictions), 'nothing')}); finish `rayscribe generate` "
            "(it goes on where it stopped), or name the right split"
        )
    return [_cleaned(predictions[study], protocol) for study in references]


def signature(manifest: Manifest, split: str, protocol: Protocol, references: Mapping[str, str]) -> dict[str, Any]:
    """What two scores must share to stand in one table; `INFORMATION` is beside it."""
    ids = sorted(study.id for study in manifest.split(split))
    texts = json.dumps(sorted(references.items()))
    return {
        **asdict(protocol),
        "split": split,
        "split_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "references_sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "data_digest": manifest.digest(),
        "source": manifest.provenance.get("source", ""),
        "hypotheses": "cleaned like the references unless already made of cleaned words; words between spaces",
        "metrics": "rayscribe overlap 2 (pycocoevalcap without PTB tokeniser; cider is CIDEr-D)",
        "rayscribe": __version__,
    }


def signature_conflicts(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Why two scores cannot stand in one table, a line a key; empty when they can."""
    keys = [key for key in {**first, **second} if key not in INFORMATION]
    return [
        f"{key}: {first.get(key, 'not stated')} against {second.get(key, 'not stated')}"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _cleaned(report: str, protocol: Protocol) -> str:
    clean = CLEANINGS[protocol.cleaning]
    words = " ".join(report.split())
    kept = words.replace(UNKNOWN, _UNKNOWN_LETTERS)
    # A report that was cut at its longest has no stop at its end; it is not given one.
    if not kept or clean(kept) in (kept, f"{kept} ."):
        return words
    findings, impression = split_sections(report)
    if impression or findings != report.strip():  # without any heading all of it is findings
        # Whoever wrote headings meant them; the joint section is whatever stands under either.
        wanted = {"findings": findings, "impression": impression}.get(protocol.section, f"{findings} {impression}")
        report = wanted.strip()
    if not report.strip():
        return ""
    return clean(report.replace(UNKNOWN, _UNKNOWN_LETTERS)).replace(_UNKNOWN_LETTERS, UNKNOWN)
