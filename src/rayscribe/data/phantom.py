"""The phantom world: procedural chest radiographs and reports written from one truth, in the layouts of IU X-Ray.

Nothing is downloaded and nothing is licensed, so demonstrations, tests and continuous integration run on it. The words
and the films of a study are drawn from the same `Truth`, so they agree; what a phantom teaches is not medicine.
"""

from __future__ import annotations

import csv
import io
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rayscribe.data.phantom_drawing import draw_frontal, draw_lateral
from rayscribe.data.phantom_reports import write_indication, write_report
from rayscribe.errors import InputError
from rayscribe.labels import OBSERVATIONS

Side = Literal["none", "right", "left", "both"]
Size = Literal["none", "small", "moderate", "large"]
Zone = Literal["none", "upper", "middle", "lower"]

_SIDES: tuple[Side, ...] = ("right", "left")
_SIZES: tuple[Size, ...] = ("small", "moderate", "large")
_ZONES: tuple[Zone, ...] = ("upper", "middle", "lower")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomConfig:
    """How many phantom studies there are and what they look like."""

    studies: int = 600
    seed: int = 0
    size: int = 256
    "pixels along each side of a film"
    abnormal: float = 0.6
    "share of studies with a finding other than a device"
    rare: float = 0.05
    "share of studies with a lung lesion, pneumothorax, fracture or pleural thickening; they count as abnormal"
    noise: float = 0.02
    "quantum noise, as a share of white"
    lateral: float = 0.9
    "share of studies with a lateral film beside the frontal one"
    variety: float = 1.0
    "of the reports: 0 is one wording for one truth, 1 draws from all wordings, orders and omissions"
    layout: Literal["r2gen", "kaggle", "openi"] = "r2gen"
    "which published copy of IU X-Ray the files look like; only r2gen has a split"
    train: float = 0.7
    "share of the studies, from the first one on"
    val: float = 0.1
    "share of the studies, after those of train; the rest is test"

    def __post_init__(self) -> None:
        if not 0 <= self.rare <= self.abnormal <= 1:
            raise InputError(f"rare {self.rare} and abnormal {self.abnormal}: 0 <= rare <= abnormal <= 1 is needed")
        if not 0 <= self.train + self.val <= 1:
            raise InputError(f"train {self.train} and val {self.val} are shares; together they are at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One observation that is present, where it is and how much of it there is."""

    observation: str
    side: Side = "none"
    "of the patient"
    size: Size = "none"
    "for heart, edema and thickening the words are mild, moderate, severe"
    zone: Zone = "none"
    "third of the lung"
    kind: str = ""
    "which lesion, fracture, thickening or device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """The shape of a chest: `breadth` and `heart` are factors, `tissue` and `inspiration` deviations."""

    breadth: float = 1.0
    heart: float = 1.0
    tissue: float = 0.0
    inspiration: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """All there is to know about one study; its films and its report follow from it."""

    id: str
    seed: int
    "of what has no words: vessels, noise, how the patient stands"
    findings: tuple[Finding, ...] = ()
    patient: Patient = Patient()
    has_lateral: bool = True

    def find(self, observation: str) -> Finding | None:
        """The finding of this observation, or None if it is absent."""
        return next((finding for finding in self.findings if finding.observation == observation), None)

    @property
    def device(self) -> str:
        """Kind of the support device, or an empty string."""
        device = self.find("Support Devices")
        return device.kind if device else ""

    @property
    def labels(self) -> tuple[int, ...]:
        """1 for every one of the 14 observations that is present; as CheXpert has it, devices are no finding."""
        is_normal = all(finding.observation == "Support Devices" for finding in self.findings)
        present = {finding.observation for finding in self.findings} | ({"No Finding"} if is_normal else set())
        return tuple(int(observation in present) for observation in OBSERVATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomStudy:
    """A drawn study: truth, films (frontal, then lateral if there is one) and the sections of the report."""

    truth: Truth
    findings: str
    impression: str
    indication: str
    images: tuple[NDArray[np.uint8], ...] = ()


def draw_study(index: int, config: PhantomConfig) -> PhantomStudy:
    """Draw study `index`, which depends on the seed and the shares but not on the number of studies."""
    study = _told_study(index, config)
    return replace(study, images=draw_films(study.truth, size=config.size, noise=config.noise))


def draw_films(truth: Truth, *, size: int, noise: float) -> tuple[NDArray[np.uint8], ...]:
    """Draw the films of a truth, (size, size) each."""
    frontal = draw_frontal(truth, size, noise)
    return (frontal, draw_lateral(truth, size, noise)) if truth.has_lateral else (frontal,)


def write_phantom(
    root: Path,
    config: PhantomConfig,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda indices: indices,
) -> None:
    """Write the studies under `root`; a write that was interrupted is completed, a complete one is left alone.

    Raises InputError if `root` holds a phantom of another config, or anything else.
    """
    done, begun = root / "phantom.json", root / "phantom.begun.json"
    settings = json.dumps(asdict(config), indent=2)
    mark = next((path for path in (done, begun) if path.exists()), None)
    if mark is None and root.exists() and any(root.iterdir()):
        raise InputError(f"{root}: holds other files; give an empty folder for the phantom")
    if mark is not None and mark.read_text(encoding="utf-8") != settings:
        raise InputError(
            f"{root}: holds a phantom of another config ({mark.name}); give another folder or delete this one"
        )
    if mark == done:
        return
    root.mkdir(parents=True, exist_ok=True)
    _replace_text(begun, settings)

    studies = []
    for index in progress(range(config.studies)):
        study = _told_study(index, config)
        paths = [root / "images" / name for name in _image_names(study.truth, config.layout)]
        if not all(path.exists() for path in paths):
            for path, film in zip(paths, draw_films(study.truth, size=config.size, noise=config.noise), strict=True):
                _write_film(path, film)
        studies.append(study)
    {"r2gen": _write_r2gen, "kaggle": _write_kaggle, "openi": _write_openi}[config.layout](root, studies, config)
    _write_truth(root, studies, config)
    _replace_text(done, settings)
    begun.unlink(missing_ok=True)


def _told_study(index: int, config: PhantomConfig) -> PhantomStudy:
    """The study without its films, which take nearly all of the time."""
    rng = np.random.default_rng([config.seed, index])
    shares = rng.random(2)  # drawn first, so that a share of the config moves nothing else
    truth = Truth(
        id=f"CXR{index + 1}_IM-{index + 1:04d}",
        seed=int(rng.integers(2**32)),
        patient=Patient(
            breadth=_normal(rng, 1.0, 0.03),
            heart=_normal(rng, 1.0, 0.04),
            tissue=_normal(rng, 0.0, 1.0),
            inspiration=_normal(rng, 0.0, 0.5),
        ),
        findings=_drawn_findings(rng, is_abnormal=shares[0] < config.abnormal, is_rare=shares[0] < config.rare),
        has_lateral=bool(shares[1] < config.lateral),
    )
    findings, impression = write_report(truth, rng, config.variety)
    return PhantomStudy(truth=truth, findings=findings, impression=impression, indication=write_indication(rng))


def _drawn_findings(rng: np.random.Generator, *, is_abnormal: bool, is_rare: bool) -> tuple[Finding, ...]:
    """At most one finding for each of heart, lungs and pleura."""
    heart, lungs, pleura = rng.random(3) < (0.45, 0.60, 0.45)
    if not (heart or lungs or pleura):
        heart, lungs, pleura = np.arange(3) == rng.integers(3)
    size: list[Size] = [_SIZES[i] for i in rng.choice(3, 3, p=(0.36, 0.36, 0.28))]
    found: list[Finding] = []
    if is_abnormal and heart:
        name = "Enlarged Cardiomediastinum" if rng.random() < 0.2 else "Cardiomegaly"
        found.append(Finding(observation=name, size=size[0]))
    if is_rare:
        found.append(_rare_finding(rng))
    elif is_abnormal:
        sides: tuple[Side, ...] = ("right", "left", "both")
        side = sides[rng.choice(3, p=(0.4, 0.4, 0.2))] if pleura else "none"
        if lungs:
            found += _lung_findings(rng, size[1], effusion=side, is_heart_large=bool(heart))
        if pleura:
            found.append(Finding(observation="Pleural Effusion", side=side, size=size[2]))
    if rng.random() < (0.25 if is_abnormal else 0.08):
        kind = ("pacemaker", "central line", "wires", "tube")[rng.integers(4)]
        device_side: Side = "none"
        if kind in ("pacemaker", "central line"):
            usual, other = _SIDES[::-1] if kind == "pacemaker" else _SIDES
            device_side = usual if rng.random() < 0.8 else other
        found.append(Finding(observation="Support Devices", side=device_side, kind=kind))
    return tuple(found)


def _lung_findings(rng: np.random.Generator, size: Size, *, effusion: Side, is_heart_large: bool) -> list[Finding]:
    """A finding of the lung, where neither an effusion nor the heart hides it."""
    name = ("Lung Opacity", "Edema", "Consolidation", "Atelectasis")[rng.choice(4, p=(0.25, 0.22, 0.28, 0.25))]
    side, zone = _SIDES[rng.integers(2)], _ZONES[rng.integers(3)]
    if effusion != "none":
        side = side if effusion == "both" else _SIDES[1 - _SIDES.index(effusion)]
    if effusion != "none" or (is_heart_large and side == "left"):
        zone = "upper"
    if name == "Edema" or (name == "Atelectasis" and effusion == "both"):
        return [Finding(observation="Edema", side="both", size=size)]
    if name == "Atelectasis":
        return [
            Finding(observation=name, side="both" if effusion == "none" and rng.random() < 0.3 else side, size=size)
        ]
    found = [Finding(observation=name, side=side, size=size, zone=zone)]
    if name == "Consolidation" and rng.random() < 0.5:
        found.append(replace(found[0], observation="Pneumonia"))
    return found


def _rare_finding(rng: np.random.Generator) -> Finding:
    side, size = _SIDES[rng.integers(2)], _SIZES[rng.integers(3)]
    match rng.integers(4):
        case 0:
            zone: Zone = "middle" if size == "large" else _ZONES[rng.integers(3)]
            kinds = {"small": ("nodule", "granuloma"), "moderate": ("nodule", "cavity"), "large": ("mass", "cavity")}
            kind = kinds[size][rng.integers(2)]
            return Finding(observation="Lung Lesion", side=side, size=size, zone=zone, kind=kind)
        case 1:
            return Finding(observation="Pneumothorax", side=side, size=size)
        case 2:
            return Finding(observation="Fracture", side=side, kind=("rib", "clavicle")[rng.integers(2)])
        case _:
            kind = ("lateral", "apical")[rng.integers(2)]
            return Finding(observation="Pleural Other", side=side, size=size, kind=kind)


def _image_names(truth: Truth, layout: str) -> list[str]:
    """Below `images/`; the frontal film comes first, by name too."""
    uid, number = _uid(truth), truth.id.partition("_")[2]
    views = ("1001", "2001") if truth.has_lateral else ("1001",)
    if layout == "r2gen":
        return [f"{truth.id}/{position}.png" for position, _ in enumerate(views)]
    if layout == "kaggle":
        return [f"images_normalized/{uid}_{number}-{view}.dcm.png" for view in views]
    return [f"CXR{uid}_1_{number}-{view}.png" for view in views]


def _write_r2gen(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    annotation: dict[str, list[dict[str, object]]] = {"train": [], "val": [], "test": []}
    for position, study in enumerate(studies):
        share = position / len(studies)
        split = "train" if share < config.train else "val" if share < config.train + config.val else "test"
        paths = _image_names(study.truth, config.layout)
        record: dict[str, object] = {
            "id": study.truth.id,
            "report": study.findings,
            "image_path": paths,
            "split": split,
        }
        annotation[split].append(record)
    _replace_text(root / "annotation.json", json.dumps(annotation, indent=1))


def _write_kaggle(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    reports = [["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"]]
    projections = [["uid", "filename", "projection"]]
    for study in studies:
        uid, names = _uid(study.truth), _image_names(study.truth, config.layout)
        mesh, problems = ";".join(_mesh(study.truth)), ";".join(term.split("/")[0] for term in _mesh(study.truth))
        words = [study.indication, "None.", study.findings, study.impression]
        reports.append([uid, mesh, problems, _caption(study.truth), *words])
        for name, projection in zip(names, ("Frontal", "Lateral"), strict=False):
            projections.append([uid, name.rpartition("/")[2], projection])
    _replace_text(root / "indiana_reports.csv", _csv(reports))
    _replace_text(root / "indiana_projections.csv", _csv(projections))


def _write_openi(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    for study in studies:
        top = ElementTree.Element("eCitation")
        ElementTree.SubElement(top, "uId", id=f"CXR{_uid(study.truth)}")
        citation = ElementTree.SubElement(top, "MedlineCitation")
        abstract = ElementTree.SubElement(ElementTree.SubElement(citation, "Article"), "Abstract")
        sections = {"COMPARISON": "None.", "INDICATION": study.indication}
        sections |= {"FINDINGS": study.findings, "IMPRESSION": study.impression}
        for label, text in sections.items():
            ElementTree.SubElement(abstract, "AbstractText", Label=label).text = text
        headings = ElementTree.SubElement(top, "MeSH")
        for term in _mesh(study.truth):
            ElementTree.SubElement(headings, "major").text = term
        for name in _image_names(study.truth, config.layout):
            image = ElementTree.SubElement(top, "parentImage", id=name.removesuffix(".png"))
            ElementTree.SubElement(image, "caption").text = _caption(study.truth)
        ElementTree.indent(top)
        xml = ElementTree.tostring(top, encoding="unicode", xml_declaration=True)
        _replace_text(root / "ecgen-radiology" / f"{_uid(study.truth)}.xml", xml)


def _write_truth(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    """The ids are those that the reader of the layout gives."""
    rows = [["id", *OBSERVATIONS, "details"]]
    for study in studies:
        truth = study.truth
        details = json.dumps([asdict(finding) for finding in truth.findings])
        name = truth.id if config.layout == "r2gen" else f"CXR{_uid(truth)}"
        rows.append([name, *map(str, truth.labels), details])
    _replace_text(root / "truth.csv", _csv(rows))


def _normal(rng: np.random.Generator, mean: float, deviation: float) -> float:
    """Normal, but within two deviations: nobody's normal heart passes for an enlarged one."""
    return mean + deviation * float(np.clip(rng.normal(), -2, 2))


def _uid(truth: Truth) -> str:
    return truth.id.removeprefix("CXR").partition("_")[0]


def _mesh(truth: Truth) -> list[str]:
    terms = []
    for finding in truth.findings:
        words = (finding.observation, finding.side, finding.size)
        terms.append("/".join(word for word in words if word != "none"))
    return terms or ["normal"]


def _caption(truth: Truth) -> str:
    return "Xray Chest PA and Lateral" if truth.has_lateral else "Xray Chest PA"


def _csv(rows: Iterable[Iterable[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def _write_film(path: Path, film: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    Image.fromarray(film).save(temporary, format="PNG", compress_level=1)  # noise hardly compresses
    os.replace(temporary, path)
