"""What a run prepares for itself is built once and kept in the cache folder, named by a digest of all that decides it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rayscribe import __version__
from rayscribe.data.features import default_folder
from rayscribe.data.manifest import Manifest


def prepared(
    kind: str,
    key: Mapping[str, Any],
    build: Callable[[Path], None],
    *,
    features: Path | None,
    is_whole: Callable[[Path], bool] = Path.exists,
) -> Path:
    """The file or folder that `build` makes; made now unless an earlier run has made it.

    An interrupted `build` leaves nothing that a later run takes for whole: it writes to a temporary path, which is renamed
    when it ends well. Processes that prepare the same thing wait for the first of them.

    Args:
        kind: what it is, such as `retrieval`; the first part of its name
        key: everything that decides it: `manifest_key`, settings; JSON values
        build: writes to the path that it is given
        is_whole: whether what is there can be used; what is damaged is built again
        features: folder of the feature cache, beside whose entries it is kept; the user's cache folder when None
    """
    digest = hashlib.sha256(json.dumps([__version__, dict(key)], sort_keys=True).encode()).hexdigest()[:16]
    folder = (features or default_folder()) / "prepared"
    target = folder / f"{kind}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target.exists() and is_whole(target)):
            _remove(target)
            temporary = folder / f".{target.name}.part"
            _remove(temporary)  # left by a process that was killed
            try:
                build(temporary)
                os.replace(temporary, target)
            finally:
                _remove(temporary)
    return target


def manifest_key(manifest: Manifest) -> str:
    """A digest of the manifest's data and of who the patients are, which decides what is similar to what."""
    subjects = [[study.id, study.subject] for study in sorted(manifest.studies, key=lambda one: one.id)]
    return hashlib.sha256(json.dumps([manifest.digest(), subjects]).encode()).hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
