"""Draws the chest radiographs of a phantom patient, frontal and lateral, from the truth about the patient.

Every array here is one film (H, W), so no name carries a shape. Positions are relative: -1 to 1 across it, y down.
Frontal films follow the radiographic convention: the patient's left is at positive x, on the right of the image.
A film shows the logarithm of the dose, so attenuations add up; air is where the chest lacks soft tissue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.phantom_canvas import FRONTAL, LATERAL, SIGNS, Canvas, Film, Line, soft, step_of
from rayscribe.data.phantom_findings import device_lines, frontal_pleura, shadows
from rayscribe.data.phantom_truth import Truth


def draw_frontal(truth: Truth, size: int, noise: float) -> NDArray[np.uint8]:
    """Draw the frontal film (size, size), 0 black; equal truths give equal films, to the last bit."""
    film = Canvas(truth, FRONTAL, size)
    x, y = film.x, film.y
    side = np.abs(x)
    patient = truth.patient
    width = 0.77 * patient.breadth

    half = 0.93 * patient.breadth + 0.04 * y + 0.55 * soft(-0.28 - y, 0.07)
    chord = np.sqrt(np.maximum(1 - (x / half) ** 2, 0))
    outline = soft(np.maximum(y + 0.98 - 0.27 * side * np.sqrt(side), 0.25 - side), 0.022)
    tissue = (0.66 + 0.03 * patient.tissue) * chord * outline

    above = np.clip((0.5 - y) / 1.32, 0, 1)
    chest = 1 - (x / width) ** 2 - above * above * np.sqrt(above)  # powers of 2 and 1/2 are fast
    lung = soft(chest, 0.03)
    dome = _frontal_dome(truth, x)
    belly = soft(y - dome, 0.010)
    heart = _frontal_heart(truth, x, y)
    middle = _frontal_mediastinum(truth, x, y)
    solid = 1 - (1 - belly) * (1 - heart) * (1 - middle)
    air = lung * (0.62 + 0.38 * np.sqrt(np.maximum(chest, 0)))

    haze, extra, bare = frontal_pleura(truth, film, chest)
    shadow, dense = shadows(truth, film, FRONTAL)
    tissue += 0.08 * heart * lung + 0.03 * middle + 0.16 * belly * chord
    gastric = soft(1 - ((x - 0.36) / 0.14) ** 2 - ((y - dome - 0.14) / 0.075) ** 2, 0.25)
    tissue -= 0.16 * gastric
    trachea = soft(0.045 - np.abs(x - 0.012), 0.012) * soft(-0.24 - y, 0.02)
    tissue -= 0.12 * trachea
    air = air * (1 - solid) * (1 - haze) * (1 - shadow)
    attenuation = tissue - (0.37 + 0.03 * patient.inspiration) * air + extra + dense * lung
    attenuation += _frontal_bones(truth, film, width)
    attenuation += _frontal_vessels(truth, film) * air * (1 - bare)
    attenuation += 1.1 * film.lines(device_lines(truth, FRONTAL), blur=0.002)
    return film.exposed(attenuation, noise)


def draw_lateral(truth: Truth, size: int, noise: float) -> NDArray[np.uint8]:
    """Draw the lateral film (size, size); the patient looks to the left."""
    film = Canvas(truth, LATERAL, size)
    x, y = film.x, film.y
    patient = truth.patient
    back = (0.76 - 0.28 * (y + 0.02) ** 2) * patient.breadth
    front = (-0.68 + 0.42 * np.maximum(-0.05 - y, 0) - 0.05 * np.exp(-(((y - 0.5) / 0.3) ** 2))) * patient.breadth
    centre, half = (back + front) / 2, (back - front) / 2
    chord = np.sqrt(np.maximum(1 - ((x - centre) / half) ** 2, 0))
    outline = soft(y + 0.95 - 0.15 * np.abs(x + 0.2), 0.03)
    arms = np.exp(-(((x + 0.22 + 0.9 * (y + 0.8)) / 0.38) ** 2) - ((y + 0.80) / 0.24) ** 2)
    tissue = ((0.70 + 0.03 * patient.tissue) * np.sqrt(chord) + 0.34 * arms) * outline

    above = np.clip((0.25 - y) / 0.98, 0, 1)
    chest = 1 - ((x - centre + 0.02) / (half - 0.10)) ** 2 - above * above * above
    dome = 0.30 + 0.05 * patient.inspiration + 0.75 * np.maximum(x + 0.12, 0) ** 2 + 0.3 * np.minimum(x + 0.2, 0) ** 2
    step = step_of(truth, "Cardiomegaly")
    scale = (1.0, 1.18, 1.3, 1.42)[step] * patient.heart
    cardiac = 1 - ((x + 0.27) / (0.33 * scale)) ** 2 - ((y - 0.20) / (0.25 * scale)) ** 2
    heart, belly = soft(cardiac, 0.12), soft(y - dome, 0.012)
    air = soft(chest, 0.04) * (0.6 + 0.4 * np.sqrt(np.maximum(chest, 0))) * (1 - 0.9 * belly) * (1 - 0.65 * heart)
    shadow, dense = shadows(truth, film, LATERAL)
    effusion = step_of(truth, "Pleural Effusion")
    level = (2.0, 0.46, 0.26, 0.06)[effusion] - 0.3 * np.maximum(x - 0.1, 0) - 0.15 * np.maximum(-0.25 - x, 0)
    wide = step_of(truth, "Enlarged Cardiomediastinum")
    arch = np.exp(-(((x - 0.02) / 0.20) ** 2) - ((y + 0.32) / 0.16) ** 2)
    air = air * (1 - shadow) * (1 - 0.9 * soft(y - level, 0.02)) * (1 - (0.16 + 0.18 * wide) * arch)
    attenuation = tissue - (0.40 + 0.03 * patient.inspiration) * air + dense * air + 0.08 * belly * chord
    attenuation -= 0.10 * soft(0.036 - np.abs(x - 0.03 - 0.14 * (y + 0.5)), 0.01) * soft(-0.16 - y, 0.03) * outline
    gastric = soft(1 - ((x + 0.1) / 0.17) ** 2 - ((y - dome - 0.17) / 0.08) ** 2, 0.3)
    attenuation -= 0.15 * gastric
    attenuation += _lateral_bones(film, back, front, outline)
    rng = np.random.default_rng([truth.seed, 8])
    lines: list[Line] = []
    for sign in (-1.0, 1.0):
        for angle in (-1.1, -0.4, 0.3, 0.9, 1.4):
            lines += _branches(rng, (0.04, -0.06), angle, sign, 0.028, 0.22, 3)
    lines.sort(key=lambda line: line[1])
    attenuation += (0.10 + 0.05 * step_of(truth, "Edema")) * film.lines(lines, blur=0.003) * air
    hilum = np.exp(-(((x - 0.04) / 0.09) ** 2) - ((y + 0.07) / 0.11) ** 2)
    attenuation += 0.06 * hilum + 1.1 * film.lines(device_lines(truth, LATERAL), blur=0.002)
    return film.exposed(attenuation, noise)


def _frontal_dome(truth: Truth, x: Film) -> Film:
    """Height of the diaphragm: the right dome is higher; atelectasis lifts its side."""
    base = 0.53 + 0.10 * truth.patient.inspiration
    lift = {-1.0: 0.035, 1.0: -0.035}
    atelectasis = truth.find("Atelectasis")
    for sign in SIGNS[atelectasis.side] if atelectasis else ():
        lift[sign] += 0.035 * step_of(truth, "Atelectasis")
    bow = 0.19 * ((np.abs(x) - 0.34) / 0.44) ** 2 + 0.12 * np.maximum(np.abs(x) - 0.6, 0)
    return base - 0.19 + bow - np.where(x < 0, np.float32(lift[-1.0]), np.float32(lift[1.0]))


def _frontal_heart(truth: Truth, x: Film, y: Film) -> Film:
    step = step_of(truth, "Cardiomegaly")
    scale = (1.0, 1.20, 1.34, 1.47)[step] * truth.patient.heart
    cos, sin = 0.86, 0.51
    across, down = x - 0.09 * scale, y - 0.29
    along, aside = cos * across + sin * down, cos * down - sin * across
    ventricle = 1 - (along / (0.40 * scale)) ** 2 - (aside / (0.26 * scale**0.7)) ** 2
    atrium = 1 - ((x + 0.03) / (0.15 * scale)) ** 2 - ((y - 0.27) / 0.30) ** 2
    trunk = 1 - ((x - 0.07) / (0.12 * scale**0.5)) ** 2 - ((y + 0.03) / 0.20) ** 2
    # A soft maximum, because chambers meet without a notch.
    chambers = sum((np.exp(6 * np.maximum(part, -2)) for part in (ventricle, atrium, trunk)), np.zeros_like(x))
    return soft(np.log(chambers) / 6 - 0.06, 0.045)


def _frontal_mediastinum(truth: Truth, x: Film, y: Film) -> Film:
    wide = (1.0, 1.5, 1.85, 2.2)[step_of(truth, "Enlarged Cardiomediastinum")]
    half = (
        0.105
        + 0.035 * wide * np.exp(-(((y + 0.42) / 0.24) ** 2))
        + 0.09 * (wide - 1) * np.exp(-(((y + 0.3) / 0.3) ** 2))
    )
    strip = half - np.abs(x - 0.01)
    knob = 0.08 + 0.03 * wide - np.sqrt((x - 0.09 * wide**0.6) ** 2 + (y + 0.27) ** 2)
    return soft(np.maximum(strip, knob), 0.011)


def _frontal_bones(truth: Truth, film: Canvas, width: float) -> Film:
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
    column = soft(0.088 - np.abs(film.x), 0.012)
    discs = 0.5 + 0.5 * np.cos(film.y * 52)
    pedicles = np.exp(-(((np.abs(film.x) - 0.055) / 0.016) ** 2)) * discs
    spine = column * (0.03 + 0.03 * discs) + 0.04 * pedicles
    return bones + spine


def _frontal_vessels(truth: Truth, film: Canvas) -> Film:
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
    return vessels * (0.135 + 0.055 * step_of(truth, "Edema"))


def _branches(
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    sign: float,
    width: float,
    length: float,
    depth: int,
) -> list[Line]:
    """A vessel and its branches."""
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


def _lateral_bones(film: Canvas, back: Film, front: Film, outline: Film) -> Film:
    x, y = film.x, film.y
    place = x - back + 0.21
    column = soft(0.085 - np.abs(place), 0.014)
    bodies = 0.5 + 0.5 * np.tanh(3 * np.cos(film.y * 40 + 4 * place) + 1.5)
    spine = column * (0.05 + 0.08 * bodies) + 0.05 * np.exp(-(((place - 0.13) / 0.04) ** 2)) * bodies
    sternum = np.exp(-(((x - front - 0.065) / 0.022) ** 2)) * soft(0.25 - y, 0.05)
    ribs: list[Line] = []
    for rib in range(9):
        level = -0.62 + 0.125 * rib
        for gap in (0.0, 0.035):
            arc = [(0.60, level), (0.42, level + 0.03), (0.12, level + 0.20), (-0.25, level + 0.40 + gap)]
            ribs.append((arc, 0.028, 0.8))
    bones: Film = (spine + 0.12 * sternum + 0.055 * film.lines(ribs, blur=0.006)) * outline
    return bones
