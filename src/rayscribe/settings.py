"""Settings: checked where they are made, written to YAML and to plain dictionaries, and read back."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
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


def from_plain(kind: type[C], plain: dict[str, Any], *, at: str = "") -> C:
    """The inverse of `to_plain`; `kind` may be a generic dataclass with its parameters, such as `RunConfig[NoSettings]`.

    Unknown names and values of another type raise TypeError that names the setting, so that no file is half read. `at`: its
    path so far.
    """
    generic: Any = typing.get_origin(kind) or kind
    if not isinstance(plain, dict):
        raise TypeError(f"{f'{at}: ' if at else ''}{plain!r} in place of the settings of {generic.__name__}")
    chosen = dict(zip(typing.get_args(kind) and generic.__parameters__, typing.get_args(kind), strict=True))
    hints = typing.get_type_hints(generic)
    values = {}
    for name, value in plain.items():
        path = f"{at}.{name}".strip(".")
        if name not in hints:
            raise TypeError(f"unknown setting {path!r} of {generic.__name__}")
        hint = chosen.get(hints[name], hints[name])
        nested = dataclasses.is_dataclass(typing.get_origin(hint) or hint)
        values[name] = from_plain(hint, value, at=path) if nested else _value(hint, value, path)
    needed = [
        field.name
        for field in dataclasses.fields(generic)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if lacking := [name for name in needed if name not in values]:
        raise TypeError(f"lacks the setting {', '.join(f'{at}.{name}'.strip('.') for name in lacking)}")
    found: C = generic(**values)
    return found


def _value(hint: Any, value: Any, path: str) -> Any:
    """A value of the hinted type. YAML and JSON know neither paths nor tuples, and YAML reads 1e-4 as a text."""
    if isinstance(value, np.generic):
        value = value.item()
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(choices[0], value, path)
    if origin is typing.Literal:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise TypeError(f"{path}: {value!r} is not one of {', '.join(map(str, choices))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in choices:
            return None
        (kind,) = [choice for choice in choices if choice is not type(None)]
        return _value(kind, value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{path}: {value!r} is no list")
        kinds = [choices[0]] * len(value) if choices[-1] is Ellipsis else list(choices)
        if len(kinds) != len(value):
            raise TypeError(f"{path}: {len(value)} values, not {len(kinds)}")
        return tuple(_value(kind, one, path) for kind, one in zip(kinds, value, strict=True))
    return _scalar(hint, value, path)


def _scalar(kind: Any, value: Any, path: str) -> Any:
    is_bool = isinstance(value, bool)
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise TypeError(f"{path}: {value!r} is no number") from error
    if kind is float and isinstance(value, int) and not is_bool:
        return float(value)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind in (bool, int, float, str) and (not isinstance(value, kind) or (is_bool and kind is not bool)):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
        raise TypeError(f"{path}: {value!r} is not {wanted}")
    return value
