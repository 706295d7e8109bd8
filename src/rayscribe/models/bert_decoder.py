"""A BERT decoder in place of ours: transformers' `BlipTextLMHeadModel`, as PromptMRG uses it (spec part B).

Causal self-attention, then attention to the image encoder's own features, then feed-forward; post-norm; words and positions are
learned; the output layer is the word embedding. Words come from our vocabulary instead of word pieces, so that all methods are
evaluated alike; with a BERT on disk, a word starts as the mean of its pieces.

Shapes: B studies, T positions, O states of the prompt, K beams, N patches, C channels, W vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rayscribe.config import ModelConfig
from rayscribe.errors import InputError
from rayscribe.models.layers import Encoded

_INSTALL = "install it: pip install 'rayscribe[bert]'"


@dataclass(slots=True)
class BertCache:
    """Keys and values of K beams per study, one after another."""

    past: Any
    features_RNC: Tensor
    has_patch_RN: Tensor
    beams: int

    def reorder(self, parents_BK: Tensor) -> None:
        """Continues beam k from beam parents[k]. The image features are the same for all beams of a study."""
        first_B1 = torch.arange(len(parents_BK), device=parents_BK.device)[:, None] * self.beams
        self.past.self_attention_cache.reorder_cache((first_B1 + parents_BK).flatten())


class BertDecoder(nn.Module):
    """Has the interface of `Decoder`: words so far and patches to scores of the next word."""

    def __init__(self, model: ModelConfig, *, vocabulary: int, channels: int, states: int, positions: int) -> None:
        super().__init__()
        self.language: Any = _language_model(model, vocabulary, channels, positions)
        self.states = nn.Embedding(states, model.width) if states else None
        if self.states is not None:
            nn.init.normal_(self.states.weight, std=0.02)  # as for BERT's words

    @property
    def head(self) -> nn.Linear:
        """Hidden states (..., D) to scores (..., W); its weight is the word embedding."""
        layer: nn.Linear = self.language.cls.predictions.decoder
        return layer

    def forward(self, tokens_BT: Tensor, encoded: Encoded) -> Tensor:
        """Hidden states (B, T, D) under teacher forcing; `head` turns them into scores."""
        prompt_BOD = self._prompt(encoded)
        x_BTD = torch.cat([prompt_BOD, self._words(tokens_BT)], dim=1)
        return self._hidden(x_BTD, encoded.features_BND, encoded.has_patch_BN)[:, prompt_BOD.shape[1] :]

    def start(self, encoded: Encoded, *, beams: int, positions: int) -> BertCache:
        """A cache for K beams per study that holds the prompt. Raises InputError for more words than there are positions."""
        from transformers import DynamicCache, EncoderDecoderCache

        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        prompt_BOD = self._prompt(encoded)
        most = self.language.config.max_position_embeddings - prompt_BOD.shape[1]
        if positions > most:
            raise InputError(f"--decoding.max-tokens {positions}: this model has positions for at most {most} words")
        if prompt_BOD.shape[1]:
            self._hidden(prompt_BOD, encoded.features_BND, encoded.has_patch_BN, past)
            past.batch_repeat_interleave(beams)
        features_RNC, has_patch_RN = (
            x.repeat_interleave(beams, dim=0) for x in (encoded.features_BND, encoded.has_patch_BN)
        )
        return BertCache(past, features_RNC, has_patch_RN, beams)

    def step(self, tokens_BK: Tensor, cache: BertCache) -> Tensor:
        """Feeds one word to each of K beams; returns the scores (B, K, W) of the next one."""
        words_R1D = self._words(tokens_BK.flatten()[:, None])
        hidden_R1D = self._hidden(words_R1D, cache.features_RNC, cache.has_patch_RN, cache.past)
        scores_RW: Tensor = self.head(hidden_R1D[:, 0])
        return scores_RW.unflatten(0, tokens_BK.shape)

    def _prompt(self, encoded: Encoded) -> Tensor:
        if self.states is None:
            return encoded.features_BND.new_zeros(len(encoded.features_BND), 0, self.head.in_features)
        assert encoded.prompt_BO is not None
        states_BOD: Tensor = self.states(encoded.prompt_BO)
        return states_BOD

    def _words(self, tokens_BT: Tensor) -> Tensor:
        words_BTD: Tensor = self.language.bert.embeddings.word_embeddings(tokens_BT)
        return words_BTD

    def _hidden(self, x_BTD: Tensor, features_BNC: Tensor, has_patch_BN: Tensor, past: Any = None) -> Tensor:
        states = self.language.bert(
            inputs_embeds=x_BTD.clone(),  # cloned: the model adds the positions in place
            encoder_hidden_states=features_BNC,
            encoder_attention_mask=has_patch_BN.long(),
            cache=past,
            use_cache=past is not None,
            is_decoder=True,
        ).last_hidden_state
        hidden_BTD: Tensor = self.language.cls.predictions.transform(states)
        return hidden_BTD


def _language_model(model: ModelConfig, vocabulary: int, channels: int, positions: int) -> nn.Module:
    try:
        from transformers import BlipTextConfig  # seconds to import; only needed here
        from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel
    except ImportError as error:
        raise InputError(f"--model.decoder bert needs the library transformers ({error}); {_INSTALL}") from error
    config = BlipTextConfig(
        vocab_size=vocabulary,
        encoder_hidden_size=channels,
        hidden_size=model.width,
        intermediate_size=model.feedforward,
        num_hidden_layers=model.decoder_layers,
        num_attention_heads=model.heads,
        max_position_embeddings=positions,
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.dropout,
        layer_norm_eps=1e-12,
        is_decoder=True,
    )
    language: nn.Module = BlipTextLMHeadModel(config)
    return language


def start_from_bert(decoder: BertDecoder, folder: Path, words: Sequence[str], *, first: int) -> None:
    """Copies a BERT's layers and positions; each word starts as the mean of its pieces. `first`: id of the first word.

    The folder holds model.safetensors and a tokenizer, as transformers saves them. Attention to the image is new and stays
    random, as in BLIP. Raises InputError where a part is missing or of another size.
    """
    state = _bert_state(folder)
    parts: list[tuple[nn.Module, str]] = [(decoder.language.bert.embeddings.LayerNorm, "embeddings.LayerNorm.")]
    for number, layer in enumerate(decoder.language.bert.encoder.layer):
        start = f"encoder.layer.{number}."
        parts += [
            (layer.attention, start + "attention."),
            (layer.intermediate, start + "intermediate."),
            (layer.output, start + "output."),
        ]
    if "cls.predictions.transform.dense.weight" in state:
        parts.append((decoder.language.cls.predictions.transform, "cls.predictions.transform."))
    positions = decoder.language.bert.embeddings.position_embeddings.weight
    try:
        for part, prefix in parts:
            part.load_state_dict({name: state[prefix + name] for name in part.state_dict()})
        places = state["embeddings.position_embeddings.weight"]
        known = min(len(positions), len(places))
        with torch.no_grad():
            positions[:known] = places[:known]
            for place, vector_D in enumerate(word_vectors(folder, words).values(), first):
                decoder.language.bert.embeddings.word_embeddings.weight[place] = vector_D
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"{folder}: not a BERT with this run's --model.decoder-layers, --model.width and --model.feedforward ({error})"
        ) from error


def word_vectors(folder: Path, words: Sequence[str]) -> dict[str, Tensor]:
    """The mean embedding (D) of each word's pieces in the BERT on disk. Raises InputError without weights or tokenizer."""
    from transformers import AutoTokenizer

    pieces_PD = _bert_state(folder)["embeddings.word_embeddings.weight"]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no BERT tokenizer ({error}); copy the whole folder") from error
    found = tokenizer(list(words), add_special_tokens=False)["input_ids"]
    return {
        word: pieces_PD[pieces].mean(0) if pieces else pieces_PD.mean(0)
        for word, pieces in zip(words, found, strict=True)
    }


def _bert_state(folder: Path) -> Mapping[str, Tensor]:
    path = folder / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: no BERT weights ({error}); give a folder that transformers' save_pretrained wrote"
        ) from error
    return {name.removeprefix("bert."): tensor for name, tensor in state.items()}
