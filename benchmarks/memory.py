"""What reading R2GenCMN's memory costs in training: the dense masked form against the published gather form.

    .venv/bin/python benchmarks/memory.py               # a minute; the published form needs 7 GiB; --batch 4 for less

The patches of IU X-Ray (batch 16, 98 patches, width 512) read a memory of 2048 rows, 8 heads, the best 32: forward and
backward, in a process of its own for each form, with the same weights and one thread. Memory is the peak of the first pass
above that of the process before it, as Linux counts; CPU seconds are the second pass's. Targets: at least 9 times less memory,
same numbers.

Shapes: B studies, N patches, S rows of the memory, D width.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from reference_cmn import MEMORY, TOP, CrossModalMemory
from reference_r2gen import HEADS, WIDTH
from torch import Tensor, nn

from rayscribe.methods import r2gen_cmn

PATCHES = 98


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one form."""

    mebibytes: float
    seconds: float
    numbers: list[np.ndarray]
    "the output, and the gradients of what went in and of the memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="studies")
    studies = parser.parse_args().batch
    theirs, ours = in_process(gather, studies), in_process(dense, studies)
    apart = max(
        np.abs(first - second).max() / np.abs(first).max() for first, second in zip(theirs.numbers, ours.numbers)
    )
    assert apart < 1e-4, apart
    print(f"{studies} studies, {PATCHES} patches, {MEMORY} rows, one thread")
    for name, cost in {"gather, published form": theirs, "dense, ours": ours}.items():
        print(f"| {name} | {cost.mebibytes:,.0f} MiB | {cost.seconds:.2f} CPU s |")
    print(
        f"| {theirs.mebibytes / ours.mebibytes:.1f} times less memory (target 9) | "
        f"{theirs.seconds / ours.seconds:.1f} times faster | numbers {apart:.0e} of the largest apart |"
    )


def in_process(form: Callable[[int], Cost], studies: int) -> Cost:
    """In a process of its own, because the peak of a process never falls."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(form, (studies,))


def gather(studies: int) -> Cost:
    module, rows_SD = published_memory()

    def read(features_BND: Tensor) -> Tensor:
        return features_BND + module(features_BND, rows_SD)

    return cost_of(read, rows_SD, studies)


def dense(studies: int) -> Cost:
    theirs, rows_SD = published_memory()
    module = r2gen_cmn.CrossModalMemory(WIDTH, rows=MEMORY, top=TOP, heads=HEADS, dropout=0.0, residual=True)
    query, key, value, out = (linear.state_dict() for linear in theirs.linears)
    module.query.load_state_dict(query)
    module.key_value.load_state_dict({name: torch.cat([key[name], value[name]]) for name in key})
    module.out.load_state_dict(out)
    module.rows_SD = rows_SD
    return cost_of(lambda features_BND: module.recall()(features_BND), rows_SD, studies)


def published_memory() -> tuple[CrossModalMemory, nn.Parameter]:
    """The same random weights in every process; rows of the size of features, so that some answer more than others."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return CrossModalMemory(WIDTH, HEADS), nn.Parameter(torch.randn(MEMORY, WIDTH))


def cost_of(read: Callable[[Tensor], Tensor], rows_SD: nn.Parameter, studies: int) -> Cost:
    generator = torch.Generator().manual_seed(1)
    features_BND = torch.randn(studies, PATCHES, WIDTH, generator=generator).requires_grad_()
    gradient_BND = torch.randn(studies, PATCHES, WIDTH, generator=generator)
    before = peak()
    read(features_BND).backward(gradient_BND)
    after = peak()
    features_BND.grad = rows_SD.grad = None
    began = time.process_time()
    output_BND = read(features_BND)
    output_BND.backward(gradient_BND)
    seconds = time.process_time() - began
    assert features_BND.grad is not None and rows_SD.grad is not None
    numbers = [tensor.detach().numpy() for tensor in (output_BND, features_BND.grad, rows_SD.grad)]
    return Cost(mebibytes=after - before, seconds=seconds, numbers=numbers)


def peak() -> float:
    """MiB of this process at the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
