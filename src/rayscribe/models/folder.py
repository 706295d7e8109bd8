"""What all model folders share, those of report models and of classifiers: weights in safetensors, facts in model.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rayscribe.errors import InputError
from rayscribe.files import sha256_of, whole_file

WEIGHTS = "model.safetensors"
VISION_LLM = "rayscribe-vision-llm-1"
"Format of a vision LLM's folder, recognised before transformers is imported."
FITTED = "rayscribe-fitted-1"
"Format of the folder of a method that fits without gradient steps."
REPORT_MODEL = "rayscribe-model-1"
"Format of a report model's folder."
_KINDS = {
    REPORT_MODEL: "a report model",
    FITTED: "a method that was fitted in closed form",
    VISION_LLM: "a vision LLM",
    "rayscribe-classifier-1": "a classifier of findings (`rayscribe classify predict`)",
}


def write_weights(path: Path, model: nn.Module, **metadata: str) -> None:
    """Writes safetensors; the file is replaced as a whole, so an interrupted save leaves a folder that loads."""
    write_tensors(path, named_tensors(model), **metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """The same for tensors by name. Raises InputError if the file cannot be written."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with whole_file(path) as temporary:
            save_file(state, temporary, metadata={"format": "pt", **metadata})
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be written ({error}); free some disk space and continue") from error


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the file's metadata. Raises InputError if the file is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); copy the folder again") from error


def load_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Loads `state`, read from `path`, into the model. Raises InputError where a name or a shape differs."""
    wanted = named_tensors(model)
    differences = [f"{name} is missing" for name in sorted(wanted.keys() - state.keys())]
    differences += [f"{name} is unknown" for name in sorted(state.keys() - wanted.keys())]
    differences += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise InputError(f"{path}: the weights do not fit model.json: {'; '.join(differences[:3])}{more}")
    model.load_state_dict(state, strict=False)  # compared above; tied tensors have one name in the file


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name; tied ones, such as BERT's word embedding, under their first name only."""
    found: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            found[name] = tensor
    return found


def origin_of(weights: str) -> list[dict[str, Any]]:
    """Provenance of the data behind `weights` (--backbone.weights): a model folder's, empty for other files."""
    path = Path(weights) / "model.json" if weights else Path()
    if not path.is_file():
        return []
    try:
        return [dict(json.loads(path.read_text())["data"])]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a rayscribe model ({error!r})") from error


def read_facts(folder: Path, format: str) -> dict[str, Any]:
    """model.json of a folder of this format, without loading weights. Raises InputError for any other format."""
    about, found = facts_of(folder), format_of(folder)
    if found != format:
        raise InputError(
            f"{folder}: holds {_KINDS.get(found, f'the format {found!r}')}; {_KINDS[format]} is needed here"
        )
    return about


def format_of(folder: Path) -> str:
    """The folder's format, such as `REPORT_MODEL`. Raises InputError as `facts_of`."""
    return str(facts_of(folder)["format"])


def facts_of(folder: Path) -> dict[str, Any]:
    """model.json of a folder of any format. Raises InputError if it is missing or not ours."""
    path = folder / "model.json"
    if not path.is_file():
        inside = sorted(str(one.parent) for one in folder.glob("*/model.json"))
        advice = (
            f"there is one in {', '.join(inside)}"
            if inside
            else "train one with `rayscribe train`, or get one by running `rayscribe demo`"
        )
        raise InputError(f"{folder}: no rayscribe model (no model.json); {advice}")
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        about["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a rayscribe model ({error!r})") from error
    return about


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the folder's weights; for a vision LLM: its adapters, with the digests of its base and of its prompt.

    An untuned base can be prompted differently, which makes it another writer.
    """
    about = facts_of(folder)
    if about["format"] == VISION_LLM:
        asked = {name: value for name, value in about["config"]["prompt"].items() if name != "findings"}
        words = json.dumps(
            [asked, about["config"]["images"], about["config"]["text"]["max_new_tokens"]], sort_keys=True
        )
        prompt = hashlib.sha256(words.encode()).hexdigest()[:12]
        return f"{about['base_sha256']} + {about['adapters_sha256']}, prompt {prompt}"
    return sha256_of(folder / WEIGHTS)
