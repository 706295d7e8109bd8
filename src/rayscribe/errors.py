"""The one exception that a user is meant to read."""

import importlib.util
from collections.abc import Iterable
from difflib import get_close_matches

DISCLAIMER = "Research draft written by a machine-learning model. Not a medical device; not for clinical use."

_WORKER = "Caught InputError in "


class InputError(ValueError):
    """Something that the user gave cannot be used. The message says what is wrong, names the file, and says what to do."""

    def __init__(self, message: str = "") -> None:
        # torch hands on what a process that reads images raised with its whole traceback; the message stands at the end.
        super().__init__(message.rpartition(f"{__name__}.InputError: ")[2].strip() if _WORKER in message else message)


def need_packages(extra: str, *packages: str) -> None:
    """Raises InputError that names the extra unless its packages are installed."""
    if lacking := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise InputError(f"needs {', '.join(lacking)}; install them with `pip install 'rayscribe[{extra}]'`")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not among those known: it asks for the nearest, and lists all."""
    near = get_close_matches(name, known := list(known), n=1)
    listed = f"here are {', '.join(known)}"
    return f"no {what} {name!r}; did you mean {near[0]!r}? T{listed}" if near else f"no {what} {name!r}; t{listed}"
