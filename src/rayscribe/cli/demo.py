"""`rayscribe demo`: drawn X-rays, a small R2Gen, reports, scores beside their floor, and one page that shows it all."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from rayscribe.cli.arguments import parsed
from rayscribe.errors import InputError
from rayscribe.files import write_text

_MARK = "made-by-rayscribe-demo.txt"
_VARIETY = 0.2  # of the wording: 400 studies are too few to learn all of it as well as the images


def demo_verb(arguments: list[str]) -> None:
    """The whole way from images to scores, in two minutes on two cores."""

    def drawn(out: Path = Path("demo"), studies: int = 600, seed: int = 0) -> None:
        """Draws X-rays, trains a model, writes and scores reports; makes a page.

        Args:
            out: the folder; the page is OUT/index.html, the model OUT/run
            studies: number of studies to draw
            seed: of the drawing and the training
        """
        run_demo(out, studies=studies, seed=seed)

    parsed(drawn, arguments, "demo")


def run_demo(out: Path, *, studies: int, seed: int) -> None:
    """Everything from drawing to `out/index.html`. A finished demo is made anew; any other folder is left alone."""
    import torch

    from rayscribe.api.models import open_reporter
    from rayscribe.cli.prepare import write_phantom_manifest
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.phantom_truth import PhantomConfig
    from rayscribe.data.predictions import read_predictions
    from rayscribe.drafts import DecodingConfig
    from rayscribe.evaluation.evaluate import evaluate_predictions
    from rayscribe.evaluation.protocol import Protocol, reference_reports
    from rayscribe.inference.split import SplitJob, write_predictions
    from rayscribe.methods import find_recipe
    from rayscribe.pages.demo import demo_page
    from rayscribe.pages.summary import summary
    from rayscribe.training.run import train_method

    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other double the time of so small a model
    began = time.monotonic()
    _clear(out)
    write_text(out / _MARK, "This folder was made by `rayscribe demo`, which replaces it when it is run again.\n")
    data, predictions = out / "phantom.parquet", out / "predictions.jsonl"
    config = replace(find_recipe("demo"), seed=seed)
    print("1. drawing chest X-rays and writing their reports")
    write_phantom_manifest(data, PhantomConfig(studies=studies, seed=seed, size=config.images.resize, variety=_VARIETY))
    print("2. training a small R2Gen on them")
    train_method(config, data, out / "run", features=out / "features")
    print("3. writing reports for the test split")
    job = SplitJob(model=out / "run", data=data, out=predictions, split="test", decoding=DecodingConfig())
    write_predictions(open_reporter(job.model), replace(job, features=out / "features"))
    print("4. scoring them")
    manifest = read_manifest(data)
    protocol = Protocol()
    result = evaluate_predictions(read_predictions(predictions), manifest, split="test", protocol=protocol)
    print(summary(result))
    references = reference_reports(manifest, "test", protocol)
    write_text(out / "scores.json", json.dumps(result, indent=1) + "\n")
    page = demo_page(manifest, read_predictions(predictions), references, result, time.monotonic() - began)
    write_text(out / "index.html", page)
    image = next(study.images[0] for study in manifest.split("test"))
    print(f"\n{time.monotonic() - began:.0f} seconds. Look at {out / 'index.html'}, then try:")
    print(f"  rayscribe predict {image} --model {out / 'run'}")


def _clear(out: Path) -> None:
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / _MARK).exists():
        raise InputError(f"{out}: holds something that is not a demo; give another --out folder")
    for name in ("phantom", "run", "features"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("phantom.parquet", "predictions.jsonl", "predictions.jsonl.meta.json", "scores.json", "index.html"):
        (out / name).unlink(missing_ok=True)
