"""What the floors see of a study: a small picture, its four corners, facts about its files, or the form of its context.

None of this is learned. Corners, facts and form hold no lung: what a system gains on them is wording, not findings.

Shapes: R studies, P pixels of a small picture, F features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from rayscribe.metrics.statistics import Singles
from rayscribe.study import CONTEXT, Study

SIDE = 32
"Rows and columns of a small picture."
CORNER = 7
"Side of a corner of the picture, in pixels."
FEWEST_WITH = 5
"A fact or a piece of form is a feature if at least this many training studies have it."

_SHAPES = re.compile(r"X{2,}|[A-Za-z]+|\d+|[^\sA-Za-z\d]|\s{2,}")
_LONGEST = 4  # shapes in a row
_ROUGH = 200  # pixels, for sizes that are nearly equal


def thumbnails(pixels_RP: Singles) -> Singles:
    """The pictures as unit vectors about their mean (R, P): brightness and contrast do not count."""
    centred_RP = pixels_RP - pixels_RP.mean(1, keepdims=True)
    return np.asarray(centred_RP / np.maximum(1e-6, np.linalg.norm(centred_RP, axis=1, keepdims=True)))


def corners(pixels_RP: Singles) -> Singles:
    """The four corners of the pictures, squares of 7 x 7 pixels in [0, 1] (R, 196): 19 % of the picture, and no lung."""
    square_RSS = pixels_RP.reshape(-1, SIDE, SIDE) / 255
    near, far = slice(0, CORNER), slice(-CORNER, None)
    parts = [square_RSS[:, rows, columns] for rows in (near, far) for columns in (near, far)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def scanner_facts(study: Study) -> Counter[str]:
    """Number of images, and the view, the original size and the file kind of each: no pixel is read."""
    facts = [f"{len(study.images)} images"]
    for place, (image, view, (rows, columns)) in enumerate(zip(study.images, study.views, study.sizes)):
        named = (f"view {view}", image.suffix.lower(), f"{rows} x {columns}", f"rows {rows}", f"columns {columns}")
        rough = (f"about {rows // _ROUGH * _ROUGH} rows", f"about {columns // _ROUGH * _ROUGH} columns")
        facts += [f"{place}: {fact}" for fact in (*named, *rough)]
    return Counter(facts)


def context_form(study: Study) -> Counter[str]:
    """The form of indication, comparison, technique and title, without a word of them.

    Each word is reduced to its shape (capitals, Capital, lower case, mask, number, punctuation); runs of up to four shapes
    are counted, beside the length of each text.
    """
    found: Counter[str] = Counter()
    for field, text in zip(CONTEXT, study.context, strict=True):
        shapes = ["^", *_shapes(text), "$"]
        runs = [" ".join(shapes[at : at + n]) for n in range(1, _LONGEST + 1) for at in range(len(shapes) - n + 1)]
        found.update(f"{field}: {run}" for run in (*runs, f"{len(shapes)} shapes", f"{len(text) // 8} x 8 letters"))
    return found


def _shapes(text: str) -> Iterator[str]:
    for piece in _SHAPES.findall(text):
        if piece.isspace():
            yield "gap"
        elif piece.isdigit():
            yield "number"
        elif not piece[0].isalpha():
            yield piece
        elif len(piece) > 1 and piece.isupper():
            yield "mask" if set(piece) == {"X"} else "CAPITALS"
        else:
            yield "Capital" if piece[0].isupper() else "lower"


def fact_tables(training: Sequence[Counter[str]], queries: Sequence[Counter[str]]) -> tuple[Singles, Singles]:
    """Log counts (J, F) and (R, F) of the names that enough training studies have."""
    frequency = Counter(name for one in training for name in one)
    place = {
        name: at for at, name in enumerate(sorted(name for name, count in frequency.items() if count >= FEWEST_WITH))
    }
    both = []
    for studies in (training, queries):
        table_RF = np.zeros((len(studies), max(1, len(place))), np.float32)
        for row, one in enumerate(studies):
            for name, count in one.items():
                if name in place:
                    table_RF[row, place[name]] = np.log1p(count)
        both.append(table_RF)
    return both[0], both[1]
