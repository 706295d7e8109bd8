"""Several layers and several image encoders side by side are the parts, computed alone and concatenated; one is what it was."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models import get_pretrained_cfg
from torch.nn import functional as F

from conftest import small_config
from rayscribe.checkpoint import load_model
from rayscribe.config import BackboneConfig
from rayscribe.data.manifest import read_manifest
from rayscribe.data.retrieval import Retrieval
from rayscribe.errors import InputError
from rayscribe.models.backbones import Backbone, on_grid
from rayscribe.training.run import train_method

ALONE = BackboneConfig(name="test_resnet", trainable=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of three networks."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("test_resnet", "test_vit", "test_efficientnet")):
        torch.manual_seed(seed)
        save_file(Backbone(BackboneConfig(name=name)).net.state_dict(), folder / f"{name}.safetensors")
    return folder


def named(name: str, weights: Path, **changes: object) -> BackboneConfig:
    return replace(ALONE, name=name, weights=str(weights / f"{name}.safetensors"), **changes)


def pixels() -> torch.Tensor:
    return torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_one_layer_of_one_encoder_is_what_it_was(weights: Path) -> None:
    backbone = Backbone(named("test_resnet", weights))
    normalised = pixels()[:, None].float().expand(-1, 3, -1, -1) * backbone.gain_C11 + backbone.shift_C11
    with torch.no_grad():
        wanted = backbone.net.eval().forward_features(normalised).flatten(2).transpose(1, 2).half()
    assert torch.equal(backbone.images(pixels()), wanted)
    assert all(name.startswith("net.") for name in backbone.state_dict())
    config = backbone.config
    digest = hashlib.sha256(repr((config.name, config.mean, config.std)).encode())
    for name, tensor in sorted(backbone.net.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert backbone.fingerprint() == digest.hexdigest()[:16]


def test_encoders_side_by_side_are_their_features_in_a_row(weights: Path) -> None:
    beside = (
        f"test_vit={weights / 'test_vit.safetensors'}",
        f"test_efficientnet:0.4:0.25={weights / 'test_efficientnet.safetensors'}",
    )
    found = Backbone(named("test_resnet", weights, beside=beside))
    own = Backbone(named("test_resnet", weights))
    stated = get_pretrained_cfg("test_vit")
    vit = Backbone(named("test_vit", weights, mean=tuple(stated.mean), std=tuple(stated.std)))
    other = Backbone(named("test_efficientnet", weights, mean=(0.4,) * 3, std=(0.25,) * 3))
    maps = found.images(pixels())
    parts = [on_grid(one.images(pixels()).float(), 4).half() for one in (own, vit, other)]
    assert vit.images(pixels()).shape[1] == 16 and maps.dtype == torch.float16
    assert torch.equal(maps, torch.cat(parts, -1))
    assert found.channels == maps.shape[-1] == own.channels + vit.channels + other.channels


@pytest.mark.parametrize(("name", "widths"), [("test_resnet", (96, 192, 48)), ("test_efficientnet", (256, 64, 48))])
def test_earlier_stages_stand_behind_the_last_map_on_its_grid(
    weights: Path, name: str, widths: tuple[int, ...]
) -> None:
    found = Backbone(named(name, weights, layers=3))
    last = Backbone(named(name, weights)).images(pixels())
    maps = found.images(pixels())
    assert torch.equal(maps[..., : widths[0]], last) and found.channels == sum(widths)
    normalised = pixels()[:, None].float().expand(-1, 3, -1, -1) * found.gain_C11 + found.shift_C11
    with torch.no_grad():
        _, stages = found.net.forward_intermediates(normalised)
    wanted = [stage for stage in stages if stage.shape[1] in widths[1:]][::-1]
    averaged = [F.adaptive_avg_pool2d(stage, 2).flatten(2).transpose(1, 2).half() for stage in wanted]
    assert torch.equal(maps[..., widths[0] :], torch.cat(averaged, -1))


def test_a_transformer_gives_the_patches_of_its_last_blocks(weights: Path) -> None:
    found = Backbone(named("test_vit", weights, layers=2))
    last = Backbone(named("test_vit", weights)).images(pixels())
    maps = found.images(pixels())
    assert maps.shape == (3, 16, 128) and torch.equal(maps[..., :64], last)
    assert not torch.equal(maps[..., 64:], last)


def test_trainable_encoders_learn_in_every_part() -> None:
    config = BackboneConfig(name="test_resnet", layers=2, beside=("test_efficientnet",))
    backbone = Backbone(config).train()
    backbone.images(pixels()).square().sum().backward()
    used = {name.split(".")[0] for name, one in backbone.named_parameters() if one.grad is not None and one.grad.any()}
    assert used == {"net", "beside"}


def test_pooled_features_of_a_composite_are_means() -> None:
    backbone = Backbone(replace(ALONE, layers=2, beside=("test_vit",)))
    maps = backbone.images(pixels()).float()
    assert backbone.pooled_features == backbone.channels and torch.equal(backbone.pooled(maps), maps.mean(1))


def test_the_fingerprint_tells_layers_and_the_encoders_beside(weights: Path) -> None:
    one, other = (f"{name}={weights / name}.safetensors" for name in ("test_vit", "test_efficientnet"))
    configs = [
        named("test_resnet", weights, **changes)
        for changes in ({}, {"layers": 2}, {"beside": (one,)}, {"beside": (other,)}, {"beside": (one, other)})
    ]
    assert len({Backbone(config).fingerprint() for config in configs}) == len(configs)


def test_settings_that_no_encoder_has_are_named() -> None:
    with pytest.raises(InputError, match=r"--backbone.layers 9: test_resnet has 5 that can be read"):
        Backbone(replace(ALONE, layers=9))
    with pytest.raises(InputError, match=r"no timm model 'test_resnot'"):
        Backbone(replace(ALONE, beside=("test_resnot",)))
    for wrong in ("=weights.pth", "test_vit:0.5=x", "test_vit:0.5:0=x", "test_vit:a:b=x"):
        with pytest.raises(InputError, match=r"--backbone.beside .*write NAME=WEIGHTS"):
            BackboneConfig(beside=(wrong,))
    with pytest.raises(InputError, match=r"--backbone.layers 0"):
        BackboneConfig(layers=0)


def test_every_source_of_weights_is_told() -> None:
    config = BackboneConfig(name="a", weights="/x/w.pth", layers=2, beside=("b=/y/v.pth", "c:0.5:0.5"))
    assert config.sources == ("/x/w.pth", "/y/v.pth")
    assert config.without_weights().sources == () and config.without_weights().beside == ("b", "c:0.5:0.5")
    assert config.described == (
        "a (2 layers) beside b (2 layers) beside c (2 layers), trained, started from w.pth, v.pth, random weights"
    )


@pytest.mark.parametrize("trainable", [False, True])
def test_a_report_model_takes_several_encoders_and_loads_without_their_files(
    world: Path, weights: Path, tmp_path: Path, trainable: bool
) -> None:
    beside = (f"test_vit={weights / 'test_vit.safetensors'}",)
    config = small_config("baseline", epochs=1)
    backbone = named("test_resnet", weights, layers=2, beside=beside, trainable=trainable)
    train_method(replace(config, backbone=backbone), world, tmp_path / "run", features=tmp_path / "features")
    loaded = load_model(tmp_path / "run").model.backbone
    assert loaded.channels == 96 + 192 + 64 + 64
    own = loaded.beside.get_submodule("0").net.state_dict()
    started = load_file(weights / "test_vit.safetensors")
    assert all(torch.equal(own[name], started[name]) for name in own) is not trainable


def test_an_index_by_several_encoders_loads_without_their_files(
    world: Path, weights: Path, tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    shutil.copytree(weights, tmp_path / "weights")
    one, other = (tmp_path / "weights" / f"{name}.safetensors" for name in ("test_resnet", "test_vit"))
    flags = ["--backbone.name", "test_resnet", "--backbone.weights", one, "--backbone.beside", f"test_vit={other}"]
    sizes = ["--images.size", 64, "--images.resize", 68, "--width", 16, "--features", tmp_path / "features"]
    rayscribe("build", "retrieval", world, "--out", tmp_path / "index", *flags, *sizes)
    shutil.rmtree(tmp_path / "weights")
    index = Retrieval.load(tmp_path / "index")
    studies = read_manifest(world).split("test")
    vectors = index.study_vectors(studies, folder=tmp_path / "features")
    assert vectors.shape == (len(studies), 16) and vectors.norm(dim=1).allclose(torch.ones(len(studies)))


def test_a_vision_llm_takes_one_encoder(tmp_path: Path) -> None:
    tower = pytest.importorskip("rayscribe.vision_llm.tower")
    for changed in ({"layers": 2}, {"beside": ("test_vit",)}):
        with pytest.raises(InputError, match="last layer of one image encoder"):
            tower.compose(tmp_path / "words", replace(ALONE, **changed), tmp_path / "out")
