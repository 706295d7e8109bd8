"""timm's weights with and without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from rayscribe.config import BackboneConfig
from rayscribe.errors import InputError
from rayscribe.models.backbones import Backbone, load_backbone_weights
from rayscribe.models.pretrained import pretrained_net

PLACE = "timm/test_resnet.r160_in1k"


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path


def unreachable(request: Any, timeout: float) -> None:
    raise urllib.error.URLError("Name or service not known")


def test_without_a_network_pretrained_says_which_file_to_fetch(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(InputError) as caught:
        Backbone(BackboneConfig(name="test_resnet", weights="pretrained"))
    message = str(caught.value)
    assert "cannot be downloaded (Name or service not known)" in message
    assert f"download {constants.ENDPOINT}/{PLACE}/resolve/main/model.safetensors" in message
    assert message.endswith("copy the file here, and give --backbone.weights FILE")


def test_a_download_that_breaks_off_says_the_same(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("rayscribe.models.pretrained._check_reachable", lambda name, source: None)
    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(InputError, match=r"Connection reset by peer\). On a machine with a network, download https://"):
        pretrained_net("test_resnet")


def test_offline_mode_asks_no_server(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("a server was asked"))
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        pretrained_net("test_resnet")


def test_weights_in_the_cache_load_without_a_network(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    published = timm.create_model("test_resnet")
    folder = no_cache / f"models--{PLACE.replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(published.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    found = Backbone(BackboneConfig(name="test_resnet", weights="pretrained", checks_norm=False)).net.state_dict()
    assert found and all(torch.equal(tensor, published.state_dict()[name]) for name, tensor in found.items())


def test_the_file_that_the_message_names_is_what_weights_takes(tmp_path: Path) -> None:
    published = timm.create_model("test_resnet")
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    load_backbone_weights(timm.create_model("test_resnet", num_classes=0), tmp_path / "model.safetensors")


def test_a_network_that_timm_never_trained_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    untrained = SimpleNamespace(hf_hub_id=None, url="")
    monkeypatch.setattr("timm.models.get_pretrained_cfg", lambda name: untrained)
    with pytest.raises(InputError, match="timm has no pretrained weights of test_resnet"):
        pretrained_net("test_resnet")


@pytest.mark.slow
def test_a_server_that_is_not_there_is_given_up_within_seconds(tmp_path: Path) -> None:
    ask = (
        "from rayscribe.config import BackboneConfig\nfrom rayscribe.models.backbones import Backbone\n"
        "Backbone(BackboneConfig(name='test_resnet', weights='pretrained'))"
    )
    here = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=os.environ | here)
    assert "http://127.0.0.1:9/timm/test_resnet.r160_in1k/resolve/main/model.safetensors" in ended.stderr
    assert time.monotonic() - began < 20  # huggingface_hub alone takes 46 seconds
