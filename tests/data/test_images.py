"""Every way in which an image can be wrong has a message that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from rayscribe.config import ImageConfig
from rayscribe.data.images import evaluation_square, looks_inverted, read_image, training_square
from rayscribe.data.phantom import draw_study
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.errors import InputError


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return draw_study(0, PhantomConfig(studies=1, size=96)).images[0]


def write_dicom(path: Path, pixels: np.ndarray, **tags: object) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Modality, data.PhotometricInterpretation = "DX", "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = pixels.astype(np.uint16).tobytes()
    for name, value in tags.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_png_jpeg_16_bit_rgb_palette_and_dicom_give_the_same_picture(film: np.ndarray, tmp_path: Path) -> None:
    grey = Image.fromarray(film)
    grey.save(tmp_path / "8.png")
    Image.fromarray(film.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(film.astype(np.uint16) * 16).save(tmp_path / "12.png")  # 12 bits in a 16-bit file
    grey.convert("RGB").save(tmp_path / "rgb.png")
    grey.convert("RGBA").save(tmp_path / "rgba.png")
    grey.convert("P").save(tmp_path / "palette.png")
    grey.save(tmp_path / "grey.jpg", quality=98)
    grey.convert("RGB").save(tmp_path / "rgb.jpg", quality=98)
    stretched = (film.astype(np.float64) - film.min()) * 4095 / (int(film.max()) - int(film.min()))
    write_dicom(tmp_path / "two.dcm", np.rint(stretched))
    write_dicom(tmp_path / "one.dcm", np.rint(4095 - stretched), PhotometricInterpretation="MONOCHROME1")
    for path in sorted(tmp_path.iterdir()):
        image = read_image(path)
        assert image.dtype == np.uint8
        assert image.shape == film.shape
        expected = np.rint(stretched / 4095 * 255) if path.suffix == ".dcm" else film
        tolerance = 8 if path.suffix == ".jpg" else 1
        assert np.abs(image.astype(int) - expected).max() <= tolerance, path.name


def test_a_large_jpeg_is_read_at_a_smaller_scale(film: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(film).resize((960, 960)).save(tmp_path / "large.jpg", quality=95)
    image = read_image(tmp_path / "large.jpg", at_least=224)
    assert 224 <= min(image.shape) < 960


def _truncated(path: Path, film: np.ndarray) -> None:
    Image.fromarray(film).resize((400, 400)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _noise(path: Path, film: np.ndarray) -> None:
    path.write_text("this is not an image")


def _colour(path: Path, film: np.ndarray) -> None:
    gradient = np.zeros((64, 64, 3), np.uint8)
    gradient[..., 0] = np.arange(64) * 4
    gradient[..., 2] = 255 - np.arange(64)[:, None] * 4
    Image.fromarray(gradient).save(path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("missing.png", lambda path, film: None, "no such image"),
        ("empty.png", lambda path, film: path.write_bytes(b""), "0 bytes"),
        ("cut.png", _truncated, "damaged or truncated"),
        ("cut.jpg", _truncated, "damaged or truncated"),
        ("text.png", _noise, "not a PNG, JPEG or DICOM"),
        ("photo.png", _colour, "colour picture"),
        ("tiny.png", lambda path, film: Image.fromarray(film[:8, :8]).save(path), "8 x 8 pixels"),
        ("blank.png", lambda path, film: Image.fromarray(film * 0 + 9).save(path), "blank"),
        ("text.dcm", _noise, "not a DICOM file"),
        ("cmyk.jpg", lambda path, film: Image.fromarray(film).convert("CMYK").save(path), "colour mode CMYK"),
    ],
)
def test_a_bad_picture_is_refused_by_name(
    name: str, write: Callable[[Path, np.ndarray], None], message: str, film: np.ndarray, tmp_path: Path
) -> None:
    write(tmp_path / name, film)
    with pytest.raises(InputError, match=message) as error:
        read_image(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "CT"}, "modality CT"),
        ({"Modality": None}, "modality missing"),
        ({"BodyPartExamined": "KNEE"}, "body part KNEE"),
        ({"PixelData": None}, "holds no pixels"),
        ({"NumberOfFrames": 4}, "several frames"),
        ({"PhotometricInterpretation": "RGB"}, "photometric interpretation RGB"),
        ({"PixelData": b"\0" * 100}, "cannot be decoded"),
    ],
)
def test_a_dicom_file_that_is_no_chest_radiograph_is_refused(
    tags: dict[str, object], message: str, film: np.ndarray, tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "file.dcm", film, **tags)
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert "file.dcm" in str(error.value)


def test_the_real_dicom_samples_are_read(dicom_samples: Path) -> None:
    images = {path.name: read_image(path) for path in sorted(dicom_samples.glob("*.dcm"))}
    assert images["CR-MONO1-10-chest.dcm"].shape == (440, 440)
    right, tagged = images["rsna_pa_jpeg_mono2.dcm"], images["rsna_pa_jpeg_fake_mono1.dcm"]
    assert np.abs(right.astype(int) + tagged - 255).max() <= 1  # the tag alone decides


def test_an_inverted_film_is_noticed_and_a_right_one_is_not() -> None:
    films = [draw_study(i, PhantomConfig(studies=30, size=96)).images[0] for i in range(30)]
    assert not any(looks_inverted(film) for film in films)
    assert sum(looks_inverted(255 - film) for film in films) > 20


def test_squares_have_the_model_s_size_whatever_the_image(film: np.ndarray) -> None:
    config = ImageConfig(size=64, resize=80)
    for image in (film, film[:, :50], film[:50]):
        assert evaluation_square(image, config).shape == (64, 64)
        assert training_square(image, config, np.random.default_rng(0)).shape == (64, 64)
    first, second = (training_square(film, config, np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_mirrored_exif_orientation_is_undone(film: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 2  # stored mirrored left to right
    Image.fromarray(film[:, ::-1].copy()).save(tmp_path / "mirrored.jpg", quality=98, exif=exif)
    assert np.abs(read_image(tmp_path / "mirrored.jpg").astype(int) - film).mean() < 2
