"""Image encoders: any timm model, cut before its pooling; several of its last stages, and several models, side by side.

Whatever is read, a view has N patches of C channels: first the channels of the model's last map, then those of its earlier
stages, last first, then those of every model beside it. All are averaged to the grid of the first.

Shapes: B studies, V views, I images, H height, W width, N patches of one view, C channels, S patches along a side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayscribe.config import BackboneConfig
from rayscribe.errors import InputError
from rayscribe.models.folder import WEIGHTS, read_weights
from rayscribe.models.pretrained import pretrained_net

_OURS = "backbone.net."  # in our own model folders
_HEADS = ("fc.", "classifier.", "head.", "last_linear.")


class Backbone(nn.Module):
    """8-bit grey pixels to a grid of features, `channels` wide. A frozen one stays in evaluation mode and rounds to float16.

    The rounding makes features from the cache and features computed on the spot the same.
    """

    net: Any
    channels: int
    gain_C11: Tensor
    shift_C11: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        import timm  # seconds to import; only needed where a backbone is built

        if config.name not in timm.list_models(config.name):
            close = timm.list_models(f"*{config.name.split('_')[0]}*")[:5]
            raise InputError(f"no timm model {config.name!r}; similar: {', '.join(close) or 'none'} (--backbone.name)")
        self.config = config
        if config.weights == "pretrained":
            self.net = pretrained_net(config.name)
        else:
            self.net = timm.create_model(config.name, num_classes=0)
        self._earlier = _earlier_channels(self.net, config)
        self.beside = nn.ModuleList(Backbone(one) for one in _configs_beside(config))
        self.channels = self.net.num_features + sum(self._earlier) + sum(part.channels for part in self._parts)
        if config.weights not in ("", "pretrained"):
            load_backbone_weights(self.net, Path(config.weights))
        if config.weights == "pretrained" and config.checks_norm:
            own = self.net.pretrained_cfg
            if (tuple(own["mean"]), tuple(own["std"])) != (tuple(config.mean), tuple(config.std)):
                raise InputError(
                    f"{config.name} was trained with --backbone.mean {own['mean']} and --backbone.std {own['std']}; give these"
                )
        self.net.requires_grad_(config.trainable)
        scale = 255 * torch.tensor(config.std)
        self.register_buffer("gain_C11", (1 / scale)[:, None, None], persistent=False)
        self.register_buffer("shift_C11", (-255 * torch.tensor(config.mean) / scale)[:, None, None], persistent=False)

    def forward(self, pixels_BVHW: Tensor, has_view_BV: Tensor) -> Tensor:
        """Features (B, V, N, C); zeros where there is no view."""
        grid_INC = self.images(pixels_BVHW[has_view_BV])
        maps_BVNC = grid_INC.new_zeros(*has_view_BV.shape, *grid_INC.shape[1:])
        maps_BVNC[has_view_BV] = grid_INC
        return maps_BVNC

    def images(self, pixels_IHW: Tensor) -> Tensor:
        """Features (I, N, C) of single images, uint8."""
        if self.config.trainable:
            return self._grid(pixels_IHW)
        self.net.eval()
        with torch.no_grad():
            return self._grid(pixels_IHW).half()

    def _grid(self, pixels_IHW: Tensor) -> Tensor:
        weight = next(self.net.parameters())
        pixels_I3HW = pixels_IHW[:, None].to(weight.dtype).expand(-1, 3, -1, -1)
        own_INC = self.features(pixels_I3HW * self.gain_C11 + self.shift_C11)
        if not self.beside:
            return own_INC
        parts = [on_grid(part.images(pixels_IHW).to(own_INC.dtype), own_INC.shape[1]) for part in self._parts]
        return torch.cat([own_INC, *parts], dim=-1)

    def features(self, normalised_I3HW: Tensor) -> Tensor:
        """Features (I, N, C) of images that are normalised already, without those of models beside this one."""
        if self.config.layers == 1:
            return self._patches(self.net.forward_features(normalised_I3HW))
        is_among = self.net.feature_info[-1]["num_chs"] == self.net.num_features  # the last stage is the last map
        count = len(self._earlier) + is_among
        last, stages = self.net.forward_intermediates(normalised_I3HW, indices=count, norm=True)
        last_INC = self._patches(last)
        earlier = stages[-1 - is_among :: -1][: len(self._earlier)]
        maps = [on_grid(maps_ICHW, last_INC.shape[1]) for maps_ICHW in earlier]
        return torch.cat([last_INC, *maps], dim=-1)

    def _patches(self, maps: Tensor) -> Tensor:
        """The network's last map as (I, N, C)."""
        if maps.ndim == 4 and maps.shape[1] == self.net.num_features:
            return maps.flatten(2).transpose(1, 2)
        if maps.ndim == 4:  # Swin and its kin keep the channels last
            return maps.flatten(1, 2)
        return maps[:, int(self.net.num_prefix_tokens) :]  # vision transformers: without class and register tokens

    @property
    def _parts(self) -> list[Backbone]:
        return [part for part in self.beside if isinstance(part, Backbone)]

    @property
    def pooled_features(self) -> int:
        """Width of `pooled`."""
        return int(self.net.head_hidden_size) if self._has_layers_after_pooling else self.channels

    def pooled(self, maps_INC: Tensor) -> Tensor:
        """One vector an image (I, P): the mean over its patches, and what the network has after that (VGG's two layers).

        With several layers or encoders it is the mean alone.
        """
        if not self._has_layers_after_pooling:
            return maps_INC.mean(1)
        if not self.config.trainable:
            self.net.eval()
        side = grid_side(maps_INC.shape[1])
        pooled_IP: Tensor = self.net.forward_head(maps_INC.transpose(1, 2).unflatten(2, (side, side)), pre_logits=True)
        return pooled_IP

    @property
    def _has_layers_after_pooling(self) -> bool:
        is_alone = self.channels == self.net.num_features
        return bool(is_alone and self.net.head_hidden_size != self.channels)

    def fingerprint(self) -> str:
        """A hash of architecture, normalisation and every weight, for the feature cache."""
        digest = hashlib.sha256(repr((self.config.name, self.config.mean, self.config.std)).encode())
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        if self.config.layers > 1 or self.beside:
            digest.update(repr((self.config.layers, [part.fingerprint() for part in self._parts])).encode())
        return digest.hexdigest()[:16]


def _configs_beside(config: BackboneConfig) -> list[BackboneConfig]:
    """Settings of the encoders of `--backbone.beside`, each with its own normalisation."""
    from timm.models import get_pretrained_cfg

    found = []
    for one in config.beside:
        named, _, weights = one.partition("=")
        name, *norm = named.split(":")
        own = replace(config, name=name, weights=weights, beside=(), checks_norm=False)
        if norm:
            own = replace(own, mean=(float(norm[0]),) * 3, std=(float(norm[1]),) * 3)
        elif (stated := get_pretrained_cfg(name)) is not None:
            own = replace(own, mean=_colours(stated.mean), std=_colours(stated.std))
        found.append(own)
    return found


def _colours(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _earlier_channels(net: Any, config: BackboneConfig) -> list[int]:
    """Channels of the stages that are read before the last map, last first.

    The last stage's own output counts as an earlier map where a convolution follows it: of mobilenetv2_100, 320 channels
    stand before the last 1,280, and 96 before these.
    """
    if config.layers == 1:
        return []
    known = [stage["num_chs"] for stage in net.feature_info] if hasattr(net, "forward_intermediates") else []
    if known and known[-1] == net.num_features:
        known = known[:-1]
    if len(known) < config.layers - 1:
        raise InputError(
            f"--backbone.layers {config.layers}: {config.name} has {len(known) + 1} that can be read; give at most that"
        )
    return known[::-1][: config.layers - 1]


def on_grid(maps: Tensor, patches: int) -> Tensor:
    """Maps (I, C, H, W), or features (I, N, C) of a square, averaged to `patches` of a square: (I, patches, C)."""
    if maps.ndim == 3:
        if maps.shape[1] == patches:
            return maps
        side = grid_side(maps.shape[1])
        maps = maps.transpose(1, 2).unflatten(2, (side, side))
    side = grid_side(patches)
    return F.adaptive_avg_pool2d(maps, side).flatten(2).transpose(1, 2)


def grid_side(patches: int) -> int:
    """Patches lie in a square, because images are squares."""
    side = math.isqrt(patches)
    assert side * side == patches
    return side


def load_backbone_weights(net: nn.Module, path: Path) -> None:
    """Weights from a .safetensors or .pth file, or from a rayscribe model folder; a classifier head is left out."""
    inside = path / WEIGHTS
    if not path.is_file() and not inside.is_file():
        raise InputError(f"{path}: no such weights file or model folder (--backbone.weights)")
    if inside.is_file():
        whole, _ = read_weights(inside)
        stored = {name.removeprefix(_OURS): tensor for name, tensor in whole.items() if name.startswith(_OURS)}
    else:
        stored = _read_weights(path)
    wanted = net.state_dict()
    stored = {name: tensor for name, tensor in stored.items() if name in wanted or not name.startswith(_HEADS)}
    missing, unknown = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    wrong = [name for name in wanted.keys() & stored.keys() if wanted[name].shape != stored[name].shape]
    if missing or unknown or wrong:
        found = [(missing, "missing"), (unknown, "unknown"), (sorted(wrong), "of another shape")]
        detail = "; ".join(f"{len(names)} {what}, e.g. {names[0]}" for names, what in found if names)
        raise InputError(f"{path}: these weights are of another architecture ({detail}); check --backbone.name")
    net.load_state_dict(stored)


def _read_weights(path: Path) -> dict[str, Tensor]:
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return dict(stored.get("state_dict", stored))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, AttributeError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a weights file that can be read safely ({error})") from error
