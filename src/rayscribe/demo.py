"""The demonstration: drawn X-rays, a small R2Gen, reports, scores beside their floor, and one page that shows it all."""

from __future__ import annotations

import base64
import html
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from rayscribe.cli_prepare import write_phantom_manifest
from rayscribe.data.images import read_image
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.evaluate import Protocol, evaluate, read_predictions, reference_reports, summary
from rayscribe.files import write_text
from rayscribe.recipes import demo as demo_recipe

_SHOWN = 12
_MARK = "made-by-rayscribe-demo.txt"
_VARIETY = 0.2  # of the wording: 400 studies are too few to learn all of it as well as the images


def run_demo(out: Path, *, studies: int, seed: int) -> None:
    """Everything from drawing to `out/index.html`. A finished demo is made anew; any other folder is left alone."""
    import torch

    from rayscribe.config import DecodingConfig
    from rayscribe.generate import generate
    from rayscribe.run import train

    torch.set_num_threads(1)  # on a busy machine, threads that wait for each other double the time of so small a model
    began = time.monotonic()
    _clear(out)
    write_text(out / _MARK, "This folder was made by `rayscribe demo`, which replaces it when it is run again.\n")
    data, predictions = out / "phantom.parquet", out / "predictions.jsonl"
    config = replace(demo_recipe(), seed=seed)
    print("1. drawing chest X-rays and writing their reports")
    write_phantom_manifest(data, PhantomConfig(studies=studies, seed=seed, size=config.images.resize, variety=_VARIETY))
    print("2. training a small R2Gen on them")
    train(config, data, out / "run", features=out / "features")
    print("3. writing reports for the test split")
    generate(out / "run", data, predictions, split="test", decoding=DecodingConfig(), features=out / "features")
    print("4. scoring them")
    manifest = read_manifest(data)
    protocol = Protocol()
    result = evaluate(read_predictions(predictions), manifest, split="test", protocol=protocol)
    print(summary(result))
    references = reference_reports(manifest, "test", protocol)
    page = _page(manifest, read_predictions(predictions), references, result, time.monotonic() - began)
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
    for name in ("phantom.parquet", "predictions.jsonl", "predictions.jsonl.meta.json", "index.html"):
        (out / name).unlink(missing_ok=True)


def _page(
    manifest: Manifest,
    predictions: dict[str, str],
    references: dict[str, str],
    result: dict[str, Any],
    seconds: float,
) -> str:
    """One self-contained page: no script, no network, readable on a phone."""
    floor = result["floors"]["constant"]
    rows = "".join(
        f"<tr><th>{name.replace('_', '-').upper()}</th><td>{score['value']:.3f}</td>"
        f"<td>{floor['scores'][name]['value']:.3f}</td></tr>"
        for name, score in result["scores"].items()
    )
    cards = "".join(
        _card(study.id, study.images, references[study.id], predictions[study.id])
        for study in _varied(manifest, references)[:_SHOWN]
    )
    return _PAGE.format(
        disclaimer=html.escape(DISCLAIMER),
        studies=len(manifest.studies),
        tested=result["studies"],
        seconds=f"{seconds:.0f}",
        rows=rows,
        constant=html.escape(floor["text"]),
        distinct=f"{100 * result['diversity']['distinct_ratio']:.0f}",
        cards=cards,
    )


def _varied(manifest: Manifest, references: dict[str, str]) -> list[Any]:
    """Test studies with long and short reports in turn, because a page of normal films shows little."""
    ordered = sorted(manifest.split("test"), key=lambda study: -len(references[study.id].split()))
    half = len(ordered) // 2
    return [study for pair in zip(ordered[:half], ordered[half:]) for study in pair]


def _card(name: str, images: Sequence[Path], reference: str, report: str) -> str:
    films = "".join(
        f'<img alt="view {n} of {html.escape(name)}" src="{_embedded(p)}">' for n, p in enumerate(images, 1)
    )
    shared = set(reference.split())
    marked = " ".join(
        html.escape(word) if word in shared else f"<mark>{html.escape(word)}</mark>" for word in report.split()
    )
    return (
        f'<article><div class="films">{films}</div><div><h3>{html.escape(name)}</h3><h4>Reference</h4>'
        f"<p>{html.escape(reference)}</p><h4>Draft by the model</h4><p>{marked or '(empty)'}</p></div></article>"
    )


def _embedded(path: Path) -> str:
    buffer = io.BytesIO()
    Image.fromarray(read_image(path)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>rayscribe demo</title><style>
:root {{ color-scheme: light dark; --line: #8886; --soft: #8881; --mark: #e8a33d55; }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 0 1rem 3rem; }}
.banner {{ background: #7a1f1f; color: #fff; margin: 0 -1rem; padding: .6rem 1rem; font-weight: 600; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ border-bottom: 1px solid var(--line); padding: .25rem .9rem .25rem 0; text-align: right; }}
th:first-child {{ text-align: left; font-weight: 500; }}
article {{ display: flex; gap: 1rem; flex-wrap: wrap; border-top: 1px solid var(--line); padding: 1rem 0; }}
article > div:last-child {{ flex: 1 1 20rem; }}
.films img {{ width: 9rem; border-radius: 4px; margin-right: .3rem; }}
h3 {{ margin: 0; font-size: .9rem; opacity: .7; }} h4 {{ margin: .5rem 0 0; font-size: .9rem; }} p {{ margin: .2rem 0 .6rem; }}
mark {{ background: var(--mark); color: inherit; border-radius: 3px; }}
.soft {{ background: var(--soft); padding: .6rem .8rem; border-radius: 6px; }}
</style></head><body>
<p class="banner" role="alert">{disclaimer} The X-rays on this page are drawings, not patients.</p>
<h1>rayscribe demo</h1>
<p>{studies} drawn studies; a small R2Gen was trained on 70 % of them, selected on 10 %, and wrote reports for the
{tested} test studies below. The whole run took {seconds} seconds.</p>
<h2>Scores, beside what needs no image</h2>
<table><thead><tr><th>metric</th><th>model</th><th>one constant report</th></tr></thead><tbody>{rows}</tbody></table>
<p>{distinct} % of the written reports are distinct. The constant report is the training report that scores best on the
validation split when it is written for every study:</p><p class="soft">{constant}</p>
<h2>Reports</h2><p>Words of a draft that its reference does not contain are <mark>marked</mark>.</p>
{cards}
</body></html>
"""
