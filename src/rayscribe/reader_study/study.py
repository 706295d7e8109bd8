"""A blind reader study of two systems: the studies, their order, the side of each report; and the key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe import __version__
from rayscribe.data.manifest import Manifest
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.provenance import is_restricted
from rayscribe.reader_study.texts import ComparedSystem, ReaderStudyConfig, name_tags, reference_text, shown_texts
from rayscribe.study import Study

KEY_FORMAT = "rayscribe-reader-study-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPair:
    """One pair as readers see it, with what they must not see: the study id and which system wrote A."""

    token: str
    "opaque name used in votes"
    number: int
    study: Study
    reference: str
    "empty if readers do not see it"
    a: str
    b: str
    first_is_a: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderStudy:
    """A drawn study: the pairs for the page, the key for counting the votes, and notes on the draw."""

    items: tuple[ReportPair, ...]
    key: dict[str, Any]
    notes: tuple[str, ...]


def drawn_study(manifest: Manifest, systems: Sequence[ComparedSystem], config: ReaderStudyConfig) -> ReaderStudy:
    """Draws studies, sides and order; the same files and settings give the same study, other files a different one.

    The first system is A in half of the normal and half of the abnormal studies, give or take one. Raises InputError if the
    data's terms forbid the page or no study can be compared.
    """
    if config.images and not manifest.provenance.get("images_may_be_shown"):
        raise InputError(
            f"the terms of the data ({manifest.provenance.get('terms', 'not stated')}) do not allow copies of its images: "
            "leave out --images, and let readers open the studies in their own viewer with the list from --worklist"
        )
    if is_restricted(manifest.provenance) and not config.restricted_text:
        raise InputError(
            f"the data are restricted ({manifest.provenance.get('terms', 'terms not stated')}), and the page contains report "
            "text: give --restricted-text if all readers are allowed to see it"
        )
    if config.studies < 1 or config.seed < 0:
        raise InputError(
            f"--studies {config.studies} --seed {config.seed}: give at least 1 study and a seed of 0 or more"
        )
    usable, texts, notes, held = _usable(manifest, systems, config)
    # The files' hashes enter the seed, so that the sides cannot be derived from the page and a guessed seed. The tokens,
    # which are on the page, come from a separate stream.
    seeds = np.random.SeedSequence([config.seed, *(int(system.sha256[:16], 16) for system in systems)])
    random, naming = (np.random.default_rng(seed) for seed in seeds.spawn(2))
    order = _one_a_patient(usable, random)
    chosen, stratified = _chosen(order, config.studies)
    notes += [_patients_note(usable, order), _draw_note(chosen, order, stratified)]
    starts, tokens = int(random.integers(2)), naming.choice(2**32, len(chosen), replace=False)
    items = []
    for number, place in enumerate(random.permutation(len(chosen)).tolist(), start=1):
        study, first_is_a = chosen[place], (place + starts) % 2 == 0
        first, second = texts[study.id]
        items.append(
            ReportPair(
                token=f"i{int(tokens[number - 1]):08x}",  # the letter prevents spreadsheets from reading a number
                number=number,
                study=study,
                reference=reference_text(study, config) if config.reference else "",
                a=first if first_is_a else second,
                b=second if first_is_a else first,
                first_is_a=first_is_a,
            )
        )
    key = _key(manifest, systems, config, items, held | {"stratified": stratified})
    return ReaderStudy(items=tuple(items), key=key, notes=tuple(notes))


def read_key(path: Path) -> dict[str, Any]:
    """A key as written; it contains a digest of everything else in it. Raises InputError if it was changed."""
    if not path.is_file():
        raise InputError(f"{path}: no such key; `rayscribe reader-study ... --key {path}` writes it next to the page")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); copy the key again") from error
    if not isinstance(key, dict) or key.get("format") != KEY_FORMAT:
        raise InputError(f"{path}: not the key of a reader study; give `score` the key first, then the votes")
    if key.get("digest") != _digest(key):
        raise InputError(f"{path}: was modified after it was written; copy the original key again")
    return key


def _usable(
    manifest: Manifest, systems: Sequence[ComparedSystem], config: ReaderStudyConfig
) -> tuple[list[Study], dict[str, tuple[str, str]], list[str], dict[str, int]]:
    """Studies that can be compared, by id; their two texts; and what was excluded, in words and counted."""
    split = sorted(manifest.split(config.split), key=lambda study: study.id)
    held = [study for study in split if all(study.id in system.reports for system in systems)]
    if not held:
        raise InputError(
            f"no study of split {config.split} has reports in both files; the split's ids look like {split[0].id}, "
            f"the files' like {', '.join(next(iter(system.reports)) for system in systems)}. Give the right --split or --data"
        )
    notes = [f"{len(held)} of {len(split)} studies of split {config.split} have a report of both systems"]
    both = len(held)
    if config.reference:
        told = [study for study in held if reference_text(study, config)]
        notes += [f"left out: {len(held) - len(told)} without the section {config.section}"] * (len(told) < len(held))
        held = told
    if config.images:
        seen = [study for study in held if study.images]
        notes += [f"left out: {len(held) - len(seen)} without images"] * (len(seen) < len(held))
        held = seen
    first, second = (shown_texts(system, held, config) for system in systems)
    same = {study.id for study in held if first[study.id].split() == second[study.id].split()}
    if config.keep_identical:
        same = set()
    elif same:
        notes.append(f"left out: {len(same)} where both systems wrote the same text (--keep-identical keeps them)")
    held = [study for study in held if study.id not in same]
    if not held:
        raise InputError(
            "no study can be compared: all were left out; see --no-reference, --no-images, --keep-identical"
        )
    sides = {system.name: [side[study.id] for study in held] for system, side in zip(systems, (first, second))}
    notes += name_tags(sides, config)
    texts = {study.id: (first[study.id], second[study.id]) for study in held}
    return held, texts, notes, {"held": both, "identical": len(same)}


def _one_a_patient(usable: Sequence[Study], random: np.random.Generator) -> list[Study]:
    """One study per patient, in random order; a study with an unknown patient counts as a patient of its own."""
    patients: dict[tuple[str, str], Study] = {}
    for place in random.permutation(len(usable)).tolist():
        study = usable[place]
        patients.setdefault((study.subject, "" if study.subject else study.id), study)
    return list(patients.values())


def _chosen(order: list[Study], wanted: int) -> tuple[list[Study], bool]:
    """The chosen studies, normal ones first and half of the total if every study is coded; and whether that was possible."""
    if len(order) < wanted:
        raise InputError(
            f"{len(order)} studies can be compared, but {wanted} were requested; give --studies {len(order)} or fewer"
        )
    if not all(study.problems for study in order):
        return order[:wanted], False
    normal = [study for study in order if study.is_coded_normal]
    abnormal = [study for study in order if not study.is_coded_normal]
    half = max(min(wanted // 2, len(normal)), wanted - len(abnormal))
    return normal[:half] + abnormal[: wanted - half], True


def _patients_note(usable: Sequence[Study], order: Sequence[Study]) -> str:
    if not all(study.subject for study in usable):
        return "the data does not name every study's patient; several studies drawn may be of one patient"
    further = len(usable) - len(order)
    return "one study a patient" + (f"; left out: {further} further studies of the same patients" if further else "")


def _draw_note(chosen: Sequence[Study], order: Sequence[Study], stratified: bool) -> str:
    if not stratified:
        coded = sum(bool(study.problems) for study in order)
        return f"drew {len(chosen)} at random: {coded} of {len(order)} studies are coded, so normal and abnormal stay mixed"
    normal = sum(study.is_coded_normal for study in chosen)
    short = "; one kind has too few for halves" if abs(2 * normal - len(chosen)) > 1 else ""
    return f"drew {normal} studies coded normal and {len(chosen) - normal} others{short}"


def _key(
    manifest: Manifest,
    systems: Sequence[ComparedSystem],
    config: ReaderStudyConfig,
    items: Sequence[ReportPair],
    drawn_from: Mapping[str, int],
) -> dict[str, Any]:
    names = [system.name for system in systems]
    shown = [
        {
            "item": item.token,
            "number": item.number,
            "study": item.study.id,
            "normal": item.study.is_coded_normal if drawn_from["stratified"] else None,
        }
        for item in items
    ]
    sides = [(names[not item.first_is_a], names[item.first_is_a]) for item in items]
    digest = manifest.digest()
    # Without names and versions, so that a lost key can be regenerated for existing votes.
    drawn = [[system.sha256 for system in systems], digest, asdict(config), shown, [item.first_is_a for item in items]]
    key: dict[str, Any] = {
        "format": KEY_FORMAT,
        "study": "s" + hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12],
        "names": names,
        "predictions": [{"file": system.file, "sha256": system.sha256} for system in systems],
        "settings": asdict(config),
        "drawn_from": {name: drawn_from[name] for name in ("held", "identical")},
        "source": str(manifest.provenance.get("source", "")),
        "data_digest": digest,
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "items": [facts | {"A": a, "B": b} for facts, (a, b) in zip(shown, sides)],
    }
    return key | {"digest": _digest(key)}


def _digest(key: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in key.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
