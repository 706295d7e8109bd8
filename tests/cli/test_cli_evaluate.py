"""`evaluate`, `compare`, `label` and `audit` as a user types them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rayscribe.data.manifest import read_manifest
from rayscribe.evaluation.floors import AIMED
from rayscribe.evaluation.protocol import Protocol, reference_reports
from rayscribe.labels import OBSERVATIONS


@pytest.fixture
def references(world: Path) -> dict[str, str]:
    return reference_reports(read_manifest(world), "test", Protocol())


def table(path: Path, rows: dict[str, str], key: str = "id") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([key, "report"])
        writer.writerows(rows.items())
    return path


@pytest.mark.slow
def test_other_peoples_tables_are_scored_compared_and_shown(
    rayscribe: Callable[..., str], world: Path, references: dict[str, str], tmp_path: Path
) -> None:
    good = table(tmp_path / "good.csv", references)
    same = table(tmp_path / "same.csv", dict.fromkeys(references, "The heart is normal."), "study_id")
    for path in (good, same):
        folder = tmp_path / path.stem
        out = ["--json", folder / "scores.json", "--html", folder / "page.html", "--plots", folder / "plots"]
        printed = rayscribe("evaluate", path, "--data", world, "--split", "test", *out)
        assert ("COLLAPSED" in printed) == (path is same)
        page = (folder / "page.html").read_text()
        assert page.count("<svg") == 4
        assert "Not a medical device" in page
        assert (folder / "plots" / "floors.png").read_bytes().startswith(b"\x89PNG")
    written = {name: tmp_path / f"compare.{name}" for name in ("html", "latex", "json")}
    options = [part for name, path in written.items() for part in (f"--{name}", path)]
    printed = rayscribe("compare", tmp_path / "same" / "scores.json", tmp_path / "good" / "scores.json", *options)
    assert "same" in printed
    assert "COLLAPSED" in printed
    assert json.loads(written["json"].read_text())["differences"]["good"]["bleu4"]["difference"] > 0.5
    assert "\\toprule" in written["latex"].read_text()
    assert "<table>" in written["html"].read_text()


@pytest.mark.slow
def test_sentence_similarity_is_scored_beside_its_floors_shown_and_compared(
    rayscribe: Callable[..., str], world: Path, references: dict[str, str], sentence_folder: Path, tmp_path: Path
) -> None:
    base = table(tmp_path / "base.csv", dict.fromkeys(references, "a wide mediastinum , and nothing else ."))
    tuned = table(tmp_path / "tuned.csv", references)
    for path in (base, tuned):
        out = ["--json", tmp_path / f"{path.stem}.json", "--html", tmp_path / f"{path.stem}.html"]
        printed = rayscribe("evaluate", path, "--data", world, "--sentences", sentence_folder, *out)
        assert "sentence_similarity" in printed
        assert (tmp_path / f"{path.stem}.html").read_text().count("<svg") == 5
    result = json.loads((tmp_path / "tuned.json").read_text())
    assert result["signature"]["sentences"].startswith("bert of width 16 ")
    assert result["scores"]["sentence_similarity"] == {"value": 1, "low": 1, "high": 1}
    assert all(0 < floor["scores"]["sentence_similarity"]["value"] < 1 for floor in result["floors"].values())
    assert result["against_constant"]["sentence_similarity"]["p_holm"] < 0.05
    assert result["sentence_similarity"].keys() == {"model", *result["floors"]} - set(AIMED)
    assert (
        result["floors"]["most_similar"]["text"]
        in reference_reports(read_manifest(world), "train", Protocol()).values()
    )
    assert result["sentence_similarity"]["model"]["bins"] == [0] * 19 + [len(references)]
    printed = rayscribe(
        "compare", tmp_path / "base.json", tmp_path / "tuned.json", "--json", tmp_path / "compared.json"
    )
    assert "sentence_similarity" in printed
    test = json.loads((tmp_path / "compared.json").read_text())["differences"]["tuned"]["sentence_similarity"]
    assert test["difference"] > 0
    assert test["p"] < 0.05
    rayscribe("evaluate", base, "--data", world, "--json", tmp_path / "plain.json")
    message = rayscribe("compare", tmp_path / "plain.json", tmp_path / "tuned.json", code=1)
    assert "sentences: not stated against bert of width 16" in message
    message = rayscribe("evaluate", base, "--data", world, "--sentences", tmp_path / "none", code=1)
    assert "none: no such folder; give one that sentence-transformers wrote" in message


def test_reports_of_a_table_are_labelled(rayscribe: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_text(
        "study_id,report,age\n"
        'a,"Small left effusion, no pneumothorax.",60\n'
        'b,"Pneumonia cannot be excluded.",70\n'
        'c,"",80\n'
    )
    out, evidence = tmp_path / "labels.csv", tmp_path / "evidence.jsonl"
    rayscribe("label", path, "--column", "report", "--out", out, "--evidence", evidence)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["study_id", "age", *OBSERVATIONS]
    assert {name: rows[0][name] for name in OBSERVATIONS if rows[0][name]} == {
        "Pleural Effusion": "1",
        "Pneumothorax": "0",
    }
    assert rows[1]["Pneumonia"] == "-1"
    assert not any(rows[2][name] for name in OBSERVATIONS)
    first = json.loads(evidence.read_text().splitlines()[0])["mentions"][0]
    assert (first["observation"], first["side"]) == ("Pleural Effusion", "left")


def test_rows_without_a_text_or_a_column_are_kept_blank(rayscribe: Callable[..., str], tmp_path: Path) -> None:
    path, out = tmp_path / "reports.jsonl", tmp_path / "labels.csv"
    path.write_text('{"id": "a", "report": "No edema.", "age": 3}\n{"id": "b"}\n{"id": "c", "report": NaN}\n')
    rayscribe("label", path, "--out", out)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Edema"] for row in rows] == ["0", "", ""]
    assert not any(rows[2][name] for name in OBSERVATIONS)
    assert [row["age"] for row in rows] == ["3", "", ""]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("id,text\na,b\n", [], "no column report; the columns are id, text"),
        ("id,report\na,b,c\n", [], "row 1: not as many fields"),
        ("id,report\n", [], "no rows"),
        ("id,report\na,b\n", ["--chexbert", "x.pth"], "needs --bert"),
        ("id,report\na,b\n", ["--chexbert", "x.pth", "--bert", "."], r"x.pth: missing"),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    rayscribe: Callable[..., str], tmp_path: Path, content: str, options: list[str], message: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert message in rayscribe("label", tmp_path / "a.csv", "--out", tmp_path / "out.csv", *options, code=1)
    assert not (tmp_path / "out.csv").exists()


def test_a_split_is_audited_and_made_anew(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    found, page, split = tmp_path / "audit.json", tmp_path / "audit.html", tmp_path / "split.csv"
    printed = rayscribe("audit", world, "--json", found, "--html", page, "--resplit", split)
    assert "no patient ids" in printed
    result = json.loads(found.read_text())
    assert result["images"]["unreadable"] == 0
    assert result["splits"]["train"]["studies"] == read_manifest(world).counts()["train"]
    assert "Audit of a data split" in page.read_text()
    root = world.parent / "phantom"
    rayscribe("prepare", "iu-xray", root, "--out", tmp_path / "again.parquet", "--splits", split)
    again = {study.id: study.split for study in read_manifest(tmp_path / "again.parquet").studies}
    with open(split, newline="") as file:
        assert again == {row["id"]: row["split"] for row in csv.DictReader(file)}
    split.write_text("id,split\nnobody,train\n")
    message = rayscribe("prepare", "iu-xray", root, "--out", tmp_path / "b.parquet", "--splits", split, code=1)
    assert "lacks 60 of 60 studies" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "a.json", "b.json"], "no such score file"),
        (["compare"], "at least two"),
        (["audit", "none.parquet"], "no such manifest"),
        (["label", "none.csv", "--out", "x.csv"], "no such table"),
        (["evaluate", "none.csv", "--data", "x.parquet"], "no such predictions file"),
        (["evaluate", "none.csv", "--data", "x.parquet", "--predicted-labels", "a.csv"], "give both"),
    ],
)
def test_a_missing_file_is_named(rayscribe: Callable[..., str], arguments: list[str], message: str) -> None:
    assert message in rayscribe(*arguments, code=1)
