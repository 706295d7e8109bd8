"""No value of the patient is in a copy, and the picture is the same."""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from dicom_files import radiograph, ramp, saved
from rayscribe.data.dicom_deidentify import deidentified
from rayscribe.data.dicom_profile import Pseudonyms, profile_actions
from rayscribe.data.dicom_streams import without_comments
from rayscribe.data.images import read_image
from rayscribe.errors import InputError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("dicomanonymizer") is None,
    reason="needs the table of PS3.15: pip install 'rayscribe[dicom]'",
)
KEY = Pseudonyms(b"sixteen bytes or more")
TEXT = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
NEEDED = {"SOPClassUID", "SOPInstanceUID", "Modality", "PhotometricInterpretation", "NumberOfFrames"}
NEEDED |= {
    "SpecificCharacterSet",
    "PresentationIntentType",
    "BurnedInAnnotation",
    "VOILUTFunction",
    "PresentationLUTShape",
}
PICKY = ("AS", "DA", "DS", "DT", "IS", "TM", "UI")
NESTED = {0x00081032, 0x00081115, 0x00082218, 0x00321064, 0x00400275, 0x00400555, 0x0040A730, 0x00540220, 0x00081140}
"sequences of every kind: removed, emptied, replaced, kept"


def with_canaries(data: Dataset, depth: int = 0) -> Dataset:
    """A canary in every text attribute of the data dictionary, in bytes, private attributes and items of sequences."""
    for tag, (vr, *_) in DicomDictionary.items():
        group, keyword = tag >> 16, keyword_for_tag(tag)
        is_pixel_number = group == 0x0028 and vr in (*PICKY, "CS")
        if group < 8 or group == 0xFFFE or keyword in NEEDED or keyword in data or is_pixel_number:
            continue
        canary = f"Canary^{tag:08x}"
        if vr in TEXT:
            data.add(DataElement(tag, "LO" if vr in PICKY else vr, canary, validation_mode=pydicom.config.IGNORE))
        elif vr in ("OB", "OW", "UN", "OF", "OD", "OL", "OV") and keyword not in ("PixelData", "LUTData"):
            data.add(DataElement(tag, "UN", canary.encode() + b"\0"))
        elif vr == "SQ" and depth < 1:
            data.add(DataElement(tag, "SQ", [with_canaries(Dataset(), depth + 1)] if tag in NESTED else []))
    block = data.private_block(0x0009, "Canary^creator", create=True)
    block.add_new(1, "LO", "Canary^private")
    data.add_new(0x60000022, "LO", "Canary^overlay")
    data.add_new(0x60003000, "OW", b"Canary^overlay data.")
    return data


def with_their_own_types(content: bytes) -> bytes:
    """The canaries that pydicom would not write as a number, a date or a UID."""
    for tag, (vr, *_) in DicomDictionary.items():
        if vr in PICKY:
            head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
            content = content.replace(head + b"LO\x10\0Canary", head + vr.encode() + b"\x10\0Canary")
    return content


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_canary_of_any_attribute_is_in_the_bytes_or_the_messages(
    tmp_path: Path, rayscribe: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    data = with_canaries(radiograph(ramp()))
    data.preamble = b"Canary preamble".ljust(128, b"\0")
    data.file_meta.SourceApplicationEntityTitle = "CanaryAE"
    data.file_meta.ImplementationVersionName = "Canary"
    data.PatientID, data.StudyInstanceUID = "Canary^id", "1.2.3.4.5.6"
    before = saved(tmp_path / "in.dcm", data)
    content = with_their_own_types(before.read_bytes())
    assert content.count(b"Canary") > 10_000
    assert content.count(b"DS\x10\0Canary") > 100
    before.write_bytes(content + struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 16) + b"Canary in paddin")
    caplog.clear()
    printed = rayscribe("deidentify", before, "--out", tmp_path / "out")
    (after,) = (tmp_path / "out").iterdir()
    assert b"anary" not in after.read_bytes()
    assert b"1.2.3.4.5.6" not in after.read_bytes()
    assert "Canary" not in printed + after.name + caplog.text
    assert "NOT removed" in printed
    assert np.array_equal(read_image(after), read_image(saved(tmp_path / "plain.dcm", radiograph(ramp()))))


def test_every_action_of_the_table_is_carried_out() -> None:
    assert len(profile_actions()) > 600
    names = {keyword_for_tag(tag): action for tag, action in profile_actions().items()}
    assert (names["PatientName"], names["PatientAge"], names["SOPInstanceUID"]) == ("empty", "remove", "uid")
    assert names["ClinicalTrialSubjectID"] == "replace"


def test_what_the_reader_needs_stays_and_the_copy_says_what_was_done(tmp_path: Path) -> None:
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399348003", "SCT", "Eva's AP"
    data = radiograph(
        ramp(),
        PatientName="Eva",
        PatientID="77",
        StudyDate="20200101",
        BodyPartExamined="CHEST",
        WindowCenter=2000,
        WindowWidth=1500,
        PixelSpacing=[0.2, 0.1],
        BurnedInAnnotation="NO",
        ClinicalTrialSubjectID="Eva 1",
        ViewCodeSequence=[view],
        KVP="120",
    )
    path = saved(tmp_path / "eva.dcm", data)
    copy = deidentified(path, tmp_path / "out", KEY)
    after = pydicom.dcmread(copy)
    assert (
        copy.stem == after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID == KEY.uid(data.SOPInstanceUID)
    )
    assert (after.PatientIdentityRemoved, after.BurnedInAnnotation, after.PatientName) == ("YES", "NO", "")
    assert (after.StudyDate, after.ClinicalTrialSubjectID, after.KVP) == ("", "REMOVED", 120)
    assert after.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert after.ViewCodeSequence[0].CodeValue == "399348003"
    assert "Eva" not in str(after)
    assert UID(after.SOPInstanceUID).is_valid
    assert np.array_equal(read_image(copy), read_image(path))


def test_ids_are_replaced_alike_under_one_key_and_otherwise_under_another(
    tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    ids = ("77", "77", "78")
    for number, patient in enumerate(ids):
        tags = {"PatientID": patient, "StudyInstanceUID": f"1.2.{patient}", "PatientName": "Eva"}
        (tmp_path / "in").mkdir(exist_ok=True)
        saved(tmp_path / "in" / f"{number}.dcm", radiograph(ramp(), **tags))
    (tmp_path / "in" / "notes.txt").write_text("Eva")
    (tmp_path / "key").write_bytes(bytes(range(32)))
    for name, options in (("a", ["--key", tmp_path / "key"]), ("b", ["--key", tmp_path / "key"]), ("c", [])):
        printed = rayscribe("deidentify", tmp_path / "in", "--out", tmp_path / name, *options)
        assert "3 of 3 DICOM files" in printed
        assert "1 other files" in printed

    def pairs(name: str) -> set[tuple[str, str]]:
        files = [pydicom.dcmread(path) for path in (tmp_path / name).iterdir()]
        assert len(files) == 3
        return {(str(file.PatientID), str(file.StudyInstanceUID)) for file in files}

    assert pairs("a") == pairs("b")
    assert len(pairs("a")) == len(pairs("c")) == 2
    assert not pairs("a") & pairs("c")
    message = rayscribe("deidentify", tmp_path / "in", "--out", tmp_path / "a", "--key", tmp_path / "key", code=1)
    assert "3 files have no copy" in message


def test_faults_are_collected_and_the_rest_is_written(tmp_path: Path, rayscribe: Callable[..., str]) -> None:
    saved(tmp_path / "good.dcm", radiograph(ramp()))
    saved(tmp_path / "burnt.dcm", radiograph(ramp(), BurnedInAnnotation="YES", PatientName="Eva"))
    saved(tmp_path / "report.dcm", radiograph(ramp(), PixelData=None))
    saved(tmp_path / "short.dcm", radiograph(ramp(), PixelData=b"\0\0"))
    (tmp_path / "noise.dcm").write_bytes(b"Eva" * 100)
    message = rayscribe("deidentify", tmp_path, "--out", tmp_path / "out", code=1)
    assert "4 files have no copy" in message
    assert len(list((tmp_path / "out").iterdir())) == 1
    with pytest.raises(InputError, match="BurnedInAnnotation YES"):
        deidentified(tmp_path / "burnt.dcm", tmp_path / "other", KEY)
    copy = deidentified(tmp_path / "burnt.dcm", tmp_path / "other", KEY, burnt_in=True)
    assert pydicom.dcmread(copy).BurnedInAnnotation == "YES"
    for name, reason in (
        ("report", "not an image"),
        ("short", "truncated DICOM pixels"),
        ("noise", "not a DICOM image"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.dcm: .*{reason}") as error:
            deidentified(tmp_path / f"{name}.dcm", tmp_path / "other", KEY)
        assert "Eva" not in str(error.value)
    short = tmp_path / "short.key"
    short.write_bytes(b"123")
    assert "3 bytes; at least 16" in rayscribe("deidentify", tmp_path, "--out", tmp_path / "x", "--key", short, code=1)
    (tmp_path / "bare").mkdir()
    assert "no DICOM file" in rayscribe("deidentify", tmp_path / "bare", "--out", tmp_path / "x", code=1)
    assert "no such file" in rayscribe("deidentify", tmp_path / "none", "--out", tmp_path / "x", code=1)


def test_comments_inside_compressed_pictures_go_and_the_picture_stays(tmp_path: Path) -> None:
    grey = (ramp(highest=255)).astype(np.uint8)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x010E] = "Canary^Eva"
    Image.fromarray(grey).save(buffer, "JPEG", quality=95, exif=exif, comment=b"Canary comment")
    assert buffer.getvalue().count(b"Canary") == 2
    data = radiograph(grey, PixelData=encapsulate([buffer.getvalue() + b"Canary behind\xff\xd9"]))
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    clean = radiograph(grey, PixelData=encapsulate([buffer.getvalue()]))
    clean["PixelData"].is_undefined_length = True
    clean.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    copy = deidentified(saved(tmp_path / "jpeg.dcm", data), tmp_path / "out", KEY)
    assert b"Canary" not in copy.read_bytes()
    assert np.array_equal(read_image(copy), read_image(saved(tmp_path / "clean.dcm", clean)))
    packed = radiograph(ramp())
    packed.compress(RLELossless)
    path = saved(tmp_path / "rle.dcm", packed)
    assert np.array_equal(read_image(deidentified(path, tmp_path / "out", KEY)), read_image(path))


@pytest.mark.skipif(importlib.util.find_spec("openjpeg") is None, reason="needs an encoder: pylibjpeg-openjpeg")
def test_a_comment_in_jpeg_2000_goes(tmp_path: Path) -> None:
    from pydicom.encaps import get_frame

    data = radiograph(ramp())
    data.compress(JPEG2000Lossless)
    stream = get_frame(data.PixelData, 0, number_of_frames=1)
    at = stream.index(b"\xff\x52")
    commented = stream[:at] + b"\xff\x64" + struct.pack(">HH", 10, 1) + b"Canary" + stream[at:]
    assert b"Canary" not in without_comments(commented)
    data.PixelData = encapsulate([commented])
    path = saved(tmp_path / "film.dcm", data)
    assert np.array_equal(read_image(deidentified(path, tmp_path / "out", KEY)), read_image(path))


@pytest.mark.parametrize(
    "stream", [b"\xff\xd8\xff\xfe\0\x08Canary", b"\xff\xd8Canary\xff\xd9", b"\xff\x4fCanary\xff\xd9"]
)
def test_a_stream_that_cannot_be_followed_to_its_end_is_refused(stream: bytes, tmp_path: Path) -> None:
    data = radiograph(ramp(), PixelData=encapsulate([stream]))
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    with pytest.raises(InputError, match="a damaged one"):
        deidentified(saved(tmp_path / "film.dcm", data), tmp_path / "out", KEY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_an_overlay_in_unused_bits_goes(kind: str, tmp_path: Path) -> None:
    film = ramp().astype(kind) - (2048 if kind == "i2" else 0)
    bits = film.copy()
    bits[10:20] ^= np.array(0x4000, kind)
    path = saved(tmp_path / "film.dcm", radiograph(bits))
    assert pydicom.dcmread(deidentified(path, tmp_path / "out", KEY)).PixelData == film.tobytes()
    path = saved(tmp_path / "left.dcm", radiograph(bits, HighBit=15))
    assert pydicom.dcmread(deidentified(path, tmp_path / "out", KEY)).PixelData == bits.tobytes()
