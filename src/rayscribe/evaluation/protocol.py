"""How references and reports are made comparable, and the signature that comparable scores share."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from rayscribe import __version__
from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.manifest import Manifest
from rayscribe.data.sections import section_text, written_section
from rayscribe.data.tokenizer import UNKNOWN, Tokenizer
from rayscribe.errors import InputError
from rayscribe.provenance import note_test
from rayscribe.settings import need

INFORMATION = ("rayscribe", "data_digest", "source")
"Keys of a signature that state a score's origin and need not be equal: images and versions may differ."

_UNKNOWN_LETTERS = "qunknownq"  # survives every cleaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How references are prepared. Scores under different protocols are not comparable."""

    section: Literal["findings", "impression", "findings+impression"] = "findings"
    cleaning: Literal["r2gen-iu", "r2gen-mimic"] = "r2gen-iu"
    references: Literal["full", "r2gen_compat"] = "full"
    "full: the cleaned report. r2gen_compat: truncated to `max_length`, with rare words as <unk>, as the papers scored"
    max_length: int = 60
    "r2gen_compat: ids per report, begin and end included"
    threshold: int = 3
    "r2gen_compat: words that occur less often in training become <unk>"

    def __post_init__(self) -> None:
        hints = get_type_hints(Protocol)
        for name, value in (("section", self.section), ("cleaning", self.cleaning), ("references", self.references)):
            known = get_args(hints[name])
            need(value in known, f"--{name}", value, f"there are {', '.join(known)}")
        for flag, number, least in (("--max-length", self.max_length, 3), ("--threshold", self.threshold, 1)):
            is_whole = isinstance(number, int) and not isinstance(number, bool)
            need(is_whole and number >= least, flag, number, f"a whole number, at least {least}")


def check_protocol(path: Path, protocol: Protocol) -> None:
    """Raises InputError for predictions of a model that was trained on another section or cleaning."""
    meta = path.with_name(path.name + ".meta.json")
    if meta.exists():
        made = json.loads(meta.read_text())
        for name, asked in (("section", protocol.section), ("cleaning", protocol.cleaning)):
            if made.get(name, asked) != asked:
                raise InputError(f"{path}: written for {name} {made[name]}, not {asked}; give --{name} {made[name]}")


def note_scored(predictions: Path, result: Mapping[str, Any]) -> None:
    """Notes a look at the test split in the folder of the model that wrote the file, where it is known."""
    meta = predictions.with_name(predictions.name + ".meta.json")
    folder = Path(json.loads(meta.read_text()).get("folder", "")) if meta.exists() else Path()
    if folder.name and folder.is_dir():
        note_test(folder, {"scored": predictions.name, "signature": result["signature"]})


def reference_reports(manifest: Manifest, split: str, protocol: Protocol) -> dict[str, str]:
    """Cleaned references by study id, without studies that lack the section. Raises InputError if none has it."""
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
    """Full cleaned training reports by id; empty if the manifest has no training split."""
    full = Protocol(section=protocol.section, cleaning=protocol.cleaning)
    return reference_reports(manifest, "train", full) if manifest.counts()["train"] else {}


def written_reports(
    predictions: Mapping[str, str], references: Mapping[str, str], split: str, protocol: Protocol
) -> list[str]:
    """The reports for `references`, in their order, under the same cleaning.

    Raises InputError if predictions are missing, or are no texts.

    A text of cleaned words, as our models write, stays as it is. Any other text is cut to the protocol's section if it has
    headings, loses its markers (see `without_markers`) and is cleaned like the references.
    """
    missing = [study for study in references if study not in predictions]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(references)} studies of split {split} have no prediction, e.g. {missing[0]} "
            f"(the file's ids look like {next(iter(predictions), 'nothing')}); finish `rayscribe generate` "
            "(it resumes where it stopped), or give the right --split"
        )
    for study in references:
        check_text(predictions[study], f"the prediction of study {study}")
    return [_cleaned(predictions[study], protocol) for study in references]


def check_text(text: object, place: str) -> None:
    """Raises InputError unless it is a text that can be written as UTF-8; `place` names it in the message."""
    if not isinstance(text, str):
        raise InputError(
            f"{place} is of type {type(text).__name__}, not a text; give a string, empty if there is no report"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: character {error.start + 1} is half of a surrogate pair ({text[error.start]!a}), which is no text; "
            "read the file again as UTF-8"
        ) from error


def signature(manifest: Manifest, split: str, protocol: Protocol, references: Mapping[str, str]) -> dict[str, Any]:
    """What scores in one table must share; also holds the keys of `INFORMATION`, which may differ."""
    ids = sorted(study.id for study in manifest.split(split))
    texts = json.dumps(sorted(references.items()))
    return {
        **asdict(protocol),
        "split": split,
        "split_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "references_sha256": hashlib.sha256(texts.encode()).hexdigest(),
        "data_digest": manifest.digest(),
        "source": manifest.provenance.get("source", ""),
        "hypotheses": "without list and end markers; cleaned like the references unless already made of cleaned words; "
        "words between spaces",
        "metrics": "rayscribe overlap 2 (pycocoevalcap without PTB tokeniser; cider is CIDEr-D)",
        "rayscribe": __version__,
    }


def signature_conflicts(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Why two scores cannot share a table, one line per key; empty if they can."""
    keys = [key for key in {**first, **second} if key not in INFORMATION]
    return [
        f"{key}: {first.get(key, 'not stated')} against {second.get(key, 'not stated')}"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def without_markers(text: str) -> str:
    """The text without what language models write around words: end markers, bullets, list numbers and Markdown.

    A text that has any becomes one line, in which every item of a list ends with a stop; any other text stays as it is.
    """
    plain = _TOKEN.sub(" ", text)
    is_list = len(_NUMBERED.findall(plain)) > 1
    lines = [_item(line, has_numbers=is_list) for line in _BOLD.sub(r"\2", plain).splitlines()]
    plain = " ".join(" ".join(lines).split())
    return text if plain == " ".join(text.split()) else plain


_TOKEN = re.compile(
    r"</?s>|<(?:pad|bos|eos|(?:start|end)_of_turn)>|<\|\w+\|>|\[(?:CLS|SEP|PAD|BOS|EOS)\]", re.IGNORECASE
)
_BOLD = re.compile(r"(\*\*|__)(?=[^\s_*])([^\n]*?[^\s_*])\1")
_BULLET = re.compile(r"[ \t]*[-*+\u2022\u2013][ \t]+")
_NUMBERED = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+", re.MULTILINE)


def _item(line: str, *, has_numbers: bool) -> str:
    bullet = _BULLET.match(line) or (_NUMBERED.match(line) if has_numbers else None)
    if not bullet:
        return re.sub(r"^[ \t]*#+[ \t]+", "", line)
    words = line[bullet.end() :].strip()
    return words if not words or words[-1] in ".:;!?" else f"{words}."


def _cleaned(report: str, protocol: Protocol) -> str:
    clean = CLEANINGS[protocol.cleaning]
    report = without_markers(written_section(_TOKEN.sub(" ", report), protocol.section))
    words = " ".join(report.split())
    kept = words.replace(UNKNOWN, _UNKNOWN_LETTERS)
    # A truncated report has no final stop and does not receive one.
    if not kept or clean(kept) in (kept, f"{kept} ."):
        return words
    return clean(report.replace(UNKNOWN, _UNKNOWN_LETTERS)).replace(_UNKNOWN_LETTERS, UNKNOWN)
