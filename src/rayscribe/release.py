"""A model folder to a copy that can be passed on: what is needed to use it, without logs, states and local paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayscribe.checkpoint import load_fitted, load_model
from rayscribe.classifiers.folder import CLASSIFIER_FORMAT, load_classifier
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.models.folder import FITTED, VISION_LLM
from rayscribe.provenance import SEEN, check_publishable

_PARTS = ("model.safetensors", "vocabulary.json", "README.md", SEEN)
_LLM_PARTS = (
    "*.safetensors",
    "*config.json",
    "*token*.json",
    "vocab.json",
    "*template.json",
    "*.index.json",
    "*.jinja",
    "README.md",
    SEEN,
)
"Of a vision LLM: adapters, processor and tokenizer, and the base where it was merged. Not what was written beside them."


def export_model(model: Path, out: Path, *, terms_allow_it: bool) -> None:
    """`out` appears as a whole or not at all. Raises InputError for restricted data, or a folder that does not load."""
    try:
        about: dict[str, Any] = json.loads((model / "model.json").read_text())
        kind, data = str(about["format"]), dict(about["data"])
        settings = _without_places(dict(about["config"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{model}: no rayscribe model ({error!r})") from error
    check_publishable(data, is_allowed=terms_allow_it)
    if out.exists():
        raise InputError(f"{out}: already exists; give another --out")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for pattern in _LLM_PARTS if kind == VISION_LLM else _PARTS:
            for path in model.glob(pattern):
                shutil.copyfile(path, temporary / path.name)
        data.pop("root", None)
        bare = about | {"data": data, "config": settings}
        write_text(temporary / "model.json", json.dumps(bare, indent=2) + "\n")
        if kind == VISION_LLM:
            _check_llm(temporary, str(about["config"]["base"]))
        elif kind == CLASSIFIER_FORMAT:
            load_classifier(temporary)
        elif kind == FITTED:
            load_fitted(temporary)
        else:
            load_model(model).resources.save(temporary)
            load_model(temporary)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Paths become names: where a file lay is private, and what it held is in the folder."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found[name] = _without_places(value)
        else:
            is_place = isinstance(value, str) and "/" in value and (name != "base" or Path(value).exists())
            is_place = is_place and name != "instruction"  # a prompt is words, which may hold a slash
            found[name] = Path(value).name if is_place else value  # a base that is no folder is an id of the hub
        if name == "beside":
            found[name] = [_without_place(str(one)) for one in value]
    return found


def _without_place(encoder: str) -> str:
    """NAME=PATH of an image encoder, with the file's name alone."""
    name, is_named, path = encoder.partition("=")
    return f"{name}{is_named}{Path(path).name}"


def _check_llm(copy: Path, base: str) -> None:
    """The adapters' own note names the folder of the base, too. The base itself is not loaded, which may take tens of GB."""
    from rayscribe.vision_llm.folder import check_adapters

    settings = copy / "adapter_config.json"
    if settings.is_file():
        noted = json.loads(settings.read_text())
        noted["base_model_name_or_path"] = Path(base).name if Path(base).exists() else base
        write_text(settings, json.dumps(noted, indent=2) + "\n")
    check_adapters(copy)
