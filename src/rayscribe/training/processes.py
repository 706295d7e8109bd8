"""The processes of one run: one, or those of `torchrun` (gloo on CPU, nccl on GPU, on one or several machines)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from rayscribe.models.device import chosen_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process within its group."""

    rank: int = 0
    count: int = 1
    device: torch.device

    def wait(self) -> None:
        if self.count > 1:
            distributed.barrier()

    def mean(self, own: float) -> float:
        """The mean of the values of all processes."""
        if self.count == 1:
            return own
        total = torch.tensor(
            own, dtype=torch.float64 if self.device.type == "cpu" else torch.float32, device=self.device
        )
        distributed.all_reduce(total)
        return float(total) / self.count

    def gather(self, own: Any) -> list[Any]:
        """The values of all processes, by rank; every process receives them."""
        if self.count == 1:
            return [own]
        everyone: list[Any] = [None] * self.count
        distributed.all_gather_object(everyone, own)
        return everyone


@contextmanager
def processes(device_name: str | None = None) -> Iterator[Processes]:
    """Joins the process group that torchrun describes in the environment, if any.

    `device_name`: cpu, cuda or cuda:N; None takes the GPU of this process's local rank where there is one. Raises InputError
    for a device that is not there.
    """
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = chosen_device(device_name)
    if device.type == "cuda":
        if count > 1 and device.index is None:
            device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(device=device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank=distributed.get_rank(), count=count, device=device)
    finally:
        distributed.destroy_process_group()
