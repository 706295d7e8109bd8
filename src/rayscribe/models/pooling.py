"""Means of an image's features over the whole grid of patches and over its parts, for heads on a frozen image encoder.

Shapes: V views, N patches, S patches along a side, C channels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.models.backbones import grid_side


def pooled_features(maps_VNC: NDArray[Any], grid: int) -> NDArray[np.float32]:
    """Means over all patches and over the squares of a grid (V, C + grid^2 C)."""
    views, patches, channels = maps_VNC.shape
    side = grid_side(patches)
    maps_VSSC = maps_VNC.astype(np.float32).reshape(views, side, side, channels)
    parts = [maps_VSSC.mean((1, 2))]
    edges = [(side * at // max(1, grid), -(-side * (at + 1) // max(1, grid))) for at in range(grid)]
    parts += [maps_VSSC[:, top:below, left:right].mean((1, 2)) for top, below in edges for left, right in edges]
    return np.concatenate(parts, axis=1)


@cache
def pooling_weights(patches: int, grid: int) -> NDArray[np.float32]:
    """The same means as a matrix (1 + grid^2, N): a row for each of them, over the patches."""
    return pooled_features(np.eye(patches, dtype=np.float32)[None], grid).reshape(-1, patches)
