"""What the training verbs share: options, settings to start from, and a short help of the settings that people change.

Annotations are evaluated here (no postponed ones), because tyro reads them.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rayscribe.errors import InputError

if TYPE_CHECKING:
    from rayscribe.training.started import Started

_C = TypeVar("_C")
_WIDTH = 80
_COLUMN = 34  # where the explanations begin


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run reads and writes."""

    run: Path
    "the run's folder; never overwritten"
    data: Path | None = None
    "the manifest of `rayscribe prepare`; a run that is resumed knows its own"
    config: Path | None = None
    "start from these settings instead of a recipe's: the config.yaml of an earlier run"
    resume: bool = False
    "continue an interrupted run; needs --run alone"
    device: str | None = None
    "cpu, cuda or cuda:N; a GPU where there is one when empty"
    features: Path | None = None
    "folder of the feature cache of frozen image encoders; the user's cache folder when empty"


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What the arguments say before they are parsed as a whole: they decide which settings the flags change."""

    recipe: str | None
    config: Path | None
    run: Path | None
    resume: bool
    flags: Sequence[str]
    "the arguments without the recipe"

    def has(self, flag: str) -> bool:
        """Whether the flag is given, with hyphens or underscores."""
        return any(argument.partition("=")[0].replace("_", "-") == flag for argument in self.flags)

    def whole_flags(self) -> list[str]:
        """The arguments for tyro, whose --help is our --help-all."""
        return ["--help" if flag == "--help-all" else flag for flag in self.flags]

    def settings(self, recipe: Callable[[str], _C], parse: Callable[[str, Path], _C], verb: str) -> _C | None:
        """Of the run that is resumed, of --config, or of the recipe; None where none of them is given.

        `parse` reads a config.yaml: its text and path to settings. `verb`: whose settings they are. Raises InputError for files
        that are not there, or of another verb.
        """
        if self.config is not None and self.recipe is not None:
            raise InputError(f"--config {self.config} takes the place of the recipe {self.recipe}; give one of them")
        if self.config is not None and self.resume:
            raise InputError(f"--config {self.config}: a run that is resumed has its own settings; give --run alone")
        stored = None if self.run is None else self.run / "config.yaml"
        if self.resume and stored is not None and stored.is_file():
            return parse(_settings_text(stored, verb), stored)
        if self.config is not None:
            if not self.config.is_file():
                raise InputError(f"{self.config}: no such file of settings; give the config.yaml of a run")
            return parse(_settings_text(self.config, verb), self.config)
        if self.recipe is not None:
            return recipe(self.recipe)
        if self.resume and self.run is not None:
            raise InputError(f"{self.run}: no run to resume (no config.yaml); start it without --resume")
        return None

    @property
    def asks_help(self) -> bool:
        """Whether --help or --help-all is among the flags."""
        return any(map(self.has, ("-h", "--help", "--help-all")))


def _settings_text(path: Path, verb: str) -> str:
    """The text of a config.yaml. Raises InputError where it is none, or another verb's."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no file of settings; give the config.yaml of a run") from error
    own = "classify train" if re.search(r"^cohort:", text, re.MULTILINE) else "llm train"
    own = "train" if re.search(r"^system:", text, re.MULTILINE) else own
    if verb != own and re.search(r"^(cohort|prompt):|^system:", text, re.MULTILINE):
        raise InputError(f"{path}: settings of `rayscribe {own}`, not of `rayscribe {verb}`")
    return text


def beginning(arguments: Sequence[str]) -> Beginning:
    """The recipe in front, and the few options that are read early."""
    recipe = arguments[0] if arguments and not arguments[0].startswith("-") else None
    flags = list(arguments[1:] if recipe else arguments)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--config", type=Path)
    early.add_argument("--run", type=Path)
    early.add_argument("--resume", action="store_true")
    try:
        found, _ = early.parse_known_args(flags)
    except argparse.ArgumentError as error:
        if not {"-h", "--help", "--help-all"} & set(flags):
            raise InputError(str(error)) from error
        found, _ = early.parse_known_args([])
    return Beginning(recipe=recipe, config=found.config, run=found.run, resume=found.resume, flags=flags)


def frozen_if_asked(base: _C, early: Beginning) -> _C:
    """With --backbone.no-trainable, the settings of a frozen image encoder, which is fed from its cache: no augmentation."""
    from rayscribe.config import with_frozen_encoder

    if not early.has("--backbone.no-trainable"):
        return base
    frozen = with_frozen_encoder(base)
    if attrgetter("images")(frozen) != attrgetter("images")(base):
        print("note: the image encoder is frozen, so images are neither rotated nor flipped", file=sys.stderr)
    return frozen


def started_of(options: RunOptions) -> "Started":
    """What the run is started on, or was; --data and --features replace what a resumed run knows.

    Raises InputError where no manifest is known, or the known one is gone.
    """
    from rayscribe.training.started import STARTED, Started, read_started

    if options.resume and (options.data is None or (options.run / STARTED).is_file()):
        known = read_started(options.run)
        data = options.data or known.data
        if not data.exists():
            raise InputError(f"{data}: the manifest that {options.run} was started on is gone; name it with --data")
        return dataclasses.replace(known, data=data, features=options.features or known.features)
    if options.data is None:
        raise InputError("name the manifest of `rayscribe prepare` with --data")
    return Started(data=options.data, features=options.features)


def short_help(usage: str, options: type[Any], settings: Any, common: Iterable[str], more: Sequence[str]) -> str:
    """The options of a verb, the settings at the paths of `common` with their values, and where the rest is.

    `more`: flags that are named without an explanation.
    """
    lines = [*textwrap.wrap(f"usage: {usage}", _WIDTH, subsequent_indent="    "), "", "options:"]
    for field in dataclasses.fields(options):
        default = None if field.default is dataclasses.MISSING else field.default
        blank = "PATH" if "Path" in str(field.type) else "NAME"
        lines += _entry(field.name, blank if default is None else default, _documents(options).get(field.name, ""))
    lines += ["", "settings that people change, with the values of the recipe:"]
    for path in common:
        parent, _, name = path.rpartition(".")
        part = attrgetter(parent)(settings) if parent else settings
        lines += _entry(path, attrgetter(path)(settings), _documents(type(part)).get(name, ""))
    if more:
        lines += ["", *textwrap.wrap(f"settings of the method: {', '.join(more)}", _WIDTH, subsequent_indent="  ")]
    return "\n".join([*lines, "", "--help-all explains every setting."])


def _entry(path: str, value: Any, text: str) -> list[str]:
    flag = "--" + path.replace("_", "-")
    if isinstance(value, bool):
        head, dot, last = flag[2:].rpartition(".")
        shown = f"{flag}" if value is False else f"--{head}{dot}no-{last}"
    else:
        shown = f"{flag} {_shown(value) or 'NAME'}"
    body = textwrap.wrap(" ".join(text.split()), _WIDTH - _COLUMN)
    first = f"  {shown}"
    if len(first) + 2 > _COLUMN:
        return [first, *(" " * _COLUMN + line for line in body)]
    first_line = first.ljust(_COLUMN) + (body[0] if body else "")
    return [first_line.rstrip(), *(" " * _COLUMN + line for line in body[1:])]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _documents(kind: type[Any]) -> dict[str, str]:
    """The string after every field of a dataclass, which is its explanation."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                found[field.target.id] = str(after.value.value)
    return found
