"""Programs that check our files from outside; where one is absent, its tests say so."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def needed_tool(*names: str) -> str:
    """The first program of these that is installed, or a file that is there. Otherwise the test is skipped, or fails where
    RAYSCRIBE_NEEDS_TOOLS=1."""
    for name in names:
        if found := shutil.which(name) or (name if Path(name).is_file() else None):
            return found
    return _absent(f"needs {names[0]} on this machine")


def needed_package(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        _absent(f"needs the package {name}")


def _absent(reason: str) -> str:
    if os.environ.get("RAYSCRIBE_NEEDS_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
