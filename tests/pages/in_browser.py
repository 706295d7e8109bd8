"""An installed Chromium for the tests of the pages. Where there is none they skip, or fail if it has to be there."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NEEDED = os.environ.get("RAYSCRIBE_NEEDS_BROWSER") == "1"
"Set where a browser has to be there, as by .ci/run: what would skip then fails."

if NEEDED:
    sync_api = importlib.import_module("playwright.sync_api")
else:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()


def launched() -> Iterator[Any]:
    """The browser, for a fixture."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if NEEDED else pytest.skip)("needs Chromium: apt-get install chromium, or another package of it")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS, headless=True)
        yield chromium
        chromium.close()
