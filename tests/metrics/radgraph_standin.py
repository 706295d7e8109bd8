"""A RadGraph model folder with random weights of a few thousand numbers, built from a config with the package's own classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the heart is normal small effusion no left right pneumothorax . clear lungs".split()
)
WORDS += ["a", "b", "1", "2"]  # the package tries its tokenizer with these


def write_standin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`folder`: named after the model type. The transformer lies beside the weights, so nothing is looked up in a hub."""
    bert = folder / "bert"
    bert.mkdir(parents=True)
    (bert / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (bert / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    ).save_pretrained(bert)
    vocabulary = folder / "vocabulary"
    vocabulary.mkdir()
    (vocabulary / "non_padded_namespaces.txt").write_text("*tags\n*labels\n")
    labels = "\nObservation::definitely present\nAnatomy::definitely present\n"
    (vocabulary / f"{folder.name}__ner_labels.txt").write_text(labels)
    (vocabulary / f"{folder.name}__relation_labels.txt").write_text("located_at\nmodify\n")
    embedder = {"type": "pretrained_transformer_mismatched", "model_name": "bert", "max_length": 16}
    layers = {"num_layers": 1, "hidden_dims": 8, "dropout": 0.4}
    spans = {"trigger_spans_per_word": 0.3, "argument_spans_per_word": 0.3}
    modules = {
        "coref": {"spans_per_word": 0.3, "max_antecedents": 10, "coref_prop": 0},
        "ner": {},
        "relation": {"spans_per_word": 0.5},
        "events": spans | {"loss_weights": {"trigger": 1.0, "arguments": 1.0}},
    }
    model = {
        "type": "dygie",
        "embedder": {"token_embedders": {"bert": embedder}},
        "initializer": {},
        "module_initializer": {},
        "feature_size": 4,
        "max_span_width": 3,
        "target_task": "relation",
        "feedforward_params": layers,
        "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
        "modules": modules,
    }
    reader = {"type": "dygie", "max_span_width": 3, "token_indexers": {"bert": embedder}}
    (folder / "config.json").write_text(json.dumps({"dataset_reader": reader, "model": model}))
    torch.save({}, folder / "weights.th")
    _write_weights(folder, monkeypatch)


def _write_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package's model starts from at random, caught where it would load the weights."""
    from radgraph.dygie.models.dygie import DyGIE

    from rayscribe.metrics.radgraph import RadGraph

    caught: dict[str, torch.Tensor] = {}

    def catch(self: torch.nn.Module, *_: object, **__: object) -> None:
        caught.update(self.state_dict())

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(DyGIE, "load_state_dict", catch)
        RadGraph.load(folder)
    torch.save(caught, folder / "weights.th")
