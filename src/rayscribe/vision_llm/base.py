"""The base model of a vision LLM: from a folder, or from the Hugging Face hub where the user asks for it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

from rayscribe.errors import InputError
from rayscribe.vision_llm import tower  # noqa: F401  # transformers then knows the composed models
from rayscribe.vision_llm.config import LlmConfig
from rayscribe.vision_llm.conversation import Conversation
from rayscribe.vision_llm.costs import meta_model
from rayscribe.vision_llm.lora import kept_whole

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_HEAD = 1 << 20  # bytes of a weight file that its digest reads: all names and shapes, and some of the weights


def load_conversation(
    place: str, *, image_token: int, order: str, revision: str = "main", download: bool = False
) -> Conversation:
    """Processor and chat template at `place`. `image_token`: the id that stands for a piece of an image."""
    try:
        processor = AutoProcessor.from_pretrained(place, revision=revision, local_files_only=not download)
    except (OSError, ValueError) as error:
        raise _told(place, error, download) from error
    if not getattr(processor, "chat_template", None):
        raise InputError(
            f"{place}: its processor has no chat template; take the instruction-tuned version of the model"
        )
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token  # masked by attention, so any will do
    return Conversation(processor=processor, images_first=order == "images-first", image_tokens=(image_token,))


def load_base(config: LlmConfig, device: torch.device, *, download: bool = False) -> Any:
    """The model in evaluation mode, its weights held as `config.weights` says."""
    options = {"revision": config.revision, "local_files_only": not download}
    try:
        quantised = _quantisation(config, options)
        model = AutoModelForImageTextToText.from_pretrained(
            config.base,
            **options,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=DTYPES.get(config.weights, _compute(config)),
            quantization_config=quantised,
            device_map={"": device} if quantised else None,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _told(config.base, error, download) from error
    if not quantised:
        model.to(device)  # type: ignore[arg-type]  # its decorator hides the signature
    return model.eval()


def base_digest(place: str, revision: str = "main") -> str:
    """Of config and weight files on disk: their sizes and their first megabytes. Of an id that is not on this disk: the id."""
    folder = _folder(place, revision)
    if folder is None:
        return f"{place}@{revision}"
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        with open(path, "rb") as file:
            digest.update(f"{path.name} {os.path.getsize(path)}".encode() + file.read(_HEAD))
    return digest.hexdigest()


def _folder(place: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if Path(place).is_dir():
        return Path(place)
    found = try_to_load_from_cache(place, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _quantisation(config: LlmConfig, options: dict[str, Any]) -> BitsAndBytesConfig | None:
    """The seed system's: nf4 twice quantised; never the word head and the projector."""
    if config.weights not in ("nf4", "int8"):
        return None
    whole = kept_whole(meta_model(AutoConfig.from_pretrained(config.base, **options)))
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
    """What a quantised model computes in."""
    return DTYPES[config.train.precision]


def _told(place: str, error: Exception, download: bool) -> InputError:
    """What went wrong with the base model, and what to do."""
    if _is_gated(error):
        return InputError(
            f"{place}: its licence must be accepted first: sign in at https://huggingface.co/{place}, accept it there, then "
            "`hf auth login` here and repeat; or give a folder that holds the model"
        )
    first = str(error).strip().split("\n")[0]
    if Path(place).is_dir():
        return InputError(
            f"{place}: not a vision LLM that can be read ({first}); config, processor and safetensors needed"
        )
    if not download:
        return InputError(f"{place}: not on this disk ({first}); --download fetches it from the Hugging Face hub")
    return InputError(f"{place}: could not be fetched ({first}); check the id and the connection")


def _is_gated(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, GatedRepoError):
            return True
        error = error.__cause__ or error.__context__
    return False
