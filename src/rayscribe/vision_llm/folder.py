"""A vision LLM's folder: adapters, processor, prompt, protocol, and the base model they belong to.

adapter_model.safetensors, adapter_config.json   peft's; absent if the base is used untuned
processor and tokenizer files                    transformers'; servers such as vLLM read them too
model.json                                       settings, the base model's id and digest, data, training
A merged folder contains the base as well (config.json, model*.safetensors) and is self-contained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError

from rayscribe import __version__
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import beside, check_new, sha256_of, write_text
from rayscribe.models.folder import VISION_LLM, origin_of, read_facts
from rayscribe.provenance import inherited, terms_of, write_training_images
from rayscribe.settings import from_plain, to_plain
from rayscribe.vision_llm.base import DTYPES, base_digest, base_folder, load_base, load_conversation
from rayscribe.vision_llm.config import LlmConfig
from rayscribe.vision_llm.conversation import Conversation

ADAPTERS = "adapter_model.safetensors"
HERE = "."
"Base of a folder that contains its own."


@dataclass(frozen=True, kw_only=True)
class TrainedLlm:
    """A vision LLM, tuned or untuned, with its prompt."""

    model: Any
    "peft's wrapper around transformers' model, or transformers' model itself"
    conversation: Conversation
    config: LlmConfig
    data: Mapping[str, Any]
    "the training manifest's provenance and digest; empty for an untuned base"
    training: Mapping[str, Any]
    base_sha256: str

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found

    @property
    def is_exact(self) -> bool:
        """Whether it computes in float32 throughout."""
        return self.config.weights == "float32" or self.config.train.precision == "float32"

    def arithmetic(self) -> torch.autocast:
        """Autocast to the run's precision, in which base weights and float32 adapters meet."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=not self.is_exact)


def save_llm(folder: Path, trained: TrainedLlm) -> None:
    """Writes adapters (if any), processor and card, and last model.json, which identifies the adapters by their digest."""
    with beside(folder) as made:
        trained.conversation.processor.save_pretrained(made)
        if isinstance(trained.model, PeftModel):
            for settings in trained.model.peft_config.values():
                settings.base_model_name_or_path = trained.config.base
            trained.model.save_pretrained(str(made), save_embedding_layers=False)  # "auto" would contact the hub
    write_text(folder / "README.md", _card(trained))
    adapters = folder / ADAPTERS
    about = {
        "format": VISION_LLM,
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "config": to_plain(trained.config),
        "base_sha256": trained.base_sha256,
        "adapters_sha256": sha256_of(adapters) if adapters.is_file() else None,
        "data": dict(trained.data),
        "training": dict(trained.training),
    }
    write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")


def load_llm(
    folder: Path, device: torch.device, *, base: str | None = None, download: bool = False, whole: bool = False
) -> TrainedLlm:
    """Loads a vision LLM's folder. Raises InputError that names the missing or mismatched part.

    `base`: the base model's new folder, if it was moved. `whole`: unquantised, whatever the settings say; for merging.
    """
    about = read_facts(folder, VISION_LLM)
    try:
        config = from_plain(LlmConfig, about["config"])
        data, training, base_sha256 = dict(about["data"]), dict(about["training"]), str(about["base_sha256"])
        adapters_sha256 = about["adapters_sha256"]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / 'model.json'}: {error!r}; the model was written by another version") from error
    place = (
        folder
        if config.base == HERE and base is None
        else base_folder(base or config.base, config.revision, download=download)
    )
    if (digest := base_digest(place)) != base_sha256:
        raise InputError(f"{place}: not the model that {folder} was tuned on ({digest[:12]}, not {base_sha256[:12]})")
    check_adapters(folder)
    unquantised = whole and config.weights in ("nf4", "int8")
    model = load_base(place, replace(config, weights="bfloat16") if unquantised else config, device)
    if adapters_sha256 is not None:
        model = _with_adapters(model, folder)
    conversation = load_conversation(folder, order=config.prompt.order, image_token=model.config.image_token_id)
    return TrainedLlm(
        model=model.eval(),
        conversation=conversation,
        config=config,
        data=data,
        training=training,
        base_sha256=base_sha256,
    )


def wrap_base(config: LlmConfig, out: Path, *, download: bool = False) -> None:
    """Writes a folder with a base model's prompt and no adapters, the untuned control of a tuned model."""
    check_new(out)
    place = base_folder(config.base, config.revision, download=download)
    model = load_base(place, config, torch.device("cpu"))
    conversation = load_conversation(place, image_token=model.config.image_token_id, order=config.prompt.order)
    data = inherited({}, origin_of(str(place)))
    wrapped = TrainedLlm(
        model=model, conversation=conversation, config=config, data=data, training={}, base_sha256=base_digest(place)
    )
    save_llm(out, wrapped)
    write_training_images(out, [], [str(place)])


def merge(folder: Path, out: Path, *, base: str | None = None, dtype: str = "bfloat16") -> None:
    """Writes base and adapters as one plain, self-contained transformers folder. Holds the base in memory once."""
    check_new(out)
    trained = load_llm(folder, torch.device("cpu"), base=base, whole=True)
    if not isinstance(trained.model, PeftModel):
        raise InputError(f"{folder}: contains no adapters to merge")
    whole = trained.model.merge_and_unload().to(DTYPES[dtype])
    with beside(out) as made:
        whole.save_pretrained(made)
        if whole.generation_config is not None:
            whole.generation_config.save_pretrained(made)
    config = replace(trained.config, base=HERE, revision="main", weights=dtype)  # type: ignore[arg-type]
    merged = replace(trained, model=whole, config=config, base_sha256=base_digest(out))
    save_llm(out, merged)
    write_training_images(out, [], [str(folder)])


def check_adapters(folder: Path) -> None:
    """Raises InputError unless the adapters are those that model.json names."""
    sha256, path = read_facts(folder, VISION_LLM)["adapters_sha256"], folder / ADAPTERS
    if sha256 is not None and not (path.is_file() and sha256_of(path) == sha256):
        raise InputError(
            f"{path}: missing, or not the adapters of model.json; copy the folder again, or resume the run"
        )


def _with_adapters(model: Any, folder: Path) -> PeftModel:
    try:
        for name in PeftConfig.from_pretrained(str(folder)).modules_to_save or []:
            model.get_submodule(name).float()  # as in training: peft would load it in the base's precision
        return PeftModel.from_pretrained(model, str(folder))
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{folder}: the adapters do not match their base model ({first})") from error


def _card(trained: TrainedLlm) -> str:
    config, training, data = trained.config, trained.training, trained.data
    tuned = _tuned(config, training) if training else "as it came"
    base = "in this folder" if config.base == HERE else f"{Path(config.base).name} ({config.revision})"
    return f"""# Vision LLM (rayscribe {__version__})

**{DISCLAIMER}**

| | |
|---|---|
| input | 1 to {config.prompt.max_views} chest X-rays of one study |
| output | {config.text.section}, cleaning: {config.text.cleaning} |
| base model | {base}, digest {trained.base_sha256[:16]} |
| tuned | {tuned} |
| training data | {data.get("source", "none")}, {data.get("counts", {})}, digest {data.get("digest", "")[:16]} |
| terms of the data | {terms_of(data)} |
| seed | {config.seed} |

Intended use: research. It writes what reports like those of its training data would say; it can state findings that are not
there and miss those that are. No decision about care may rest on it. The base model's licence holds as well.

Use it: `rayscribe generate --model THIS_FOLDER --data data.parquet --out predictions.jsonl`, or
`rayscribe predict IMAGE... --model THIS_FOLDER`.
"""


def _tuned(config: LlmConfig, training: Mapping[str, Any]) -> str:
    lora = f"LoRA rank {config.lora.rank}, alpha {config.lora.alpha}; loss on {config.train.loss_on}"
    step, scores = training["step"], training["validation"]
    if "reward" in training:
        return f"{lora}; then reward-trained: highest validation reward {scores['reward']:.4f}, at step {step}"
    return f"{lora}; lowest validation loss {scores['loss']:.4f}, at step {step}"
