"""The base model of a vision LLM: from a folder, or from the Hugging Face hub if the user asks for it."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from rayscribe.errors import InputError
from rayscribe.vision_llm import tower  # noqa: F401  # registers the composed models with transformers
from rayscribe.vision_llm.config import LlmConfig
from rayscribe.vision_llm.conversation import Conversation
from rayscribe.vision_llm.costs import meta_model
from rayscribe.vision_llm.lora import kept_whole

# peft calls transformers 5.24 by a deprecated name.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model"]  # not the folder original/ of Llama's
_SAMPLE = 1 << 12  # bytes at either end of every tensor that enter a base's digest


def base_folder(place: str, revision: str = "main", *, download: bool = False) -> Path:
    """The base model's folder on this disk. The hub is contacted only with `download`, and never for pickles."""
    if not place:
        raise InputError("--base: give the model to tune, a folder or an id on the Hugging Face hub")
    if Path(place).is_dir():
        if not (Path(place) / "config.json").is_file():
            raise InputError(f"{place}: not a transformers model (no config.json)")
        return Path(place)
    try:
        return Path(snapshot_download(place, revision=revision, allow_patterns=_FILES, local_files_only=not download))
    except GatedRepoError as error:
        raise InputError(
            f"{place}: accept its licence first: sign in at https://huggingface.co/{place}, accept it there, then "
            "`hf auth login` here and repeat; or give a folder that contains the model"
        ) from error
    except (OSError, ValueError) as error:
        if download:
            raise InputError(
                f"{place}: could not be fetched ({_first(error)}); check the id and the connection"
            ) from error
        raise InputError(f"{place}: not on this disk; --download fetches it from the Hugging Face hub") from error


def load_conversation(folder: Path, *, image_token: int, order: str) -> Conversation:
    """Processor and chat template of a folder. `image_token`: the id that represents a piece of an image."""
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its processor cannot be read ({_first(error)})") from error
    if not processor.chat_template and "suffix" not in inspect.signature(processor.__call__).parameters:
        raise InputError(
            f"{folder}: its processor has no chat template; use the instruction-tuned version of the model"
        )
    if not processor.chat_template and order != "images-first":
        raise InputError(f"--prompt.order {order}: {folder} has no chat template, and always sees the images first")
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token  # masked by attention, so any token will do
    return Conversation(processor=processor, images_first=order == "images-first", image_tokens=(image_token,))


def load_base(folder: Path, config: LlmConfig, device: torch.device) -> Any:
    """The model in evaluation mode, its weights stored as `config.weights` says. Raises InputError."""
    try:
        quantised = _quantisation(folder, config)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=DTYPES.get(config.weights, _compute(config)),
            quantization_config=quantised,
            device_map={"": device} if quantised else None,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"{folder}: not a readable vision LLM ({_first(error)}); it needs config, processor and safetensors"
        ) from error
    model, loading = loaded
    # transformers would silently initialise these at random.
    if missing := sorted(loading["missing_keys"]):
        raise InputError(f"{folder}: its safetensors lack {len(missing)} tensors, e.g. {missing[0]}; copy it again")
    if not quantised:
        model.to(device)
    return model.eval()


def base_digest(folder: Path) -> str:
    """Digest of the config and of the weight files' sizes, all tensor names and shapes, and both ends of every tensor.

    Every tensor counts, because tuning leaves most unchanged: two models tuned from one base can start with gigabytes of equal
    weights.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(f"{path.name} {os.path.getsize(path)}".encode())
            try:
                header = file.read(int.from_bytes(file.read(8), "little"))
                places = [entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"]
                start = file.tell()
                digest.update(header)
                for begin, end in places:
                    for place in (begin, max(begin, end - _SAMPLE)):
                        file.seek(start + place)
                        digest.update(file.read(min(_SAMPLE, end - begin)))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
                raise InputError(f"{path}: damaged ({error!r}); copy it again") from error
    return digest.hexdigest()


def _quantisation(folder: Path, config: LlmConfig) -> BitsAndBytesConfig | None:
    """The seed system's quantisation: nf4 with double quantisation; never the word head and the projector."""
    if config.weights not in ("nf4", "int8"):
        return None
    whole = kept_whole(meta_model(AutoConfig.from_pretrained(folder, local_files_only=True)))
    if config.weights == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_compute(config),
        llm_int8_skip_modules=whole,
    )


def _compute(config: LlmConfig) -> torch.dtype:
    """The data type in which a quantised model computes."""
    return DTYPES[config.train.precision]


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
