"""Model folders of every kind, opened by one function."""

from __future__ import annotations

from pathlib import Path

import torch

from rayscribe.errors import InputError, need_packages
from rayscribe.inference.writer import Writer, open_own
from rayscribe.models.folder import VISION_LLM, format_of


def open_reporter(folder: Path, *, base: str | None = None, download: bool = False) -> Writer:
    """`base`, `download`: where a vision LLM's base model lies now, and whether it may be fetched."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if format_of(folder) == VISION_LLM:
        need_packages("vlm", "transformers", "peft")
        from rayscribe.vision_llm.writer import VisionLlmWriter  # transformers and peft: seconds to import

        return VisionLlmWriter.load(folder, device, base=base, download=download)
    if base is not None or download:
        raise InputError(f"--base, --download: {folder} is no vision LLM and holds all of its weights")
    return open_own(folder, device)
