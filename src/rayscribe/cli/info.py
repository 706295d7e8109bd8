"""What a manifest or a model folder holds, in lines for a terminal. Never a report's text."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from rayscribe import __version__
from rayscribe.errors import DISCLAIMER, InputError


def describe(path: Path | None) -> str:
    """A few lines on a manifest, a model folder, or (without a path) on the installation."""
    if path is None:
        packages = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm", "numpy", "pydicom")]
        return "\n".join([f"rayscribe {__version__}, Python {platform.python_version()}", *packages, DISCLAIMER])
    if path.is_dir():
        from rayscribe.models.folder import facts_of

        facts = facts_of(path)
        texts = facts.pop("texts", {})  # of a fitted model: may hold training reports
        return _lines(facts | ({"texts": ", ".join(texts)} if texts else {}))
    if path.suffix == ".parquet":
        from rayscribe.data.manifest import read_manifest

        manifest = read_manifest(path)
        return _lines({"manifest": str(path), "digest": manifest.digest()} | manifest.provenance)
    raise InputError(f"{path}: neither a manifest (.parquet) nor a model folder")


def _lines(facts: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(line for line in lines if line)
