"""A model folder to a copy that can be passed on: what is needed to use it, without logs, states and local paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayscribe.checkpoint import load_model
from rayscribe.classifier_folder import FORMAT, load_classifier
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.seen import SEEN
from rayscribe.terms import check_publishable

_PARTS = ("model.safetensors", "vocabulary.json", "graph.json", "README.md", SEEN)
_FOLDERS = ("retrieval",)


def export_model(model: Path, out: Path, *, terms_allow_it: bool) -> None:
    """`out` appears as a whole or not at all. Raises InputError for restricted data, or a folder that does not load."""
    try:
        about: dict[str, Any] = json.loads((model / "model.json").read_text())
        is_classifier, data = about["format"] == FORMAT, dict(about["data"])
        settings = _without_places(dict(about["config"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{model}: no rayscribe model ({error!r})") from error
    check_publishable(data, is_allowed=terms_allow_it)
    if out.exists():
        raise InputError(f"{out}: is there already; give another --out")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name in _PARTS:
            if (model / name).is_file():
                shutil.copyfile(model / name, temporary / name)
        for name in _FOLDERS:
            if (model / name).is_dir():
                shutil.copytree(model / name, temporary / name)
        data.pop("root", None)
        bare = about | {"data": data, "config": settings}
        write_text(temporary / "model.json", json.dumps(bare, indent=2) + "\n")
        (load_classifier if is_classifier else load_model)(temporary)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Paths become names: where a file lay is nobody's business, and what it held is in the folder."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found[name] = _without_places(value)
        else:
            found[name] = Path(value).name if isinstance(value, str) and "/" in value else value
    return found
