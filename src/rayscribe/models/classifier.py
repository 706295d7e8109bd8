"""Image classifiers: any timm backbone, a dropout and one logit a finding; alone or many findings at once.

System: Koehler, Hsieh and Tang, "MIMIC-CXR: Chest X-ray Image Classification and Report Generation", 2024 (spec C2). It trains
one model a finding on one image. Here a study may have several images; the mean of their features is classified.

Shapes: B studies, V views, I images, N patches, C channels, P pooled features, L findings, R training studies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rayscribe.models.backbones import Backbone
from rayscribe.study import Batch
from rayscribe.task import Task, studies_of


class Classifier(nn.Module):
    """Images of a study to one logit a finding."""

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
        """Logits (B, L) of the mean over a study's images."""
        pooled_IP = self.backbone.pooled(maps_BVNC[has_view_BV])
        pooled_BVP = pooled_IP.new_zeros(*has_view_BV.shape, pooled_IP.shape[-1])
        pooled_BVP[has_view_BV] = pooled_IP
        mean_BP = pooled_BVP.sum(1) / has_view_BV.sum(1, keepdim=True).clamp(min=1)
        logits_BL: Tensor = self.head(self.drop(mean_BP))
        return logits_BL

    def forward(self, batch: Batch) -> Tensor:
        return self.classify(self.maps(batch), batch.has_view_BV)


class ClassifierTask(Task[Batch]):
    """Binary cross-entropy of the known findings: the mean of a study's, then over studies."""

    known_RL: Tensor
    positive_weight_L: Tensor

    def __init__(self, model: Classifier, known_RL: Tensor, *, balanced: bool) -> None:
        super().__init__()
        self.classifier = model
        self.register_buffer("known_RL", known_RL, persistent=False)
        present_L, absent_L = ((known_RL == value).sum(0) for value in (1, 0))
        weight_L = absent_L / present_L.clamp(min=1) if balanced else torch.ones(known_RL.shape[1])
        self.register_buffer("positive_weight_L", weight_L.float(), persistent=False)
        with torch.no_grad():  # the loss starts at the entropy of the labels, not far above it
            rate_L = (present_L / (present_L + absent_L).clamp(min=1)).clamp(0.01, 0.99)
            self.classifier.head.bias.copy_(torch.zeros_like(rate_L) if balanced else rate_L.logit())

    @property
    def model(self) -> Classifier:
        return self.classifier

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss_B = finding_loss_B(self.classifier(batch), self.known_RL[batch.rows_B], self.positive_weight_L)
        return {"loss": (loss_B * batch.has_token_BT.any(1)).sum() / studies_of(batch)}


def finding_loss_B(logits_BL: Tensor, known_BL: Tensor, positive_weight_L: Tensor | None = None) -> Tensor:
    """Of every study the mean over its known findings; 0 where none is known."""
    is_known_BL = ~known_BL.isnan()
    loss_BL = F.binary_cross_entropy_with_logits(
        logits_BL.float(), known_BL.nan_to_num(), reduction="none", pos_weight=positive_weight_L
    )
    return (loss_BL * is_known_BL).sum(1) / is_known_BL.sum(1).clamp(min=1)


def class_map(model: Classifier, batch: Batch, finding: int) -> Tensor:
    """Where every image speaks for a finding: Grad-CAM (Selvaraju et al., 2017), equation 2; (B, V, N), at least 0.

    The channels' weights are the mean gradient of the finding's logit over the patches.
    """
    model.eval()
    with torch.enable_grad():
        maps_BVNC = model.maps(batch).detach().requires_grad_()
        logit_B = model.classify(maps_BVNC, batch.has_view_BV)[:, finding]
        (gradient_BVNC,) = torch.autograd.grad(logit_B.sum(), maps_BVNC)
    weight_BV1C = gradient_BVNC.mean(2, keepdim=True)
    return (weight_BV1C * maps_BVNC.detach()).sum(-1).relu()
