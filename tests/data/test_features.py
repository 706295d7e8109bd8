from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import small_config, small_model
from rayscribe.config import BackboneConfig, ImageConfig, TextConfig
from rayscribe.data import features
from rayscribe.data.dataset import Row, StudyDataset, collate
from rayscribe.data.features import FeatureCache, cached_features
from rayscribe.data.manifest import read_manifest
from rayscribe.data.split_reports import SplitReports
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError
from rayscribe.models.backbones import Backbone
from rayscribe.study import Study

IMAGES = ImageConfig(size=64, resize=68)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(name="test_resnet", trainable=False))


@pytest.fixture(scope="module")
def studies(world: Path) -> list[Study]:
    return list(read_manifest(world).studies[:20])


def rows_of(cache: FeatureCache, studies: list[Study]) -> list[bytes]:
    return [cache[sha256].tobytes() for study in studies for sha256 in study.sha256]


def test_cached_features_are_those_of_the_backbone(studies: list[Study], backbone: Backbone, tmp_path: Path) -> None:
    cache = cached_features(studies, backbone, IMAGES, folder=tmp_path)
    tokenizer = Tokenizer.build(["a"], threshold=1)
    reports = [""] * len(studies)
    text = TextConfig()
    from_files = StudyDataset(SplitReports(studies, reports), tokenizer, text=text, images=IMAGES)
    from_cache = StudyDataset(SplitReports(studies, reports), tokenizer, text=text, images=IMAGES, cache=cache)
    rows = [Row(study, 0) for study in range(6)]
    pixels, maps = collate([from_files[row] for row in rows]), collate([from_cache[row] for row in rows])
    assert pixels.pixels_BVHW is not None and maps.maps_BVNC is not None
    torch.testing.assert_close(backbone(pixels.pixels_BVHW, pixels.has_view_BV), maps.maps_BVNC, atol=2e-3, rtol=2e-3)


def test_filling_that_was_interrupted_goes_on_to_the_same_cache(
    studies: list[Study], backbone: Backbone, tmp_path: Path
) -> None:
    whole = cached_features(studies, backbone, IMAGES, folder=tmp_path / "whole")
    partial = cached_features(studies[:9], backbone, IMAGES, folder=tmp_path / "partial")
    data, index = partial.folder / "features.f16", partial.folder / "rows.txt"
    # As `kill -9` leaves it: a row that is not listed yet, and a line that was cut.
    data.write_bytes(data.read_bytes() + b"half a row")
    index.write_text(index.read_text()[:-5])
    resumed = cached_features(studies, backbone, IMAGES, folder=tmp_path / "partial")
    assert len(resumed) == len(whole)
    for first, second in zip(rows_of(resumed, studies), rows_of(whole, studies), strict=True):
        np.testing.assert_allclose(
            np.frombuffer(first, np.float16), np.frombuffer(second, np.float16), atol=2e-3, rtol=2e-3
        )


def test_a_second_run_computes_nothing(
    studies: list[Study], backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached_features(studies, backbone, IMAGES, folder=tmp_path)
    stamp = os.stat(first.folder / "features.f16").st_mtime_ns

    def fails(*arguments: object, **named: object) -> None:
        raise AssertionError("an image was read again")

    monkeypatch.setattr(features, "read_checked_image", fails)
    second = cached_features(studies, backbone, IMAGES, folder=tmp_path)
    assert rows_of(second, studies) == rows_of(first, studies)
    assert os.stat(second.folder / "features.f16").st_mtime_ns == stamp


def test_an_image_that_changed_since_the_manifest_is_refused(
    studies: list[Study], backbone: Backbone, tmp_path: Path
) -> None:
    copy = tmp_path / "film.png"
    copy.write_bytes(studies[1].images[0].read_bytes())
    swapped = replace(studies[0], images=(copy,), sha256=studies[0].sha256[:1])
    with pytest.raises(InputError, match=r"film\.png: the file changed since the manifest"):
        cached_features([swapped], backbone, IMAGES, folder=tmp_path)
    data = StudyDataset(
        SplitReports([swapped], [""]), Tokenizer.build(["a"], threshold=1), text=TextConfig(), images=IMAGES
    )
    with pytest.raises(InputError, match="the file changed"):
        data[Row(0, 0)]


def test_other_weights_or_sizes_have_another_cache(studies: list[Study], backbone: Backbone, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = Backbone(BackboneConfig(name="test_resnet", trainable=False))
    folders = {
        cached_features(studies[:1], one, images, folder=tmp_path).folder
        for one, images in ((backbone, IMAGES), (other, IMAGES), (backbone, replace(IMAGES, size=48)))
    }
    assert len(folders) == 3


def test_a_damaged_row_is_noticed(studies: list[Study], backbone: Backbone, tmp_path: Path) -> None:
    cache = cached_features(studies[:2], backbone, IMAGES, folder=tmp_path)
    path = cache.folder / "features.f16"
    content = bytearray(path.read_bytes())
    content[10] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged; delete the folder"):
        FeatureCache(cache.folder, *cache.shape)[studies[0].sha256[0]]


def test_studies_of_one_and_two_views_share_a_batch(studies: list[Study]) -> None:
    """The padded view changes nothing: each study encodes as it does alone."""
    one = replace(studies[0], images=studies[0].images[:1], sha256=studies[0].sha256[:1])
    mixed = [one, next(study for study in studies if len(study.images) == 2)]
    tokenizer = Tokenizer.build(["a b c d e f g h i"], threshold=1)
    model = small_model(vocabulary=tokenizer.size)
    config = small_config()
    data = StudyDataset(SplitReports(mixed, ["a b", "c d e"]), tokenizer, text=config.text, images=config.images)
    together = collate([data[Row(0, 0)], data[Row(1, 0)]])
    assert together.has_view_BV.tolist() == [[True, False], [True, True]]
    with torch.no_grad():
        both = model(together).logits_BTW
        for index in range(2):
            alone = model(collate([data[Row(index, 0)]])).logits_BTW
            torch.testing.assert_close(both[index : index + 1, : alone.shape[1]], alone, atol=1e-4, rtol=1e-3)


def test_a_flipped_study_swaps_its_sides(studies: list[Study]) -> None:
    tokenizer = Tokenizer.build(["left right ."], threshold=1)
    images = ImageConfig(size=64, resize=64, flip=True)
    split = SplitReports(studies[:1], ["left ."])
    data = StudyDataset(split, tokenizer, text=TextConfig(), images=images, augment=0)
    plain = StudyDataset(split, tokenizer, text=TextConfig(), images=replace(images, flip=False))
    original = plain[Row(0, 0)].images
    seen = set()
    for epoch in range(12):
        item = data[Row(0, epoch)]
        word = tokenizer.decode(item.tokens).split()[0]
        seen.add(word)
        np.testing.assert_array_equal(item.images, original[:, :, ::-1] if word == "right" else original)
    assert seen == {"left", "right"}
