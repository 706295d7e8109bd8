"""Settings to YAML, to plain dictionaries, and back."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rayscribe.config import RunConfig
from rayscribe.errors import InputError

C = TypeVar("C")


def to_yaml(config: Any) -> str:
    return yaml.safe_dump(to_plain(config), sort_keys=False)


def from_yaml(text: str, source: Path | str) -> RunConfig:
    return settings_from_yaml(RunConfig, text, source)


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
    return list(value) if isinstance(value, tuple) else value


def from_plain(kind: type[C], plain: dict[str, Any]) -> C:
    """The inverse of `to_plain`. Unknown names raise TypeError, so that a file of another version is not half read."""
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in plain.items():
        if name not in hints:
            raise TypeError(f"unknown setting {name!r} of {kind.__name__}")
        nested = dataclasses.is_dataclass(hints[name])
        values[name] = from_plain(hints[name], value) if nested else tuple(value) if isinstance(value, list) else value
    return kind(**values)
