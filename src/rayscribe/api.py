"""Model folders of every kind, opened by one function."""

from __future__ import annotations

from pathlib import Path

from rayscribe.errors import InputError, need_packages
from rayscribe.inference.writer import Writer, open_own
from rayscribe.models.device import chosen_device
from rayscribe.models.folder import VISION_LLM, format_of


def open_reporter(
    folder: Path, *, base: str | None = None, download: bool = False, device: str | None = None
) -> Writer:
    """`base`, `download`: where a vision LLM's base model lies now, and whether it may be fetched.

    `device`: cpu, cuda or cuda:N; None takes the first GPU, or the CPU where there is none.
    """
    place = chosen_device(device)
    if format_of(folder) == VISION_LLM:
        need_packages("vlm", "transformers", "peft")
        from rayscribe.vision_llm.writer import VisionLlmWriter  # transformers and peft: seconds to import

        return VisionLlmWriter.load(folder, place, base=base, download=download)
    if base is not None or download:
        raise InputError(f"--base, --download: {folder} is no vision LLM and holds all of its weights")
    return open_own(folder, place)
