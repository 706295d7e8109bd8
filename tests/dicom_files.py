"""Synthetic radiographs as DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def radiograph(pixels: np.ndarray, **tags: object) -> FileDataset:
    """16 bits allocated, 12 stored, MONOCHROME2; `tags` replace what is set, None removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PhotometricInterpretation = "DX", "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 1 if pixels.dtype.kind == "i" else 0
    bits = 8 if pixels.dtype.itemsize == 1 else 16
    data.BitsAllocated, data.BitsStored = bits, min(bits, 12)
    data.HighBit = data.BitsStored - 1
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in tags.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    return data


def saved(path: Path, data: FileDataset) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def ramp(height: int = 48, width: int = 40, *, highest: int = 4095) -> np.ndarray:
    """Every row another part of the range, so that no flip or shift goes unnoticed."""
    values = np.arange(height * width, dtype=np.int64) * 2654435761 % (highest + 1)
    values[:2] = 0, highest
    return values.reshape(height, width).astype(np.uint16)
