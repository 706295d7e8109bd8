"""CheXbert (Smit et al., 2020): BERT with one classifier per observation, from a checkpoint on disk.

Neither shipped nor downloaded: the checkpoint is the published `chexbert.pth`; BERT's config and vocabulary come from a
local folder of bert-base-uncased.

Shapes: B reports of a batch, T tokens, D width, R reports.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.labels import CHEXBERT_ORDER, OBSERVATIONS, Labels

_LONGEST = 512  # tokens, BERT's limit; the released wrapper crashes on longer reports, ours truncates them
_BATCH = 32


@dataclass(frozen=True, slots=True)
class CheXbert:
    """A labeler; `CheXbert.load(checkpoint, folder)` loads one."""

    name: str
    encoder: Any
    heads: Any
    tokenizer: Any

    @classmethod
    def load(cls, checkpoint: Path, folder: Path) -> CheXbert:
        """Loads the published weights `checkpoint` into the BERT whose config.json and vocab.txt are in `folder`.

        Raises InputError where transformers or a file is missing, or where the weights do not fit.
        """
        try:
            import torch  # seconds to import; only needed here
            from transformers import BertConfig, BertModel, BertTokenizer
        except ImportError as error:
            raise InputError("CheXbert needs transformers; install it: pip install 'rayscribe[chexbert]'") from error
        for path in (checkpoint, folder / "config.json", folder / "vocab.txt"):
            if not path.is_file():
                raise InputError(
                    f"{path}: missing; CheXbert needs its checkpoint, and a BERT folder with config.json and vocab.txt"
                )
        try:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise InputError(f"{checkpoint}: not readable as plain weights ({error}); download it again") from error
        weights = _plain_names(content.get("model_state_dict", content) if isinstance(content, dict) else {})
        config = BertConfig.from_json_file(str(folder / "config.json"))
        encoder = BertModel(config, add_pooling_layer=any(name.startswith("bert.pooler.") for name in weights))
        heads = torch.nn.ModuleList(torch.nn.Linear(config.hidden_size, 4) for _ in CHEXBERT_ORDER[:-1])
        heads.append(torch.nn.Linear(config.hidden_size, 2))
        both = torch.nn.ModuleDict({"bert": encoder, "linear_heads": heads})
        try:
            both.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(f"{checkpoint}: not CheXbert's weights for the BERT in {folder}: {error}") from error
        return cls(
            name=f"chexbert {sha256_of(checkpoint)[:12]}",
            encoder=encoder.eval(),
            heads=heads.eval(),
            tokenizer=BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True),
        )

    def label(self, reports: Sequence[str]) -> Labels:
        """States of `rayscribe.labels`, int8 (R, 14), in the order of `OBSERVATIONS`."""
        import torch

        if not reports:
            return np.zeros((0, len(OBSERVATIONS)), np.int8)
        # Reports of similar length share a batch, which saves padding.
        order = sorted(range(len(reports)), key=lambda row: len(reports[row]))
        found = np.zeros((len(reports), len(CHEXBERT_ORDER)), np.int8)
        with torch.no_grad():
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                batch = self.tokenizer(
                    [" ".join(reports[row].split()) for row in rows],
                    padding=True,
                    truncation=True,
                    max_length=_LONGEST,
                    return_tensors="pt",
                )
                hidden_BTD = self.encoder(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
                ).last_hidden_state
                for place, head in enumerate(self.heads):
                    found[rows, place] = head(hidden_BTD[:, 0]).argmax(1).numpy()
        return in_our_order(found)


def in_our_order(labels_RO: Labels) -> Labels:
    """Reorders columns (R, 14) from CheXbert's order to that of `OBSERVATIONS`; both use the same codes for the states."""
    return labels_RO[:, [CHEXBERT_ORDER.index(name) for name in OBSERVATIONS]]


def _plain_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Drops the prefix of data-parallel training, and the position ids that newer BERTs do not store."""
    names = {name: name.removeprefix("module.") for name in weights}
    return {plain: weights[name] for name, plain in names.items() if not plain.endswith("embeddings.position_ids")}
