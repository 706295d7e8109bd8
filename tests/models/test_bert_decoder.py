from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import small_config
from methods.test_promptmrg import batch_of
from rayscribe.checkpoint import TrainedModel, load_model, save_model
from rayscribe.config import RunConfig
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.methods import find_method
from rayscribe.methods.build import build_model
from rayscribe.methods.promptmrg import promptmrg_bert
from rayscribe.models.bert_decoder import BertDecoder, start_from_bert, word_vectors
from rayscribe.models.decoding import Vocabulary, decode
from rayscribe.models.layers import Encoded
from rayscribe.training.run import train_method

pytest.importorskip("transformers", reason="the BERT decoder is an extra")


def bert_config(method: str = "promptmrg", **model: object) -> RunConfig:
    config = small_config(method, epochs=1)
    model = {"decoder": "bert", "encoder_layers": 0} | model
    return replace(config, model=replace(config.model, **model))  # type: ignore[arg-type]


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT of the small model's sizes, with word pieces of its own."""
    import transformers

    folder = tmp_path / "bert"
    folder.mkdir()
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "heart",
        "lung",
        "##s",
        "card",
        "##io",
        "##meg",
        "##aly",
        ".",
    ]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    torch.manual_seed(5)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    transformers.BertTokenizerFast(vocab={piece: place for place, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def test_the_published_size_is_that_of_bert() -> None:
    """12 layers of width 768 that look at 2,048 channels (spec B1); words are ours, so only they differ in number."""
    model = promptmrg_bert().model
    with torch.device("meta"):
        decoder = BertDecoder(model, vocabulary=761, channels=2048, states=4, positions=512)
    layers = 12 * (7_087_872 + 2 * (768 * 768 + 768) + 2 * (2048 * 768 + 768) + 2 * 768)
    words = 761 * 768 + 512 * 768 + 4 * 768 + 2 * 768
    head = 768 * 768 + 768 + 2 * 768 + 761
    assert sum(parameter.numel() for parameter in decoder.parameters()) == layers + words + head


def test_a_model_with_words_used_twice_is_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = Tokenizer.build(["the heart is large ."], threshold=1)
    config = bert_config()
    torch.manual_seed(0)
    model = build_model(config, tokenizer.size).eval()
    save_model(
        tmp_path,
        TrainedModel(
            method=find_method(config.system),
            model=model,
            tokenizer=tokenizer,
            config=config,
            data={},
            training={},
        ),
    )
    loaded = load_model(tmp_path).model
    batch = replace(batch_of(), tokens_BT=batch_of().tokens_BT.clamp(max=tokenizer.size - 1))
    with torch.no_grad():
        assert torch.equal(loaded(batch).logits_BTW, model(batch).logits_BTW)
    assert isinstance(loaded.decoder, BertDecoder)
    assert loaded.decoder.head.weight is loaded.decoder.language.bert.embeddings.word_embeddings.weight


def test_a_word_starts_as_the_mean_of_its_pieces_and_a_layer_as_bert_has_it(bert: Path) -> None:
    words = ("<unk>", "cardiomegaly", "lungs")
    decoder = build_model(bert_config(), 6).decoder
    assert isinstance(decoder, BertDecoder)
    start_from_bert(decoder, bert, words, first=3)
    import transformers

    whole = transformers.BertForMaskedLM.from_pretrained(bert)
    pieces = whole.bert.embeddings.word_embeddings.weight
    own = decoder.language.bert.embeddings.word_embeddings.weight
    assert torch.allclose(own[4], pieces[[8, 9, 10, 11]].mean(0)) and torch.allclose(own[5], pieces[[6, 7]].mean(0))
    assert set(word_vectors(bert, ["heart"])) == {"heart"}
    for ours, theirs in zip(decoder.language.bert.encoder.layer, whole.bert.encoder.layer, strict=True):
        assert torch.equal(ours.attention.self.query.weight, theirs.attention.self.query.weight)
        assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight)
    assert torch.equal(
        decoder.language.cls.predictions.transform.dense.weight, whole.cls.predictions.transform.dense.weight
    )
    positions = decoder.language.bert.embeddings.position_embeddings.weight
    assert torch.equal(positions[:40], whole.bert.embeddings.position_embeddings.weight)


def test_a_bert_of_other_sizes_or_no_bert_is_refused(bert: Path, tmp_path: Path) -> None:
    decoder = build_model(bert_config(decoder_layers=3), 6).decoder
    assert isinstance(decoder, BertDecoder)
    with pytest.raises(InputError, match=r"not a BERT with this run's --model.decoder-layers"):
        start_from_bert(decoder, bert, ["a"], first=3)
    with pytest.raises(InputError, match=r"model\.safetensors: no BERT weights"):
        start_from_bert(decoder, tmp_path / "nowhere", ["a"], first=3)


@pytest.mark.slow
def test_a_run_from_bert_needs_nothing_of_it_afterwards(bert: Path, world: Path, tmp_path: Path) -> None:
    config = bert_config("kif", decoder_weights=str(bert))
    config = replace(config, method=replace(config.method, width=32))
    said: list[str] = []
    train_method(config, world, tmp_path / "run", notify=said.append)
    assert any("of the graph, too" in line for line in said)
    shutil.rmtree(bert)
    trained = load_model(tmp_path / "run")
    assert isinstance(trained.model.decoder, BertDecoder) and (tmp_path / "run" / "graph.json").is_file()


@pytest.mark.parametrize("method", ["jima", "r2gen", "r2gen_cmn"])
def test_methods_that_reach_into_the_decoder_have_ours(method: str) -> None:
    with pytest.raises(InputError, match=rf"--model.decoder bert: {method} needs the decoder `own`"):
        bert_config(method)


def test_the_decoder_learns_through_image_prompt_and_words() -> None:
    config = bert_config("kif")
    model = build_model(config, 12, find_method(config.system).resources(config, None)).train()
    model(batch_of()).logits_BTW.square().sum().backward()
    grads = {name: parameter.grad for name, parameter in model.decoder.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert grads["states.weight"] is not None and (grads["states.weight"] != 0).any()


def test_more_words_than_places_are_refused() -> None:
    config = bert_config()
    model = build_model(config, 12, find_method(config.system).resources(config, None)).eval()
    channels = model.decoder.language.config.encoder_hidden_size
    encoded = Encoded(
        torch.randn(1, 4, channels), torch.ones(1, 4, dtype=torch.bool), prompt_BO=torch.zeros(1, 18, dtype=torch.long)
    )
    most = model.decoder.language.config.max_position_embeddings - 18
    own = Vocabulary(pad=0, begin=1, end=2)
    settings = DecodingConfig(beams=1, min_tokens=most)
    ((found,),) = decode(model.decoder, encoded, own, settings, max_tokens=most)
    assert len(found.tokens) == most
    with pytest.raises(InputError, match=f"positions for at most {most} words"):
        decode(model.decoder, encoded, own, settings, max_tokens=most + 1)
