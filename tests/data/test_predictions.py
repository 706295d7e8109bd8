"""Every form in which people keep the reports of a system."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import SHARED
from rayscribe.data.predictions import read_predictions
from rayscribe.errors import InputError
from rayscribe.evaluation.protocol import Protocol, without_markers, written_reports

WANTED = {"a1": "The heart is normal.", "b2": "No effusion, no pneumothorax."}


def as_csv(key: str, text: str) -> str:
    return f"{key},{text}\n" + "".join(f'{name},"{report}"\n' for name, report in WANTED.items())


FORMS = {
    "ours.jsonl": "".join(json.dumps({"id": k, "report": v, "disclaimer": "x"}) + "\n" for k, v in WANTED.items()),
    "table.csv": as_csv("id", "report"),
    "study.csv": as_csv("study_id", "report"),
    "dicom.csv": as_csv("dicom_id", "Report"),
    "tabs.tsv": "uid\tprediction\n" + "".join(f"{k}\t{v}\n" for k, v in WANTED.items()),
    "list.json": json.dumps([{"image_id": k, "ground_truth": "x", "prediction": v} for k, v in WANTED.items()]),
    "annotation.json": json.dumps({"test": [{"id": k, "report": v, "image_path": []} for k, v in WANTED.items()]}),
    "rexrank.json": json.dumps(
        {
            k: {"dicom_id": ["x"], "findings": "reference", "report": "reference", "model_prediction": v}
            for k, v in WANTED.items()
        }
    ),
    "texts.json": json.dumps(WANTED),
    "bom.csv": "\ufeff" + as_csv("id", "report"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_reports(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FORMS[name], encoding="utf-8")
    assert read_predictions(tmp_path / name) == WANTED


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name,words\nx,y\n", "the columns are name, words; it needs one of id"),
        ("a.csv", "id,report\nx,one\nx,two\n", "line 3: duplicate study x"),
        ("a.csv", "id,report\nx,one, two\n", "line 2: the number of fields differs"),
        ("a.csv", "id,report\nx\n", "line 2: the number of fields differs"),
        ("a.csv", "id,report\n", "contains no report"),
        ("a.csv", 'id,report\nx,"one" two\n', "not a readable .csv file"),
        ("a.json", '[{"id": true, "report": "y"}]', "record 1: not .* the id is one of"),
        ("a.json", "[1, 2]", "record 1: not"),
        ("a.json", '{"x": {"findings": "y"}}', "record x: not"),
        ("a.json", '[{"report": "y"}]', "record 1: not"),
        ("a.json", "{", "not JSON"),
        ("a.json", "3", "neither a list nor an object"),
        ("a.jsonl", '{"id": "x", "report": "y"}\n{"id"', "line 2: not"),
        ("a.jsonl", '{"id": "x", "report": 7}\n', "must be a text"),
    ],
)
def test_a_faulty_file_is_refused_with_its_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / name)


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("id,report\nx,c\u00f4t\u00e9\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_predictions(tmp_path / "a.csv")


def one(report: str, section: str = "findings") -> str:
    return written_reports({"x": report}, {"x": "any ."}, "test", Protocol(section=section))[0]  # type: ignore[arg-type]


def test_raw_reports_are_cleaned_and_clean_ones_stay() -> None:
    assert (
        one("The heart is NORMAL. No effusion, no pneumothorax.")
        == "the heart is normal . no effusion no pneumothorax ."
    )
    assert one("the heart is normal . no <unk> effusion .") == "the heart is normal . no <unk> effusion ."
    assert one("The heart is <unk>.") == "the heart is <unk> ."
    # Cut at its longest: no stop is invented.
    assert one("the heart is normal . no") == "the heart is normal . no"
    assert one("  ") == ""


def test_the_protocols_section_of_a_report_with_headings_is_scored() -> None:
    report = "Findings:The heart is normal.  No effusion.Impression:No acute process."
    assert one(report) == "the heart is normal . no effusion ."
    assert one(report, "impression") == "no acute process ."
    assert one(report, "findings+impression") == "the heart is normal . no effusion . no acute process ."


def test_headings_are_never_scored_as_words() -> None:
    assert one("FINDINGS: The lungs are clear.") == "the lungs are clear ."
    assert one("INDICATION: cough. FINDINGS: The lungs are clear.") == "the lungs are clear ."
    assert one("FINDINGS: The lungs are clear.", "impression") == ""


def test_a_joint_section_is_scored_under_either_name() -> None:
    for section in ("findings", "impression", "findings+impression"):
        assert one("**FINDINGS AND IMPRESSION:** Lungs are clear.", section) == "lungs are clear ."


@pytest.mark.parametrize(
    "report",
    [
        "**FINDINGS:**\n- The heart is normal.\n- No effusion.</s>",
        "## Findings\n\n* The heart is normal\n* No effusion\n\n## Impression\n* Normal<|eot_id|>",
        "Findings\n1. The heart is normal.\n2. No effusion.\nImpression\n1. Normal.",
        "<s> The **heart** is normal. No effusion.<|im_end|>",
        "the heart is normal . no effusion .</s>",
        "\u2022 the heart is normal .\n\u2022 no effusion .",
        "FINDINGS: The heart is normal. No effusion. [EOS]",
    ],
)
def test_markers_of_language_models_are_not_scored(report: str) -> None:
    assert one(report) == "the heart is normal . no effusion ."


@pytest.mark.parametrize(
    "report", ["the heart is <unk> .", "Heart: 1. big.\n___ Line - in place.", "1. Clear.", " a\n b"]
)
def test_a_text_without_markers_stays_as_it_is(report: str) -> None:
    assert without_markers(report) == report


def test_the_shared_reports_of_language_models_lose_their_markers() -> None:
    root = SHARED / "cases" / "pred"
    if not root.is_dir():
        pytest.skip("needs the case files in ../shared/cases")
    names = ("e7_llm", "e17_heading", "e18_whole_report", "e20_markdown_heading")
    read = [read_predictions(root / f"{name}.jsonl") for name in names]
    scored = [{study: one(report) for study, report in reports.items()} for reports in read]
    assert all(reports == scored[0] for reports in scored)
    assert not any(set("*<>/") & set(report) or report.startswith("-") for report in scored[0].values())


def test_a_missing_prediction_is_named_with_what_the_file_has() -> None:
    with pytest.raises(InputError, match=r"1 of 2 studies .* e\.g\. b .*ids look like a"):
        written_reports({"a": "x"}, {"a": "x .", "b": "y ."}, "test", Protocol())
