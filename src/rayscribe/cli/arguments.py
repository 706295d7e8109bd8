"""What the verbs share: typed functions as options, and the first word of a verb that has kinds."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from rayscribe.errors import InputError
from rayscribe.labels import Labeler

RuleReading = Literal["plain", "chexpert"]
"How the built-in rules read: as a radiologist would, or with the habits of the CheXpert labeler's output."


def parsed(kind: Callable[..., Any], arguments: list[str], verb: str) -> Any:
    import tyro

    return tyro.cli(kind, args=arguments, prog=f"rayscribe {verb}")


def choice(arguments: list[str], known: Sequence[str], what: str, usage: str) -> str:
    """The first word of a verb that has kinds of its own; with `--help` alone, the kinds."""
    if arguments and arguments[0] in known:
        return arguments[0]
    if arguments and arguments[0] in ("-h", "--help"):
        print(
            f"usage: {usage}\n\n{what}: {', '.join(known)}\n\n`{usage.split('[')[0].strip()} --help` shows its options"
        )
        sys.exit(0)
    given = f"no {what} {arguments[0]!r}" if arguments and not arguments[0].startswith("-") else f"name a {what} first"
    raise InputError(f"{given}; there are {', '.join(known)}. Usage: {usage}")


def chosen_labeler(checkpoint: Path | None, bert: Path | None, reading: RuleReading) -> Labeler:
    """CheXbert where a checkpoint is named, otherwise the built-in rules."""
    if checkpoint is None:
        from rayscribe.metrics.labeler import RuleLabeler

        return RuleLabeler(as_chexpert=reading == "chexpert")
    if bert is None:
        raise InputError("CheXbert needs --bert: a folder with the config.json and vocab.txt of bert-base-uncased")
    from rayscribe.metrics.chexbert import CheXbert

    return CheXbert.load(checkpoint, bert)
