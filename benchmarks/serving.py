"""How fast the service answers: batches that grow with the load, against one study at a time.

    .venv/bin/python benchmarks/serving.py              # five minutes; --requests 8 for a rougher answer

Two services of `rayscribe serve`, one after the other in every round, each alone on the machine: as it comes (--batch 8), and
with --batch 1, which writes one study at a time. Clients ask for /v1/reports one request after another, each with its own
study of two drawn images of 512 x 512 pixels. The model is a R2Gen of published size (width 512, three layers, 760 words, three
beams) over an image encoder of random weights, whose reports all have 60 words. The clients run on the same cores.

Printed: the median and the 95th percentile of a request's seconds, reports a second, and the ratio of the two services' rates.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from rayscribe.checkpoint import save_model
from rayscribe.config import BackboneConfig
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.methods import find_method, find_recipe
from rayscribe.methods.build import build_model
from rayscribe.methods.method import TrainedModel

CLIENTS = (1, 4, 16)
WORDS = 760
NEVER = -1e4  # the end's bias: no report ends before the last word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=48, help="of all clients together, in every measurement")
    parser.add_argument("--rounds", type=int, default=2, help="the better one of each service counts")
    parser.add_argument("--backbone", default="mobilenetv2_100", help="timm's name of the image encoder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "r2gen"
        write_model(model, arguments.backbone)
        studies = [drawn_study(number) for number in range(16)]
        found: dict[tuple[int, int], Measured] = {}
        for _ in range(arguments.rounds):
            for batch in (8, 1):
                with service(model, batch, Path(folder)) as address:
                    for clients in CLIENTS:
                        now = measured(address, studies, clients, arguments.requests)
                        found[batch, clients] = max(now, found.get((batch, clients), now), key=lambda one: one.rate)
    print("| clients | batches: p50, p95 | reports/s | one at a time: p50, p95 | reports/s | ratio of rates |")
    print("|---|---|---|---|---|---|")
    for clients in CLIENTS:
        ours, theirs = found[8, clients], found[1, clients]
        print(f"| {clients} | {ours} | {theirs} | {ours.rate / theirs.rate:.2f} |")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One service under one load."""

    seconds: list[float]
    "of every request"
    rate: float
    "reports a second"

    def __str__(self) -> str:
        half, most = np.percentile(self.seconds, [50, 95])
        return f"{half:.2f} s, {most:.2f} s | {self.rate:.2f}"


def measured(address: str, studies: list[list[bytes]], clients: int, requests: int) -> Measured:
    seconds: list[float] = []
    numbers = iter(range(requests))
    lock = threading.Lock()

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=600) as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                begin = time.perf_counter()
                files = [("images", ("image", content)) for content in studies[number % len(studies)]]
                client.post("/v1/reports", files=files).raise_for_status()
                seconds.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured(seconds=seconds, rate=requests / (time.perf_counter() - begin))


@contextmanager
def service(model: Path, batch: int, folder: Path) -> Iterator[str]:
    """Its address; it has written one report already."""
    log = folder / "log"
    options = ["--model", model, "--port", 0, "--batch", batch, "--queue", 64, "--database", f"sqlite:///{folder}/jobs"]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "rayscribe", "serve", *map(str, options)], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        measured(found[0], [drawn_study(99)], 1, 2)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def write_model(folder: Path, backbone: str) -> None:
    torch.manual_seed(0)
    config = replace(find_recipe("r2gen"), backbone=BackboneConfig(name=backbone))
    tokenizer = Tokenizer.build([" ".join(f"word{number}" for number in range(WORDS))], threshold=1)
    model = build_model(config, tokenizer.size).eval()
    with torch.no_grad():
        model.decoder.head.bias[tokenizer.end] = NEVER
    data = {"source": "nothing", "terms": "none", "digest": "", "counts": {}}
    training = {"epoch": 0, "validation": {"bleu4": 0.0}}
    trained = TrainedModel(
        method=find_method(config.system),
        model=model,
        tokenizer=tokenizer,
        config=config,
        data=data,
        training=training,
    )
    save_model(folder, trained)


def drawn_study(number: int) -> list[bytes]:
    generator = np.random.default_rng(number)
    contents = []
    for _ in range(2):
        coarse = generator.integers(0, 255, (16, 16), dtype=np.uint8)
        written = io.BytesIO()
        Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC).save(written, "PNG")
        contents.append(written.getvalue())
    return contents


if __name__ == "__main__":
    main()
