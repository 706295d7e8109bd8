from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SHARED
from rayscribe.data.cleaning import clean_r2gen_iu, clean_r2gen_mimic, swap_sides
from rayscribe.data.sections import section_text, split_sections, written_section
from rayscribe.data.table import read_table
from rayscribe.data.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Heart size normal. Lungs clear.", "heart size normal . lungs clear ."),
        ("Lungs clear.. Heart normal...", "lungs clear . heart normal ."),  # runs of stops become one
        ("1. Heart normal. 2. Lungs clear.", "heart normal . lungs clear ."),  # list numbers go
        ("Normal 3. clear 4. stable 5. done.", "normal . clear . stable . done ."),
        ("11. Ribs. 2.1. cm", "1ribs . 2cm ."),  # the accident: "1. " goes wherever it stands
        ("6. stays", "6 . stays ."),
        ("Heart / lungs and/or pleura", "heart lungs andor pleura ."),  # slashes glue words
        ("Ill-defined right-sided opacity, 2-3 cm; #4 rib", "ill-defined right-sided opacity 2-3 cm #4 rib ."),
        ("There is no (acute) [finding] {at} all!", "there is no acute finding at all ."),
        ('Patient\'s "chest" \\ XXXX', "patients chest xxxx ."),
        ("no pneumothorax. . Heart normal", "no pneumothorax . . heart normal ."),  # an empty sentence stays
        ("", "."),
    ],
)
def test_every_iu_rule_does_what_the_released_code_does(raw: str, cleaned: str) -> None:
    assert clean_r2gen_iu(raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Heart\nis normal.\n\n  Lungs   clear.", "heart is normal . lungs clear ."),
        ("Compared to ____ the heart", "compared to the heart ."),
        ("Clear........ Stable.", "clear . stable ."),
    ],
)
def test_mimic_rules_remove_layout_and_masks_first(raw: str, cleaned: str) -> None:
    assert clean_r2gen_mimic(raw) == cleaned


def test_exactly_the_published_characters_are_deleted() -> None:
    deleted = {c for c in string.printable if c not in string.whitespace and clean_r2gen_iu(f"a{c}b") == "ab ."}
    assert deleted == set("!%&()*+,.:;<=>?@[]^_{}\"/\\'")
    kept = set(string.printable) - set(string.whitespace) - deleted - set(string.ascii_uppercase)
    assert {"-", "#", "$", "`", "|", "~", "7"} <= kept


@given(st.text(max_size=200))
def test_a_cleaned_report_is_lower_case_words_that_end_with_a_stop(raw: str) -> None:
    for clean in (clean_r2gen_iu, clean_r2gen_mimic):
        words = clean(raw).split()
        assert words[-1] == "."
        assert clean(raw) == " ".join(words)
        assert not set(clean(raw)) & set("\"/\\'!%&()*+,:;<=>?@[]^_{}")


@given(st.lists(st.sampled_from(["left", "right", "right-sided", "heart", "levoscoliosis", "upright"]), max_size=8))
def test_swapping_sides_twice_changes_nothing(words: list[str]) -> None:
    text = " ".join(words)
    assert swap_sides(swap_sides(text)) == text


def test_swapping_sides_keeps_words_that_only_contain_a_side() -> None:
    swapped = "right effusion , left-sided , upright view , dextroscoliosis"
    assert swap_sides("left effusion , right-sided , upright view , levoscoliosis") == swapped


def test_headings_split_a_report_into_its_sections() -> None:
    report = "EXAM: chest\nFINDINGS: Lungs clear. Heart normal.\nIMPRESSION:\nNo acute disease."
    assert split_sections(report) == ("Lungs clear. Heart normal.", "No acute disease.")
    assert split_sections("Lungs clear.") == ("Lungs clear.", "")
    assert split_sections("Heart large. Left effusion. IMPRESSION: CHF.") == ("Heart large. Left effusion.", "CHF.")
    assert split_sections("Stable cardiac findings: mild.") == ("Stable cardiac findings: mild.", "")
    assert split_sections("EXAM: chest. findings: clear. Conclusion: well.") == ("clear.", "well.")
    assert section_text("a", "", "findings+impression") == ""
    assert section_text("a", "b", "findings+impression") == "a b"


@pytest.mark.parametrize(
    "report",
    [
        "FINDINGS: {}\nIMPRESSION: {}",
        "**Findings:** {}\n\n**Impression:** {}",
        "**FINDINGS**\n\n{}\n\n**IMPRESSION**\n\n{}",
        "# Report\n\n## Findings\n{}\n\n## Impression\n{}",
        "__Findings__: {} __Impression__: {}",
        "- **Findings:** {}\n- **Impression:** {}",
        "1. Findings: {}\n2. Impression: {}",
        "FINDINGS - {}\nIMPRESSION - {}",
        "FINDINGS\n{}\nIMPRESSION\n{}",
        "Here is the report.\nFINDNGS: {}\nImpresion: {}\nSUMMARY: 2-ABNORMAL",
        "EXAM: XR CHEST PA LATERAL FINDINGS: {} CONCLUSIONS: {} ATTENDING: Dr. X",
        "CLINICAL HISTORY: cough. NARRATIVE: {} IMPRESSION: {} ELECTRONICALLY SIGNED BY: Dr. X",
        "CHEST, TWO VIEWS: {}\nIMPRESSION: {}",
        "WET READ: Effusion.\n____\n   FINAL REPORT\n FINDINGS: {}\n IMPRESSION: {}",
    ],
)
def test_headings_of_every_form_split_a_report(report: str) -> None:
    assert split_sections(report.format("LUNGS: Clear. Heart: big.", "Normal.")) == (
        "LUNGS: Clear. Heart: big.",
        "Normal.",
    )


@pytest.mark.parametrize(
    "name",
    [
        "FINDINGS AND IMPRESSION:",
        "Impression/Findings:",
        "**Findings & Impression**",
        "FINDINGS AND\nIMPRESSION:",
        "FINDINGS, IMPRESSION:",
    ],
)
def test_text_under_a_joint_heading_is_findings(name: str) -> None:
    report = f"INDICATION: cough.\n{name} Small effusion." if ":" in name else f"{name}\nSmall effusion."
    assert split_sections(report) == ("Small effusion.", "")


@pytest.mark.parametrize(
    "report",
    [
        "Findings are unchanged. Note: rotated film. Impression of edema.",
        "The findings - mild - are old\nat 5:12 A.M., as in the comparison: none",
        "CHEST: The lungs are clear. LEFT KNEE: No fracture.",
        "LUNGS: Clear.\nHEART: Large.",
    ],
)
def test_a_text_without_known_headings_is_findings(report: str) -> None:
    assert split_sections(report) == (report, "")
    assert written_section(report, "impression") == report


def test_the_shared_table_is_split_at_its_headings() -> None:
    path = SHARED / "cases" / "table" / "t.csv"
    if not path.exists():
        pytest.skip("needs the case files in ../shared/cases")
    read = {study.id: (study.findings, study.impression) for study in read_table(path)}
    assert {read[name] for name in ("s00", "s01", "s08", "s09", "s10")} == {("Lungs clear.", "Normal.")}
    assert {read[name] for name in ("s02", "s03", "s04")} == {("Small effusion on the left.", "")}
    assert read["s05"] == ("Heart is big.", "Cardiomegaly.")
    assert read["s06"][1] == "1. Left effusion.\n2. No pneumothorax."
    assert read["s07"] == ("Lungs clear.", "No acute disease.")
    assert read["s11"] == ("LUNGS: Clear.\nHEART: Enlarged.", "Cardiomegaly.")
    assert read["s13"] == ("Left effusion.", "Effusion.")


def test_the_iu_vocabulary_has_the_published_counts(iu_root: Path) -> None:
    """Golden numbers of the specification, sections 1.3 and 7."""
    annotation = json.loads((iu_root / "annotation.json").read_text())
    cleaned = {split: [clean_r2gen_iu(record["report"]) for record in annotation[split]] for split in annotation}
    sizes = {
        threshold: len(Tokenizer.build(cleaned["train"], threshold=threshold, legacy_ids=True).words)
        for threshold in (1, 2, 3, 4, 5, 10)
    }
    assert sizes == {1: 1502, 2: 976, 3: 760, 4: 652, 5: 574, 10: 399}
    tokenizer = Tokenizer.build(cleaned["train"], threshold=3, legacy_ids=True)
    assert tokenizer.unknown == 18
    assert tokenizer.size == 761
    assert tokenizer.words[:5] == (".", "1", "10", "10th", "12")
    assert sum("-" in word for word in tokenizer.words) == 12
    cut = {split: sum(len(report.split()) > 58 for report in reports) for split, reports in cleaned.items()}
    assert cut == {"train": 178, "val": 25, "test": 33}
    everything = [report for reports in cleaned.values() for report in reports]
    assert len(set(everything)) == 2260
    assert sum(". ." in report for report in everything) == 11
