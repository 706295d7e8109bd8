"""Where a model runs: the one place that reads `--device`."""

from __future__ import annotations

import os
import re

import torch

from rayscribe.errors import InputError

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def chosen_device(name: str | None = None) -> torch.device:
    """`cpu`, `cuda` (the first GPU) or `cuda:N`. Without a name the first GPU, or the CPU where there is none.

    Raises InputError for any other name, and for a GPU that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    number = _gpu_number(name)
    if number is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: torch finds no GPU; use --device cpu, or install torch with CUDA")
    count = torch.cuda.device_count()
    if number >= count:
        there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise InputError(f"--device {name}: no such GPU; there is {there}")
    return torch.device(name)


def show_only(name: str | None) -> None:
    """Hides all other devices from this process, for libraries that take the first GPU that they see.

    Call it before anything uses a GPU. Raises InputError as `chosen_device` does.
    """
    if name is None:
        return
    number = _gpu_number(name)
    if number is None:
        os.environ[_VISIBLE] = ""
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"--device {name}: torchrun gives every process its own GPU; leave --device out")
    visible = os.environ.get(_VISIBLE)
    if visible is None:
        os.environ[_VISIBLE] = str(number)
    elif number < len(listed := visible.split(",")):
        os.environ[_VISIBLE] = listed[number]
    else:
        raise InputError(f"--device {name}: no such GPU; {_VISIBLE} is {visible!r}")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: torch finds no such GPU; use --device cpu, or another number")


def _gpu_number(name: str) -> int | None:
    """None is the CPU."""
    asked = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if asked is None:
        raise InputError(f"--device {name}: no such device; there are cpu, cuda and cuda:N (GPU number N)")
    return None if name == "cpu" else int(asked[1] or 0)
