"""The rule labeler on cases that readers reported, and on invented sentences of the same kinds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from rayscribe.labels import NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE, UNCERTAIN
from rayscribe.metrics.labeler import RuleLabeler, mentions, states
from short_labels import SHORT as FINDINGS
from short_labels import SIGNS

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "label"
SHORT = {"normal": "No Finding", **FINDINGS}
VALUES = {POSITIVE: 1, NEGATIVE: 0, UNCERTAIN: -1, NOT_MENTIONED: None}

# The right values of the case files: allowed states by observation, as the files' README reads their column `right`.
RIGHT: dict[str, dict[str, dict[str, Sequence[int | None]]]] = {
    "abbrev": {
        "1": {"Pneumonia": [1]},
        "2": {"Pneumonia": [0]},
        "3": {"Pneumonia": [1]},
        "4": {"Support Devices": [1]},
        "5": {"Support Devices": [1]},
        "6": {"Support Devices": [1]},
    },
    "collapse": {"1": {"Atelectasis": [1]}, "2": {"Atelectasis": [1]}, "3": {"Atelectasis": [1]}},
    "comma_splice": {
        "1": {"Pleural Effusion": [1], "No Finding": [None]},
        **{row: {"Pleural Effusion": [1]} for row in ("2", "4", "6", "8", "10")},
    },
    "history": {
        "1": {"Pneumonia": [0, None]},
        "2": {"Edema": [0, None]},
        "6": {"Pneumonia": [0, -1, None]},
        "7": {"Pneumothorax": [0]},
    },
    "list_style": {
        "1": {"Pleural Effusion": [0], "Pneumothorax": [0], "No Finding": [1]},
        "3": {"Consolidation": [1]},
        "4": {"Lung Lesion": [0, -1, None]},
    },
    "not_normal": {
        **{row: {"No Finding": [None]} for row in ("1", "3", "7", "13")},
        "5": {"Pneumothorax": [1, -1]},
        "8": {"Pneumonia": [1, -1]},
        "9": {"Edema": [-1]},
        "10": {"Edema": [-1]},
        "11": {"Fracture": [1]},
        "14": {"Lung Opacity": [1, -1]},
    },
    "wetread": {
        "1": {"Pneumothorax": [0]},
        "2": {"Pneumothorax": [0, None]},
        "3": {"Pneumonia": [0, None]},
        "4": {"No Finding": [1]},
        "5": {"No Finding": [1]},
    },
}

# A text ("|" ends it) and all that it says: + present, - denied, ? doubted; "normal+" is No Finding.
SENTENCES = r"""
a clause behind a comma affirms what it names
No pneumothorax, basilar atelectasis is unchanged. | pneumothorax- atelectasis+
No edema, consolidation in the right lower lobe persists. | edema- consolidation+
No fracture, nodule in the left lung has grown and is larger. | fracture- lesion+
Negative for effusion, pneumothorax again seen. | effusion- pneumothorax+
No pneumothorax, effusion has not changed. | pneumothorax- effusion+
No pneumothorax, effusions have not resolved. | pneumothorax- effusion+
No pneumothorax, effusion and atelectasis are unchanged. | pneumothorax- effusion+ atelectasis+
No pneumothorax and effusions are unchanged. | pneumothorax- effusion+
no pneumothorax effusions are unchanged . | pneumothorax- effusion+
Possible pneumonia, effusion is unchanged. | pneumonia? effusion+
No effusion on the right, the left one is larger. | effusion+
No effusion on the left, the right is unchanged. | effusion+
a list behind a comma stays denied
No pneumothorax, effusion is seen. | pneumothorax- effusion- normal+
No pneumothorax, effusion, or edema is seen. | pneumothorax- effusion- edema- normal+
No effusion, pneumothorax or edema, unchanged from before. | effusion- pneumothorax- edema- normal+
No pneumothorax, effusion has resolved. | pneumothorax- effusion- normal+
No consolidation, effusion and edema are identified. | consolidation- effusion- edema- normal+
No pneumothorax, chest tube has been removed. | pneumothorax- devices- normal+
the past is no finding
History of pneumothorax. |
History of CHF, COPD, and pneumonia. |
H/o pneumonia. The lungs are clear. | normal+
History of CHF, small bilateral effusions. | effusion+
History of lung cancer with new left effusion. | effusion+
A 61 year old woman with pneumonia. |
Treated for pneumonia; the lungs are clear. | normal+
Prior left pneumothorax. |
Prior right effusion is smaller. | effusion+
Prior rib fractures. | fracture+
Opacities consistent with the patient's history of fibrosis. | opacity+ pleura+
a reason does not assert
Concern for pneumothorax. | pneumothorax?
Clinical suspicion of pneumonia. | pneumonia?
Cough, r/o PNA. | pneumonia?
F/u effusion. | effusion?
Pneumothorax follow up. | pneumothorax?
Question of edema, but none is identified. | edema- normal+
On follow up, the effusion has decreased. | effusion+
outside the fourteen, yet not normal
Pneumoperitoneum. |
Air is seen under the left hemidiaphragm. |
Situs inversus. |
Respiratory distress syndrome of the newborn. |
Subcutaneous gas in the neck. |
Pericardial effusion. |
Anterior dislocation of the shoulder. |
Lytic lesion of the humerus. |
Dilated loops of bowel. |
The right hilum is enlarged. |
Peribronchial cuffing. |
No free air. | normal+
No lytic or blastic lesion. | normal+
The trachea is midline. | normal+
nothing said is not normal
No change. |
No significant interval change since the prior study. |
Nondiagnostic examination. |
Comparison: none. |
INDICATION: Cough. |
abbreviations
RUL GGO. | opacity+
No PTX/PNA/effusion. | pneumothorax- pneumonia- effusion- normal+
Findings c/w CHF. | edema+
Bibasilar atel, small eff. | atelectasis+ effusion+
RIJ tip in the SVC. ETT above the carina. | devices+ normal+
LVAD in place. | devices+ normal+
No mets. | lesion- normal+
collapse by what collapsed
Right middle lobe collapse. | atelectasis+
The lung is not collapsed. | atelectasis- normal+
Collapse of T12. | fracture+
Partial collapse of the L1 vertebral body. | fracture+
No vertebral collapse. | fracture- normal+
Tracheal collapse on expiration. |
Humeral head collapse. |
Consolidation/collapse of the lingula. | consolidation+ atelectasis+
lists and signs
Pneumothorax - no. | pneumothorax- normal+
Effusion: none. Heart: enlarged. | effusion- heart+
Pneumothorax (none), effusion (small). | pneumothorax- effusion+
No deep sulcus sign. | pneumothorax- normal+
Vascular redistribution. | edema?
Anterior wedging of T7. | fracture?
Vessels mimic a nodule. | lesion?
Nonresolving pneumonia. | pneumonia+
Without old films, the nodule is indeterminate. | lesion+
reasons and preliminary readings
Indication: Cough. Known effusion. FINDINGS: Clear lungs. | normal+
INDICATION: Dyspnea. Effusion on CT.\n\nFINDINGS: The lungs are clear. | normal+
HISTORY: CHF.\n\n Small effusions.\n\nIMPRESSION: Effusions. | effusion+
Reason for study: r/o ptx FINDINGS: Normal. | normal+
REFERRING PROVIDER NOTE: pneumonia\nFINDINGS: Normal. | normal+
PRELIMINARY REPORT: Edema. FINAL REPORT The lungs are clear. | normal+
WET READ: Pneumothorax. | pneumothorax+
"""
INVENTED = [tuple(part.strip() for part in line.split("|")) for line in SENTENCES.splitlines() if "|" in line]


def said(text: str) -> str:
    sign = {state: sign for sign, state in SIGNS.items()}
    short = {name: word for word, name in SHORT.items()}
    return " ".join(
        sorted(short[name] + sign[state] for name, state in zip(OBSERVATIONS, states(text)) if state in sign)
    )


@pytest.mark.parametrize(("text", "expected"), INVENTED)
def test_sentence_of_a_reported_kind_says(text: str, expected: str) -> None:
    assert said(text.replace(r"\n", "\n")) == " ".join(sorted(expected.split()))


@pytest.fixture(scope="session")
def cases() -> Path:
    """The case files, which are not part of the repository."""
    if not CASES.is_dir():
        pytest.skip("needs the reported cases in ../shared/cases/label")
    return CASES


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_reported_reports_have_the_right_labels(cases: Path, name: str) -> None:
    with open(cases / f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row["report"] for row in csv.DictReader(file)}
    assert set(RIGHT[name]) == set(rows)
    assert differences({row: (rows[row], allowed) for row, allowed in RIGHT[name].items()}) == []


def test_every_reported_sentence_has_states_that_a_careful_reader_allows(cases: Path) -> None:
    listed = json.loads((cases / "sentences.json").read_text(encoding="utf-8"))
    assert len(listed) >= 100
    assert differences({case["id"]: (case["report"], case["allowed"]) for case in listed}) == []


def test_the_chexpert_reading_keeps_what_that_labeler_does_not_know() -> None:
    plain, habitual = RuleLabeler(), RuleLabeler(as_chexpert=True)
    assert plain.name == "rayscribe-rules-2" and habitual.name == "rayscribe-rules-2-as-chexpert"
    places = {name: OBSERVATIONS.index(name) for name in OBSERVATIONS}
    by_words = habitual.label(["History of pneumonia.", "Pneumoperitoneum.", "Vascular redistribution.", "No change."])
    assert by_words[0, places["Pneumonia"]] == POSITIVE
    assert (by_words[1:, places["No Finding"]] == POSITIVE).all()


def test_a_skipped_section_does_not_move_the_places_of_mentions() -> None:
    report = "WET READ: Edema.\n ____________\n FINAL REPORT\n HISTORY: Known mass.\n\n FINDINGS: Small effusion."
    assert [report[one.start : one.end] for one in mentions(report)] == ["effusion"]


def test_history_is_no_mention() -> None:
    assert [one.observation for one in mentions("History of pneumonia. Small effusion.")] == ["Pleural Effusion"]


def differences(
    cases: dict[str, tuple[str, dict[str, Sequence[int | None]]]],
) -> list[tuple[str, str, int | None]]:
    """Case, observation and found state of every decision that is not allowed."""
    return [
        (case, name, found)
        for case, (report, allowed) in cases.items()
        for name, found in zip(OBSERVATIONS, (VALUES[state] for state in states(report)))
        if found not in allowed.get(name, [found])
    ]
