"""What all pages share: the frame with its warning, tables that scroll on a phone, embedded radiographs."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rayscribe.data.images import read_image
from rayscribe.errors import DISCLAIMER


def page(title: str, body: str, *, warning: str = "") -> str:
    """The whole document; `warning` follows the disclaimer in the banner."""
    banner = html.escape(f"{DISCLAIMER} {warning}".strip())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<p class="banner" role="alert">{banner}</p><main><h1>{html.escape(title)}</h1>\n{body}\n</main></body></html>\n'
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """A table; cells are HTML already, and the first column names the row."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    lines = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n' for row in rows
    )
    above = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="wide" tabindex="0"><table>{above}<thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table></div>'


def bullets(texts: Sequence[str], *, kind: str = "") -> str:
    """A list of plain texts."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def definitions(facts: Mapping[str, Any]) -> str:
    """A list of names with their values; plain texts."""
    lines = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items())
    return f"<dl>{lines}</dl>"


def figure(svg: str, caption: str) -> str:
    """An SVG drawing with a caption; scrolls sideways if the page is too narrow."""
    return f'<figure><div class="wide" tabindex="0">{svg}</div><figcaption>{html.escape(caption)}</figcaption></figure>'


def radiograph(path: Path, label: str, *, side: int = 512) -> str:
    """The embedded image, its longer side at most `side` pixels. Only for data whose terms allow it."""
    picture = Image.fromarray(read_image(path, at_least=side))
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(label, quote=True)}" src="data:image/png;base64,{source}">'


_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --good: #2e9d5833; --bad: #d9534f3d; --mark: #e8a33d55; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 76rem; margin: 0 auto; padding: 0 1rem 3rem; }
h1 { line-height: 1.2; overflow-wrap: anywhere; }
.banner { background: #7a1f1f; color: #fff; margin: 0; padding: .6rem 1rem; font-weight: 600; }
.alarms { background: #d9534f2e; border-left: .3rem solid #d9534f; padding: .6rem .8rem .6rem 2rem; border-radius: 6px; }
.fine { background: var(--good); padding: .6rem .8rem; border-radius: 6px; }
.soft { background: var(--soft); padding: .6rem .8rem; border-radius: 6px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .9rem .25rem 0; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; font-weight: 500; }
figure { margin: 1.5rem 0; } figure svg { background: #fff; border-radius: 6px; max-width: none; }
figcaption { font-size: .9rem; opacity: .8; }
article { display: flex; gap: 1rem; flex-wrap: wrap; border-top: 1px solid var(--line); padding: 1rem 0; }
article > div:last-child { flex: 1 1 20rem; min-width: 0; overflow-wrap: anywhere; }
.films img { width: 9rem; border-radius: 4px; margin-right: .3rem; }
h3 { margin: 0; font-size: .95rem; opacity: .8; overflow-wrap: anywhere; } h4 { margin: .5rem 0 0; font-size: .9rem; }
article p { margin: .2rem 0 .6rem; }
mark { background: var(--mark); color: inherit; border-radius: 3px; }
mark.good { background: var(--good); } mark.bad { background: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 30rem) { th:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; } }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
"""
