from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from rayscribe.data.cleaning import clean_r2gen_iu
from rayscribe.labels import CSV_STATES, NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNCERTAIN, Labels
from rayscribe.metrics.labeler import RuleLabeler, mentions, states
from short_labels import SHORT, SIGNS

# A sentence and what it says: + present, - denied, ? doubted; nothing is said of the others.
SENTENCES = """
plain findings
A tiny pneumothorax at the right apex. | pneumothorax+
Loculated fluid: a moderate pleural effusion on the left. | effusion+
Patchy airspace disease in the middle lobe. | opacity+
Two nodules and one spiculated mass. | lesion+
Dense consolidation with air bronchograms. | consolidation+
Interstitial edema and bronchopneumonia. | edema+ pneumonia+
Total collapse of the left lung. | atelectasis+
Thick calcified pleural plaques. | pleura+
The feeding tube ends in the stomach. | devices+
Hydropneumothorax. | pneumothorax+ effusion+
denied before
No effusion, pneumothorax or consolidation. | effusion- pneumothorax- consolidation-
No effusion, no edema. | effusion- edema-
Negative for fracture. | fracture-
The bases are free of infiltrate, and there is no mass. | opacity- lesion-
Neither edema nor effusion is found. | edema- effusion-
The film shows no definite pneumothorax. | pneumothorax-
Without radiographic evidence of pneumonia. | pneumonia-
Absence of a pneumothorax. | pneumothorax-
Complete resolution of the left effusion. | effusion-
There isn't a pneumothorax. | pneumothorax-
No opacity to suggest pneumonia. | opacity- pneumonia-
No nodule suspicious for malignancy. | lesion-
Atelectasis rather than pneumonia. | atelectasis+ pneumonia-
denied behind
Effusion is not seen. | effusion-
The edema has resolved. | edema-
A pneumothorax is no longer visible. | pneumothorax-
Effusions and edema are absent. | effusion- edema-
Pneumonia is unlikely. | pneumonia-
Pneumothorax: none. | pneumothorax-
The chest tube has been removed. | devices-
looks like a denial
No change in effusion. | effusion+
No interval change in the right effusion. | effusion+
Bilateral effusions without significant change. | effusion+
No increase in edema. | edema+
The consolidation has not resolved. | consolidation+
No improvement in the consolidation or the edema. | consolidation+ edema+
Not only edema but also effusions. | edema+ effusion+
The effusion has nearly resolved. | effusion+
Pneumonia is not seen, but the effusion is not well seen. | pneumonia- effusion+
doubt
Cannot exclude pneumonia. | pneumonia?
Pneumonia cannot be entirely excluded. | pneumonia?
Superimposed infection is not excluded. | pneumonia?
The shadow may represent atelectasis. | atelectasis?
Possible small pneumothorax. | pneumothorax?
A small pneumothorax is possible. | pneumothorax?
Findings suspicious for pneumonia. | pneumonia?
Likely atelectasis. | atelectasis?
Atelectasis versus pneumonia. | atelectasis? pneumonia?
Scar or atelectasis. | opacity? atelectasis?
Atelectasis and/or pneumonia. | atelectasis? pneumonia?
The opacity is likely atelectasis. | opacity+ atelectasis?
A nodule? | lesion?
Mild vascular congestion. | edema?
doubt that is no doubt
Appearance consistent with edema. | edema+
Opacities that suggest pneumonia. | opacity+ pneumonia+
reach
No pneumothorax but a small effusion. | pneumothorax- effusion+
No pneumothorax; small effusion. | pneumothorax- effusion+
No consolidation, although atelectasis is present. | consolidation- atelectasis+
No abnormality except cardiomegaly. | heart+
Edema without effusion. | edema+ effusion-
Left effusion, no pneumothorax, right atelectasis. | effusion+ pneumothorax- atelectasis+
No pneumothorax is seen, and the heart is enlarged. | pneumothorax- heart+
Possible pneumonia, no effusion. | pneumonia? effusion-
No large effusion, however a small one cannot be excluded. | effusion?
While there is no edema, there is cardiomegaly. | edema- heart+
reach without commas
no effusion pneumothorax or consolidation . | effusion- pneumothorax- consolidation-
no pneumothorax small left effusion . | pneumothorax- effusion+
no pneumothorax the heart is enlarged . | pneumothorax- heart+
mild edema possible effusions no pneumothorax . | edema+ effusion? pneumothorax-
lungs clear heart size normal no effusion . | heart- effusion-
left effusion has resolved right effusion is stable . | effusion+
heart and mediastinum
Heart size is normal. | heart-
The heart is not enlarged. | heart-
The heart is mildly enlarged. | heart+
Enlarged heart, normal mediastinum. | heart+ enlarged-
The cardiac silhouette may be enlarged. | heart?
Mild enlargement of the cardiac silhouette. | heart+
Heart size is at the upper limits of normal. | heart-
Mediastinal contours are unremarkable. | enlarged-
Heart size and mediastinal contours are within normal limits. | heart- enlarged-
The heart size is normal, the mediastinum is widened. | heart- enlarged+
No mediastinal widening. | enlarged-
Stable cardiomediastinal silhouette. | enlarged?
The heart is hidden by the effusion. | effusion+
laterality, lists, old findings
No left effusion. Small right effusion. | effusion+
1. No effusion 2. Right basilar atelectasis 3. Edema | effusion- atelectasis+ edema+
Old healed rib fractures. | fracture+
No displaced rib fractures. | fracture-
questions
Evaluate for pneumonia. | pneumonia?
Indication: rule out pneumonia. | 
masks and slips
scarringatelectasis of the base . | opacity? atelectasis?
XXXX opacity at the XXXX, no XXXX effusion. | opacity+ effusion-
a <unk> effusion and ___ edema . | effusion+ edema+
Mild cardiomegally with atelectesis and consolodation. | heart+ atelectasis+ consolidation+
No pnuemothorax or effussion. | pneumothorax- effusion-
nothing of the fourteen
The lungs are clear and the trachea is midline. | 
A knee effusion and a calcified granuloma. | 
No pericardial effusion. | 
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in SENTENCES.splitlines() if "|" in line]


def said(text: str) -> str:
    sign = {state: sign for sign, state in SIGNS.items()}
    short = {name: word for word, name in SHORT.items()}
    found = zip(OBSERVATIONS, states(text))
    return " ".join(sorted(short[name] + sign[state] for name, state in found if name in short and state in sign))


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_sentence_says(text: str, expected: str) -> None:
    assert said(text) == " ".join(sorted(expected.split()))


def test_there_are_many_sentences() -> None:
    assert len(CASES) >= 90


@pytest.mark.parametrize(
    ("text", "named", "side"),
    [
        ("Small left effusion.", "effusion", "left"),
        ("There is an effusion in the right hemithorax.", "effusion", "right"),
        ("Bilateral pleural effusions.", "pleural effusions", "bilateral"),
        ("Effusions, right greater than left.", "Effusions", "bilateral"),
        ("bibasilar atelectasis", "atelectasis", "bilateral"),
        ("No pneumothorax, left effusion.", "pneumothorax", ""),
        ("Pneumothorax.", "Pneumothorax", ""),
    ],
)
def test_span_points_at_the_words_and_side_is_found(text: str, named: str, side: str) -> None:
    first = mentions(text)[0]
    assert text[first.start : first.end] == named
    assert first.side == side


def test_spans_hold_in_a_long_report() -> None:
    report = (
        "FINDINGS: The heart is\nenlarged.  No focal\nconsolidation.\n\n1. Left pnuemothorax\n2. Possible effussions?"
    )
    found = [(report[one.start : one.end], one.state, one.side) for one in mentions(report)]
    assert found == [
        ("heart", POSITIVE, ""),
        ("consolidation", NEGATIVE, ""),
        ("pnuemothorax", POSITIVE, "left"),
        ("effussions", UNCERTAIN, ""),
    ]


def test_mention_tells_sentence_and_cue() -> None:
    first, second = mentions("The lungs are clear. No evidence of edema; effusion cannot be excluded.")
    assert first.sentence == "No evidence of edema; effusion cannot be excluded"
    assert (first.cue, second.cue) == ("no evidence of", "cannot be excluded")
    assert mentions("Large effusion.")[0].cue == ""


@pytest.mark.parametrize(
    "report",
    [
        "The heart is mildly enlarged. Small left effusion, no pneumothorax. Right base opacity, likely atelectasis.",
        "1. No edema, effusion, or pneumothorax. 2. Air-space disease at the left base. 3. Old rib fracture.",
        "Heart size, mediastinum, and hila are normal. XXXX clear lungs, except for a 4 mm nodule.",
        "There is no consolidation or effusion. However, pneumonia can't be excluded. PICC line unchanged.",
    ],
)
def test_cleaned_and_raw_report_give_the_same_states(report: str) -> None:
    assert states(clean_r2gen_iu(report)) == states(report)


def test_doubt_and_denial_give_way_to_presence() -> None:
    assert said("No effusion on the left. Possible effusion on the right.") == "effusion?"
    assert said("Possible effusion on the right. No effusion on the left. Effusion behind the heart.") == "effusion+"


@pytest.mark.parametrize("text", ["", "   ", "\n", ". . .", "1."])
def test_text_without_words_mentions_nothing(text: str) -> None:
    assert mentions(text) == []
    assert states(text) == (NOT_MENTIONED,) * len(OBSERVATIONS)


@pytest.mark.parametrize(
    ("text", "is_normal"),
    [
        ("The lungs are clear. No effusion.", True),
        ("No effusion. A pacemaker is in place.", True),
        ("No effusion. Small nodule.", False),
        ("Possible effusion.", False),
        ("Degenerative change of the spine.", False),
        ("No degenerative change.", True),
    ],
)
def test_no_finding_is_what_remains(text: str, is_normal: bool) -> None:
    assert (states(text)[OBSERVATIONS.index("No Finding")] == POSITIVE) == is_normal


def test_labels_keep_the_order_of_observations() -> None:
    labeler = RuleLabeler()
    labels = labeler.label(["Small pneumothorax.", "Pacemaker. No fracture."])
    assert labels.dtype == np.int8 and labels.shape == (2, len(OBSERVATIONS))
    assert labels[0, OBSERVATIONS.index("Pneumothorax")] == POSITIVE
    assert labels[1, OBSERVATIONS.index("Fracture")] == NEGATIVE
    assert labels[1, OBSERVATIONS.index("Support Devices")] == POSITIVE
    assert labeler.label([]).shape == (0, len(OBSERVATIONS))


def test_habits_have_another_name_and_another_reading() -> None:
    plain, habitual = RuleLabeler(), RuleLabeler(as_chexpert=True)
    assert plain.name != habitual.name
    fracture = OBSERVATIONS.index("Fracture")
    assert plain.label(["No displaced rib fractures."])[0, fracture] == NEGATIVE
    assert habitual.label(["No displaced rib fractures."])[0, fracture] == POSITIVE


def test_agrees_with_the_chexpert_labeler_on_real_reports(iu_root: Path) -> None:
    reports, gold = training_reports(iu_root)
    habitual = positive_f1(RuleLabeler(as_chexpert=True).label(reports), gold)
    assert np.mean(habitual) >= 0.90
    assert np.mean(positive_f1(RuleLabeler().label(reports), gold)) >= 0.75


def training_reports(iu_root: Path) -> tuple[list[str], Labels]:
    """Findings, which is what the table was made from, and its states, of the training and validation split only."""
    with (iu_root / "reports.csv").open(newline="") as file:
        findings = {
            row["uid"]: row["findings"] for row in csv.DictReader(file) if row["split_r2gen"] in ("train", "val")
        }
    states_of = {float(text) if text else None: state for state, text in CSV_STATES.items()}
    with (iu_root / "labels_chexpert_dhesin.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["uid"] in findings]
    gold = [[states_of[float(row[name]) if row[name] else None] for name in OBSERVATIONS] for row in rows]
    return [findings[row["uid"]] for row in rows], np.array(gold, np.int8)


def positive_f1(labels_RO: Labels, gold_RO: Labels) -> list[float]:
    """F1 of the positive state, of the observations with at least 20 positive reports."""
    found, wanted = labels_RO == POSITIVE, gold_RO == POSITIVE
    f1 = 2 * (found & wanted).sum(0) / (found.sum(0) + wanted.sum(0))
    return [float(one) for one, count in zip(f1, wanted.sum(0)) if count >= 20]
