from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mimic_rehearsal import Drawn, write_layout

from conftest import SHARED
from rayscribe.data.label_tables import read_columns, read_labels
from rayscribe.data.manifest import read_manifest
from rayscribe.data.mimic_cxr import MimicOptions, read_mimic_cohort, read_mimic_cxr
from rayscribe.data.mimic_reports import mimic_sections, system_text
from rayscribe.errors import InputError
from rayscribe.labels import AUXILIARY, CONDITIONS, CSV_STATES, OBSERVATIONS
from rayscribe.study import Study

STUDIES = 60
SPLITS = {"train": "train", "validate": "val", "test": "test"}
VIEWS = {"PA": "pa", "AP": "ap", "LATERAL": "lateral", "LL": "lateral", "": "", "SWIMMERS": ""}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Drawn]]:
    """A small copy that no test changes: extracted reports, plain tables."""
    root = tmp_path_factory.mktemp("mimic")
    return root, write_layout(root, studies=STUDIES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    write_layout(tmp_path / "mimic", studies=STUDIES)
    return tmp_path / "mimic"


def relative(studies: list[Study], root: Path) -> list[Study]:
    return [replace(study, images=tuple(path.relative_to(root) for path in study.images)) for study in studies]


def edit(path: Path, change: Callable[[list[dict[str, str]]], Any]) -> None:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    header = list(rows[0])
    change(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)


def test_a_study_has_its_images_views_split_patient_and_text(copy: tuple[Path, list[Drawn]]) -> None:
    root, drawn = copy
    studies = {study.id: study for study in read_mimic_cxr(root)}
    for one in drawn:
        findings, impression = mimic_sections(one.report)
        if not findings and not impression:
            assert one.study not in studies
            continue
        study, order = studies[one.study], sorted(range(len(one.dicoms)), key=lambda row: one.dicoms[row])
        assert [path.stem for path in study.images] == sorted(one.dicoms)
        assert all(path.exists() for path in study.images)
        assert study.views == tuple(VIEWS[one.views[row]] for row in order)
        assert (study.split, study.subject) == (SPLITS[one.split], one.subject)
        assert (study.findings, study.impression) == (findings, impression)
    assert {study.split for study in studies.values()} == set(SPLITS.values())


@pytest.mark.parametrize(
    "options",
    [
        {"zipped": True},
        {"packed": True},
        {"reports": "files"},
        {"reports": "physionet.org/files/mimic-cxr/2.0.0/files", "packed": True},
    ],
)
def test_zip_is_files_and_gz_is_csv_wherever_they_are(
    copy: tuple[Path, list[Drawn]], options: dict[str, Any], tmp_path: Path
) -> None:
    write_layout(tmp_path / "other", studies=STUDIES, **options)
    assert relative(read_mimic_cxr(tmp_path / "other"), tmp_path / "other") == relative(
        read_mimic_cxr(copy[0]), copy[0]
    )


def test_tables_reports_and_images_may_lie_in_folders_of_their_own(
    copy: tuple[Path, list[Drawn]], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "all" / "jpg" / "2.1.0").mkdir(parents=True)
    (tmp_path / "all" / "cxr").mkdir()
    shutil.move(root / "files", tmp_path / "all" / "jpg" / "2.1.0" / "files")
    shutil.move(root / "mimic-cxr-reports", tmp_path / "all" / "cxr")
    for path in root.glob("*.csv"):
        shutil.move(path, tmp_path / "all" / ("cxr" if path.name.startswith("cxr") else "jpg"))
    moved = relative(read_mimic_cxr(tmp_path / "all"), tmp_path / "all" / "jpg" / "2.1.0")
    assert moved == relative(read_mimic_cxr(copy[0]), copy[0])


def test_what_macos_adds_to_a_zip_is_no_report(root: Path, tmp_path: Path) -> None:
    before = read_mimic_cxr(root)
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
        for path in (root / "mimic-cxr-reports").rglob("s*.txt"):
            name = path.relative_to(root / "mimic-cxr-reports")
            archive.writestr(f"__MACOSX/{name}", "FINDINGS: junk")
            archive.writestr(str(name.with_name(f"._{name.name}")), b"\0\5\x16\7 junk")
            archive.write(path, name)
            archive.writestr(f"__MACOSX/{name.with_name(f'._{name.name}')}", b"\0\5\x16\7 junk")
    for path in list((root / "mimic-cxr-reports").rglob("s*.txt")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7 junk")
    assert read_mimic_cxr(root) == before
    shutil.rmtree(root / "mimic-cxr-reports")
    assert read_mimic_cxr(root) == before


def test_dicom_is_read_where_there_is_no_jpeg_and_on_demand(root: Path) -> None:
    first = read_mimic_cxr(root)[0].images[0]
    os.link(first, first.with_suffix(".dcm"))
    assert read_mimic_cxr(root)[0].images[0].suffix == ".jpg"
    assert read_mimic_cxr(root, MimicOptions(images="dcm"))[0].images[0].suffix == ".dcm"
    first.unlink()
    assert read_mimic_cxr(root)[0].images[0].suffix == ".dcm"
    assert read_mimic_cxr(root, MimicOptions(images="jpg"))[0].images[0] == first


def test_image_level_is_r2gens_counting(copy: tuple[Path, list[Drawn]]) -> None:
    root, drawn = copy
    cohort = read_mimic_cohort(root, MimicOptions(level="image", sections="findings"))
    expected = [
        (dicom, findings) for one in drawn if (findings := mimic_sections(one.report)[0]) for dicom in one.dicoms
    ]
    assert sorted((study.id, study.findings) for study in cohort.studies) == sorted(expected)
    assert all(len(study.images) == 1 and study.images[0].stem == study.id for study in cohort.studies)
    counts = {split: sum(study.split == split for study in cohort.studies) for split in SPLITS.values()}
    assert cohort.with_findings == counts
    assert cohort.images == sum(len(one.dicoms) for one in drawn)
    assert cohort.examinations == len(drawn)


@pytest.mark.parametrize("sections", ["either", "findings", "impression", "both", "system"])
def test_reports_that_lack_what_is_asked_for_are_counted(copy: tuple[Path, list[Drawn]], sections: Any) -> None:
    root, drawn = copy
    cohort = read_mimic_cohort(root, MimicOptions(sections=sections))
    texts = [mimic_sections(one.report) for one in drawn]
    wanted = {
        "either": sum(bool(findings or impression) for findings, impression in texts),
        "findings": sum(bool(findings) for findings, _ in texts),
        "impression": sum(bool(impression) for _, impression in texts),
        "both": sum(bool(findings and impression) for findings, impression in texts),
        "system": sum(bool(system_text(one.report)) for one in drawn),
    }
    assert len(cohort.studies) == wanted[sections] < len(drawn)
    assert sum(cohort.left_out.values()) == len(drawn) - len(cohort.studies)
    if sections == "either":
        assert cohort.left_out == {"neither findings nor impression": 2}
    if sections == "system":
        assert all(20 <= len(study.findings.split()) <= 65 and not study.impression for study in cohort.studies)


def test_views_choose_images_and_one_per_subject_takes_the_first_that_is_there(root: Path) -> None:
    front = read_mimic_cxr(root, MimicOptions(views=("pa",)))
    assert {view for study in front for view in study.views} == {"pa"}
    assert 0 < len(front) < STUDIES
    options = MimicOptions(level="image", views=("pa", "ap"), one_per_subject=True, without_reports=True)
    single = read_mimic_cxr(root, options)
    every = read_mimic_cxr(root, replace(options, one_per_subject=False))
    assert len({study.subject for study in single}) == len(single) == len({study.subject for study in every})
    for study in single:
        same = [(other.images[0].parent.name, other.id) for other in every if other.subject == study.subject]
        assert (study.images[0].parent.name, study.id) == min(same)
    gone = next(study for study in single if sum(other.subject == study.subject for other in every) > 1)
    gone.images[0].unlink()
    assert gone.id not in {study.id for study in read_mimic_cxr(root, options)}
    assert gone.subject in {study.subject for study in read_mimic_cxr(root, options)}


def test_reports_and_splits_may_be_missing(root: Path) -> None:
    shutil.rmtree(root / "mimic-cxr-reports")
    with pytest.raises(InputError, match=r"no reports; .* mimic-cxr-reports\.zip"):
        read_mimic_cxr(root)
    assert len(read_mimic_cxr(root, MimicOptions(without_reports=True))) == STUDIES
    (root / "mimic-cxr-2.0.0-split.csv").unlink()
    assert {study.split for study in read_mimic_cxr(root, MimicOptions(without_reports=True))} == {""}
    (root / "mimic-cxr-2.0.0-metadata.csv").unlink()
    with pytest.raises(InputError, match=r"no mimic-cxr-2\.0\.0-metadata\.csv, which --views needs"):
        read_mimic_cxr(root, MimicOptions(without_reports=True, views=("pa",)))
    (root / "cxr-record-list.csv").unlink()
    with pytest.raises(InputError, match=r"none of mimic-cxr-2\.0\.0-split\.csv"):
        read_mimic_cxr(root)


def test_images_that_a_table_lacks_are_counted(root: Path) -> None:
    edit(root / "mimic-cxr-2.0.0-metadata.csv", lambda rows: rows.pop())
    cohort = read_mimic_cohort(root)
    assert cohort.partial == 1
    assert cohort.images == STUDIES * 377_110 // 227_835 - 1


def _set(row: int, **cells: str) -> Callable[[list[dict[str, str]]], None]:
    return lambda rows: rows[row].update(cells)


def _other_split(rows: list[dict[str, str]], *, same_study: bool) -> None:
    """Another split for the last image of a study, or of a patient, that has several."""
    key = "study_id" if same_study else "subject_id"
    for before, row in pairwise(rows):
        if before[key] == row[key] and (same_study or before["study_id"] != row["study_id"]):
            row["split"] = "test" if row["split"] == "train" else "train"
            return
    raise AssertionError("no such row")


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (
            "mimic-cxr-2.0.0-metadata.csv",
            _set(4, study_id="59999999"),
            r"line 6: image \S+ is in study 59999999 here and",
        ),
        (
            "cxr-record-list.csv",
            _set(0, subject_id="19999999"),
            r"line 2: study \d+ belongs to different patients here",
        ),
        ("cxr-study-list.csv", _set(2, subject_id="19999999"), r"line 4: study \d+ belongs to different patients here"),
        ("mimic-cxr-2.0.0-split.csv", lambda rows: rows.append(rows[0]), r"line 101: duplicate image \S+"),
        ("mimic-cxr-2.0.0-split.csv", _set(1, split="dev"), r"line 3: split 'dev' of image .* train, validate, test"),
        ("mimic-cxr-2.0.0-split.csv", _set(1, study_id=""), r"line 3: dicom_id, study_id or subject_id is empty"),
        (
            "mimic-cxr-2.0.0-split.csv",
            lambda rows: _other_split(rows, same_study=True),
            r"line \d+: study \d+ is in the splits",
        ),
        (
            "mimic-cxr-2.0.0-split.csv",
            lambda rows: _other_split(rows, same_study=False),
            r"line \d+: (the patient of study|study) \d+ is in the splits",
        ),
    ],
)
def test_tables_that_contradict_each_other_are_refused_with_the_row(
    root: Path, table: str, change: Callable[[list[dict[str, str]]], Any], message: str
) -> None:
    edit(root / table, change)
    with pytest.raises(InputError, match=message) as error:
        read_mimic_cxr(root)
    assert table in str(error.value)
    assert not any(study.subject in str(error.value) for study in read_patients(root))


def read_patients(root: Path) -> list[Study]:
    """Study lists of a spoilt copy cannot be read; the folders' names still say who is in it."""
    folders = (root / "files").glob("p1[0-9]/p*")
    return [Study(id="", images=(), subject=name) for name in [*(path.name[1:] for path in folders), "19999999"]]


def test_damaged_files_are_named(root: Path) -> None:
    split = root / "mimic-cxr-2.0.0-split.csv"
    (root / f"{split.name}.gz").write_bytes(gzip.compress(split.read_bytes())[:-20])
    split.rename(root / "kept")
    with pytest.raises(InputError, match=r"split\.csv\.gz: not a readable table"):
        read_mimic_cxr(root)
    split.write_text((root / "kept").read_text().replace("split", "fold", 1))
    with pytest.raises(InputError, match=r"split\.csv: no column split"):
        read_mimic_cxr(root)
    split.write_text((root / "kept").read_text() + "a,b\n")
    with pytest.raises(InputError, match=r"split\.csv, line 101: the number of fields"):
        read_mimic_cxr(root)
    split.write_text((root / "kept").read_text())
    (root / "mimic-cxr-reports.zip").write_bytes(b"PK no")
    with pytest.raises(InputError, match=r"reports\.zip: not a readable zip"):
        read_mimic_cxr(root)
    with pytest.raises(InputError, match="no such folder"):
        read_mimic_cxr(root / "nowhere")


@pytest.mark.parametrize(
    ("report", "findings", "impression"),
    [
        (
            " FINAL REPORT\n INDICATION: x\n \n FINDINGS: Clear\n lungs.\n \n IMPRESSION: \n \n Normal.\n",
            "Clear lungs.",
            "Normal.",
        ),
        (" FINAL REPORT\n FINDINGS AND IMPRESSION: Clear.\n", "", "Clear."),
        (" FINAL REPORT\n CHEST, PA AND LATERAL: Clear.\n IMPRESSION: Normal.", "Clear.", "Normal."),
        (" FINAL REPORT\n CHEST, PA AND LATERAL:\n FINDINGS: Clear.", "Clear.", ""),
        (" WET READ: ___ 9 PM\n IMPRESSION: Wet.\n ____\n FINAL REPORT\n IMPRESSION: Dry.\n", "", "Dry."),
        (" FINDINGS: Clear.\n IMPRESSION: Normal.\n NOTIFICATION: By phone: at 9:00.\n", "Clear.", "Normal."),
        (" FINDINGS: Heart: normal. Lungs: clear.\n RECOMMENDATION(S): CT.\n", "Heart: normal. Lungs: clear.", ""),
        (" IMPRESSION: First.\n ADDENDUM: See below.\n IMPRESSION: Second.", "", "Second."),
        (" FINAL REPORT\n EXAMINATION: CHEST (PA AND LAT)\n REASON FOR CHEST FILM: cough\n No change.\n", "", ""),
        ("", "", ""),
    ],
)
def test_sections_of_a_report_file(report: str, findings: str, impression: str) -> None:
    assert mimic_sections(report) == (findings, impression)


@pytest.mark.parametrize(
    "title",
    ["AP CHEST, 5:12 A.M., ___", "PORTABLE CHEST AT 06:45 ON ___", "CHEST RADIOGRAPH, ___, 9:05", "CHEST AT 9 : 05"],
)
def test_a_time_of_day_is_no_heading(title: str) -> None:
    assert mimic_sections(f" FINAL REPORT\n {title}\n \n IMPRESSION: Edema.") == ("", "Edema.")
    text = f"Compared with the film of\n 05:00, less fluid.\n {title}: low tube."
    assert mimic_sections(f" FINDINGS: {text}\n IMPRESSION: Edema.") == (" ".join(text.split()), "Edema.")


def test_a_masked_date_is_no_text() -> None:
    assert mimic_sections(" CHEST, PA AND LATERAL:  ___\n \n IMPRESSION:  Clear.") == ("", "Clear.")


@pytest.mark.parametrize(
    "name", ["LUNGS", "ET TUBE", "LINES AND TUBES", "CHEST WALL", "OTHER FINDINGS", "CHEST", "Bones", "COMPRESSION"]
)
def test_capitals_before_a_colon_do_not_end_the_findings(name: str) -> None:
    assert mimic_sections(f" FINDINGS:\n \n Edema.\n {name}: As before.\n \n IMPRESSION: Edema.") == (
        f"Edema. {name}: As before.",
        "Edema.",
    )


@pytest.mark.parametrize(
    "name",
    [
        "NOTIFICATION",
        "RECOMMENDATION(S)",
        "ADDENDUM",
        "COMPARISON",
        "NOTE",
        "TECHNIQE",
        "COMPARISION",
        "CLINCAL HISTORY",
    ],
)
def test_known_headings_end_the_findings(name: str) -> None:
    assert mimic_sections(f" FINDINGS: Edema.\n \n {name}: Words.\n") == ("Edema.", "")


@pytest.mark.parametrize("name", ["FINDING", "FINDNGS", "FINIDNGS", "FINDIGNS", "FINDINGGS", "INDINGS", "FINDINGS "])
def test_findings_are_read_under_misspelt_headings(name: str) -> None:
    assert mimic_sections(f" HISTORY: Cough.\n {name}: Edema.\n") == ("Edema.", "")


@pytest.mark.parametrize(
    "name",
    [
        *("IMPRESSIONS", "IMPRESION", "IMPRSESION", "MPRESSION", "IMORESSION", "CONCLUSIONS", "FINAL IMPRESSION"),
        *("FINDINGS/IMPRESSION", "IMPRESSION / FINDINGS", "FINDINGS & IMPRESSION", "IMPRESSION AND FINDINGS"),
        *("FINDNGS AND IMPRESSIONS", "PROVISIONAL FINDINGS IMPRESSION (PFI)", "IMPRESSION AND RECOMMENDATION(S)"),
    ],
)
def test_impression_is_read_under_misspelt_and_joint_headings(name: str) -> None:
    assert mimic_sections(f" HISTORY: Cough.\n {name}: Edema.\n NOTIFICATION: None.") == ("", "Edema.")


def test_headings_in_small_letters_and_within_a_line_are_read() -> None:
    assert mimic_sections(" Examination: Chest\n Findings: Edema.\n Impression: Same.") == ("Edema.", "Same.")
    assert mimic_sections(" INDICATION: COUGH FINDINGS: EDEMA. IMPRESSION: SAME.") == ("EDEMA.", "SAME.")
    # A line may begin in the middle of a sentence.
    assert mimic_sections(" FINDINGS: The remaining\n findings: none.\n") == ("The remaining findings: none.", "")


def test_the_last_examination_counts() -> None:
    first = " PORTABLE CHEST:  Edema.\n \n IMPRESSION:  Worse.\n \n"
    assert mimic_sections(f"{first} CHEST, TWO VIEWS:  Clear.\n \n IMPRESSION:  Better.\n") == ("Clear.", "Better.")
    assert mimic_sections(f"{first} FINDINGS:  Clear.\n LATERAL VIEW: \n \n") == ("Clear.", "Worse.")
    assert mimic_sections(f"{first} COMMUNICATION OF FINDINGS:  By phone.\n") == ("Edema.", "Worse.")


def test_the_shared_reports_have_the_official_sections() -> None:
    root = SHARED / "cases"
    if not root.is_dir():
        pytest.skip("needs the case files in ../shared/cases")
    times = read_mimic_cohort(root / "mimic_times", MimicOptions(sections="either")).studies
    assert len(times) == 5
    assert not any(study.findings for study in times)
    read = {study.id[-3:]: (study.findings, study.impression) for study in read_mimic_cxr(root / "mimic")}
    assert sorted({f"{number}" for number in range(100, 126)} - set(read)) == ["107", "110", "123"]
    pneumonia = "Left lower lobe pneumonia. No pneumothorax."
    assert {read[number] for number in ("102", "103", "104", "105")} == {("", pneumonia)}
    assert read["106"] == (pneumonia, "Pneumonia.")
    assert read["113"][0].startswith("LINES AND TUBES: None.")
    assert read["113"][0].endswith("BONES: Intact.")
    assert read["118"] == ("Chest tube removed. No pneumothorax.", "No residual pneumothorax.")
    assert read["125"][0].endswith("AP SUPINE VIEW AT 6:00: the ET tube is low.")


def test_the_systems_text_has_twenty_to_sixty_five_words_before_the_notification() -> None:
    def report(findings: int, impression: int) -> str:
        words = [" ".join(["Word"] * count) for count in (findings, impression)]
        return f" FINDINGS: \n {words[0]}\n IMPRESSION:\n {words[1]} ___ \n NOTIFICATION: told at ___ by phone"

    assert system_text(report(15, 5)) == " ".join(["Word"] * 20)
    assert system_text(report(15, 4)) == ""
    assert len(system_text(report(60, 5)).split()) == 65
    assert system_text(report(60, 6)) == ""
    assert system_text(" ".join(["Word"] * 30)) == ""
    assert system_text("IMPRESSION: " + "Word " * 20).startswith("Word")
    assert system_text("FINDINGS: " + "Word " * 20).startswith("Word")


def annotation(drawn: list[Drawn], **further: Any) -> dict[str, list[dict[str, Any]]]:
    records: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for one in drawn:
        for dicom in one.dicoms:
            path = f"p{one.subject[:2]}/p{one.subject}/s{one.study}/{dicom}.jpg"
            records[SPLITS[one.split]].append({"report": "Clear\n lungs.", "image_path": [path]} | further)
            if not further:
                ids = {
                    "id": dicom,
                    "study_id": int(one.study),
                    "subject_id": int(one.subject),
                    "split": SPLITS[one.split],
                }
                records[SPLITS[one.split]][-1] |= ids
    return records


def bare(root: Path) -> None:
    """Images and labels alone."""
    for path in root.glob("*.csv"):
        if "chexpert" not in path.name:
            path.unlink()
    shutil.rmtree(root / "mimic-cxr-reports")


def test_r2gens_annotation_gives_the_same_images_studies_and_splits(root: Path) -> None:
    drawn = write_layout(root.parent / "drawn", studies=STUDIES)
    level_image = {study.id: study for study in read_mimic_cxr(root, MimicOptions(level="image", without_reports=True))}
    records = annotation(drawn)
    records["train"][0]["report"] = " "
    (root / "annotation.json").write_text(json.dumps(records))
    with pytest.raises(InputError, match="contains the layouts r2gen and physionet; choose one with --layout"):
        read_mimic_cxr(root)
    bare(root)
    cohort = read_mimic_cohort(root)
    assert cohort.layout == "r2gen"
    assert cohort.left_out == {"no findings": 1}
    assert len(cohort.studies) == len(level_image) - 1
    for study in cohort.studies:
        same = level_image[study.id]
        assert (study.images, study.split, study.subject) == (same.images, same.split, same.subject)
        assert study.findings == "Clear\n lungs."
    (root / "images").mkdir()
    shutil.move(root / "files" / "p10", root / "images" / "p10")
    assert all(study.images[0].exists() for study in read_mimic_cxr(root))
    for options in (MimicOptions(level="study"), MimicOptions(views=("pa",)), MimicOptions(sections="system")):
        with pytest.raises(InputError, match="lists images with findings but without views"):
            read_mimic_cxr(root, options)
    single = read_mimic_cxr(root, MimicOptions(one_per_subject=True))
    assert len({study.subject for study in single}) == len(single)


def test_promptmrgs_annotation_gives_its_labels_by_name(root: Path, rayscribe: Callable[..., str]) -> None:
    drawn = write_layout(root.parent / "drawn", studies=STUDIES)
    records = annotation(drawn, labels=[row % 4 for row in range(18)], clip_indices=[0] * 21)
    records["train"][0]["image_path"].append("never/read.jpg")
    bare(root)
    (root / "mimic_annotation_promptmrg.json").write_text(json.dumps(records))
    out = root.parent / "m.parquet"
    rayscribe("prepare", "mimic-cxr", root, "--out", out)
    table, names = read_columns(root.parent / "m.conditions.csv", AUXILIARY)
    assert set(table) == {study.id for study in read_manifest(out).studies} == {d for one in drawn for d in one.dicoms}
    assert set(table.values()) == {tuple(CONDITIONS.index(name) % 4 for name in names)}
    assert (root.parent / "m.chexpert.csv").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda records: records.pop("val"), "needs the lists train, val and test"),
        (lambda records: records["train"][1].pop("report"), r"train\[1\]: no report"),
        (lambda records: records["train"][1].update(image_path=[]), r"train\[1\]: no image_path"),
        (lambda records: records["train"][1].update(image_path=["CXR1/0.png"]), r"train\[1\]: the image path is not"),
        (lambda records: records["train"][1].update(study_id=5), r"train\[1\]: the image path names another study"),
        (lambda records: records["train"][1].update(labels=[4] * 18), r"train\[1\]: labels are 18 numbers from 0 to 3"),
        (lambda records: records["train"][1].update(labels=[1] * 18), r"lack labels"),
    ],
)
def test_an_annotation_that_is_none_says_where(
    copy: tuple[Path, list[Drawn]], spoil: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    records = annotation(copy[1])
    spoil(records)
    (tmp_path / "annotation.json").write_text(json.dumps(records))
    with pytest.raises(InputError, match=message):
        read_mimic_cxr(tmp_path)


@pytest.mark.parametrize("level", ["study", "image"])
def test_the_manifest_says_what_it_is_and_the_label_tables_equal_their_source(
    root: Path, level: str, rayscribe: Callable[..., str]
) -> None:
    out = root.parent / "m.parquet"
    printed = rayscribe("prepare", "mimic-cxr", root, "--out", out, "--level", level)
    manifest = read_manifest(out)
    assert manifest.provenance["restricted"] is True
    assert manifest.provenance["terms"].startswith("MIMIC-CXR: PhysioNet Credentialed Health Data License 1.5.0")
    assert manifest.provenance["listed"] == {"images": 99, "studies": STUDIES}
    for published in ("377,110", "227,835", "270,790 / 2,130 / 3,858", "4,742"):
        assert published in printed
    assert "not taken: " in printed
    for study in manifest.studies:
        assert study.subject not in printed
    number_of = {study.id: study.images[0].parent.name[1:] for study in manifest.studies}
    sources = ("2.0.0-chexpert", "2.0.0-negbio", "2.1.0-test-set-labeled")
    for name, source in zip(("chexpert", "negbio", "radiologists"), sources, strict=True):
        with open(root / f"mimic-cxr-{source}.csv", newline="") as file:
            rows = {row["study_id"]: row for row in csv.DictReader(file)}
        table = read_labels(root.parent / f"m.{name}.csv")
        assert set(table) == {study for study, number in number_of.items() if number in rows}
        assert table
        for study, states in table.items():
            row = rows[number_of[study]]
            row.setdefault("Lung Opacity", row.get("Airspace Opacity", ""))
            assert [row[column].removesuffix(".0") for column in OBSERVATIONS] == [
                CSV_STATES[state] for state in states
            ]
    assert not out.with_name("m.parquet.journal").exists()


def test_the_systems_texts_are_counted_beside_the_published_ones(root: Path, rayscribe: Callable[..., str]) -> None:
    out = root.parent / "m.parquet"
    options = ["--sections", "system", "--views", "pa", "--level", "image", "--one-per-subject"]
    printed = rayscribe("prepare", "mimic-cxr", root, "--out", out, *options)
    assert "2,562 / 285" in printed
    assert {study.views for study in read_manifest(out).studies} == {("pa",)}


def test_label_tables_of_other_patients_or_with_a_study_twice_are_refused(
    root: Path, rayscribe: Callable[..., str]
) -> None:
    out, table = root.parent / "m.parquet", root / "mimic-cxr-2.0.0-chexpert.csv"
    whole = table.read_text()
    edit(table, _set(1, subject_id="19999999"))
    assert "line 3: study" in rayscribe("prepare", "mimic-cxr", root, "--out", out, code=1)
    table.write_text(whole)
    edit(table, lambda rows: rows.append(rows[0]))
    assert "duplicate study" in rayscribe("prepare", "mimic-cxr", root, "--out", out, code=1)
    table.write_text(whole)
    edit(table, _set(0, Edema="7"))
    assert "line 2, Edema: '7' is none of 1" in rayscribe("prepare", "mimic-cxr", root, "--out", out, code=1)


def test_faults_name_images_and_no_patients(root: Path) -> None:
    study = read_mimic_cxr(root)[0]
    study.images[0].unlink()
    study.images[0].write_bytes(b"")
    command = [
        sys.executable,
        "-m",
        "rayscribe",
        "prepare",
        "mimic-cxr",
        str(root),
        "--out",
        str(root.parent / "m.parquet"),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"{study.images[0].name}: the file is empty" in run.stderr
    assert study.subject not in run.stdout + run.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_manifest(tmp_path: Path) -> None:
    write_layout(tmp_path / "mimic", studies=1500, zipped=True, packed=True)
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    command = [sys.executable, "-m", "rayscribe", "prepare", "mimic-cxr", str(tmp_path / "mimic"), "--out"]
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    journal = resumed.with_name("resumed.parquet.journal")
    with subprocess.Popen([*command, str(resumed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > 50_000):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not resumed.exists()
    before = journal.stat().st_size
    assert before > 50_000
    subprocess.run([*command, str(resumed)], check=True, capture_output=True)
    assert read_manifest(resumed).digest() == read_manifest(whole).digest()
    assert not journal.exists()
