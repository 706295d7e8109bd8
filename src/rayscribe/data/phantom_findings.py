"""How the findings of a phantom patient look: shadows in the lungs, pleura, devices.

Every array is one film (H, W); see `phantom_drawing` for the coordinates.
"""

from __future__ import annotations

import numpy as np

from rayscribe.data.phantom_canvas import FRONTAL, LATERAL, SIGNS, STEPS, ZONE_Y, Canvas, Film, Line, soft
from rayscribe.data.phantom_truth import Truth


def frontal_pleura(truth: Truth, film: Canvas, chest: Film) -> tuple[Film, Film, Film]:
    """The pleural findings: what they replace air with, what they add, and where they hide vessels."""
    haze, extra, bare = np.zeros_like(chest), np.zeros_like(chest), np.zeros_like(chest)
    for finding in truth.findings:
        step = STEPS[finding.size]
        for sign in SIGNS[finding.side]:
            here = film.x * np.float32(sign)
            if finding.observation == "Pleural Effusion":
                level = (0.36, 0.18, -0.04)[step - 1] - (0.55 + 0.1 * step) * np.maximum(here - 0.14, 0) ** 2
                haze = np.maximum(haze, 0.95 * soft(film.y - level, 0.022) * soft(here, 0.02))
            elif finding.observation == "Pneumothorax":
                inside = chest - (0.26, 0.42, 0.62)[step - 1] * soft(0.30 - film.y, 0.1)
                free = soft(-inside, 0.02) * soft(chest, 0.03) * soft(here - 0.1, 0.02) * soft(0.30 - film.y, 0.05)
                rim = np.exp(-((inside / 0.03) ** 2)) * soft(here - 0.12, 0.02) * soft(0.25 - film.y, 0.05)
                bare = np.maximum(bare, free)
                extra += 0.12 * rim - 0.11 * free
            elif finding.observation == "Pleural Other":
                apical = finding.kind == "apical"
                place = soft(-0.52 - film.y, 0.03) if apical else np.exp(-(((film.y - 0.10) / 0.36) ** 2))
                rind = soft((0.16, 0.26, 0.38)[step - 1] - chest, 0.03) * soft(chest, 0.03) * soft(here, 0.02)
                extra += 0.26 * rind * place
    return haze, extra, bare


def shadows(truth: Truth, film: Canvas, view: int) -> tuple[Film, Film]:
    """The findings of the lung: what they replace air with, and what they add."""
    filled, dense = np.zeros_like(film.x), np.zeros_like(film.x)
    bands: list[Line] = []
    bronchi: list[Line] = []
    for finding in truth.findings:
        step, level = STEPS[finding.size], ZONE_Y[finding.zone]
        behind = {"upper": 0.0, "middle": -0.20, "lower": 0.26}.get(finding.zone, 0.0)
        for sign in SIGNS[finding.side]:
            centre = behind if view == LATERAL else sign * 0.43
            across, down = film.x - centre, film.y - level
            if finding.observation in ("Consolidation", "Lung Opacity"):
                reach = (0.15, 0.21, 0.27)[step - 1]
                blob = 1 - (across / reach) ** 2 - (down / (0.9 * reach)) ** 2 + 0.45 * film.mottle
                is_dense = finding.observation == "Consolidation"
                filled = np.maximum(filled, soft(blob, 0.2) * 0.92 if is_dense else soft(blob, 0.5) * 0.58)
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
                mark = soft(radius - distance, 0.010)
                if finding.kind == "cavity":
                    mark -= 0.95 * soft(0.58 * radius - distance, 0.010)
                dense += mark * (0.85 if finding.kind == "granuloma" else 0.5)
    if bronchi:
        filled *= 1 - 0.7 * film.lines(bronchi, blur=0.003)
    if bands:
        dense += 0.42 * film.lines(bands, blur=0.008) * (1 + 0.2 * film.mottle)
    return filled, dense


def device_lines(truth: Truth, view: int) -> list[Line]:
    device = truth.find("Support Devices")
    if device is None:
        return []
    frontal = view == FRONTAL
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
