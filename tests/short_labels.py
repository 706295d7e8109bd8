"""Short names and signs of states, in which tests write what a sentence says."""

from __future__ import annotations

from rayscribe.labels import NEGATIVE, POSITIVE, UNCERTAIN

SHORT = {
    "enlarged": "Enlarged Cardiomediastinum",
    "heart": "Cardiomegaly",
    "lesion": "Lung Lesion",
    "opacity": "Lung Opacity",
    "edema": "Edema",
    "consolidation": "Consolidation",
    "pneumonia": "Pneumonia",
    "atelectasis": "Atelectasis",
    "pneumothorax": "Pneumothorax",
    "effusion": "Pleural Effusion",
    "pleura": "Pleural Other",
    "fracture": "Fracture",
    "devices": "Support Devices",
}
SIGNS = {"+": POSITIVE, "-": NEGATIVE, "?": UNCERTAIN}
