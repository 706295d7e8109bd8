from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer

from rayscribe.cli.main import run as run_verb
from rayscribe.config import TextConfig
from rayscribe.data import mining
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.mining import Texts, mine
from rayscribe.data.split_reports import cleaned_report
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.study import Study

WORDS = ("heart", "lungs", "clear", "effusion", "left", "right", "small", "normal", "no", "opacity", "edema", "size")


def reports(count: int, seed: int = 0, longest: int = 9) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(2, longest))) + " ." for _ in range(count)]


def studies(count: int, patients: int = 0) -> list[Study]:
    return [Study(id=f"s{i}", images=(), subject=f"p{i % patients}" if patients else "") for i in range(count)]


def sklearn_cosines(texts: list[str]) -> np.ndarray:
    vectors = TfidfVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False, stop_words=["."]).fit_transform(
        texts
    )
    return np.asarray((vectors @ vectors.T).todense())


def test_the_vectors_are_scikit_learn_s() -> None:
    texts = reports(40)
    vectors_NW = Texts.of(texts).dense()
    assert np.abs((vectors_NW @ vectors_NW.T).numpy() - sklearn_cosines(texts)).max() < 1e-6


def test_negatives_are_the_most_alike_of_other_patients_and_other_reports() -> None:
    texts, people = reports(300, longest=4), studies(300, patients=120)
    assert len(set(texts)) < 290, "some reports are equal"
    cosines = sklearn_cosines(texts)
    found = mine(people, texts, top=4)
    for row, negatives in enumerate(found):
        words = [sorted(text.split()) for text in texts]
        allowed = [i for i in range(300) if words[i] != words[row] and people[i].subject != people[row].subject]
        best = sorted((cosines[row, i] for i in allowed), reverse=True)[:4]
        assert [score for _, score in negatives] == pytest.approx(best, abs=1e-6)
        assert {i for i, _ in negatives} <= set(allowed)
        assert [cosines[row, i] for i, _ in negatives] == pytest.approx(best, abs=1e-6)


def test_the_same_words_in_another_order_or_punctuation_are_no_negative() -> None:
    texts = ["heart normal . lungs clear .", "lungs clear . . heart normal .", "heart large .", "lungs clear ."]
    found = mine(studies(4), texts, top=3)
    assert 0 not in dict(found[1]) and 1 not in dict(found[0])
    assert [len(one) for one in found] == [2, 2, 3, 3]


def test_unknown_patients_are_all_different() -> None:
    assert all(len(found) == 3 for found in mine(studies(20), reports(20), top=3))


def test_a_study_without_any_other_report_gets_none() -> None:
    assert mine(studies(3), ["heart .", "heart .", "heart ."], top=2) == [[], [], []]
    assert mine(studies(3), ["heart .", "heart .", "lungs ."], top=2) == [[(2, 0.0)], [(2, 0.0)], [(0, 0.0), (1, 0.0)]]


def test_labels_can_be_asked_to_differ() -> None:
    texts = reports(60)
    labels = [(i % 3,) for i in range(60)]
    for row, negatives in enumerate(mine(studies(60), texts, top=5, labels=labels)):
        assert negatives and all(labels[i] != labels[row] for i, _ in negatives)


def test_images_and_texts_share_the_score() -> None:
    texts = reports(50)
    vectors = torch.nn.functional.normalize(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    cosines, inspections = sklearn_cosines(texts), (vectors @ vectors.T).numpy()
    by_image = mine(studies(50), texts, top=1, images=vectors, with_text=False)
    by_both = mine(studies(50), texts, top=1, images=vectors)
    for row, ((image, image_score),), ((both, both_score),) in zip(range(50), by_image, by_both, strict=True):
        assert image_score == pytest.approx(inspections[row, image], abs=1e-5)
        assert both_score == pytest.approx((inspections[row, both] + cosines[row, both]) / 2, abs=1e-5)


def test_many_reports_are_ranked_by_exact_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the size of an exact search, candidates come from random directions; their scores are exact."""
    texts = [a + " " + b for a, b in itertools.product(reports(25, seed=1), reports(20, seed=2))]
    exact = mine(studies(500), texts, top=3)
    monkeypatch.setattr(mining, "_EXACT", 0)
    thinned = mine(studies(500), texts, top=3)
    cosines = sklearn_cosines(texts)
    for row, negatives in enumerate(thinned):
        assert [score for _, score in negatives] == pytest.approx([cosines[row, i] for i, _ in negatives], abs=1e-5)
    images = torch.nn.functional.normalize(torch.randn(500, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    for row, negatives in enumerate(mine(studies(500), texts, top=3, images=images)):
        both = [(cosines[row, i] + float(images[row] @ images[i])) / 2 for i, _ in negatives]
        assert [score for _, score in negatives] == pytest.approx(both, abs=1e-5)
    lost = [first[0][1] - second[0][1] for first, second in zip(exact, thinned, strict=True)]
    assert min(lost) > -1e-5 and np.mean(lost) < 0.01


def test_the_manifest_holds_negatives_of_the_training_split_alone(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mined.parquet"
    printed = rayscribe("build", "negatives", world, "--out", out, "--top", 3)
    assert "42 training studies" in printed and "rayscribe train r2gen_cmn+ithn" in printed
    before, after = read_manifest(world), read_manifest(out)
    assert after.digest() == before.digest(), "negatives are no data: scores stay comparable"
    assert after.digest_with_negatives() != before.digest_with_negatives()
    assert after.provenance["negatives"]["by"] == "text"
    texts = {study.id: cleaned_report(study, TextConfig()) for study in after.split("train")}
    for study in after.studies:
        assert len(study.negatives) == len(study.negative_scores) == (3 if study.split == "train" else 0)
        assert all(texts[id_] != texts[study.id] for id_ in study.negatives)


def test_one_patient_alone_has_no_negatives(world: Path, tmp_path: Path) -> None:
    manifest = read_manifest(world)
    rows = tuple(replace(study, subject="one") for study in manifest.studies)
    write_manifest(tmp_path / "one.parquet", Manifest(studies=rows, provenance={"source": "phantom"}))
    with pytest.raises(InputError, match="every two training studies are of one patient"):
        run_verb(["build", "negatives", str(tmp_path / "one.parquet"), "--out", str(tmp_path / "m.parquet")])
    assert not (tmp_path / "m.parquet").exists()


def test_mining_by_image_needs_trained_weights(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    message = rayscribe("build", "negatives", world, "--out", tmp_path / "m.parquet", "--by", "image", code=1)
    assert "--backbone.weights" in message


def test_mining_without_reports_says_so(rayscribe: Callable[..., str], world: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "m.parquet", "--section", "impression")
    assert "0 training studies have the section" in rayscribe("build", "negatives", world, *options, code=1)
    assert not (tmp_path / "m.parquet").exists()


def test_mining_by_image_finds_the_same_picture_again(
    rayscribe: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    """Nearly the same picture under another name and report is the nearest negative; an exact copy is none."""
    from safetensors.torch import save_file

    from rayscribe.config import BackboneConfig
    from rayscribe.models.backbones import Backbone

    torch.manual_seed(0)
    net = Backbone(BackboneConfig(name="test_resnet", trainable=False)).net
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    manifest = read_manifest(world)
    first = next(study for study in manifest.studies if study.split == "train")
    copy = replace(first, id="copy", subject="", findings="Entirely other words.")
    pixels = np.array(Image.open(first.images[0]))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "alike.png")
    others = (tmp_path / "alike.png", *first.images[1:]), (sha256_of(tmp_path / "alike.png"), *first.sha256[1:])
    alike = replace(copy, id="alike", findings="Yet other words.", images=others[0], sha256=others[1])
    rows = (*manifest.studies, copy, alike)
    write_manifest(tmp_path / "two.parquet", Manifest(studies=rows, provenance={"source": "phantom"}))
    out = tmp_path / "mined.parquet"
    options = ("--backbone.name", "test_resnet", "--backbone.weights", tmp_path / "weights.safetensors")
    options += ("--images.size", 64, "--images.resize", 68, "--features", tmp_path / "features")
    rayscribe("build", "negatives", tmp_path / "two.parquet", "--out", out, "--by", "image", *options)
    mined = {study.id: study for study in read_manifest(out).studies}
    assert mined[first.id].negatives[0] == mined["copy"].negatives[0] == "alike"
    assert mined["alike"].negatives[0] in ("copy", first.id)
    assert "copy" not in mined[first.id].negatives and first.id not in mined["copy"].negatives


@pytest.mark.slow
def test_iu_reports_never_meet_their_copies(iu_root: Path) -> None:
    """2,069 training reports are 1,726 texts."""
    from rayscribe.data.iu_xray import read_iu_xray

    train = [study for study in read_iu_xray(iu_root) if study.split == "train"]
    texts = [cleaned_report(study, TextConfig()) for study in train]
    assert (len(texts), len(set(texts))) == (2069, 1726)
    for row, negatives in enumerate(mine(train, texts, top=5)):
        assert len(negatives) == 5
        assert all(texts[i] != texts[row] for i, _ in negatives)
