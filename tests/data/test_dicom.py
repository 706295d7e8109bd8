"""Every way to store one radiograph gives one picture; what would give another is refused."""

from __future__ import annotations

import importlib.util
import io
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_files import radiograph, ramp, saved
from rayscribe.data.dicom import read_dicom
from rayscribe.data.dicom_decoding import stored_values
from rayscribe.data.images import looks_inverted, read_image
from rayscribe.data.phantom import draw_study
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.errors import InputError

needs_decoders = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gdcm", "jpeg_ls", "openjpeg")),
    reason="needs the decoders: pip install 'rayscribe[dicom]'",
)


def read(folder: Path, pixels: np.ndarray, **tags: object) -> np.ndarray:
    return read_image(saved(folder / "film.dcm", radiograph(pixels, **tags)))


def bundled(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"needs {name}, which this pydicom does not bring")
    return Path(str(path))


def stored(name: str) -> np.ndarray:
    path = bundled(name)
    return stored_values(pydicom.dcmread(path), path)


def test_a_wrong_tag_gives_the_exact_negative_and_the_border_cannot_always_tell(dicom_samples: Path) -> None:
    right = read_image(dicom_samples / "rsna_pa_jpeg_mono2.dcm")
    wrong = read_image(dicom_samples / "rsna_pa_jpeg_fake_mono1.dcm")
    assert np.array_equal(wrong, 255 - right)
    assert not looks_inverted(right)
    assert not looks_inverted(wrong)  # its border's median is 188, and 200 is asked for: not noticed


def test_a_right_monochrome1_file_is_its_monochrome2_twin_whatever_the_shape_says(tmp_path: Path) -> None:
    film = ramp()
    expected = read(tmp_path, film)
    for shape in ("IDENTITY", "INVERSE"):
        tags = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": shape}
        assert np.array_equal(read(tmp_path, 4095 - film, **tags), expected)
    assert np.array_equal(read(tmp_path, 4095 - film, PresentationLUTShape="INVERSE"), expected)
    assert np.array_equal(read(tmp_path, film, PresentationLUTShape="IDENTITY"), expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_8_to_16_bits_signed_or_not_give_one_picture(bits: int, signed: bool, tmp_path: Path) -> None:
    film = ramp(highest=2**bits - 1).astype(np.int64)
    size = 8 if bits == 8 else 16
    pixels = (film - 2 ** (bits - 1)).astype(f"i{size // 8}") if signed else film.astype(f"u{size // 8}")
    image = read(tmp_path, pixels, BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(image, np.rint(film / (2**bits - 1) * 255).astype(np.uint8))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_native_syntax_gives_the_same_picture(syntax: str, tmp_path: Path) -> None:
    expected = read(tmp_path, ramp())
    big = syntax == ExplicitVRBigEndian
    data = radiograph(ramp(), PixelData=ramp().astype(">u2" if big else "<u2").tobytes())
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(tmp_path / "other.dcm", data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big)
    assert np.array_equal(read_image(tmp_path / "other.dcm"), expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@needs_decoders
def test_lossless_compression_changes_nothing(syntax: str, tmp_path: Path) -> None:
    for pixels in (ramp(), ramp(highest=255).astype(np.uint8), (ramp().astype(np.int16) - 2048)):
        expected = read(tmp_path, pixels)
        data = radiograph(pixels)
        data.compress(syntax)
        assert np.array_equal(read_image(saved(tmp_path / "small.dcm", data)), expected)


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit", "padded", "expb"])
@pytest.mark.filterwarnings("ignore")  # one of them is padded, and pydicom says so
@needs_decoders
def test_pydicom_s_own_files_of_one_picture_agree(name: str) -> None:
    assert np.array_equal(stored(f"MR_small_{name}.dcm"), stored("MR_small.dcm"))


@needs_decoders
def test_lossy_compression_is_near_the_original(tmp_path: Path) -> None:
    assert np.array_equal(stored("JPGExtended.dcm"), stored("JPEG-lossy.dcm"))
    scans = stored("JPGExtended.dcm"), stored("JPEG2000.dcm")  # one bone scan
    assert np.corrcoef(scans[0].ravel(), scans[1].ravel())[0, 1] > 0.95
    film = draw_study(0, PhantomConfig(studies=1, size=128)).images[0]
    expected = read(tmp_path, film).astype(int)
    for syntax in (JPEGBaseline8Bit, JPEG2000, JPEGLSNearLossless):
        data = radiograph(film)
        if syntax == JPEGBaseline8Bit:
            buffer = io.BytesIO()
            Image.fromarray(film).save(buffer, "JPEG", quality=98)
            data.PixelData = encapsulate([buffer.getvalue()])
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = syntax
        elif syntax == JPEG2000:
            data.compress(syntax, j2k_cr=[4])
        else:
            data.compress(syntax, jls_error=2)
        difference = np.abs(read_image(saved(tmp_path / "lossy.dcm", data)) - expected)
        assert 0 < difference.max() <= 16, syntax.name


@needs_decoders
@pytest.mark.parametrize("kind", ["u1", "u2", "i2"])
def test_jpeg_lossless_changes_nothing(kind: str, tmp_path: Path) -> None:
    film = (ramp(highest=255 if kind == "u1" else 4095).astype(int) - (2048 if kind == "i2" else 0)).astype(kind)
    path = jpeg_lossless(tmp_path, film)
    data = pydicom.dcmread(path)
    assert data.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert np.array_equal(stored_values(data, path), film)
    assert np.array_equal(read_image(path), read(tmp_path, film))


@needs_decoders
def test_a_frame_that_ends_the_decoder_is_a_message(tmp_path: Path) -> None:
    data = pydicom.dcmread(jpeg_lossless(tmp_path, ramp()))
    head = b"\xff\xd8\xff\xc3\0\x0b\x0c" + bytes([0, data.Rows, 0, data.Columns]) + b"\x01\x01\x11\0"
    for broken in (b"\xff\xd8no picture\xff\xd9", head + b"\xff\xd9"):
        data.PixelData = encapsulate([broken])
        with pytest.raises(InputError, match="cannot be decoded: damaged"):
            read_image(saved(tmp_path / "broken.dcm", data))


def jpeg_lossless(folder: Path, pixels: np.ndarray) -> Path:
    """GDCM is the only encoder of it at hand."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(saved(folder / "native.dcm", radiograph(pixels))))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "lossless.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return folder / "lossless.dcm"


def by_formula(values: np.ndarray, function: str, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 with the output from 0 to 255."""
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR":
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
        between = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    else:
        low, high = centre - width / 2, centre + width / 2
        between = ((values - centre) / width + 0.5) * 255
    return np.where(values <= low, 0, np.where(values > high, 255, between))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -1024), (0.5, 3), (-1, 4095)])
def test_windows_are_the_standard_s_formulas(function: str, slope: float, intercept: float, tmp_path: Path) -> None:
    for centre, width in ((2000, 1500), (1000.5, 300)):
        tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
        image = read(tmp_path, ramp(), RescaleSlope=slope, RescaleIntercept=intercept, **tags)
        expected = np.rint(by_formula(ramp() * float(slope) + intercept, function, centre, width))
        assert np.abs(image - expected).max() <= 1e-9


def test_the_first_window_counts_and_linear_is_the_default(tmp_path: Path) -> None:
    one = read(tmp_path, ramp(), WindowCenter=2000, WindowWidth=1500, VOILUTFunction="LINEAR")
    assert np.array_equal(read(tmp_path, ramp(), WindowCenter=[2000, 5], WindowWidth=[1500, 9]), one)


@pytest.mark.parametrize(("bits", "entries", "first"), [(8, 4096, 0), (12, 4096, 0), (16, 1000, 500), (8, 200, -3)])
@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
def test_lookup_tables_map_every_value(bits: int, entries: int, first: int, kind: str, tmp_path: Path) -> None:
    table = np.rint(np.linspace(0, 1, entries) ** 2 * (2**bits - 1)).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = table.tobytes()
    item["LUTData"].VR = "OW"
    image = read(tmp_path, ramp(), **{kind: [item]})
    expected = table[np.clip(ramp().astype(int) - first, 0, entries - 1)] / (2**bits - 1) * 255
    assert np.array_equal(image, np.rint(expected).astype(np.uint8))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1100, "WindowWidth": 900}])
def test_padding_is_black_and_outside_the_range(photometric: str, window: dict[str, object], tmp_path: Path) -> None:
    film = (ramp(highest=1000) + 600).astype(np.int16)
    expected = read(tmp_path, film, PhotometricInterpretation=photometric, **window)
    expected[8:16] = 0
    padded = film.copy()
    padded[8:16] = 4000
    tags = {"PhotometricInterpretation": photometric, **window}
    data = radiograph(padded, BitsStored=16, HighBit=15, **tags)
    data.add_new("PixelPaddingValue", "SS", 3900)
    data.add_new("PixelPaddingRangeLimit", "SS", 4100)
    assert np.array_equal(read_image(saved(tmp_path / "range.dcm", data)), expected)
    data.PixelData = np.where(padded > 2000, -2000, padded).astype(np.int16).tobytes()
    del data["PixelPaddingRangeLimit"]
    data.add_new("PixelPaddingValue", "US", 65536 - 2000)  # as some writers give it
    assert np.array_equal(read_image(saved(tmp_path / "one.dcm", data)), expected)


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (96, 40)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (48, 80)),
        ({"PixelAspectRatio": [3, 2]}, (72, 40)),
        ({"PixelSpacing": [0.143, 0.143], "PixelAspectRatio": [3, 2]}, (48, 40)),
    ],
)
def test_pixels_become_square(tags: dict[str, object], shape: tuple[int, int], tmp_path: Path) -> None:
    image = read(tmp_path, ramp(), **tags)
    assert image.shape == shape
    plain = read(tmp_path, ramp())
    assert abs(image.mean() - plain.mean()) < 3


@pytest.mark.filterwarnings("ignore")  # pydicom's, while the faulty file is written
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING holds the detector's raw values; export"),
        ({"Modality": "MR"}, "modality MR"),
        ({"Modality": "Müller^Eva"}, r"modality \(not a code\)"),
        ({"BodyPartExamined": "HAND"}, "body part HAND"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"Rows": None}, "lacks Rows"),
        ({"Columns": None}, "lacks Columns"),
        ({"BitsAllocated": None}, "lacks BitsAllocated"),
        ({"PixelRepresentation": None, "BitsStored": None}, "lacks BitsStored, PixelRepresentation"),
        ({"PhotometricInterpretation": None}, "photometric interpretation missing"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "photometric interpretation YBR_FULL"),
        ({"SamplesPerPixel": 3}, "colour DICOM file"),
        ({"BitsAllocated": 32}, "pixels of 32 bits"),
        ({"HighBit": 15}, "12 of 16 bits, highest bit 15"),
        ({"PixelData": b"\0" * 10}, r"truncated DICOM pixels cannot be decoded \(10 of 3840 bytes\)"),
        ({"PixelSpacing": [1, 0.01]}, "pixel spacing of 1 by 0.01"),
        ({"WindowCenter": 5, "WindowWidth": 0}, "window of width 0"),
        ({"WindowCenter": 5, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOI LUT function unknown"),
    ],
)
def test_what_is_refused_names_the_file_and_the_reason(tags: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, ramp(), **tags)
    assert str(tmp_path / "film.dcm") in str(error.value)


def test_a_cut_stream_inside_a_whole_file_is_refused(tmp_path: Path) -> None:
    data = radiograph(ramp())
    data.compress(JPEG2000Lossless) if importlib.util.find_spec("openjpeg") else pytest.skip("needs an encoder")
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 2]])
    with pytest.raises(InputError, match="the picture has no end"):
        read_image(saved(tmp_path / "cut.dcm", data))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
@needs_decoders
def test_a_picture_of_other_sides_than_its_tags_is_refused(syntax: str, tmp_path: Path) -> None:
    data = radiograph(ramp())
    data.compress(syntax)
    data.Rows, data.Columns = data.Columns, data.Rows
    with pytest.raises(InputError, match="48 x 40 pixels by its tags, 40 x 48 by its picture"):
        read_image(saved(tmp_path / "turned.dcm", data))


def test_a_missing_decoder_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = radiograph(ramp())
    data.compress(RLELossless)
    path = saved(tmp_path / "film.dcm", data)
    monkeypatch.setattr(type(get_decoder(RLELossless)), "available_plugins", property(lambda decoder: ()))
    with pytest.raises(InputError, match=r"no decoder for RLE Lossless; pip install 'rayscribe\[dicom\]'"):
        read_image(path)


def test_without_gdcm_12_bit_jpeg_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pydicom.dcmread(bundled("JPGExtended.dcm"))
    data.Modality, data.BodyPartExamined = "CR", "CHEST"
    path = saved(tmp_path / "film.dcm", data)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"no decoder for JPEG Extended .*pip install 'rayscribe\[dicom\]'"):
        read_image(path)


def test_a_patient_s_text_reaches_no_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with pydicom.config.disable_value_validation():
        data = radiograph(
            ramp(), PatientName="Canary^Eva", PatientBirthDate="Canary", WindowCenter="3", WindowWidth="9"
        )
        data["WindowWidth"]._value = "Canary"
        data.add_new("StudyDate", "DA", "Canary-no-date")
        path = saved(tmp_path / "film.dcm", data)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert "Canary" not in str(error.value) + caplog.text + "".join(str(one.message) for one in recwarn)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def _files(folder: Path) -> list[Path]:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], np.arange(4096, dtype=np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    film = ramp(34, 32)
    paths = [saved(folder / "native.dcm", radiograph(film, VOILUTSequence=[item], PixelSpacing=[0.2, 0.15]))]
    deflated = radiograph(film, WindowCenter=900, WindowWidth=800, PixelPaddingValue=0)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    paths.append(saved(folder / "deflated.dcm", deflated))
    for name, syntax in (("rle", RLELossless), ("jls", JPEGLSLossless), ("j2k", JPEG2000Lossless)):
        if syntax == RLELossless or importlib.util.find_spec("openjpeg"):
            data = radiograph(film)
            data.compress(syntax)
            paths.append(saved(folder / f"{name}.dcm", data))
    if importlib.util.find_spec("gdcm"):
        (folder / "lossless").mkdir()
        paths.append(jpeg_lossless(folder / "lossless", film))
        extended = pydicom.dcmread(bundled("JPGExtended.dcm"))
        extended.Modality, extended.BodyPartExamined = "CR", "CHEST"
        paths.append(saved(folder / "extended.dcm", extended))
    return paths


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, np.ndarray]]:
    return [(path, read_dicom(path.read_bytes(), path)) for path in _files(tmp_path_factory.mktemp("whole"))]


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_file_is_refused_or_gives_the_same_picture(
    data: st.DataObject, whole: list[tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    path, expected = data.draw(st.sampled_from(whole))
    content = path.read_bytes()
    kept = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 40, len(content) - 1)))
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(content[:kept])
    try:
        image = read_dicom(cut.read_bytes(), cut)
    except InputError:
        return
    assert np.array_equal(image, expected), f"{path.name}: {kept} of {len(content)} bytes"


def test_the_sample_jpegs_are_refused_when_cut(dicom_samples: Path, tmp_path: Path) -> None:
    for name in ("CR-MONO1-10-chest.dcm", "rsna_pa_jpeg_mono2.dcm"):
        shutil.copy(dicom_samples / name, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        for share in (0.2, 0.5, 0.9, 0.999):
            (tmp_path / "cut.dcm").write_bytes(content[: int(len(content) * share)])
            with pytest.raises(InputError, match=r"cut\.dcm"):
                read_image(tmp_path / "cut.dcm")
