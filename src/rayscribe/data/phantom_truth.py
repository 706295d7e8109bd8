"""The truth about phantom studies: settings, findings, patients, and the random draw of findings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.phantom_hands import MOST_HANDS
from rayscribe.errors import InputError
from rayscribe.labels import OBSERVATIONS

PhantomSide = Literal["none", "right", "left", "both"]
Size = Literal["none", "small", "moderate", "large"]
Zone = Literal["none", "upper", "middle", "lower"]

_SIDES: tuple[PhantomSide, ...] = ("right", "left")
_SIZES: tuple[Size, ...] = ("small", "moderate", "large")
_ZONES: tuple[Zone, ...] = ("upper", "middle", "lower")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomConfig:
    """How many phantom studies there are and how they look."""

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
    "share of studies with a lateral film in addition to the frontal one"
    variety: float = 1.0
    "variety of the reports: 0 is one wording per truth, 1 draws from all wordings, orders and omissions"
    layout: Literal["r2gen", "kaggle", "openi"] = "r2gen"
    "layout of the files, from the published copies of IU X-Ray; only r2gen has a split"
    train: float = 0.7
    "share of the studies in train, counted from the first"
    hands: int = 1
    "radiologists who dictate, each with a scanner and paperwork too; above 1 they have habits (at most 5)"
    val: float = 0.1
    "share of the studies in val, after train; the rest is test"

    def __post_init__(self) -> None:
        if not 0 <= self.rare <= self.abnormal <= 1:
            raise InputError(f"rare {self.rare} and abnormal {self.abnormal}: 0 <= rare <= abnormal <= 1 is needed")
        if not 1 <= self.hands <= MOST_HANDS:
            raise InputError(f"hands {self.hands}: 1 to {MOST_HANDS}")
        if not 0 <= self.train + self.val <= 1:
            raise InputError(f"train {self.train} and val {self.val} are shares; together they are at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomFinding:
    """One observation that is present, with its place and extent."""

    observation: str
    side: PhantomSide = "none"
    "side of the patient"
    size: Size = "none"
    "for heart, edema and thickening the words are mild, moderate, severe"
    zone: Zone = "none"
    "third of the lung"
    kind: str = ""
    "which lesion, fracture, thickening or device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """The shape of a chest: `breadth` and `heart` are factors, `tissue` and `inspiration` are deviations."""

    breadth: float = 1.0
    heart: float = 1.0
    tissue: float = 0.0
    inspiration: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Everything about one study; its films and its report follow from it."""

    id: str
    seed: int
    "for details that no report mentions: vessels, noise, the patient's position"
    findings: tuple[PhantomFinding, ...] = ()
    patient: Patient = Patient()
    has_lateral: bool = True
    hand: int = 0
    "who dictates (data/phantom_hands.py); 0: nobody in particular"

    def find(self, observation: str) -> PhantomFinding | None:
        """The finding of this observation, or None if it is absent."""
        return next((finding for finding in self.findings if finding.observation == observation), None)

    @property
    def device(self) -> str:
        """Kind of the support device, or an empty string."""
        device = self.find("Support Devices")
        return device.kind if device else ""

    @property
    def labels(self) -> tuple[int, ...]:
        """1 for each of the 14 observations that is present; following CheXpert, devices are not a finding."""
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


def drawn_findings(rng: np.random.Generator, *, is_abnormal: bool, is_rare: bool) -> tuple[PhantomFinding, ...]:
    """At most one finding each for heart, lungs and pleura, drawn at random."""
    heart, lungs, pleura = rng.random(3) < (0.45, 0.60, 0.45)
    if not (heart or lungs or pleura):
        heart, lungs, pleura = np.arange(3) == rng.integers(3)
    size: list[Size] = [_SIZES[i] for i in rng.choice(3, 3, p=(0.36, 0.36, 0.28))]
    found: list[PhantomFinding] = []
    if is_abnormal and heart:
        name = "Enlarged Cardiomediastinum" if rng.random() < 0.2 else "Cardiomegaly"
        found.append(PhantomFinding(observation=name, size=size[0]))
    if is_rare:
        found.append(_rare_finding(rng))
    elif is_abnormal:
        sides: tuple[PhantomSide, ...] = ("right", "left", "both")
        side = sides[rng.choice(3, p=(0.4, 0.4, 0.2))] if pleura else "none"
        if lungs:
            found += _lung_findings(rng, size[1], effusion=side, is_heart_large=bool(heart))
        if pleura:
            found.append(PhantomFinding(observation="Pleural Effusion", side=side, size=size[2]))
    if rng.random() < (0.25 if is_abnormal else 0.08):
        kind = ("pacemaker", "central line", "wires", "tube")[rng.integers(4)]
        device_side: PhantomSide = "none"
        if kind in ("pacemaker", "central line"):
            usual, other = _SIDES[::-1] if kind == "pacemaker" else _SIDES
            device_side = usual if rng.random() < 0.8 else other
        found.append(PhantomFinding(observation="Support Devices", side=device_side, kind=kind))
    return tuple(found)


def _lung_findings(
    rng: np.random.Generator, size: Size, *, effusion: PhantomSide, is_heart_large: bool
) -> list[PhantomFinding]:
    """A finding of the lung that neither an effusion nor the heart hides."""
    name = ("Lung Opacity", "Edema", "Consolidation", "Atelectasis")[rng.choice(4, p=(0.25, 0.22, 0.28, 0.25))]
    side, zone = _SIDES[rng.integers(2)], _ZONES[rng.integers(3)]
    if effusion != "none":
        side = side if effusion == "both" else _SIDES[1 - _SIDES.index(effusion)]
    if effusion != "none" or (is_heart_large and side == "left"):
        zone = "upper"
    if name == "Edema" or (name == "Atelectasis" and effusion == "both"):
        return [PhantomFinding(observation="Edema", side="both", size=size)]
    if name == "Atelectasis":
        return [
            PhantomFinding(
                observation=name, side="both" if effusion == "none" and rng.random() < 0.3 else side, size=size
            )
        ]
    found = [PhantomFinding(observation=name, side=side, size=size, zone=zone)]
    if name == "Consolidation" and rng.random() < 0.5:
        found.append(replace(found[0], observation="Pneumonia"))
    return found


def _rare_finding(rng: np.random.Generator) -> PhantomFinding:
    side, size = _SIDES[rng.integers(2)], _SIZES[rng.integers(3)]
    match rng.integers(4):
        case 0:
            zone: Zone = "middle" if size == "large" else _ZONES[rng.integers(3)]
            kinds = {"small": ("nodule", "granuloma"), "moderate": ("nodule", "cavity"), "large": ("mass", "cavity")}
            kind = kinds[size][rng.integers(2)]
            return PhantomFinding(observation="Lung Lesion", side=side, size=size, zone=zone, kind=kind)
        case 1:
            return PhantomFinding(observation="Pneumothorax", side=side, size=size)
        case 2:
            return PhantomFinding(observation="Fracture", side=side, kind=("rib", "clavicle")[rng.integers(2)])
        case _:
            kind = ("lateral", "apical")[rng.integers(2)]
            return PhantomFinding(observation="Pleural Other", side=side, size=size, kind=kind)
