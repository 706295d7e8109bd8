"""Chest X-rays to draft radiology reports: `import rayscribe as rs`. The names below are the public ones; docs/api.md.

Every name is imported when it is first used, so that the import itself needs neither torch nor timm.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayscribe.api.models import Model, load
    from rayscribe.api.scoring import evaluate, label, score
    from rayscribe.api.training import list_recipes, recipe, train
    from rayscribe.data.manifest import Manifest, read_manifest
    from rayscribe.drafts import DecodingConfig
    from rayscribe.errors import DISCLAIMER, InputError
    from rayscribe.evaluation.protocol import Protocol
    from rayscribe.reports.document import Document

__version__ = "0.5.0"

__all__ = [
    "DISCLAIMER",
    "DecodingConfig",
    "Document",
    "InputError",
    "Manifest",
    "Model",
    "Protocol",
    "evaluate",
    "label",
    "list_recipes",
    "load",
    "read_manifest",
    "recipe",
    "score",
    "train",
]

_MODULES = {
    "DISCLAIMER": "rayscribe.errors",
    "DecodingConfig": "rayscribe.drafts",
    "Document": "rayscribe.reports.document",
    "InputError": "rayscribe.errors",
    "Manifest": "rayscribe.data.manifest",
    "Model": "rayscribe.api.models",
    "Protocol": "rayscribe.evaluation.protocol",
    "evaluate": "rayscribe.api.scoring",
    "label": "rayscribe.api.scoring",
    "list_recipes": "rayscribe.api.training",
    "load": "rayscribe.api.models",
    "read_manifest": "rayscribe.data.manifest",
    "recipe": "rayscribe.api.training",
    "score": "rayscribe.api.scoring",
    "train": "rayscribe.api.training",
}
"Where each public name is defined."


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rayscribe' has no attribute {name!r}")
    found = vars(import_module(_MODULES[name]))[name]
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
