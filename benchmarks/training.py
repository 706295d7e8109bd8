"""What a training step costs: features from the cache against features computed anew, and float32 against bfloat16.

    .venv/bin/python benchmarks/training.py             # about four minutes; --batches 1 for a rougher answer

IU X-Ray's shape: batch 16, 2 views, 49 patches of 2,048 channels a view, reports of 36 tokens on average; a frozen ResNet-101
with random weights; forward, backward and optimiser of the encoder-decoder. One thread, CPU seconds a batch, medians.
Target: a step from the cache costs less than a tenth of one from pixels. bfloat16 autocast is measured from the cache, so
it says nothing about the image encoder.

Shapes: B studies, V views, H height, W width, N patches, C channels, T tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from rayscribe.config import BackboneConfig
from rayscribe.methods import find_recipe
from rayscribe.methods.build import build_model
from rayscribe.models.report_model import ReportModel
from rayscribe.study import Batch
from rayscribe.task import ReportTask

STUDIES, VIEWS, VOCABULARY, SIDE = 16, 2, 763, 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=3, help="measured on each side")
    batches = parser.parse_args().batches
    torch.set_num_threads(1)
    print("CPU seconds a batch of 16 studies, one thread")
    for method in ("baseline", "r2gen"):
        torch.manual_seed(0)
        backbone = BackboneConfig(name="resnet101", trainable=False)
        model = build_model(replace(find_recipe(method), backbone=backbone), VOCABULARY)
        pixels = [random_batch(seed) for seed in range(batches)]
        from_pixels = step_seconds(model, pixels)
        cached = [with_features(model, batch) for batch in pixels]
        from_cache = step_seconds(model, cached, repeats=3)
        half = step_seconds(model, cached[:1], precision=torch.bfloat16)
        print(
            f"| {method} | from the cache {from_cache:.2f} s | from pixels {from_pixels:.2f} s "
            f"| {from_pixels / from_cache:.1f} times faster (target 10) |"
        )
        print(
            f"| {method} | float32 {from_cache:.2f} s | bfloat16 autocast {half:.2f} s "
            f"| float32 is {half / from_cache:.1f} times faster |",
            flush=True,
        )


def random_batch(seed: int) -> Batch:
    """Reports as in a bucketed batch: lengths that differ by little around 36."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(34, 39, (STUDIES,), generator=generator)
    tokens = int(lengths_B.max())
    return Batch(
        rows_B=torch.arange(STUDIES),
        has_view_BV=torch.ones(STUDIES, VIEWS, dtype=torch.bool),
        tokens_BT=torch.randint(3, VOCABULARY, (STUDIES, tokens), generator=generator),
        has_token_BT=torch.arange(tokens) < lengths_B[:, None],
        pixels_BVHW=torch.randint(0, 256, (STUDIES, VIEWS, SIDE, SIDE), generator=generator, dtype=torch.uint8),
    )


def with_features(model: ReportModel, batch: Batch) -> Batch:
    """What the cache gives: float16 features in place of pixels."""
    assert batch.pixels_BVHW is not None
    maps_BVNC = model.backbone(batch.pixels_BVHW, batch.has_view_BV)
    return replace(batch, pixels_BVHW=None, maps_BVNC=maps_BVNC)


def step_seconds(
    model: ReportModel, batches: list[Batch], *, repeats: int = 1, precision: torch.dtype = torch.float32
) -> float:
    task = ReportTask(model).train()
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4, amsgrad=True, weight_decay=5e-5, fused=True)
    seconds = []
    for batch in batches[:1] + batches * repeats:  # the first one warms up
        began = time.process_time()
        with torch.autocast("cpu", precision) if precision != torch.float32 else nullcontext():
            loss = task(batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_value_(trained, 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
