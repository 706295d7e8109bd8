"""Draws the chest radiographs of a phantom patient, frontal and lateral, from the truth about the patient.

Every array here is one film (H, W), so no name carries a shape. Positions are relative: -1 to 1 across it, y down.
Frontal films follow the radiographic convention: the patient's left is at positive x, on the right of the image.
What a film shows is the logarithm of the dose, so attenuations add; air is what the soft tissue of the chest lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from rayscribe.data.phantom import Truth  # the world imports this module

Film: TypeAlias = NDArray[np.floating[Any]]
Line: TypeAlias = tuple[Sequence[tuple[float, float]], float, float]
"""Points, width and density of something long and thin."""

SIGNS: dict[str, tuple[float, ...]] = {"none": (), "right": (-1.0,), "left": (1.0,), "both": (-1.0, 1.0)}
"""Where a side of the patient lies along x on a frontal film."""

_STEP = {"none": 0, "small": 1, "moderate": 2, "large": 3}
_ZONE_Y = {"none": 0.0, "upper": -0.42, "middle": -0.08, "lower": 0.24}
_FRONTAL, _LATERAL = 0, 1


def draw_frontal(truth: Truth, size: int, noise: float) -> NDArray[np.uint8]:
    """Draw the frontal film (size, size), 0 black; equal truths give equal films, to the last bit."""
    film = _Canvas(truth, _FRONTAL, size)
    x, y = film.x, film.y
    side = np.abs(x)
    patient = truth.patient
    width = 0.77 * patient.breadth

    half = 0.93 * patient.breadth + 0.04 * y + 0.55 * _soft(-0.28 - y, 0.07)
    chord = np.sqrt(np.maximum(1 - (x / half) ** 2, 0))
    outline = _soft(np.maximum(y + 0.98 - 0.27 * side * np.sqrt(side), 0.25 - side), 0.022)
    tissue = (0.66 + 0.03 * patient.tissue) * chord * outline

    above = np.clip((0.5 - y) / 1.32, 0, 1)
    chest = 1 - (x / width) ** 2 - above * above * np.sqrt(above)  # powers of 2 and 1/2 are the fast ones
    lung = _soft(chest, 0.03)
    dome = _frontal_dome(truth, x)
    belly = _soft(y - dome, 0.010)
    heart = _frontal_heart(truth, x, y)
    middle = _frontal_mediastinum(truth, x, y)
    solid = 1 - (1 - belly) * (1 - heart) * (1 - middle)
    air = lung * (0.62 + 0.38 * np.sqrt(np.maximum(chest, 0)))

    haze, extra, bare = _frontal_pleura(truth, film, chest)
    shadow, dense = _shadows(truth, film, _FRONTAL)
    tissue += 0.08 * heart * lung + 0.03 * middle + 0.16 * belly * chord
    gastric = _soft(1 - ((x - 0.36) / 0.14) ** 2 - ((y - dome - 0.14) / 0.075) ** 2, 0.25)
    tissue -= 0.16 * gastric
    trachea = _soft(0.045 - np.abs(x - 0.012), 0.012) * _soft(-0.24 - y, 0.02)
    tissue -= 0.12 * trachea
    air = air * (1 - solid) * (1 - haze) * (1 - shadow)
    attenuation = tissue - (0.37 + 0.03 * patient.inspiration) * air + extra + dense * lung
    attenuation += _frontal_bones(truth, film, width)
    attenuation += _frontal_vessels(truth, film) * air * (1 - bare)
    attenuation += 1.1 * film.lines(_device_lines(truth, _FRONTAL), blur=0.002)
    return film.exposed(attenuation, noise)


def draw_lateral(truth: Truth, size: int, noise: float) -> NDArray[np.uint8]:
    """Draw the lateral film (size, size); the patient looks to the left."""
    film = _Canvas(truth, _LATERAL, size)
    x, y = film.x, film.y
    patient = truth.patient
    back = (0.76 - 0.28 * (y + 0.02) ** 2) * patient.breadth
    front = (-0.68 + 0.42 * np.maximum(-0.05 - y, 0) - 0.05 * np.exp(-(((y - 0.5) / 0.3) ** 2))) * patient.breadth
    centre, half = (back + front) / 2, (back - front) / 2
    chord = np.sqrt(np.maximum(1 - ((x - centre) / half) ** 2, 0))
    outline = _soft(y + 0.95 - 0.15 * np.abs(x + 0.2), 0.03)
    arms = np.exp(-(((x + 0.22 + 0.9 * (y + 0.8)) / 0.38) ** 2) - ((y + 0.80) / 0.24) ** 2)
    tissue = ((0.70 + 0.03 * patient.tissue) * np.sqrt(chord) + 0.34 * arms) * outline

    above = np.clip((0.25 - y) / 0.98, 0, 1)
    chest = 1 - ((x - centre + 0.02) / (half - 0.10)) ** 2 - above * above * above
    dome = 0.30 + 0.05 * patient.inspiration + 0.75 * np.maximum(x + 0.12, 0) ** 2 + 0.3 * np.minimum(x + 0.2, 0) ** 2
    step = _step(truth, "Cardiomegaly")
    scale = (1.0, 1.18, 1.3, 1.42)[step] * patient.heart
    cardiac = 1 - ((x + 0.27) / (0.33 * scale)) ** 2 - ((y - 0.20) / (0.25 * scale)) ** 2
    heart, belly = _soft(cardiac, 0.12), _soft(y - dome, 0.012)
    air = _soft(chest, 0.04) * (0.6 + 0.4 * np.sqrt(np.maximum(chest, 0))) * (1 - 0.9 * belly) * (1 - 0.65 * heart)
    shadow, dense = _shadows(truth, film, _LATERAL)
    effusion = _step(truth, "Pleural Effusion")
    level = (2.0, 0.46, 0.26, 0.06)[effusion] - 0.3 * np.maximum(x - 0.1, 0) - 0.15 * np.maximum(-0.25 - x, 0)
    wide = _step(truth, "Enlarged Cardiomediastinum")
    arch = np.exp(-(((x - 0.02) / 0.20) ** 2) - ((y + 0.32) / 0.16) ** 2)
    air = air * (1 - shadow) * (1 - 0.9 * _soft(y - level, 0.02)) * (1 - (0.16 + 0.18 * wide) * arch)
    attenuation = tissue - (0.40 + 0.03 * patient.inspiration) * air + dense * air + 0.08 * belly * chord
    attenuation -= 0.10 * _soft(0.036 - np.abs(x - 0.03 - 0.14 * (y + 0.5)), 0.01) * _soft(-0.16 - y, 0.03) * outline
    gastric = _soft(1 - ((x + 0.1) / 0.17) ** 2 - ((y - dome - 0.17) / 0.08) ** 2, 0.3)
    attenuation -= 0.15 * gastric
    attenuation += _lateral_bones(film, back, front, outline)
    rng = np.random.default_rng([truth.seed, 8])
    lines: list[Line] = []
    for sign in (-1.0, 1.0):
        for angle in (-1.1, -0.4, 0.3, 0.9, 1.4):
            lines += _branches(rng, (0.04, -0.06), angle, sign, 0.028, 0.22, 3)
    lines.sort(key=lambda line: line[1])
    attenuation += (0.10 + 0.05 * _step(truth, "Edema")) * film.lines(lines, blur=0.003) * air
    hilum = np.exp(-(((x - 0.04) / 0.09) ** 2) - ((y + 0.07) / 0.11) ** 2)
    attenuation += 0.06 * hilum + 1.1 * film.lines(_device_lines(truth, _LATERAL), blur=0.002)
    return film.exposed(attenuation, noise)


class _Canvas:
    """An unexposed film: where its pixels lie in the patient, and lines drawn in the patient's positions."""

    def __init__(self, truth: Truth, view: int, size: int) -> None:
        self.rng = np.random.default_rng([truth.seed, view])
        tilt, scale = self.rng.normal(0, 0.022), self.rng.normal(1.0, 0.025)
        self.shift = self.rng.normal(0, 0.02, 2)
        self.turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) * scale
        self.exposure, self.contrast = self.rng.normal(0, 0.02), self.rng.normal(1, 0.05)
        self.borders = self.rng.uniform(-0.04, 0.05, 4)
        self.view, self.size = view, size
        coarse = Image.fromarray(self.rng.standard_normal((20, 20), dtype=np.float32))
        self.mottle: Film = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
        self.across, self.down = axis[None, :], axis[:, None]
        back = np.linalg.inv(self.turn)
        across, down = self.across - np.float32(self.shift[0]), self.down - np.float32(self.shift[1])
        self.x: Film = np.float32(back[0, 0]) * across + np.float32(back[0, 1]) * down
        self.y: Film = np.float32(back[1, 0]) * across + np.float32(back[1, 1]) * down

    def lines(self, lines: Sequence[Line], *, blur: float) -> Film:
        """Density of the lines, of which a later one hides an earlier one; `blur` is a share of the film."""
        if not lines:
            return np.zeros_like(self.x)
        double = 2 * self.size  # drawn at twice the size, because Pillow's lines have hard edges
        image = Image.new("L", (double, double))
        draw = ImageDraw.Draw(image)
        for points, width, density in lines:
            places = (np.asarray(points) @ self.turn.T + self.shift + 1) * self.size
            draw.line(places.ravel().tolist(), fill=round(255 * density), width=max(1, round(width * self.size)))
        image = image.reduce(2).filter(ImageFilter.GaussianBlur(blur * self.size))
        return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)

    def exposed(self, attenuation: Film, noise: float) -> NDArray[np.uint8]:
        """The grey film: exposure curve, quantum noise, collimator and side marker."""
        grey = _soft(attenuation * self.contrast - 0.47 + self.exposure, 0.18) - 0.065
        # Fewer quanta pass dense tissue, so the noise grows with brightness.
        grey += noise * (0.4 + grey) * self.rng.standard_normal(grey.shape, dtype=np.float32)
        left, right, top, bottom = (
            -1 + self.borders[0],
            1 - self.borders[1],
            -1 + self.borders[2],
            1 - self.borders[3],
        )
        if self.view == _FRONTAL:
            grey += 0.8 * self.lines([([(0.79, -0.90), (0.79, -0.79), (0.86, -0.79)], 0.022, 1.0)], blur=0.001)
        grey *= (self.across > left) & (self.across < right) & (self.down > top) & (self.down < bottom)
        film: NDArray[np.uint8] = np.clip(grey * 255, 0, 255).astype(np.uint8)
        return film


def _soft(distance: Film, edge: float) -> Film:
    """1 well inside, 0 well outside, with a blurred edge."""
    inside: Film = 0.5 + 0.5 * np.tanh(distance * np.float32(0.5 / edge))
    return inside


def _step(truth: Truth, observation: str) -> int:
    finding = truth.find(observation)
    return _STEP[finding.size] if finding else 0


def _frontal_dome(truth: Truth, x: Film) -> Film:
    """Height of the diaphragm: the right dome is higher; atelectasis lifts its side."""
    base = 0.53 + 0.10 * truth.patient.inspiration
    lift = {-1.0: 0.035, 1.0: -0.035}
    atelectasis = truth.find("Atelectasis")
    for sign in SIGNS[atelectasis.side] if atelectasis else ():
        lift[sign] += 0.035 * _step(truth, "Atelectasis")
    bow = 0.19 * ((np.abs(x) - 0.34) / 0.44) ** 2 + 0.12 * np.maximum(np.abs(x) - 0.6, 0)
    return base - 0.19 + bow - np.where(x < 0, np.float32(lift[-1.0]), np.float32(lift[1.0]))


def _frontal_heart(truth: Truth, x: Film, y: Film) -> Film:
    step = _step(truth, "Cardiomegaly")
    scale = (1.0, 1.20, 1.34, 1.47)[step] * truth.patient.heart
    cos, sin = 0.86, 0.51
    across, down = x - 0.09 * scale, y - 0.29
    along, aside = cos * across + sin * down, cos * down - sin * across
    ventricle = 1 - (along / (0.40 * scale)) ** 2 - (aside / (0.26 * scale**0.7)) ** 2
    atrium = 1 - ((x + 0.03) / (0.15 * scale)) ** 2 - ((y - 0.27) / 0.30) ** 2
    trunk = 1 - ((x - 0.07) / (0.12 * scale**0.5)) ** 2 - ((y + 0.03) / 0.20) ** 2
    # A soft maximum, for chambers meet without a notch.
    chambers = sum((np.exp(6 * np.maximum(part, -2)) for part in (ventricle, atrium, trunk)), np.zeros_like(x))
    return _soft(np.log(chambers) / 6 - 0.06, 0.045)


def _frontal_mediastinum(truth: Truth, x: Film, y: Film) -> Film:
    wide = (1.0, 1.5, 1.85, 2.2)[_step(truth, "Enlarged Cardiomediastinum")]
    half = (
        0.105
        + 0.035 * wide * np.exp(-(((y + 0.42) / 0.24) ** 2))
        + 0.09 * (wide - 1) * np.exp(-(((y + 0.3) / 0.3) ** 2))
    )
    strip = half - np.abs(x - 0.01)
    knob = 0.08 + 0.03 * wide - np.sqrt((x - 0.09 * wide**0.6) ** 2 + (y + 0.27) ** 2)
    return _soft(np.maximum(strip, knob), 0.011)


def _frontal_bones(truth: Truth, film: _Canvas, width: float) -> Film:
    fracture = truth.find("Fracture")
    angles = np.linspace(0.0, 2.5, 22)  # around the chest, from the spine by the side to the cartilage
    behind: list[Line] = []
    front: list[Line] = []
    for sign in (-1.0, 1.0):
        broken = fracture.kind if fracture and sign in SIGNS[fracture.side] else ""
        for rib in range(10):
            level = -0.82 + 0.122 * rib
            reach = width * 1.03 * np.sqrt(1 - min(0.93, max(0.0, (0.42 - level) / 1.32) ** 2.4))
            across = sign * reach * np.sin(angles) ** 0.85
            down = level + (0.195 + 0.02 * rib) * (1 - np.cos(angles)) - 0.04 * np.sin(2 * angles).clip(0)
            points = list(zip(across.tolist(), down.tolist(), strict=True))
            parts = [points[1:13]]
            if broken == "rib" and rib in (4, 5):  # the outer part has slipped down, with callus at its end
                parts = [points[1:7], [(a, b + 0.055) for a, b in points[8:13]]]
                front.append((parts[1][:2], 0.085, 1.0))
            behind += [(part, 0.050, 1.0) for part in parts] + [(part, 0.024, 0.72) for part in parts]
            if rib < 7:
                front += [(points[11:], 0.056, 0.55), (points[11:], 0.030, 0.36)]
        collar = [(sign * a, b) for a, b in ((0.07, -0.60), (0.22, -0.66), (0.38, -0.72), (0.55, -0.79), (0.78, -0.80))]
        parts = [collar]
        if broken == "clavicle":
            parts = [collar[:3], [(a, b + 0.085) for a, b in collar[2:]]]
        front += [(part, 0.060, 1.0) for part in parts] + [(part, 0.030, 0.75) for part in parts]
        blade = ((0.74, -0.72), (0.70, -0.45), (0.76, -0.15), (0.84, -0.02))
        front.append(([(sign * a, b) for a, b in blade], 0.03, 0.35))
    bones = 0.125 * film.lines(behind, blur=0.005) + 0.15 * film.lines(front, blur=0.006)
    column = _soft(0.088 - np.abs(film.x), 0.012)
    discs = 0.5 + 0.5 * np.cos(film.y * 52)
    pedicles = np.exp(-(((np.abs(film.x) - 0.055) / 0.016) ** 2)) * discs
    spine = column * (0.03 + 0.03 * discs) + 0.04 * pedicles
    return bones + spine


def _frontal_vessels(truth: Truth, film: _Canvas) -> Film:
    rng = np.random.default_rng([truth.seed, 7])
    lines: list[Line] = []
    for sign in (-1.0, 1.0):
        hilum = (sign * 0.15, -0.03 if sign < 0 else -0.07)
        for angle in (-1.25, -0.75, -0.25, 0.2, 0.6, 0.95, 1.25):
            lines += _branches(rng, hilum, angle + rng.normal(0, 0.1), sign, 0.030, 0.21, 4)
    lines.sort(key=lambda line: line[1])
    vessels = film.lines(lines, blur=0.003)
    for sign in (-1.0, 1.0):
        spread = ((film.x - sign * 0.17) / 0.09) ** 2 + ((film.y + (0.0 if sign < 0 else 0.05)) / 0.14) ** 2
        vessels += 0.55 * np.exp(-spread)
    return vessels * (0.135 + 0.055 * _step(truth, "Edema"))


def _branches(
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    sign: float,
    width: float,
    length: float,
    depth: int,
) -> list[Line]:
    """A vessel and what it divides into."""
    bend = angle + rng.normal(0, 0.2)
    middle = (start[0] + sign * length / 2 * np.cos(angle), start[1] + length / 2 * np.sin(angle))
    end = (middle[0] + sign * length / 2 * np.cos(bend), middle[1] + length / 2 * np.sin(bend))
    lines: list[Line] = [((start, middle, end), width, min(1.0, 0.2 + 25 * width))]
    if depth > 1:
        for turn in (-0.38, 0.38):
            lines += _branches(
                rng, end, bend + turn + rng.normal(0, 0.12), sign, width * 0.66, length * 0.75, depth - 1
            )
    return lines


def _frontal_pleura(truth: Truth, film: _Canvas, chest: Film) -> tuple[Film, Film, Film]:
    """What the pleural findings put in place of air, what they add, and where they leave no vessels."""
    haze, extra, bare = np.zeros_like(chest), np.zeros_like(chest), np.zeros_like(chest)
    for finding in truth.findings:
        step = _STEP[finding.size]
        for sign in SIGNS[finding.side]:
            here = film.x * np.float32(sign)
            if finding.observation == "Pleural Effusion":
                level = (0.36, 0.18, -0.04)[step - 1] - (0.55 + 0.1 * step) * np.maximum(here - 0.14, 0) ** 2
                haze = np.maximum(haze, 0.95 * _soft(film.y - level, 0.022) * _soft(here, 0.02))
            elif finding.observation == "Pneumothorax":
                inside = chest - (0.26, 0.42, 0.62)[step - 1] * _soft(0.30 - film.y, 0.1)
                free = _soft(-inside, 0.02) * _soft(chest, 0.03) * _soft(here - 0.1, 0.02) * _soft(0.30 - film.y, 0.05)
                rim = np.exp(-((inside / 0.03) ** 2)) * _soft(here - 0.12, 0.02) * _soft(0.25 - film.y, 0.05)
                bare = np.maximum(bare, free)
                extra += 0.12 * rim - 0.11 * free
            elif finding.observation == "Pleural Other":
                apical = finding.kind == "apical"
                place = _soft(-0.52 - film.y, 0.03) if apical else np.exp(-(((film.y - 0.10) / 0.36) ** 2))
                rind = _soft((0.16, 0.26, 0.38)[step - 1] - chest, 0.03) * _soft(chest, 0.03) * _soft(here, 0.02)
                extra += 0.26 * rind * place
    return haze, extra, bare


def _shadows(truth: Truth, film: _Canvas, view: int) -> tuple[Film, Film]:
    """What the findings of the lung put in place of air, and what they add to it."""
    filled, dense = np.zeros_like(film.x), np.zeros_like(film.x)
    bands: list[Line] = []
    bronchi: list[Line] = []
    for finding in truth.findings:
        step, level = _STEP[finding.size], _ZONE_Y[finding.zone]
        behind = {"upper": 0.0, "middle": -0.20, "lower": 0.26}.get(finding.zone, 0.0)
        for sign in SIGNS[finding.side]:
            centre = behind if view == _LATERAL else sign * 0.43
            across, down = film.x - centre, film.y - level
            if finding.observation in ("Consolidation", "Lung Opacity"):
                reach = (0.15, 0.21, 0.27)[step - 1]
                blob = 1 - (across / reach) ** 2 - (down / (0.9 * reach)) ** 2 + 0.45 * film.mottle
                is_dense = finding.observation == "Consolidation"
                filled = np.maximum(filled, _soft(blob, 0.2) * 0.92 if is_dense else _soft(blob, 0.5) * 0.58)
            elif finding.observation == "Pneumonia":  # air bronchograms in its consolidation
                for slope in (-0.5, -0.1, 0.35):
                    ends = [(centre - 0.16, level - 0.16 * slope), (centre + 0.16, level + 0.16 * slope)]
                    bronchi.append((ends, 0.018, 1.0))
            elif finding.observation == "Edema":
                wings = np.exp(-(((np.abs(film.x) - 0.30) / 0.24) ** 2) - ((film.y - 0.02) / 0.36) ** 2)
                filled = np.maximum(
                    filled, (0.38, 0.54, 0.72)[step - 1] * wings * (1 + 0.22 * film.mottle).clip(0, 1.3)
                )
            elif finding.observation == "Atelectasis":
                for band in range(step):
                    tops = 0.20 - 0.10 * band
                    ends = [(centre - 0.20, tops + 0.03), (centre, tops - 0.015), (centre + 0.20, tops + 0.02)]
                    bands.append((ends, 0.024 + 0.008 * step, 1.0))
            elif finding.observation == "Lung Lesion":
                radius = (0.055, 0.085, 0.14)[step - 1] * (0.75 if finding.kind == "granuloma" else 1.0)
                distance = np.sqrt(across**2 + down**2)
                mark = _soft(radius - distance, 0.010)
                if finding.kind == "cavity":
                    mark -= 0.95 * _soft(0.58 * radius - distance, 0.010)
                dense += mark * (0.85 if finding.kind == "granuloma" else 0.5)
    if bronchi:
        filled *= 1 - 0.7 * film.lines(bronchi, blur=0.003)
    if bands:
        dense += 0.42 * film.lines(bands, blur=0.008) * (1 + 0.2 * film.mottle)
    return filled, dense


def _device_lines(truth: Truth, view: int) -> list[Line]:
    device = truth.find("Support Devices")
    if device is None:
        return []
    frontal = view == _FRONTAL
    sign = SIGNS[device.side][0] if device.side in ("left", "right") else 0.0
    if device.kind == "pacemaker":
        if frontal:
            box = [(sign * a, b) for a, b in ((0.50, -0.46), (0.62, -0.46))]
            lead = [(sign * a, b) for a, b in ((0.50, -0.50), (0.40, -0.62), (0.22, -0.58))]
            lead += [(-0.07, -0.40), (-0.10, -0.10), (-0.06, 0.20), (0.10, 0.38), (0.28, 0.42)]
        else:
            box = [(-0.42, -0.40), (-0.36, -0.46)]
            lead = [(-0.38, -0.44), (-0.20, -0.55), (-0.02, -0.30), (-0.06, 0.05), (-0.22, 0.28), (-0.40, 0.32)]
        return [(box, 0.17, 1.0), (lead, 0.014, 0.9)]
    if device.kind == "central line":
        neck = [(sign * 0.26, -1.1), (sign * 0.22, -0.80), (sign * 0.14, -0.62), (-0.08, -0.40), (-0.10, -0.04)]
        return [(neck if frontal else [(-0.10, -1.1), (-0.08, -0.7), (-0.04, -0.4), (-0.05, -0.08)], 0.016, 0.75)]
    if device.kind == "wires":
        lines: list[Line] = []
        for wire in range(6):
            down = -0.34 + 0.13 * wire
            loop = [(-0.045, down), (0.0, down - 0.03), (0.05, down), (0.0, down + 0.025), (-0.045, down)]
            if not frontal:
                front = -0.51 + 0.32 * max(-0.05 - down, 0)
                loop = [(front, down - 0.02), (front + 0.035, down + 0.02)]
            lines.append((loop, 0.013, 0.95))
        return lines
    walls = (-0.028, 0.028)
    if frontal:
        return [([(0.012 + wall, -1.1), (0.012 + wall, -0.40)], 0.012, 0.7) for wall in walls]
    return [([(-0.05 + wall, -1.1), (0.02 + wall, -0.40)], 0.012, 0.7) for wall in walls]


def _lateral_bones(film: _Canvas, back: Film, front: Film, outline: Film) -> Film:
    x, y = film.x, film.y
    place = x - back + 0.21
    column = _soft(0.085 - np.abs(place), 0.014)
    bodies = 0.5 + 0.5 * np.tanh(3 * np.cos(film.y * 40 + 4 * place) + 1.5)
    spine = column * (0.05 + 0.08 * bodies) + 0.05 * np.exp(-(((place - 0.13) / 0.04) ** 2)) * bodies
    sternum = np.exp(-(((x - front - 0.065) / 0.022) ** 2)) * _soft(0.25 - y, 0.05)
    ribs: list[Line] = []
    for rib in range(9):
        level = -0.62 + 0.125 * rib
        for gap in (0.0, 0.035):
            arc = [(0.60, level), (0.42, level + 0.03), (0.12, level + 0.20), (-0.25, level + 0.40 + gap)]
            ribs.append((arc, 0.028, 0.8))
    bones: Film = (spine + 0.12 * sternum + 0.055 * film.lines(ribs, blur=0.006)) * outline
    return bones
