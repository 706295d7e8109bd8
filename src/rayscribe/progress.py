"""How far a long loop is: a bar on a terminal, and a plain line now and then in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

ProgressBar = Callable[[Iterable[Any]], Iterable[Any]]
"Yields what it is given, and may show progress meanwhile; `iter` shows none."

_QUIET = 30.0  # seconds before the first line of a log, and between two


def progress_bar(
    things: Iterable[T], *, desc: str, unit: str, total: int | None = None, leave: bool = True, is_shown: bool = True
) -> Iterator[T]:
    """Yields the things, and shows how many are done.

    `total` defaults to their number, where they have one. See `Meter` for the rest.
    """
    if total is None and isinstance(things, Sized):
        total = len(things)
    with Meter(desc=desc, unit=unit, total=total, leave=leave, is_shown=is_shown) as meter:
        for thing in things:
            yield thing
            meter.update()


class Meter:
    """What `progress_bar` shows, for loops that count themselves.

    A log gets lines such as "validation: 120 of 590 batches, 2 min, about 7 min left": the first after 30 seconds, more at
    least 30 seconds apart, and a last one at the end if there was a first.
    """

    def __init__(
        self,
        *,
        desc: str,
        unit: str,
        total: int | None = None,
        initial: int = 0,
        leave: bool = True,
        is_shown: bool = True,
    ) -> None:
        """`unit`: singular. `initial`: how many an earlier run has done. `leave`: a finished bar stays on the terminal."""
        self._desc, self._unit, self._total, self._initial = desc, unit, total, initial
        self._done, self._note = initial, ""
        self._began = self._told = monotonic()
        self._told_done = -1  # no line yet
        self._bar: Any = None
        self._is_log = is_shown and not sys.stderr.isatty()
        if is_shown and not self._is_log:
            from tqdm import tqdm  # not needed in a log

            self._bar = tqdm(desc=desc, unit=unit, total=total, initial=initial, leave=leave)

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._is_log and monotonic() - self._told >= _QUIET:
            self._tell()

    def describe(self, desc: str, note: str = "") -> None:
        """Says what is being done now; `note` follows the numbers."""
        self._desc, self._note = desc, note
        if self._bar is not None:
            self._bar.set_description(desc, refresh=False)
            self._bar.set_postfix_str(note)

    def close(self) -> None:
        """Shows where it ended."""
        if self._bar is not None:
            self._bar.close()
        elif self._is_log and self._told_done not in (-1, self._done):
            self._tell()

    def _tell(self) -> None:
        self._told, self._told_done = monotonic(), self._done
        spent, new = self._told - self._began, self._done - self._initial
        of = "" if self._total is None else f" of {self._total}"
        parts = [f"{self._done}{of} {_plural(self._unit)}", duration(spent)]
        if self._total is not None and new > 0 and self._done < self._total:
            parts.append(f"about {duration(spent / new * (self._total - self._done))} left")
        parts += [self._note] if self._note else []
        print(f"{self._desc}: {', '.join(parts)}", file=sys.stderr, flush=True)


def _plural(unit: str) -> str:
    if unit.endswith("y"):
        return f"{unit[:-1]}ies"
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"


def duration(seconds: float) -> str:
    """Rounded for people: 40 s, 12 min, 9 h, 3 days."""
    for unit, length, most in (("s", 1, 60), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{max(1, round(seconds / length))} {unit}"
    return f"{round(seconds / 86400)} days"
