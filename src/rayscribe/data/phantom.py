"""The phantom world: procedural chest radiographs and reports generated from one truth, in the layouts of IU X-Ray.

It needs no download and no licence, so demonstrations, tests and continuous integration run on it. The words and the films of
a study come from the same `Truth`, so they agree; what a phantom teaches is not medicine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayscribe.data.phantom_drawing import draw_frontal, draw_lateral
from rayscribe.data.phantom_hands import drawn_hand
from rayscribe.data.phantom_layouts import (
    image_names,
    replace_text,
    write_kaggle,
    write_openi,
    write_r2gen,
    write_truth,
)
from rayscribe.data.phantom_reports import write_indication, write_report
from rayscribe.data.phantom_truth import Patient, PhantomConfig, PhantomStudy, Truth, drawn_findings
from rayscribe.errors import InputError
from rayscribe.files import naming


def draw_study(index: int, config: PhantomConfig) -> PhantomStudy:
    """Draw study `index`, which depends on the seed and the shares but not on the number of studies."""
    study = _told_study(index, config)
    return replace(study, images=draw_films(study.truth, size=config.size, noise=config.noise))


def draw_films(truth: Truth, *, size: int, noise: float) -> tuple[NDArray[np.uint8], ...]:
    """Draw the films of a truth, uint8 (size, size) each."""
    frontal = draw_frontal(truth, size, noise)
    return (frontal, draw_lateral(truth, size, noise)) if truth.has_lateral else (frontal,)


def write_phantom(
    root: Path,
    config: PhantomConfig,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda indices: indices,
) -> None:
    """Write the studies under `root`; an interrupted write is completed, a complete one is left unchanged.

    Raises InputError if `root` contains a phantom of another config, or anything else.
    """
    done, begun = root / "phantom.json", root / "phantom.begun.json"
    settings = json.dumps(asdict(config), indent=2)
    mark = next((path for path in (done, begun) if path.exists()), None)
    if mark is None and root.exists() and any(root.iterdir()):
        raise InputError(f"{root}: contains other files; give an empty folder for the phantom")
    if mark is not None and _settings_of(mark) != asdict(config):
        raise InputError(
            f"{root}: contains a phantom of another config ({mark.name}); give another folder or delete this one"
        )
    if mark == done:
        return
    root.mkdir(parents=True, exist_ok=True)
    replace_text(begun, settings)

    studies = []
    for index in progress(range(config.studies)):
        study = _told_study(index, config)
        paths = [root / "images" / name for name in image_names(study.truth, config.layout)]
        if not all(path.exists() for path in paths):
            for path, film in zip(paths, draw_films(study.truth, size=config.size, noise=config.noise), strict=True):
                _write_film(path, film)
        studies.append(study)
    {"r2gen": write_r2gen, "kaggle": write_kaggle, "openi": write_openi}[config.layout](root, studies, config)
    write_truth(root, studies, config)
    replace_text(done, settings)
    begun.unlink(missing_ok=True)


def _settings_of(mark: Path) -> dict[str, Any]:
    """The settings in a mark; those that an older version did not have are the defaults."""
    try:
        return asdict(PhantomConfig()) | dict(json.loads(mark.read_text(encoding="utf-8")))
    except ValueError:
        return {}


def _told_study(index: int, config: PhantomConfig) -> PhantomStudy:
    """The study without its films, which take nearly all the time."""
    rng = np.random.default_rng([config.seed, index])
    shares = rng.random(2)  # drawn first, so that changing a share changes nothing else
    truth = Truth(
        id=f"CXR{index + 1}_IM-{index + 1:04d}",
        seed=int(rng.integers(2**32)),
        patient=Patient(
            breadth=_normal(rng, 1.0, 0.03),
            heart=_normal(rng, 1.0, 0.04),
            tissue=_normal(rng, 0.0, 1.0),
            inspiration=_normal(rng, 0.0, 0.5),
        ),
        findings=drawn_findings(rng, is_abnormal=shares[0] < config.abnormal, is_rare=shares[0] < config.rare),
        has_lateral=bool(shares[1] < config.lateral),
        hand=drawn_hand(config.seed, index, config.hands),
    )
    findings, impression = write_report(truth, rng, config.variety)
    return PhantomStudy(truth=truth, findings=findings, impression=impression, indication=write_indication(truth, rng))


def _write_film(path: Path, film: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path, instead_of=temporary):
        Image.fromarray(film).save(temporary, format="PNG", compress_level=1)  # noise hardly compresses
        os.replace(temporary, path)


def _normal(rng: np.random.Generator, mean: float, deviation: float) -> float:
    """A normal draw, truncated at two deviations: a normal heart never looks like an enlarged one."""
    return mean + deviation * float(np.clip(rng.normal(), -2, 2))
