from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import Checked, check
from rayscribe.data.table import Columns, read_table
from rayscribe.errors import InputError
from rayscribe.study import Study


def checked(studies: list[Study], *, missing_is_fault: bool = True) -> Checked:
    return check(studies, source={"source": "test"}, missing_is_fault=missing_is_fault)


@pytest.fixture
def studies(world: Path) -> list[Study]:
    return list(read_manifest(world).studies[:6])


def test_all_faults_are_reported_together(studies: list[Study], tmp_path: Path) -> None:
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(studies[0].images[0].read_bytes()[:900])
    broken = [
        replace(studies[0], images=(tmp_path / "zero.png",), views=()),
        replace(studies[1], images=(tmp_path / "cut.png",), views=()),
        replace(studies[2], images=(tmp_path / "nowhere.png",), views=()),
        replace(studies[3], split="train"),
        replace(studies[3], split="test"),
        studies[4],
        studies[4],
        replace(studies[5], split="train"),
    ]
    result = checked(broken)
    text = "\n".join(result.faults)
    for message in (
        "zero.png: the file is empty",
        "cut.png: damaged or truncated",
        "nowhere.png: listed for study",
        "is in the splits test and train",
        "duplicate study id CXR5_IM-0005 (2 rows)",
    ):
        assert message in text
    assert [study.id for study in result.manifest.studies] == [studies[5].id]


def test_reports_without_text_and_studies_without_images_are_counted(studies: list[Study], tmp_path: Path) -> None:
    partial = [
        replace(studies[0], findings="", impression=" "),
        replace(studies[1], images=(tmp_path / "a.png",), views=()),
        replace(studies[2], images=(studies[2].images[0], tmp_path / "b.png"), views=()),
        studies[3],
    ]
    result = checked(partial, missing_is_fault=False)
    assert result.left_out == {"no report text": 1, "no image file": 1}
    assert not result.faults
    assert "b.png is missing; kept with its other view" in result.notes[0]
    assert len(result.manifest.studies[0].images) == 1


def test_a_subject_in_two_splits_is_a_fault_that_names_no_subject(studies: list[Study]) -> None:
    two = [
        replace(studies[0], subject="Doe^Jane", split="train"),
        replace(studies[1], subject="Doe^Jane", split="test"),
    ]
    result = checked(two)
    (fault,) = result.faults
    assert "1 subjects" in fault
    assert "Doe" not in fault
    assert result.manifest.studies == ()


def test_a_source_without_a_split_gets_one_that_never_changes(studies: list[Study]) -> None:
    bare = [replace(study, split="") for study in studies]
    splits = [study.split for study in checked(bare).manifest.studies]
    assert splits == [study.split for study in checked(bare[::-1]).manifest.studies][::-1]
    assert set(splits) <= {"train", "val", "test"}


def test_a_manifest_survives_its_file(world: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    write_manifest(tmp_path / "copy.parquet", manifest)
    copy = read_manifest(tmp_path / "copy.parquet")
    assert copy == manifest
    assert copy.digest() == manifest.digest()
    changed = Manifest(studies=manifest.studies[1:], provenance={})
    assert changed.digest() != manifest.digest()


def test_the_context_and_sizes_survive_the_file_and_change_no_digest(world: Path, tmp_path: Path) -> None:
    plain = read_manifest(world)
    with_context = [replace(plain.studies[0], indication="Cough.", comparison="None.", technique="PA.", exam="Chest.")]
    told = replace(plain, studies=(*with_context, *plain.studies[1:]))
    write_manifest(tmp_path / "told.parquet", told)
    assert read_manifest(tmp_path / "told.parquet") == told
    assert told.digest() == plain.digest()
    assert all(len(study.sizes) == len(study.images) for study in plain.studies)


def test_a_manifest_without_context_columns_loads(world: Path, tmp_path: Path) -> None:
    table = parquet.read_table(world).drop_columns(["indication", "comparison", "technique", "exam", "sizes"])
    old = world.parent / "old.parquet"
    parquet.write_table(table, old)
    read = read_manifest(old)
    old.unlink()
    assert read.digest() == read_manifest(world).digest()
    assert {(study.indication, study.exam, study.sizes) for study in read.studies} == {("", "", ())}


def test_a_folder_with_its_manifest_can_be_moved(tmp_path: Path) -> None:
    write_phantom(tmp_path / "old" / "phantom", PhantomConfig(studies=3, size=48))
    result = checked(read_iu_xray(tmp_path / "old" / "phantom"))
    write_manifest(tmp_path / "old" / "m.parquet", result.manifest)
    (tmp_path / "old").rename(tmp_path / "new")
    assert all(
        image.exists() for study in read_manifest(tmp_path / "new" / "m.parquet").studies for image in study.images
    )


@pytest.mark.parametrize("name", ["missing.parquet", "text.parquet", "other.parquet"])
def test_what_is_not_a_manifest_is_refused_with_the_way_to_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    parquet.write_table(arrow.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="rayscribe prepare") as error:
        read_manifest(tmp_path / name)
    assert name in str(error.value)


def test_an_absent_split_is_named(world: Path) -> None:
    with pytest.raises(InputError, match="no study in split 'dev'"):
        read_manifest(world).split("dev")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_of_every_kind_give_the_same_studies(studies: list[Study], suffix: str, tmp_path: Path) -> None:
    rows = [
        {
            "study": study.id,
            "files": ";".join(map(str, study.images)),
            "text": f"FINDINGS: {study.findings} IMPRESSION: {study.impression}",
            "split": "valid",
            "patient": f"p{number}",
            "indication": "Cough.",
            "dimensions": ";".join("2320x2828" for _ in study.images),
        }
        for number, study in enumerate(studies)
    ]
    path = tmp_path / f"data.{suffix}"
    if suffix == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    columns = Columns(id="study", images="files", report="text", subject="patient", sizes="dimensions")
    read = read_table(path, columns=columns)
    assert [study.images for study in read] == [study.images for study in studies]
    assert [study.findings for study in read] == [study.findings for study in studies]
    assert [study.impression for study in read] == [study.impression for study in studies]
    assert {(study.split, study.indication) for study in read} == {("val", "Cough.")}
    assert {size for study in checked(read).manifest.studies for size in study.sizes} == {(2320, 2828)}
    assert checked(read).faults == ()


def test_images_without_reports_are_kept_when_asked_for(
    studies: list[Study], rayscribe: Callable[..., str], tmp_path: Path
) -> None:
    listing, out = tmp_path / "images.csv", tmp_path / "m.parquet"
    listing.write_text("id,images\n" + "".join(f"{study.id},{study.images[0]}\n" for study in studies))
    assert "--without-reports" in rayscribe("prepare", "table", listing, "--out", out, code=1)
    rayscribe("prepare", "table", listing, "--out", out, "--without-reports")
    assert [study.id for study in read_manifest(out).studies] == [study.id for study in studies]
    bare = [replace(study, findings="", impression="") for study in studies]
    result = check(bare, source={}, missing_is_fault=True, needs_text=False)
    assert len(result.manifest.studies) == len(studies)
    assert not result.left_out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("a,b\n1,2\n", r"no column id, images; the columns are a, b"),
        ("id,images\n1,a.png\n", "none of the columns report"),
        ("id,images,report,split\n1,a.png,clear,future\n", "row 1: split 'future'"),
        ("id,images,report\n,a.png,clear\n", "row 1: no study id"),
        ("id,images,report,sizes\n1,a.png,clear,large\n", "row 1: size 'large'; write rows x columns"),
        (
            "id,images,report\n1,a.png,clear, no effusion\n2,b.png\n",
            "2 rows cannot be read\\n  row 1: the number of fields differs",
        ),
    ],
)
def test_a_table_that_cannot_be_used_says_why(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "data.csv")


def test_the_three_iu_layouts_hold_the_same_reports(tmp_path: Path) -> None:
    texts = []
    for layout in ("r2gen", "kaggle", "openi"):
        write_phantom(tmp_path / layout, PhantomConfig(studies=5, size=48, layout=layout))  # type: ignore[arg-type]
        read = read_iu_xray(tmp_path / layout)
        assert all(image.exists() for study in read for image in study.images)
        texts.append([(study.findings, len(study.images)) for study in read])
    assert texts[0] == texts[1] == texts[2]


def test_the_context_of_an_iu_study_is_joined_from_the_table_or_the_xml_files(tmp_path: Path) -> None:
    read = {}
    for layout in ("kaggle", "openi", "r2gen"):
        write_phantom(tmp_path / layout, PhantomConfig(studies=5, size=48, layout=layout))  # type: ignore[arg-type]
        if layout == "r2gen":  # the table of another layout lies next to the annotation
            (tmp_path / layout / "indiana_reports.csv").write_bytes(
                (tmp_path / "kaggle" / "indiana_reports.csv").read_bytes()
            )
        read[layout] = [
            (study.findings, study.indication, study.comparison, study.exam)
            for study in read_iu_xray(tmp_path / layout, layout=layout)  # type: ignore[arg-type]
        ]
    assert read["kaggle"] == read["openi"] == read["r2gen"]
    assert all(all(texts) for texts in read["kaggle"])


def test_a_folder_without_a_known_layout_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"annotation\.json"):
        read_iu_xray(tmp_path)
    (tmp_path / "annotation.json").write_text('{"train": []}')
    with pytest.raises(InputError, match="train, val and test"):
        read_iu_xray(tmp_path)


@pytest.mark.slow
def test_the_real_iu_files_give_the_published_split_in_every_layout(iu_root: Path) -> None:
    result = checked(read_iu_xray(iu_root), missing_is_fault=False)
    assert dict(result.manifest.counts()) == {"train": 2069, "val": 296, "test": 590}
    assert not result.faults
    assert len(result.notes) == 2  # uids 2084 and 3809 lack one of R2Gen's two views
    assert result.manifest.provenance["images"] == 5908
    by_file = {}
    with open(iu_root / "reports.csv", newline="") as file:
        by_file = {row["r2gen_id"]: row["r2gen_files"].split(";") for row in csv.DictReader(file)}
    for study in result.manifest.studies:
        assert [path.name for path in study.images] == by_file[study.id]
    assert sum(bool(study.indication) for study in result.manifest.studies) == 2907
    assert sum(bool(study.comparison) for study in result.manifest.studies) == 2645
    for layout in ("kaggle", "openi"):
        other = read_iu_xray(iu_root, layout=layout)  # type: ignore[arg-type]
        assert len(other) == 2955
        assert sum(bool(study.indication) for study in other) in range(2900, 2956)
        assert all(study.exam for study in other)
        assert all(any(image.exists() for image in study.images) for study in other)
