"""timm's published weights: from the local cache, or downloaded. Without a network this fails at once, and says what to do."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import Any

from rayscribe.errors import InputError

_SECONDS = 10.0
"How long a server may take to answer."
_FILES = ("model.safetensors", "pytorch_model.bin")
"In timm's repositories, the better one first."


def pretrained_net(name: str) -> Any:
    """A timm network without its head, with the weights that timm published for it.

    Raises InputError where timm published none, and where they are neither on this disk nor within reach.
    """
    import timm  # seconds to import
    from timm.models import get_pretrained_cfg

    source = get_pretrained_cfg(name)
    if source is None or not (source.hf_hub_id or source.url):
        raise InputError(
            f"timm has no pretrained weights of {name}; give a file or a model folder (--backbone.weights)"
        )
    if cached := _cached(source):
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": cached})
    _check_reachable(name, source)
    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except OSError as error:  # what huggingface_hub and urllib raise
        raise _unreachable(name, source, error) from error


def _cached(source: Any) -> str | None:
    """The file that an earlier download left, if any."""
    if not source.hf_hub_id:
        return None  # torch looks into its own cache before it downloads
    from huggingface_hub import try_to_load_from_cache

    names = (source.hf_hub_filename,) if source.hf_hub_filename else _FILES
    paths = [try_to_load_from_cache(source.hf_hub_id, one) for one in names]
    return next((path for path in paths if isinstance(path, str)), None)


def _check_reachable(name: str, source: Any) -> None:
    """One question before the download, because huggingface_hub asks for a minute before it gives up."""
    if not source.hf_hub_id:
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _unreachable(name, source, OSError("HF_HUB_OFFLINE is set"))
    try:
        with urllib.request.urlopen(urllib.request.Request(_address(source), method="HEAD"), timeout=_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # somebody answers
    except OSError as error:
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, ssl.SSLError):
            return  # huggingface_hub may know the certificate
        raise _unreachable(name, source, error) from error


def _address(source: Any) -> str:
    if not source.hf_hub_id:
        return str(source.url)
    from huggingface_hub import hf_hub_url

    return hf_hub_url(source.hf_hub_id, source.hf_hub_filename or _FILES[0])


def _unreachable(name: str, source: Any, error: OSError) -> InputError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else str(error).strip().split("\n")[0]
    return InputError(
        f"--backbone.weights pretrained: the weights of {name} are not on this disk and cannot be downloaded ({reason}). "
        f"On a machine with a network, download {_address(source)}, copy the file here, and give --backbone.weights FILE"
    )
