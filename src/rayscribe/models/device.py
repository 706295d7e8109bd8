"""Where a model runs: the one place that reads `--device`."""

from __future__ import annotations

import re

import torch

from rayscribe.errors import InputError


def chosen_device(name: str | None = None) -> torch.device:
    """`cpu`, `cuda` (the first GPU) or `cuda:N`. Without a name the first GPU, or the CPU where there is none.

    Raises InputError for any other name, and for a GPU that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if asked is None:
        raise InputError(f"--device {name}: no such device; there are cpu, cuda and cuda:N (the GPU of number N)")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: torch finds no GPU here; use --device cpu, or install torch with CUDA")
    count = torch.cuda.device_count()
    if int(asked[1] or 0) >= count:
        there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise InputError(f"--device {name}: no such GPU; there is {there}")
    return torch.device(name)
