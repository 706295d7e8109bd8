"""Writes the report of a phantom study from its truth: what is present, where, how much, and what is absent.

Every sentence belongs to a region of the chest. A finding that is present is always mentioned, with its true side and size;
a region without a finding is usually, but not always, described as normal, as radiologists do.
"""

from __future__ import annotations

import numpy as np

from rayscribe.data.phantom_hands import Hand
from rayscribe.data.phantom_truth import PhantomFinding, Truth

_REGIONS: dict[str, tuple[str, ...]] = {
    "heart": ("Cardiomegaly",),
    "mediastinum": ("Enlarged Cardiomediastinum",),
    "lungs": ("Edema", "Consolidation", "Lung Opacity", "Atelectasis", "Lung Lesion"),
    "pleura": ("Pleural Effusion", "Pneumothorax", "Pleural Other"),
    "bones": ("Fracture",),
    "devices": ("Support Devices",),
}
"""Regions in the usual order of a report, and the observations described there; pneumonia goes with its consolidation."""

_PRESENT: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        "The heart is {degree}ly enlarged.",
        "There is {degree} cardiomegaly.",
        "{degree} enlargement of the cardiac silhouette is seen.",
        "Heart size is {degree}ly increased, consistent with cardiomegaly.",
    ),
    "Enlarged Cardiomediastinum": (
        "The mediastinum is {degree}ly widened.",
        "There is {degree} widening of the mediastinum.",
        "The superior mediastinal contour is {degree}ly enlarged.",
    ),
    "Edema": (
        "There is {degree} pulmonary edema.",
        "Perihilar haze and prominent vessels reflect {degree} pulmonary edema.",
        "{degree} interstitial edema is present in both lungs.",
    ),
    "Lung Opacity": (
        "There is a {size} hazy opacity in the {place}.",
        "A {size} ill-defined opacity is seen in the {place}.",
        "{size} patchy opacity projects over the {place}.",
    ),
    "Consolidation": (
        "There is a {size} consolidation in the {place}.",
        "A {size} area of dense consolidation occupies the {place}.",
        "{size} homogeneous {place} consolidation is present.",
    ),
    "Pneumonia": (
        "There is a {size} {place} consolidation with air bronchograms, consistent with pneumonia.",
        "{size} consolidation of the {place} with air bronchograms represents pneumonia.",
        "{size} {place} pneumonia is present with consolidation and air bronchograms.",
    ),
    "Atelectasis": (
        "There is {degree} {base} atelectasis.",
        "{degree} linear {base} atelectasis is present.",
        "Plate-like densities reflect {degree} {base} atelectasis with volume loss.",
    ),
    "Lung Lesion/nodule": (
        "A {size} noncalcified nodule projects over the {place}.",
        "There is a {size} rounded pulmonary nodule in the {place}.",
    ),
    "Lung Lesion/mass": (
        "A {size} rounded mass occupies the {place}.",
        "There is a {size} spherical mass in the {place}, suspicious for neoplasm.",
    ),
    "Lung Lesion/granuloma": (
        "A calcified granuloma is noted in the {place}.",
        "There is a {size} calcified granuloma in the {place}, a sequela of old histoplasmosis.",
    ),
    "Lung Lesion/cavity": (
        "There is a {size} cavitary lesion in the {place}.",
        "A {size} thick-walled cavitary lesion is seen in the {place}.",
    ),
    "Pleural Effusion": (
        "{there} {size} {side} pleural effusion{s}.",
        "{size} {side} pleural effusion{s} with blunting of the costophrenic angle{s}.",
        "{size} layering {side} pleural effusion{s} noted.",
    ),
    "Pneumothorax": (
        "There is a {size} {side} pneumothorax.",
        "{size} {side} pneumothorax with a visible visceral pleural line.",
    ),
    "Pleural Other/lateral": (
        "{degree} {side} pleural thickening is seen along the lateral chest wall.",
        "There is {degree} {side} lateral pleural thickening.",
    ),
    "Pleural Other/apical": (
        "{degree} {side} apical pleural thickening is noted.",
        "There is {degree} {side} apical pleural scarring.",
    ),
    "Fracture/rib": (
        "There are displaced {side} posterior rib fractures.",
        "Displaced {side} rib fractures with callus.",
    ),
    "Fracture/clavicle": (
        "There is a displaced {side} clavicle fracture.",
        "Displaced fracture of the {side} clavicle is noted.",
    ),
    "Support Devices/pacemaker": (
        "A {side} chest wall pacemaker is in place.",
        "{side} pacemaker with its lead projecting over the ventricle.",
    ),
    "Support Devices/central line": (
        "A {side} central venous catheter terminates in the superior vena cava.",
        "The tip of a {side} central line projects over the superior vena cava.",
    ),
    "Support Devices/wires": ("Median sternotomy wires are intact.", "Sternotomy wires are noted in the midline."),
    "Support Devices/tube": (
        "An endotracheal tube terminates above the carina.",
        "The endotracheal tube is in standard position.",
    ),
}

_ABSENT: dict[str, tuple[str, ...]] = {
    "heart": (
        "The heart is normal in size.",
        "Heart size is within normal limits.",
        "The cardiac silhouette is not enlarged.",
    ),
    "mediastinum": ("The mediastinal contours are unremarkable.", "The mediastinum is not widened."),
    "lungs": (
        "The lungs are clear.",
        "The lungs are clear without focal consolidation or edema.",
        "No focal airspace opacity is seen.",
        "There is no focal consolidation.",
    ),
    "pleura": (
        "There is no pleural effusion or pneumothorax.",
        "No pleural effusion or pneumothorax.",
        "No effusion or pneumothorax is identified.",
    ),
    "bones": (
        "The osseous structures are intact.",
        "No acute osseous abnormality.",
        "The visualized bones are unremarkable.",
    ),
}
_OUTLINES = (
    "The cardiomediastinal silhouette is normal.",
    "Heart size and mediastinal contours are within normal limits.",
)
"""Sentences that describe heart and mediastinum as normal."""

_BESIDES: dict[str, tuple[str, ...]] = {
    "Edema": ("No focal consolidation.",),
    "Consolidation": ("There is no pulmonary edema.", "The lungs are otherwise clear."),
    "Lung Opacity": ("There is no pulmonary edema.", "The lungs are otherwise clear."),
    "Atelectasis": ("No focal consolidation.", "The lungs are otherwise clear."),
    "Lung Lesion": ("The lungs are otherwise clear.", "No focal consolidation."),
    "Pleural Effusion": ("No pneumothorax.", "There is no pneumothorax."),
    "Pneumothorax": ("No pleural effusion.",),
    "Pleural Other": ("No pleural effusion or pneumothorax.",),
}
"""What may be absent in a region that has one finding."""

_NORMAL = (
    "The heart is normal in size. The mediastinum is unremarkable. Both of the lungs are clear.",
    "Heart size and mediastinal contours are within normal limits. The lungs are clear. "
    "There is no pleural effusion or pneumothorax. The osseous structures are intact.",
    "The cardiomediastinal silhouette is normal. No focal consolidation, pleural effusion or pneumothorax. "
    "No acute osseous abnormality.",
    "The lungs are clear without focal consolidation, effusion or pneumothorax. The heart and mediastinum are normal.",
)
"""Whole reports, as from macros: they create duplicates, which are frequent in real collections."""

_IMPRESSION: dict[str, str] = {
    "Cardiomegaly": "{degree} cardiomegaly.",
    "Enlarged Cardiomediastinum": "{degree} widening of the mediastinum.",
    "Edema": "{degree} pulmonary edema.",
    "Lung Opacity": "{place} opacity.",
    "Consolidation": "{place} consolidation.",
    "Pneumonia": "{place} pneumonia.",
    "Atelectasis": "{degree} {base} atelectasis.",
    "Lung Lesion/nodule": "{place} nodule.",
    "Lung Lesion/mass": "{place} mass.",
    "Lung Lesion/granuloma": "Calcified {place} granuloma.",
    "Lung Lesion/cavity": "Cavitary {place} lesion.",
    "Pleural Effusion": "{size} {side} pleural effusion{s}.",
    "Pneumothorax": "{size} {side} pneumothorax.",
    "Pleural Other/lateral": "{side} pleural thickening.",
    "Pleural Other/apical": "{side} apical pleural thickening.",
    "Fracture/rib": "{side} rib fractures.",
    "Fracture/clavicle": "{side} clavicle fracture.",
}
_IMPRESSION_NORMAL = ("No acute cardiopulmonary abnormality.", "No acute cardiopulmonary disease.", "Normal chest.")
_INDICATIONS = ("Chest pain.", "Shortness of breath.", "Cough.", "Fever.", "Preoperative evaluation.", "Dyspnea.")

_DEGREES = {"none": "", "small": "mild", "moderate": "moderate", "large": "severe"}
_SHORTEST, _LONGEST = 15, 55
"""Words in a report, which is extended or cut with normal statements."""


def write_report(truth: Truth, rng: np.random.Generator, variety: float = 1.0) -> tuple[str, str]:
    """Write the findings section (15 to 55 words) and the impression of a study.

    `variety` 0 always writes the same report for a truth; 1 draws from all wordings, orders and omissions.
    """
    hand = Hand(truth.hand)
    told = [(key, finding) for region in _REGIONS for key, finding in _present(truth, region)]
    impression = " ".join(_sentence(_IMPRESSION[key], finding) for key, finding in told if key in _IMPRESSION)
    impression = impression or hand.any(rng, _IMPRESSION_NORMAL, variety)
    if not truth.findings and rng.random() < 0.5 * variety:
        return hand.any(rng, _NORMAL, variety), impression

    sentences: dict[str, list[str]] = {region: [] for region in _REGIONS}
    for region, texts in sentences.items():
        for key, finding in _present(truth, region):
            texts.append(_sentence(hand.any(rng, _PRESENT[key], variety), finding))
            if finding.observation in _BESIDES and rng.random() < 0.5 * variety:
                texts.append(hand.any(rng, _BESIDES[finding.observation], variety))
    silent = [region for region in _ABSENT if not sentences[region]]
    if {"heart", "mediastinum"} <= set(silent) and rng.random() < 0.4 * variety:
        sentences["heart"] = [hand.any(rng, _OUTLINES, variety)]
        silent = [region for region in silent if region not in ("heart", "mediastinum")]
    # Radiologists sometimes skip what is normal, most often the mediastinum and the bones.
    skipped = [
        region for region in silent if rng.random() < variety * (0.35 if region in ("mediastinum", "bones") else 0.1)
    ]
    for region in silent:
        if region not in skipped:
            sentences[region] = [hand.any(rng, _ABSENT[region], variety)]
    for region in skipped:
        if _words(sentences) < _SHORTEST:
            sentences[region] = [hand.any(rng, _ABSENT[region], variety)]
    for region in reversed(silent):
        if _words(sentences) > _LONGEST:
            sentences[region] = []

    order = hand.ordered(list(_REGIONS))
    if rng.random() < 0.25 * variety:
        rng.shuffle(order)
    return " ".join(text for region in order for text in sentences[region]), impression


def write_indication(truth: Truth, rng: np.random.Generator) -> str:
    """Write the indication for the study; it does not reveal the findings."""
    return Hand(truth.hand).indication(Hand().any(rng, _INDICATIONS))


def _present(truth: Truth, region: str) -> list[tuple[str, PhantomFinding]]:
    """The findings of a region, each with the name of its sentences."""
    present = []
    for finding in truth.findings:
        if finding.observation in _REGIONS[region]:
            name = finding.observation
            if name == "Consolidation" and truth.find("Pneumonia"):
                name = "Pneumonia"
            present.append((f"{name}/{finding.kind}" if finding.kind else name, finding))
    return present


def _sentence(template: str, finding: PhantomFinding) -> str:
    """The template filled in with this finding's side, size and place."""
    is_both = finding.side == "both"
    side = "bilateral" if is_both else finding.side
    text = template.format(
        side=side,
        size=finding.size,
        degree=_DEGREES[finding.size],
        base="bibasilar" if is_both else f"{side} basilar",
        place=f"{side} mid lung" if finding.zone == "middle" else f"{side} {finding.zone} lobe",
        there="There are" if is_both else "There is a",
        s="s" if is_both else "",
    )
    return text[0].upper() + text[1:]


def _words(sentences: dict[str, list[str]]) -> int:
    return sum(len(text.split()) for texts in sentences.values() for text in texts)
