"""Image classifiers: any timm backbone and one logit per finding, for one finding or many at once.

`PooledClassifier` is the system of Koehler, Hsieh and Tang, "MIMIC-CXR: Chest X-ray Image Classification and Report
Generation", 2024 (spec C2): a dropout and one layer. It trains one model per finding on one image; here a study may have
several images, and the mean of their features is classified. `LinearClassifier` reads every image by itself, with a linear map
of its place.

Shapes: B studies, V views, I images, N patches, C channels, G means over patches, P pooled features (F = G C without layers
after pooling), L findings, K places of an image in its study.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rayscribe.models.backbones import Backbone
from rayscribe.models.pooling import pooling_weights
from rayscribe.study import Batch


class Classifier(nn.Module, ABC):
    """Images of a study to one logit per finding."""

    def __init__(self, backbone: Backbone, findings: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.findings = findings

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """Weights of the last layer; features are read in their type and on their device."""

    @property
    @abstractmethod
    def is_linear(self) -> bool:
        """Whether a logit is a sum over patches, so that each patch has a share of it."""

    @abstractmethod
    def classify(self, maps_BVNC: Tensor, has_view_BV: Tensor) -> Tensor:
        """Logits (B, L) from the features of a study's images."""

    def maps(self, batch: Batch) -> Tensor:
        """The backbone's features (B, V, N, C); zeros where there is no view."""
        if batch.maps_BVNC is not None:
            return batch.maps_BVNC.to(self.weight.dtype)
        assert batch.pixels_BVHW is not None
        maps_BVNC: Tensor = self.backbone(batch.pixels_BVHW, batch.has_view_BV)
        return maps_BVNC.to(self.weight.dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, L) of the batch's studies."""
        return self.classify(self.maps(batch), batch.has_view_BV)


class PooledClassifier(Classifier):
    """One layer on the mean feature over a study's images."""

    def __init__(self, backbone: Backbone, findings: int, dropout: float) -> None:
        super().__init__(backbone, findings)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.pooled_features, findings)

    @property
    def weight(self) -> Tensor:
        """Of the one layer (L, P)."""
        return self.head.weight

    @property
    def is_linear(self) -> bool:
        """False: some networks have layers after their pooling."""
        return False

    def classify(self, maps_BVNC: Tensor, has_view_BV: Tensor) -> Tensor:
        """Logits (B, L) from the mean feature over a study's images."""
        pooled_IP = self.backbone.pooled(maps_BVNC[has_view_BV])
        pooled_BVP = pooled_IP.new_zeros(*has_view_BV.shape, pooled_IP.shape[-1])
        pooled_BVP[has_view_BV] = pooled_IP
        mean_BP = pooled_BVP.sum(1) / has_view_BV.sum(1, keepdim=True).clamp(min=1)
        logits_BL: Tensor = self.head(self.drop(mean_BP))
        return logits_BL


class LinearClassifier(Classifier):
    """A linear map for every place of an image in its study; the mean of the images' logits is the study's.

    It reads means of the features over all patches and over the squares of a grid. Images beyond the last place are read as the
    last. Its weights are fitted elsewhere and loaded.
    """

    def __init__(self, backbone: Backbone, findings: int, *, places: int, grid: int) -> None:
        super().__init__(backbone, findings)
        self.grid = grid
        width = (1 + grid**2) * backbone.channels
        self.weight_KLF = nn.Parameter(torch.zeros(places, findings, width), requires_grad=False)
        self.bias_KL = nn.Parameter(torch.zeros(places, findings), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """Of all places (K, L, F)."""
        return self.weight_KLF

    @property
    def is_linear(self) -> bool:
        """True: pooling, map and mean over images are sums."""
        return True

    def classify(self, maps_BVNC: Tensor, has_view_BV: Tensor) -> Tensor:
        """Logits (B, L): the mean over a study's images."""
        pooling_GN = torch.from_numpy(pooling_weights(maps_BVNC.shape[2], self.grid)).to(maps_BVNC)
        places, views = len(self.weight_KLF), maps_BVNC.shape[1]
        total_BL = maps_BVNC.new_zeros(len(maps_BVNC), self.findings)
        for view in range(views):
            place = min(view, places - 1)
            pooled_BF = (pooling_GN @ maps_BVNC[:, view]).flatten(1)
            logits_BL = pooled_BF @ self.weight_KLF[place].T + self.bias_KL[place]
            total_BL = total_BL + logits_BL * has_view_BV[:, view, None]
        return total_BL / has_view_BV.sum(1, keepdim=True).clamp(min=1)


def class_map(model: Classifier, batch: Batch, finding: int) -> Tensor:
    """Where each image supports a finding (B, V, N), at least 0.

    Grad-CAM (Selvaraju et al., 2017), equation 2: a channel's weight is the gradient of the finding's logit, averaged over the
    patches. Where the logit is a sum over patches, each patch has its own gradient, and the map is its share of the logit.
    """
    model.eval()
    with torch.enable_grad():
        maps_BVNC = model.maps(batch).detach().requires_grad_()
        logit_B = model.classify(maps_BVNC, batch.has_view_BV)[:, finding]
        (gradient_BVNC,) = torch.autograd.grad(logit_B.sum(), maps_BVNC)
    weight_BVNC = gradient_BVNC if model.is_linear else gradient_BVNC.mean(2, keepdim=True)
    return (weight_BVNC * maps_BVNC.detach()).sum(-1).relu()
