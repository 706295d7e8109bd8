"""Every format, read back by a program that is not ours; and what is refused."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drafts import CANARY, CANARY_ID, STUDY, draft, of_section, original
from needed_tools import needed_package, needed_tool
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.reports.document import Document, Finding, Report, Sentence, document_json, read_document
from rayscribe.reports.drafting import readable
from rayscribe.reports.exports import KINDS, exported
from rayscribe.reports.pdf import printable
from rayscribe.reports.source_images import read_source_images

PARTS = ("The heart is mildly enlarged.", "No pleural effusion.")


def source_images(*numbers: int) -> list[pydicom.Dataset]:
    return read_source_images([(f"image {number}", original(number)) for number in numbers or (1, 2)])


def dumped(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "sr.dcm"
    path.write_bytes(content)
    tool = needed_tool("dsrdump")
    ran = subprocess.run([tool, "+Pl", path], capture_output=True, text=True, check=True)
    return ran.stdout


def pdf_text(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "draft.pdf"
    path.write_bytes(content)
    tool = needed_tool("pdftotext")
    ran = subprocess.run([tool, "-layout", path, "-"], capture_output=True, text=True, check=True)
    return ran.stdout


def words(text: str) -> str:
    return " ".join(text.split())


def test_dsrdump_reads_the_structured_report(tmp_path: Path) -> None:
    content = exported("sr", draft(), source_images(1, 2, 3)).content
    text = dumped(tmp_path, content)
    assert "Basic Text SR Document" in text
    for wanted in (*PARTS, DISCLAIMER, "PRELIMINARY", "PARTIAL", "UNVERIFIED", "Cardiomegaly: very likely", "ab" * 32):
        assert wanted in text, wanted
    assert '"Findings"' in text and '121007,DCM,"Device"' in text and "Person" not in text
    data = pydicom.dcmread(io.BytesIO(content))
    assert data.StudyInstanceUID == STUDY and str(data.PatientName) == CANARY and data.PatientID == CANARY_ID
    (study,) = data.CurrentRequestedProcedureEvidenceSequence
    cited = {
        one.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert cited == {f"{STUDY}.9.{number}" for number in (1, 2, 3)} and len(study.ReferencedSeriesSequence) == 2
    assert "Größe ≥ 3 cm, ﬁne 肺 & <b>." in [item.get("TextValue") for item in data.ContentSequence[-2].ContentSequence]


@pytest.mark.parametrize(
    ("section", "heading"),
    [("findings", "Findings"), ("impression", "Impression"), ("findings+impression", "Document summary")],
)
def test_the_heading_is_the_section_of_the_model(tmp_path: Path, section: str, heading: str) -> None:
    assert f'CONTAINER:(,,"{heading}")' in dumped(
        tmp_path, exported("sr", of_section(section), source_images()).content
    )


@pytest.mark.parametrize("kind", ["sr", "dicom-pdf"])
def test_the_same_draft_is_the_same_object_and_another_one_is_another(kind: str) -> None:
    def uids(document: Document, images: list[pydicom.Dataset]) -> tuple[str, str]:
        data = pydicom.dcmread(io.BytesIO(exported(kind, document, images).content))
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert len(data.SOPInstanceUID) <= 64 and data.SOPInstanceUID.startswith("2.25.")
        return data.SOPInstanceUID, data.SeriesInstanceUID

    first = uids(draft(), source_images(1, 2))
    assert exported(kind, draft(), source_images()).content == exported(kind, draft(), source_images()).content
    assert first == uids(draft(), source_images(2, 1))
    others = [uids(draft("Other words."), source_images()), uids(draft(), source_images(1))]
    others.append(uids(replace(draft(), model=replace(draft().model, weights_sha256="cd" * 32)), source_images()))
    assert len({*first, *(uid for pair in others for uid in pair)}) == 8


def test_a_name_in_another_character_set_is_the_same_name(tmp_path: Path) -> None:
    content = original(1, SpecificCharacterSet="ISO_IR 100", ReferringPhysicianName="Müller^Jürg")
    for kind in ("sr", "dicom-pdf"):
        made = exported(kind, draft(), read_source_images([("a", content)]))
        assert pydicom.dcmread(io.BytesIO(made.content)).ReferringPhysicianName == "Müller^Jürg"


def test_pdftotext_reads_the_page(tmp_path: Path) -> None:
    text = words(pdf_text(tmp_path, exported("pdf", draft()).content))
    for wanted in (
        *PARTS,
        DISCLAIMER,
        "Größe ≥ 3 cm",
        "[U+80BA]",
        "Cardiomegaly very likely 0.93 positive",
        "looks inverted",
    ):
        assert wanted in text, wanted
    assert "stands for a character" in text


def test_the_disclaimer_stands_on_every_page(tmp_path: Path) -> None:
    pages = pdf_text(tmp_path, exported("pdf", draft("The lungs are clear. " * 400)).content).split("\f")[:-1]
    assert len(pages) > 2 and all(DISCLAIMER in words(page) for page in pages)


def test_the_encapsulated_page_is_the_page(tmp_path: Path) -> None:
    path, out = tmp_path / "pdf.dcm", tmp_path / "out.pdf"
    path.write_bytes(exported("dicom-pdf", draft(), source_images()).content)
    subprocess.run([needed_tool("dcm2pdf"), path, out], check=True, capture_output=True)
    assert out.read_bytes().rstrip(b"\0") == exported("pdf", draft()).content
    data = pydicom.dcmread(path)
    assert (data.StudyInstanceUID, data.Modality, len(data.SourceInstanceSequence)) == (STUDY, "DOC", 2)
    assert PARTS[0] in words(pdf_text(tmp_path, out.read_bytes()))


def test_fhirclient_reads_the_bundle() -> None:
    needed_package("fhirclient")
    from fhirclient.models.bundle import Bundle
    from fhirclient.models.device import Device
    from fhirclient.models.diagnosticreport import DiagnosticReport
    from fhirclient.models.observation import Observation
    from fhirclient.models.provenance import Provenance

    plain = json.loads(exported("fhir", draft(), source_images()).content)
    bundle = Bundle(plain, strict=True)
    assert bundle.as_json() == plain
    by_kind = {
        kind: [one.resource for one in bundle.entry if isinstance(one.resource, kind)]
        for kind in (DiagnosticReport, Observation, Device, Provenance)
    }
    (report,), (device,), (provenance,) = by_kind[DiagnosticReport], by_kind[Device], by_kind[Provenance]
    assert report.status == "preliminary" and report.conclusion.startswith(draft().text)
    assert report.subject.identifier.value == CANARY_ID and report.subject.reference is None
    assert report.imagingStudy[0].identifier.value == f"urn:oid:{STUDY}"
    assert draft().text in base64.b64decode(report.presentedForm[0].data).decode()
    urls = {one.fullUrl for one in bundle.entry}
    assert {one.reference for one in report.result} <= urls and len(report.result) == len(by_kind[Observation]) == 4
    states = [(one.code.text, one.valueCodeableConcept.text) for one in by_kind[Observation]]
    assert states == [
        ("Cardiomegaly", "positive"),
        ("Pleural Effusion", "negative"),
        ("Cardiomegaly", "positive"),
        ("Edema", "uncertain"),
    ]
    assert {one.status for one in by_kind[Observation]} == {"preliminary"}
    assert by_kind[Observation][2].component[0].valueQuantity.value == 0.931
    assert device.serialNumber == "ab" * 32
    assert provenance.agent[0].who.reference == f"urn:uuid:{device.id}"


def test_without_originals_fhir_names_no_subject() -> None:
    plain = json.loads(exported("fhir", draft()).content)
    assert "subject" not in json.dumps(plain) and "imagingStudy" not in json.dumps(plain)
    assert plain == json.loads(exported("fhir", draft()).content)


def test_an_image_without_a_patient_id_gives_no_subject() -> None:
    images = read_source_images([("a", original(1, patient=""))])
    plain = json.loads(exported("fhir", draft(), images).content)
    assert "subject" not in json.dumps(plain) and "imagingStudy" in json.dumps(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_carries_the_disclaimer_and_none_is_final(tmp_path: Path, kind: str) -> None:
    made = exported(kind, draft(), source_images())
    text = made.content.decode("latin-1")
    if kind in ("pdf", "dicom-pdf"):
        content = made.content
        if kind == "dicom-pdf":
            content = pydicom.dcmread(io.BytesIO(content)).EncapsulatedDocument
            text = str(pydicom.dcmread(io.BytesIO(made.content)))
        text += pdf_text(tmp_path, content)
    assert DISCLAIMER in words(text)
    assert not re.search(r"\bfinal\b|(?<!not )\bverified\b|\bcomplete\b", text, re.IGNORECASE)
    assert "prelimin" in text.lower()
    if kind in ("text", "json", "pdf"):
        assert CANARY not in text and CANARY_ID not in text
    assert made.media_type and made.suffix.startswith(".")


@pytest.mark.parametrize("kind", ["sr", "dicom-pdf"])
def test_what_is_linked_to_a_study_needs_one(kind: str) -> None:
    with pytest.raises(InputError, match=r"linked to its DICOM study.*export text, pdf or fhir"):
        exported(kind, draft())


def test_a_picture_is_no_original() -> None:
    with pytest.raises(InputError, match=r"image 2: not a DICOM file.*export text, pdf or fhir"):
        read_source_images([("image 1", original(1)), ("image 2", b"\x89PNG\r\n\x1a\n" + b"0" * 300)])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (original(2, study="1.2.3"), "image 2: belongs to another DICOM study than image 1"),
        (original(2, patient="OTHER"), "image 2: has the study of image 1 but another patient id"),
        (original(1), "duplicate image"),
        (original(2, StudyInstanceUID="no uid"), "no StudyInstanceUID, or an invalid one"),
        (original(2)[:200], "image 2: "),
        (b"", "image 2: not a DICOM file"),
    ],
)
def test_what_does_not_fit_together_is_refused_without_a_name(second: bytes, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_source_images([("image 1", original(1)), ("image 2", second)])
    assert message in str(refused.value)
    assert "CANARY" not in str(refused.value) and CANARY_ID not in str(refused.value)


def test_faulty_and_missing_headers_become_empty(caplog: pytest.LogCaptureFixture) -> None:
    faulty = original(
        1, PatientBirthDate="CANARY's birthday", AccessionNumber="x" * 40, PatientSex="MALE AND SO ON AND ON"
    )
    (header,) = read_source_images([("a", faulty)])
    assert (header.PatientBirthDate, header.AccessionNumber, header.PatientSex, header.StudyDate) == ("", "", "", "")
    assert len(exported("sr", draft(), [header]).content) > 1000
    assert "CANARY" not in caplog.text


def test_a_draft_with_faulty_values_is_refused() -> None:
    wrong = [
        (replace(draft(), created="yesterday"), "creation time"),
        (of_section("conclusion"), "unknown section"),
        (draft("A\x00b."), "control character"),
        (draft("A \ud800 b."), "control character"),
    ]
    for probability in ("0.5", float("nan"), 2):
        finding = Finding(name="Edema", state="positive", source="classifier", probability=probability)  # type: ignore[arg-type]
        wrong.append((replace(draft(), findings=(finding,)), "a probability that is not a number"))
    wrong.append((replace(draft(), model=replace(draft().model, name=7)), "a non-text value where text belongs"))  # type: ignore[arg-type]
    strange = Finding(name="Edema", state="maybe", source="classifier")  # type: ignore[arg-type]
    wrong.append((replace(draft(), findings=(strange,)), "unknown state"))
    unnamed = Finding(name=" ", state="positive", source="classifier", probability=10**400)
    wrong += [
        (replace(draft(), findings=(unnamed,)), "empty name"),
        (replace(draft(), model=replace(draft().model, system="")), "empty name"),
        (replace(draft(), findings=(replace(unnamed, name="Edema"),)), "a probability that is not a number"),
        (replace(draft(), findings=(replace(unnamed, name="Edema" * 60),)), "a name of more than 255"),
        (replace(draft(), reports=(Report(sentences=(Sentence(text="A."), Sentence(text=""))),)), "empty sentence"),
        (replace(draft(), is_edited="no"), "whether it was edited"),  # type: ignore[arg-type]
        (replace(draft(), images="<b>"), "its number of images"),  # type: ignore[arg-type]
        (replace(draft(), created="0001-02-03T00:00:00+00:00"), "before 1900"),
        (draft("word " * 20_000), "characters; shorten it"),
    ]
    for document, message in wrong:
        for kind in KINDS:
            with pytest.raises(InputError, match=message):
                exported(kind, document, source_images())


@pytest.mark.parametrize("key", ["text", "evidence", "log_probability"])
@pytest.mark.parametrize("value", [3, "abc", [[["x"]]], [[[float("nan")]]], [[[[[1]]]]], {}])
def test_a_file_with_faulty_values_is_no_draft(key: str, value: object) -> None:
    plain = draft().plain()
    place = plain["reports"][0] if key == "log_probability" else plain["reports"][0]["sentences"][0]
    if (key, value) in (("text", "abc"), ("log_probability", 3), ("evidence", {})):
        return  # a text, a number, and nothing
    place[key] = value
    with pytest.raises(InputError, match=r"a\.json: not a draft report"):
        read_document(json.dumps(plain), "a.json")
    with pytest.raises(InputError, match=r"a\.json: not a draft report"):
        read_document("[" * 100_000, "a.json")


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Zs", "Zl", "Zp"]), min_size=1, max_size=80))
def test_no_character_is_lost(text: str) -> None:
    document, images = draft(text), source_images()
    data = pydicom.dcmread(io.BytesIO(exported("sr", document, images).content))
    said = [item.TextValue for item in data.ContentSequence[-2].ContentSequence if "TextValue" in item]
    assert " ".join(said) == text
    assert json.loads(exported("fhir", document, images).content)["entry"][0]["resource"]["conclusion"].startswith(text)
    assert exported("pdf", document).content
    shown = printable(text, lambda character: character in "abc[]U+0123456789ABCDEF")
    assert shown == "".join(printable(character, lambda one: one in "abc[]U+0123456789ABCDEF") for character in text)
    assert len(shown) >= len(text)


@pytest.mark.parametrize("kind", ["sr", "dicom-pdf", "fhir"])
def test_real_files_are_exported_from_the_command_line(
    rayscribe: Callable[..., str], dicom_samples: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "draft.json").write_text(document_json(draft()))
    for number, sample in enumerate(sorted(dicom_samples.glob("*.dcm"))):
        out = tmp_path / f"{number}.out"
        printed = rayscribe("export", kind, tmp_path / "draft.json", "--out", out, "--images", sample)
        assert DISCLAIMER in printed and out.stat().st_size > 1000
        if kind != "fhir":
            wanted = pydicom.dcmread(sample, stop_before_pixels=True)
            assert pydicom.dcmread(out).StudyInstanceUID == wanted.StudyInstanceUID
            assert pydicom.dcmread(out).PatientName == wanted.PatientName


def test_the_command_line_says_what_is_wrong(rayscribe: Callable[..., str], tmp_path: Path) -> None:
    path, out, picture = tmp_path / "draft.json", tmp_path / "out", tmp_path / "a.png"
    assert "write one with `rayscribe predict --out`" in rayscribe("export", "text", path, "--out", out, code=1)
    path.write_text(document_json(draft())[:-40])
    assert "not a draft report" in rayscribe("export", "text", path, "--out", out, code=1)
    path.write_text(document_json(draft()))
    picture.write_bytes(b"\x89PNG" * 100)
    assert "a.png: not a DICOM file" in rayscribe("export", "sr", path, "--out", out, "--images", picture, code=1)
    assert "no kind 'word'; there are model, text, json" in rayscribe("export", "word", path, "--out", out, code=1)
    assert not out.exists()
    rayscribe("export", "json", path, "--out", out)
    assert out.read_text() == path.read_text()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the lungs are clear .", "The lungs are clear."),
        ("no effusion , pneumothorax or edema .", "No effusion, pneumothorax or edema."),
        ("t9 ( mild ) is unchanged .", "T9 (mild) is unchanged."),
        ("Heart size is 0.52 .", "Heart size is 0.52."),
        ("a .5 cm nodule", "A .5 cm nodule"),
        ("", ""),
        ("pH was 7.4 . the PA view", "pH was 7.4. the PA view"),
    ],
)
def test_what_a_model_writes_is_set_for_readers_without_another_word(written: str, read: str) -> None:
    assert readable(written) == read
    assert "".join(read.lower().split()) == "".join(written.lower().split())


def test_what_is_said_twice_counts_in_its_worst_state() -> None:
    for text in (
        "There is a pleural effusion. No pleural effusion.",
        "No pleural effusion. There is a pleural effusion.",
    ):
        entries = json.loads(exported("fhir", draft(text, findings=())).content)["entry"]
        found = [one["resource"] for one in entries if one["resource"]["resourceType"] == "Observation"]
        assert [one["valueCodeableConcept"]["text"] for one in found] == ["positive"]


def test_an_edited_draft_says_so_and_is_another_object() -> None:
    edited, images = draft(is_edited=True), source_images()
    uids = [
        pydicom.dcmread(io.BytesIO(exported("sr", one, images).content)).SOPInstanceUID for one in (draft(), edited)
    ]
    assert uids[0] != uids[1]
    assert b"A reader has edited it." in exported("text", edited).content
    assert b"As the model wrote it." in exported("text", draft()).content


def test_a_patient_with_two_ids_has_none() -> None:
    (header,) = read_source_images([("a", original(1, PatientID="A\\B"))])
    assert header.PatientID == ""


def test_common_signs_are_spelled() -> None:
    assert printable("≥ 3", str.isascii) == ">= 3"


def test_a_probability_has_its_own_words_whatever_a_draft_says() -> None:
    told = json.loads(document_json(draft()))
    told["findings"] = [
        {"name": "Edema", "state": "positive", "source": "classifier", "probability": 0.5, "wording": "final"}
    ]
    (finding,) = read_document(json.dumps(told), "draft").findings
    assert finding.wording == "about as likely as not"
