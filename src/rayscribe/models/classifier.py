"""Image classifiers: any timm backbone, a dropout and one logit per finding; for one finding or many at once.

System: Koehler, Hsieh and Tang, "MIMIC-CXR: Chest X-ray Image Classification and Report Generation", 2024 (spec C2). It trains
one model per finding on one image. Here a study may have several images; the mean of their features is classified.

Shapes: B studies, V views, I images, N patches, C channels, P pooled features, L findings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rayscribe.models.backbones import Backbone
from rayscribe.study import Batch


class Classifier(nn.Module):
    """Images of a study to one logit per finding."""

    def __init__(self, backbone: Backbone, findings: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.pooled_features, findings)

    def maps(self, batch: Batch) -> Tensor:
        """The backbone's features (B, V, N, C); zeros where there is no view."""
        if batch.maps_BVNC is not None:
            return batch.maps_BVNC.to(self.head.weight.dtype)
        assert batch.pixels_BVHW is not None
        maps_BVNC: Tensor = self.backbone(batch.pixels_BVHW, batch.has_view_BV)
        return maps_BVNC.to(self.head.weight.dtype)

    def classify(self, maps_BVNC: Tensor, has_view_BV: Tensor) -> Tensor:
        """Logits (B, L) from the mean feature over a study's images."""
        pooled_IP = self.backbone.pooled(maps_BVNC[has_view_BV])
        pooled_BVP = pooled_IP.new_zeros(*has_view_BV.shape, pooled_IP.shape[-1])
        pooled_BVP[has_view_BV] = pooled_IP
        mean_BP = pooled_BVP.sum(1) / has_view_BV.sum(1, keepdim=True).clamp(min=1)
        logits_BL: Tensor = self.head(self.drop(mean_BP))
        return logits_BL

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, L) of the batch's studies."""
        return self.classify(self.maps(batch), batch.has_view_BV)


def class_map(model: Classifier, batch: Batch, finding: int) -> Tensor:
    """Where each image supports a finding: Grad-CAM (Selvaraju et al., 2017), equation 2; (B, V, N), at least 0.

    A channel's weight is the gradient of the finding's logit, averaged over the patches.
    """
    model.eval()
    with torch.enable_grad():
        maps_BVNC = model.maps(batch).detach().requires_grad_()
        logit_B = model.classify(maps_BVNC, batch.has_view_BV)[:, finding]
        (gradient_BVNC,) = torch.autograd.grad(logit_B.sum(), maps_BVNC)
    weight_BV1C = gradient_BVNC.mean(2, keepdim=True)
    return (weight_BV1C * maps_BVNC.detach()).sum(-1).relu()
