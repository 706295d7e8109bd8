"""The film that a phantom is drawn on: coordinates, soft shapes, blurred lines, exposure.

Every array is one film (H, W); see `phantom_drawing` for the coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from rayscribe.data.phantom_hands import Hand
from rayscribe.data.phantom_truth import Truth

Film: TypeAlias = NDArray[np.floating[Any]]
Line: TypeAlias = tuple[Sequence[tuple[float, float]], float, float]
"""Points, width and density of a long, thin object."""

SIGNS: dict[str, tuple[float, ...]] = {"none": (), "right": (-1.0,), "left": (1.0,), "both": (-1.0, 1.0)}
"""Position of a patient's side along x on a frontal film."""

STEPS = {"none": 0, "small": 1, "moderate": 2, "large": 3}
ZONE_Y = {"none": 0.0, "upper": -0.42, "middle": -0.08, "lower": 0.24}
FRONTAL, LATERAL = 0, 1


class Canvas:
    """An unexposed film: positions of its pixels in the patient, and lines drawn at positions in the patient."""

    def __init__(self, truth: Truth, view: int, size: int) -> None:
        self.rng = np.random.default_rng([truth.seed, view])
        tilt, scale = self.rng.normal(0, 0.022), self.rng.normal(1.0, 0.025)
        self.shift = self.rng.normal(0, 0.02, 2)
        self.turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) * scale
        self.exposure, self.contrast = self.rng.normal(0, 0.02), self.rng.normal(1, 0.05)
        hand = Hand(truth.hand)
        self.borders = hand.borders(self.rng.uniform(-0.04, 0.05, 4).tolist())
        self.marker = np.array(hand.marker())
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
        """Density of the lines; later lines hide earlier ones. `blur` is a share of the film's side."""
        if not lines:
            return np.zeros_like(self.x)
        double = 2 * self.size  # drawn at twice the size to soften the hard edges of Pillow's lines
        image = Image.new("L", (double, double))
        draw = ImageDraw.Draw(image)
        for points, width, density in lines:
            places = (np.asarray(points) @ self.turn.T + self.shift + 1) * self.size
            draw.line(places.ravel().tolist(), fill=round(255 * density), width=max(1, round(width * self.size)))
        image = image.reduce(2).filter(ImageFilter.GaussianBlur(blur * self.size))
        return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)

    def exposed(self, attenuation: Film, noise: float) -> NDArray[np.uint8]:
        """The grey film: exposure curve, quantum noise, collimator and side marker."""
        grey = soft(attenuation * self.contrast - 0.47 + self.exposure, 0.18) - 0.065
        # Fewer quanta pass through dense tissue, so noise grows with brightness.
        grey += noise * (0.4 + grey) * self.rng.standard_normal(grey.shape, dtype=np.float32)
        left, right, top, bottom = (
            -1 + self.borders[0],
            1 - self.borders[1],
            -1 + self.borders[2],
            1 - self.borders[3],
        )
        if self.view == FRONTAL:
            corner = np.array([(0.79, -0.90), (0.79, -0.79), (0.86, -0.79)]) + self.marker
            grey += 0.8 * self.lines([([(float(x), float(y)) for x, y in corner], 0.022, 1.0)], blur=0.001)
        grey *= (self.across > left) & (self.across < right) & (self.down > top) & (self.down < bottom)
        film: NDArray[np.uint8] = np.clip(grey * 255, 0, 255).astype(np.uint8)
        return film


def soft(distance: Film, edge: float) -> Film:
    """1 well inside, 0 well outside, with a blurred edge."""
    inside: Film = 0.5 + 0.5 * np.tanh(distance * np.float32(0.5 / edge))
    return inside


def step_of(truth: Truth, observation: str) -> int:
    finding = truth.find(observation)
    return STEPS[finding.size] if finding else 0
