"""What the verbs share: typed functions as options, and the first word of a verb that has kinds."""

import io
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from difflib import get_close_matches
from functools import partial, wraps
from pathlib import Path
from textwrap import dedent, wrap
from typing import Any, Literal

from rayscribe.errors import InputError, unknown_name
from rayscribe.labels import Labeler

RuleReading = Literal["plain", "chexpert"]
"How the built-in rules read: as a radiologist would, or with the habits of the CheXpert labeler's output."

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def parsed(kind: Callable[..., Any], arguments: list[str], verb: str) -> Any:
    """What a class makes of the options, or a function does with them.

    Options that cannot be used end the program with exit code 2 and a few plain lines.
    """
    import tyro

    # A function waits until its options are read, so that nothing that it prints itself is held back.
    delayed = kind if isinstance(kind, type) else wraps(kind)(lambda *given, **named: partial(kind, *given, **named))
    told, refused = _Held(), io.StringIO()
    try:
        with redirect_stdout(told), redirect_stderr(refused):
            made = tyro.cli(delayed, args=arguments, prog=f"rayscribe {verb}")
    except SystemExit as ended:
        if ended.code:
            sys.stderr.write(_refusal(delayed, arguments, verb, refused.getvalue()))
        else:
            sys.stdout.write(_wrapped(told.getvalue()) if {"-h", "--help"} & set(arguments) else told.getvalue())
        raise
    return made if isinstance(kind, type) else made()


class _Held(io.StringIO):
    """To tyro, which draws boxes and colours, the same as standard output."""

    encoding = property(lambda _: sys.__stdout__.encoding if sys.__stdout__ else "ascii")

    def isatty(self) -> bool:
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


def _wrapped(text: str) -> str:
    """The lines outside of boxes, which tyro leaves as long as they are."""
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.splitlines():
        plain = _COLOURS.sub("", line)
        is_long = len(plain) > width and plain[0].isalpha()
        lines += (
            wrap(plain, width, subsequent_indent="    " if plain.startswith("usage:") else "") if is_long else [line]
        )
    return "\n".join(lines) + "\n"


def _refusal(kind: Callable[..., Any], arguments: list[str], verb: str, boxed: str) -> str:
    """The options that do not exist with the nearest that do; otherwise tyro's words, without the box around them."""
    known = _flags(kind, verb)
    given = [word.split("=")[0].replace("_", "-") for word in arguments if re.match(r"--[a-z]", word)]
    lines = []
    for flag in given:
        if flag not in known:
            near = get_close_matches(flag, known, n=1)
            lines.append(f"no option {flag}" + (f"; did you mean {near[0]}?" if near else ""))
    if not lines:
        inside = [line.strip("│").rstrip() for line in _COLOURS.sub("", boxed).splitlines()[1:]]
        told = [line for line in inside if re.search(r"\w", line) and "--help" not in line and "full help" not in line]
        told = dedent("\n".join(told)).splitlines()
        lines = [re.sub("^Missing from .*", "these options are missing:", line) for line in told] or ["cannot be read"]
    return "\n".join([f"rayscribe {verb}: {lines[0]}", *lines[1:], f"`rayscribe {verb} --help` lists the options", ""])


def _flags(kind: Callable[..., Any], verb: str) -> list[str]:
    """All that the help lists."""
    import tyro

    listed = io.StringIO()
    with suppress(SystemExit), redirect_stdout(listed):
        tyro.cli(kind, args=["--help"], prog=f"rayscribe {verb}")
    heads = re.findall(r"^[│ ]*(--?[a-z].*?)(?:  |│|$)", _COLOURS.sub("", listed.getvalue()), re.MULTILINE)
    return re.findall(r"--[a-z][\w.-]*", " ".join(heads))


def choice(arguments: list[str], known: Sequence[str], what: str, usage: str) -> str:
    """The first word of a verb that has kinds of its own; with `--help` alone, the kinds."""
    if arguments and arguments[0] in known:
        return arguments[0]
    if arguments and arguments[0] in ("-h", "--help"):
        shown = f"`{usage.split('[')[0].strip()} --help` lists its options"
        print(f"usage: {usage}\n\n{what}s: {', '.join(known)}\n\n{shown}")
        sys.exit(0)
    if arguments and not arguments[0].startswith("-"):
        raise InputError(f"{unknown_name(what, arguments[0], known)}. Usage: {usage}")
    raise InputError(f"name a {what} first; there are {', '.join(known)}. Usage: {usage}")


def chosen_labeler(checkpoint: Path | None, bert: Path | None, reading: RuleReading) -> Labeler:
    """CheXbert where a checkpoint is named, otherwise the built-in rules."""
    if checkpoint is None:
        from rayscribe.metrics.labeler import RuleLabeler

        return RuleLabeler(as_chexpert=reading == "chexpert")
    if bert is None:
        raise InputError("CheXbert needs --bert: a folder with the config.json and vocab.txt of bert-base-uncased")
    from rayscribe.metrics.chexbert import CheXbert

    return CheXbert.load(checkpoint, bert)
