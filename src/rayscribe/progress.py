"""What a loop that takes long is wrapped in to show how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

ProgressBar = Callable[[Iterable[Any]], Iterable[Any]]
"Yields what it is given, and may draw a bar meanwhile; `iter` draws none."
