"""CheXbert from weights on disk; a small BERT from a config stands in for the published one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rayscribe.errors import InputError
from rayscribe.labels import CHEXBERT_ORDER, NEGATIVE, NOT_MENTIONED, OBSERVATIONS, POSITIVE
from rayscribe.metrics.chexbert import CheXbert, in_our_order

transformers = pytest.importorskip("transformers", reason="needs transformers")

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the heart is normal large effusion no left right . ##s".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=512,
    )
    config.to_json_file(folder / "config.json")
    torch.manual_seed(0)
    bert = transformers.BertModel(config)
    weights = {f"module.bert.{name}": value for name, value in bert.state_dict().items()}
    weights["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    for place in range(14):
        states = 4 if place < 13 else 2
        weights[f"module.linear_heads.{place}.weight"] = torch.randn(states, 16)
        weights[f"module.linear_heads.{place}.bias"] = torch.randn(states)
    torch.save({"model_state_dict": weights, "epoch": 3}, folder / "chexbert.pth")
    return folder / "chexbert.pth", folder


def test_columns_are_reordered_by_name() -> None:
    theirs = np.array([[place + 1 for place in range(14)]], np.int8)
    ours = in_our_order(theirs)[0]
    assert sorted(CHEXBERT_ORDER) == sorted(OBSERVATIONS)
    for place, name in enumerate(CHEXBERT_ORDER):
        assert ours[OBSERVATIONS.index(name)] == place + 1
    assert ours[0] == 14  # No Finding is CheXbert's last
    assert ours[OBSERVATIONS.index("Lung Lesion")] == 4  # and opacity comes before lesion there


def test_states_are_those_of_the_network_itself(files: tuple[Path, Path]) -> None:
    checkpoint, folder = files
    labeler = CheXbert.load(checkpoint, folder)
    reports = ["the heart is normal .", "no left effusion . the heart is large .", "effusion"]
    found = labeler.label(reports)
    weights = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    bert = transformers.BertModel(transformers.BertConfig.from_json_file(str(folder / "config.json"))).eval()
    bert.load_state_dict(
        {n.removeprefix("module.bert."): v for n, v in weights.items() if ".bert." in n and "position_ids" not in n}
    )
    for row, report in enumerate(reports):
        ids = [2, *(WORDS.index(word) for word in report.split()), 3]
        with torch.no_grad():
            first = bert(input_ids=torch.tensor([ids])).last_hidden_state[0, 0]
        for place, name in enumerate(CHEXBERT_ORDER):
            scores = (
                weights[f"module.linear_heads.{place}.weight"] @ first + weights[f"module.linear_heads.{place}.bias"]
            )
            assert found[row, OBSERVATIONS.index(name)] == int(scores.argmax())


def test_a_report_longer_than_bert_is_cut(files: tuple[Path, Path]) -> None:
    labeler = CheXbert.load(*files)
    long = " ".join(["effusion"] * 900)
    assert (labeler.label([long]) == labeler.label([" ".join(["effusion"] * 510)])).all()
    assert labeler.label([]).shape == (0, 14)


def test_two_checkpoints_have_two_names(files: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, folder = files
    content = torch.load(checkpoint, weights_only=True)
    content["epoch"] = 4
    torch.save(content, tmp_path / "other.pth")
    assert CheXbert.load(checkpoint, folder).name != CheXbert.load(tmp_path / "other.pth", folder).name


def test_wrong_files_are_refused_with_their_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = files
    with pytest.raises(InputError, match=r"none\.pth: missing"):
        CheXbert.load(tmp_path / "none.pth", folder)
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"bad\.pth: not readable"):
        CheXbert.load(tmp_path / "bad.pth", folder)
    torch.save({"model_state_dict": {"module.linear_heads.0.weight": torch.zeros(4, 16)}}, tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"part\.pth: not CheXbert's weights"):
        CheXbert.load(tmp_path / "part.pth", folder)


def test_the_codes_of_the_states_are_ours() -> None:
    assert (NOT_MENTIONED, POSITIVE, NEGATIVE) == (0, 1, 2)
