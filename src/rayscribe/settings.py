"""Settings: checked where they are made, written to YAML and to plain dictionaries, and read back."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rayscribe.errors import InputError

C = TypeVar("C")


def need(fits: bool, flag: str, value: object, what: str) -> None:
    """Raises InputError that names the flag, and its value where it has one, unless the setting fits."""
    if not fits:
        raise InputError(f"{flag} {value}".strip() + f": {what}")


def to_yaml(config: Any) -> str:
    return yaml.safe_dump(to_plain(config), sort_keys=False)


def settings_from_yaml(kind: type[C], text: str, source: Path | str) -> C:
    """Settings of any kind: a report model's, or a classifier's."""
    try:
        return from_plain(kind, yaml.safe_load(text))
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: not a rayscribe configuration ({error})") from error


def to_plain(config: Any) -> dict[str, Any]:
    """Nested dictionaries of numbers, strings and lists, for YAML and JSON."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def from_plain(kind: type[C], plain: dict[str, Any]) -> C:
    """The inverse of `to_plain`; `kind` may be a generic dataclass with its parameters, such as `RunConfig[NoSettings]`.

    Unknown names raise TypeError, so that a file of another version is not half read.
    """
    generic: Any = typing.get_origin(kind) or kind
    if not isinstance(plain, dict):
        raise TypeError(f"{plain!r} in place of the settings of {generic.__name__}")
    chosen = dict(zip(typing.get_args(kind) and generic.__parameters__, typing.get_args(kind), strict=True))
    hints = typing.get_type_hints(generic)
    values = {}
    for name, value in plain.items():
        if name not in hints:
            raise TypeError(f"unknown setting {name!r} of {generic.__name__}")
        hint = chosen.get(hints[name], hints[name])
        nested = dataclasses.is_dataclass(typing.get_origin(hint) or hint)
        values[name] = from_plain(hint, value) if nested else _value(hint, value)
    found: C = generic(**values)
    return found


def _value(hint: Any, value: Any) -> Any:
    """A number, a string, a path, or several of them; YAML and JSON know neither paths nor tuples."""
    if isinstance(value, str) and Path in (hint, *typing.get_args(hint)):
        return Path(value)
    return tuple(value) if isinstance(value, list) and typing.get_origin(hint) is not list else value
