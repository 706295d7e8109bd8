"""A blind reader study of two systems: which studies, in which order, with which report on which side; and its key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rayscribe import __version__
from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.manifest import Manifest
from rayscribe.data.sections import section_text
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import sha256_of
from rayscribe.predictions import read_predictions
from rayscribe.protocol import Protocol, check_protocol, written_reports
from rayscribe.study import Study

KEY_FORMAT = "rayscribe-reader-study-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStudyConfig:
    """What readers are shown."""

    split: str = "test"
    "train, val or test"
    studies: int = 50
    "how many; half of them coded normal where the manifest codes every study"
    seed: int = 0
    "of the draw, the sides and the order"
    section: Literal["findings", "impression", "findings+impression"] = "findings"
    "of the reference, and of reports that are cleaned"
    cleaning: Literal["as-written", "r2gen-iu", "r2gen-mimic"] = "as-written"
    "as-written, or reference and both reports under one cleaning, so that capitals and spacing tell no system apart"
    reference: bool = True
    "show what the radiologist wrote; studies without the section are then left out"
    images: bool = False
    "embed the images; only where the data's terms allow copies"
    keep_identical: bool = False
    "keep studies where both systems wrote the same text; a vote on them says nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One side of the comparison: its reports by study id, and the file that they come from."""

    name: str
    file: str
    sha256: str
    reports: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One pair as readers see it, with what they must not see: the study and whose report is A."""

    token: str
    "opaque; votes name it"
    number: int
    study: Study
    reference: str
    "empty where readers are not shown it"
    a: str
    b: str
    first_is_a: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStudy:
    """A drawn study: the pairs for the page, the key for whoever counts the votes, and what is to be known of the draw."""

    items: tuple[Item, ...]
    key: dict[str, Any]
    notes: tuple[str, ...]


def read_systems(paths: tuple[Path, Path], names: tuple[str, str] | None, config: ReaderStudyConfig) -> list[System]:
    """Both prediction files; without `names` a system is called as its file."""
    wanted = [name.strip() for name in names or (paths[0].stem, paths[1].stem)]
    if not all(wanted) or wanted[0] == wanted[1]:
        raise InputError(
            f"the systems are called {wanted[0]!r} and {wanted[1]!r}; tell them apart with --names FIRST SECOND"
        )
    if config.cleaning != "as-written":
        for path in paths:
            check_protocol(path, Protocol(section=config.section, cleaning=config.cleaning))
    systems = [
        System(name=name, file=path.name, reports=read_predictions(path), sha256=sha256_of(path))
        for name, path in zip(wanted, paths)
    ]
    if systems[0].sha256 == systems[1].sha256:
        raise InputError(f"{paths[0]} and {paths[1]} are the same file; a study compares two systems")
    return systems


def drawn_study(manifest: Manifest, systems: Sequence[System], config: ReaderStudyConfig) -> ReaderStudy:
    """Draws studies, sides and order. The same files and settings give the same study; other files another one.

    The first system is A in half of the normal and in half of the abnormal studies, up to one.
    """
    if config.images and not manifest.provenance.get("images_may_be_shown"):
        raise InputError(
            f"the terms of the data ({manifest.provenance.get('terms', 'not stated')}) do not allow copies of its images: "
            "leave out --images, and let readers open the studies in their own viewer by the list of --worklist"
        )
    if config.studies < 1 or config.seed < 0:
        raise InputError(f"--studies {config.studies} --seed {config.seed}: at least 1 study, and no negative seed")
    usable, texts, notes = _usable(manifest, systems, config)
    # The files' hashes go into the seed, so that nobody can work out the sides from the page and a guessed seed.
    random = np.random.default_rng([config.seed, *(int(system.sha256[:16], 16) for system in systems)])
    chosen, stratified = _chosen(usable, config.studies, random)
    notes.append(_draw_note(chosen, usable, stratified))
    starts, tokens = int(random.integers(2)), random.choice(2**32, len(chosen), replace=False)
    items = []
    for number, place in enumerate(random.permutation(len(chosen)).tolist(), start=1):
        study, first_is_a = chosen[place], (place + starts) % 2 == 0
        first, second = texts[study.id]
        items.append(
            Item(
                token=f"i{int(tokens[number - 1]):08x}",  # the letter keeps spreadsheets from reading a number
                number=number,
                study=study,
                reference=_reference(study, config) if config.reference else "",
                a=first if first_is_a else second,
                b=second if first_is_a else first,
                first_is_a=first_is_a,
            )
        )
    key = _key(manifest, systems, config, items, stratified)
    return ReaderStudy(items=tuple(items), key=key, notes=tuple(notes))


def read_key(path: Path) -> dict[str, Any]:
    """A key as it was written: its study id is a hash over everything else in it."""
    if not path.is_file():
        raise InputError(f"{path}: no such key; `rayscribe reader-study ... --key {path}` writes it beside the page")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy the key again") from error
    if not isinstance(key, dict) or key.get("format") != KEY_FORMAT:
        raise InputError(
            f"{path}: not the key of a reader study; the first file of `score` is the key, then come votes"
        )
    if key.get("study") != _study_id(key):
        raise InputError(f"{path}: was changed after it was written; copy the original key again")
    return key


def _usable(
    manifest: Manifest, systems: Sequence[System], config: ReaderStudyConfig
) -> tuple[list[Study], dict[str, tuple[str, str]], list[str]]:
    """Studies that can be compared, in the order of their ids; their two texts; what was left out, in words."""
    split = sorted(manifest.split(config.split), key=lambda study: study.id)
    held = [study for study in split if all(study.id in system.reports for system in systems)]
    if not held:
        raise InputError(
            f"no study of split {config.split} has a report in both files; the split's ids look like {split[0].id}, "
            f"the files' like {', '.join(next(iter(system.reports)) for system in systems)}. Name the right --split or --data"
        )
    notes = [f"{len(held)} of {len(split)} studies of split {config.split} have a report of both systems"]
    if config.reference:
        told = [study for study in held if _reference(study, config)]
        notes += [f"left out: {len(held) - len(told)} without the section {config.section}"] * (len(told) < len(held))
        held = told
    first, second = (_texts(system, held, config) for system in systems)
    texts = {study.id: (first[study.id], second[study.id]) for study in held}
    same = {study.id for study in held if first[study.id].split() == second[study.id].split()}
    if same and not config.keep_identical:
        notes.append(f"left out: {len(same)} where both systems wrote the same text (--keep-identical keeps them)")
        held = [study for study in held if study.id not in same]
    if len({all(text == text.lower() for text in side.values()) for side in (first, second)}) == 2:
        notes.append("WARNING  one system writes capitals and the other none, which unblinds: give --cleaning")
    return held, texts, notes


def _chosen(usable: list[Study], wanted: int, random: np.random.Generator) -> tuple[list[Study], bool]:
    """Normal studies first where every study is coded, half of the whole; whether it was so."""
    if len(usable) < wanted:
        raise InputError(
            f"{len(usable)} studies can be compared, {wanted} are asked for; give --studies {len(usable)} or fewer"
            if usable
            else "no study can be compared: all were left out; see --no-reference and --keep-identical"
        )
    order = [usable[place] for place in random.permutation(len(usable)).tolist()]
    if not all(study.problems for study in usable):
        return order[:wanted], False
    normal = [study for study in order if study.is_coded_normal]
    abnormal = [study for study in order if not study.is_coded_normal]
    half = max(min(wanted // 2, len(normal)), wanted - len(abnormal))
    return normal[:half] + abnormal[: wanted - half], True


def _draw_note(chosen: Sequence[Study], usable: Sequence[Study], stratified: bool) -> str:
    if not stratified:
        coded = sum(bool(study.problems) for study in usable)
        return f"drew {len(chosen)} at random: {coded} of {len(usable)} studies are coded, so normal and abnormal stay mixed"
    normal = sum(study.is_coded_normal for study in chosen)
    short = "; one kind has too few for halves" if abs(2 * normal - len(chosen)) > 1 else ""
    return f"drew {normal} studies coded normal and {len(chosen) - normal} others{short}"


def _key(
    manifest: Manifest, systems: Sequence[System], config: ReaderStudyConfig, items: Sequence[Item], stratified: bool
) -> dict[str, Any]:
    names = [system.name for system in systems]
    key: dict[str, Any] = {
        "format": KEY_FORMAT,
        "study": "",
        "names": names,
        "predictions": [{"file": system.file, "sha256": system.sha256} for system in systems],
        "settings": asdict(config),
        "source": str(manifest.provenance.get("source", "")),
        "data_digest": manifest.digest(),
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "items": [
            {
                "item": item.token,
                "number": item.number,
                "study": item.study.id,
                "normal": item.study.is_coded_normal if stratified else None,
                "A": names[not item.first_is_a],
                "B": names[item.first_is_a],
            }
            for item in items
        ],
    }
    return key | {"study": _study_id(key)}


def _study_id(key: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in key.items() if name != "study"}
    return "s" + hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:12]


def _reference(study: Study, config: ReaderStudyConfig) -> str:
    text = section_text(study.findings, study.impression, config.section)
    return text if config.cleaning == "as-written" or not text else CLEANINGS[config.cleaning](text)


def _texts(system: System, studies: Sequence[Study], config: ReaderStudyConfig) -> dict[str, str]:
    if config.cleaning == "as-written":
        return {study.id: system.reports[study.id].strip() for study in studies}
    wanted = {study.id: "" for study in studies}
    protocol = Protocol(section=config.section, cleaning=config.cleaning)
    return dict(zip(wanted, written_reports(system.reports, wanted, config.split, protocol)))
