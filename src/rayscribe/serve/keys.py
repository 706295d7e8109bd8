"""API keys: random, shown once, kept as hashes.

A key has 256 random bits, so a plain SHA-256 of it cannot be inverted; slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from rayscribe.errors import InputError
from rayscribe.files import write_text

_LINE = re.compile(r"([A-Za-z0-9_-]{1,40}) ([0-9a-f]{64})")


def add_key(name: str, path: Path) -> str:
    """A new key, whose hash is appended to the file. Raises InputError for a name that is taken or not allowed."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name):
        raise InputError(f"{name}: a key's name may have up to 40 letters, digits, - and _")
    known = dict(read_keys(path)) if path.exists() else {}
    if name in known:
        raise InputError(f"{path}: already has a key named {name}; delete its line first, or choose another name")
    key = f"rs_{secrets.token_urlsafe(32)}"
    lines = [f"{one} {digest}" for one, digest in {**known, name: _digest(key)}.items()]
    write_text(path, "\n".join(lines) + "\n")
    path.chmod(0o600)
    return key


def read_keys(path: Path) -> Mapping[str, str]:
    """SHA-256 by name. Raises InputError that names the file and the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; create a key with `rayscribe api-key NAME --keys {path}`") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"{path}: line {number} is not a name and a SHA-256; `rayscribe api-key` writes such lines"
            )
        found[match[1]] = match[2]
    if not found:
        raise InputError(f"{path}: contains no key; create one with `rayscribe api-key NAME --keys {path}`")
    return found


def owner_of(key: str, keys: Mapping[str, str]) -> str | None:
    """The key's name, or None. Compares every key, in constant time."""
    digest, owner = _digest(key), None
    for name, known in keys.items():
        if hmac.compare_digest(digest, known):
            owner = name
    return owner


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
