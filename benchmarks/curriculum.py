"""What JIMA's curriculum costs: measuring every training study against training an epoch, and ranks by counting against a loop.

    .venv/bin/python benchmarks/curriculum.py           # about two minutes

IU X-Ray's shape: batch 16, 98 cached patches of 1,280 channels, 60 ids a report, 760 words and 3 reserved ids, the paper's
encoder-decoder with an adapter of 512. One thread, CPU seconds, medians. The loop is that of the released code in form: it
sorts every position's probabilities and looks the gold word up. Target: measuring 2,069 studies costs less than a training
epoch of them.

Shapes: B studies, N patches, C channels, T tokens, V words.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from rayscribe.config import BackboneConfig
from rayscribe.data.entities import EntityTargets
from rayscribe.methods import find_method, find_recipe
from rayscribe.methods.build import build_model
from rayscribe.methods.jima import CurriculumTask, JimaSettings
from rayscribe.methods.jima_curriculum import report_ranks
from rayscribe.methods.method import Feed
from rayscribe.study import Batch, Pair

STUDIES, WORDS, BATCH, IU = 64, 760, 16, 2069


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="measured on each side")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = [random_batch(start) for start in range(0, STUDIES, BATCH)]
    task = small_task(batches)
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4, amsgrad=True, weight_decay=5e-5, fused=True)

    def step() -> None:
        task.train()
        task(Pair(first=batches[0], second=batches[1]))["loss"].backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    one_step, one_pass = seconds(step, repeats), seconds(lambda: task.start_epoch(_next(task), {}), repeats)
    epoch, measuring = one_step * IU / BATCH, one_pass * IU / STUDIES
    print(
        f"{IU} studies: a training epoch {epoch:.0f} CPU s, measuring {measuring:.0f} CPU s, "
        f"{measuring / epoch:.2f} of an epoch (target: below 1)"
    )
    with torch.no_grad():
        logits_BTW = task.model.score(task.read(batches[0])).logits_BTW
    counted = seconds(lambda: report_ranks(logits_BTW, batches[0], None), repeats)
    looped = seconds(lambda: ranks_by_loop(logits_BTW, batches[0]), 1)
    equal = torch.allclose(report_ranks(logits_BTW, batches[0], None)[0], ranks_by_loop(logits_BTW, batches[0]))
    print(
        f"ranks of a batch: counted {1000 * counted:.0f} ms, by a loop {1000 * looped:.0f} ms, "
        f"{looped / counted:.0f} times faster; {'the same difficulties' if equal else 'OTHER DIFFICULTIES'}"
    )


def small_task(batches: list[Batch]) -> CurriculumTask:
    """On features, so the image encoder itself does no work."""
    config = replace(
        find_recipe("jima"),
        backbone=BackboneConfig(name="mobilenetv2_100", trainable=False),
        method=JimaSettings(adapter=512, warmup=1),
    )
    vocabulary = [str(word) for word in range(WORDS)]
    entities = EntityTargets.build(
        [[str((7 * row + k) % WORDS) for k in range(17)] for row in range(STUDIES)], vocabulary
    )
    feed = Feed(studies=STUDIES, batches_per_epoch=1, training=lambda: batches, validation=tuple)
    task = find_method(config.system).task(config, build_model(config, WORDS + 3), entities, feed)
    assert isinstance(task, CurriculumTask)
    return task


def random_batch(start: int) -> Batch:
    generator = torch.Generator().manual_seed(start)
    tokens_BT = torch.randint(3, WORDS + 3, (BATCH, 60), generator=generator)
    return Batch(
        rows_B=torch.arange(start, start + BATCH),
        has_view_BV=torch.ones(BATCH, 2, dtype=torch.bool),
        tokens_BT=tokens_BT,
        has_token_BT=torch.ones_like(tokens_BT, dtype=torch.bool),
        maps_BVNC=torch.randn(BATCH, 2, 49, 1280, generator=generator).relu().half(),
    )


def ranks_by_loop(logits_BTW: torch.Tensor, batch: Batch) -> torch.Tensor:
    difficulty_B = []
    for logits_TW, tokens_T in zip(logits_BTW.softmax(-1), batch.tokens_BT[:, 1:].tolist(), strict=True):
        ranks = []
        for probabilities_W, gold in zip(logits_TW.tolist(), tokens_T, strict=True):
            order = sorted(range(len(probabilities_W)), key=lambda word: -probabilities_W[word])
            ranks.append((order.index(gold) + 1) / len(order))
        difficulty_B.append(sum(ranks) / len(ranks))
    return torch.tensor(difficulty_B)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median; the first call warms up."""
    found = []
    for _ in range(repeats + 1):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return statistics.median(found[1:])


def _next(task: CurriculumTask) -> int:
    return int(task.measured_epoch) + 1


if __name__ == "__main__":
    main()
