"""The texts of a blind study: settings, two systems' reports and the reference, and checks for what reveals a system."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.predictions import read_predictions
from rayscribe.data.sections import section_text
from rayscribe.data.tokenizer import UNKNOWN
from rayscribe.errors import InputError
from rayscribe.evaluation.protocol import Protocol, check_protocol, written_reports
from rayscribe.files import sha256_of
from rayscribe.study import Study

APART = 0.2
"Warn of a habit if the shares of reports that have it differ by more than this."

_HABITS: dict[str, Callable[[str], bool]] = {
    "with a capital letter": lambda text: text != text.lower(),
    "with a space before a full stop": lambda text: " ." in text,
    f"with {UNKNOWN}": lambda text: UNKNOWN in text,
    "without a final full stop": lambda text: not text.endswith("."),
    "with a line break": lambda text: len(text.splitlines()) > 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStudyConfig:
    """What readers see."""

    split: str = "test"
    "train, val or test"
    studies: int = 50
    "number of studies; half of them normal if the manifest codes every study"
    seed: int = 0
    "seed of the draw, the sides and the order"
    section: Literal["findings", "impression", "findings+impression"] = "findings"
    "section of the reference, and of reports that are cleaned"
    cleaning: Literal["as-written", "r2gen-iu", "r2gen-mimic"] = "as-written"
    "as-written, or one cleaning for the reference and both reports, so that capitals and spacing reveal no system"
    reference: bool = True
    "show the radiologist's text; excludes studies without the section"
    images: bool = False
    "embed the images; only if the data's terms allow copies. Excludes studies without images"
    restricted_text: bool = False
    "confirm that the readers may see the reports of restricted data"
    keep_identical: bool = False
    "keep studies for which both systems wrote the same text; votes on them are uninformative"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSystem:
    """One side of the comparison: reports by study id, and their file."""

    name: str
    file: str
    sha256: str
    reports: Mapping[str, str]


def read_systems(
    paths: tuple[Path, Path], names: tuple[str, str] | None, config: ReaderStudyConfig
) -> list[ComparedSystem]:
    """Reads both prediction files; without `names`, a system is named after its file. Raises InputError."""
    wanted = [name.strip() for name in names or (paths[0].stem, paths[1].stem)]
    if not all(wanted) or wanted[0] == wanted[1]:
        raise InputError(
            f"the systems are called {wanted[0]!r} and {wanted[1]!r}; tell them apart with --names FIRST SECOND"
        )
    for name in (*wanted, *(path.name for path in paths)):
        _check_writable(repr(name), name, "rename the file, or give other --names")
    for path in paths:
        _check_section(path, config)
        if config.cleaning != "as-written":
            check_protocol(path, Protocol(section=config.section, cleaning=config.cleaning))
    systems = [
        ComparedSystem(name=name, file=path.name, reports=read_predictions(path), sha256=sha256_of(path))
        for name, path in zip(wanted, paths)
    ]
    if systems[0].sha256 == systems[1].sha256:
        raise InputError(f"{paths[0]} and {paths[1]} are the same file; a study compares two systems")
    return systems


def reference_text(study: Study, config: ReaderStudyConfig) -> str:
    """The radiologist's text, as readers see it; empty if the report lacks the section."""
    text = section_text(study.findings, study.impression, config.section)
    return text if config.cleaning == "as-written" or not text else CLEANINGS[config.cleaning](text)


def shown_texts(system: ComparedSystem, studies: Sequence[Study], config: ReaderStudyConfig) -> dict[str, str]:
    """A system's reports by study id, as readers see them. Raises InputError for text that cannot be written."""
    for study in studies:
        _check_writable(f"{system.file}, study {study.id}", system.reports[study.id], "fix this report")
    if config.cleaning == "as-written":
        return {study.id: system.reports[study.id].strip() for study in studies}
    wanted = {study.id: "" for study in studies}
    protocol = Protocol(section=config.section, cleaning=config.cleaning)
    return dict(zip(wanted, written_reports(system.reports, wanted, config.split, protocol)))


def name_tags(texts: Mapping[str, Sequence[str]], config: ReaderStudyConfig) -> list[str]:
    """Warnings about habits that let readers tell the two systems apart (`texts`: reports by name), whatever they say."""
    (first, ones), (second, others) = texts.items()
    found = []
    for words, has in _HABITS.items():
        shares = [sum(map(has, side)) / len(side) for side in (ones, others)]
        if abs(shares[0] - shares[1]) > APART:
            found.append(
                f"WARNING  a name tag: reports {words} are {100 * shares[0]:.0f} % of {first}'s and "
                f"{100 * shares[1]:.0f} % of {second}'s"
            )
    if found:
        way_out = "give --cleaning, or make" if config.cleaning == "as-written" else "--cleaning leaves it; make"
        found.append(f"         readers can tell the systems apart by it: {way_out} the texts alike in the files")
    return found


def _check_section(path: Path, config: ReaderStudyConfig) -> None:
    """Checks only the section: `check_protocol` also compares the cleaning, which reports shown as written need not share."""
    meta = path.with_name(path.name + ".meta.json")
    made = json.loads(meta.read_text()).get("section", config.section) if meta.exists() else config.section
    if made != config.section:
        raise InputError(
            f"{path}: written for section {made}, not {config.section}; give --section {made}, and compare reports of one "
            "section"
        )


def _check_writable(place: str, text: str, way_out: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: character {error.start + 1} is half of a surrogate pair, which UTF-8 cannot encode; {way_out}"
        ) from error
