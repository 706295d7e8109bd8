"""What version 0.3 wrote and accepted: converts its settings, and gives the current names of its flags and recipes.

In it, a run had one settings object for all methods, with a part for each. Weights had the same names as now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayscribe.errors import InputError

_MEMORIES = {
    "r2gen": ("memory_slots", "memory_heads"),
    "r2gen_cmn": ("memory_heads", "memory_size", "memory_top", "memory_queries", "memory_residual"),
}

RECIPES = {
    "ithn": "r2gen_cmn+ithn",
    "kif_isd": "kif` or `kif+isd --generations 2",
    "kif_isd_bert": "kif_bert` or `kif_bert+isd --generations 2",
}
"Recipes that have been renamed."

FLAGS = {
    "--ithn.enabled": "train RECIPE+ithn",
    "--ithn.": "--method.ithn. of train RECIPE+ithn",
    "--distill.": "--method.isd. of train RECIPE+isd",
    "--jima.": "--method.",
    "--diagnosis.": "--method.",
    "--kif.": "--method.",
    "--model.memory-": "--method.memory-",
    "--model.no-memory-residual": "--method.no-memory-residual",
    "--model.method": "train METHOD",
}
"Prefixes of flags that have been renamed; `--no-` may precede the last part."


def is_old(plain: Mapping[str, Any]) -> bool:
    """Whether these settings of a run were written by version 0.3."""
    return "system" not in plain and "method" in plain.get("model", {})


def upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a version 0.3 run in the current form, both as plain dictionaries; others are returned unchanged."""
    if not is_old(plain):
        return dict(plain)
    model = dict(plain["model"])
    name = str(model.pop("method"))
    memories = {key: model.pop(key) for key in list(model) if key.startswith("memory_")}
    parts = {key: dict(plain.get(key, {})) for key in ("jima", "diagnosis", "kif", "distill", "ithn")}
    if name == "kif":
        method: dict[str, Any] = {"diagnosis": parts["diagnosis"], **parts["kif"]}
    elif name == "promptmrg":
        method = parts["diagnosis"]
    elif name == "jima":
        method = parts["jima"]
    else:
        method = {key: memories[key] for key in _MEMORIES.get(name, ()) if key in memories}
    system = name
    if parts["distill"].get("teacher"):
        system, method = f"{system}+isd", {"host": method, "plug_in": parts["distill"]}
    if parts["ithn"].pop("enabled", False):
        system, method = f"{system}+ithn", {"host": method, "plug_in": parts["ithn"]}
    kept = {key: value for key, value in plain.items() if key not in {*parts, "model"}}
    return {"system": system, "method": method, "model": model, **kept}


def refuse_old_names(recipe: str, arguments: Sequence[str]) -> None:
    """Raises InputError that gives the current name of a version 0.3 recipe or flag."""
    first = recipe.partition("+")[0]
    if first in RECIPES:
        today = RECIPES[first]
        raise InputError(f"the recipe {first} is now `{today}`: rayscribe train {today.split('`')[0]} ...")
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        for old, new in FLAGS.items():
            if flag.startswith(old) and (old.endswith((".", "-")) or flag == old):
                raise InputError(f"{flag} is now {_new(flag, old, new)}; see Upgrading in CHANGELOG.md")


def _new(flag: str, old: str, new: str) -> str:
    if not new.startswith("--") or not old.endswith((".", "-")):
        return new
    prefix, _, where = new.partition(" ")
    return f"{prefix}{flag.removeprefix(old)} {where}".strip()
