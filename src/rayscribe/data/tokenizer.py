"""Words to ids and back. The vocabulary is part of every model folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rayscribe.errors import InputError

UNKNOWN = "<unk>"


def reserved_ids(legacy_ids: bool) -> int:
    """Number of ids before the first word."""
    return 1 if legacy_ids else 3


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """White-space separated words of cleaned reports.

    Our own ids: 0 pad, 1 begin, 2 end, then the words (with `<unk>` among them) in code-point order. `legacy_ids` reproduces
    R2Gen: words start at id 1, id 0 is pad, begin and end at once, and a truncated report loses its end.
    """

    words: tuple[str, ...]
    "sorted by code point, `<unk>` included"
    legacy_ids: bool = False

    @classmethod
    def build(cls, reports: Iterable[str], *, threshold: int, legacy_ids: bool = False) -> Tokenizer:
        """The words that occur at least `threshold` times in the cleaned training reports, and `<unk>`. Raises InputError."""
        counts = Counter(word for report in reports for word in report.split())
        kept = {word for word, count in counts.items() if count >= threshold}
        if not kept:
            raise InputError(
                f"no word occurs {threshold} times or more in the training reports; lower --text.threshold"
            )
        return cls(words=tuple(sorted(kept | {UNKNOWN})), legacy_ids=legacy_ids)

    def digest(self) -> str:
        """A hash of the words, their order and the ids."""
        return hashlib.sha256(json.dumps([self.words, self.legacy_ids]).encode()).hexdigest()

    @property
    def pad(self) -> int:
        return 0

    @property
    def begin(self) -> int:
        return 0 if self.legacy_ids else 1

    @property
    def end(self) -> int:
        return 0 if self.legacy_ids else 2

    @property
    def unknown(self) -> int:
        return self._ids[UNKNOWN]

    @property
    def size(self) -> int:
        """Rows of the embedding: words and reserved ids."""
        return len(self.words) + self._first

    def encode(self, report: str, *, max_length: int) -> list[int]:
        """Begin, words, end: at most `max_length` ids. A truncated report keeps its end, unless `legacy_ids`."""
        ids = [self._ids.get(word, self.unknown) for word in report.split()]
        if self.legacy_ids:
            return [self.begin, *ids, self.end][:max_length]
        return [self.begin, *ids[: max_length - 2], self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """The words up to the first end; a leading begin is skipped."""
        words = []
        for position, token in enumerate(ids):
            if position == 0 and token == self.begin:
                continue
            if token in (self.end, self.pad):
                break
            words.append(self.words[token - self._first])
        return " ".join(words)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"legacy_ids": self.legacy_ids, "words": self.words}, ensure_ascii=False, indent=0))

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        try:
            stored = json.loads(path.read_text())
            return cls(words=tuple(stored["words"]), legacy_ids=bool(stored["legacy_ids"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a rayscribe vocabulary ({error}); copy the whole model folder") from error

    @property
    def _first(self) -> int:
        return reserved_ids(self.legacy_ids)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: position + self._first for position, word in enumerate(self.words)}
