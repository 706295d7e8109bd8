"""Drafts of consensus: the reports of highest expected utility, with findings, expected scores and evidence.

Shapes: J training studies, B studies, V views, C candidates, F features, K components or places, O observations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.config import RunConfig
from rayscribe.drafts import DecodingConfig, Draft, TrainingStudy
from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS, POSITIVE
from rayscribe.methods.consensus_fit import TOLD, image_weight, mixed_texts, text_weights
from rayscribe.methods.consensus_studies import PooledViews
from rayscribe.methods.method import Features, Fitted
from rayscribe.metrics.classification import sigmoid
from rayscribe.metrics.composing import Composer
from rayscribe.metrics.expected_utility import FindingsTerm, ImageTerm, expected, joined_weights
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.utility import clinical_utility

if TYPE_CHECKING:
    from rayscribe.methods.consensus import ConsensusSettings

_ALTERNATIVES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A report beside the training reports."""

    utilities: Mapping[str, NDArray[Any]]
    "against each training report (J,)"
    positive_O: NDArray[np.bool_]
    candidate: int | None = None
    "which training report it is; None for a composed one"


@dataclass(frozen=True)
class ConsensusReporter:
    """Drafts from a fitted folder."""

    run: RunConfig[ConsensusSettings]
    fitted: Fitted

    @cached_property
    def _candidates(self) -> list[str]:
        return list(dict.fromkeys(self.fitted.texts["reports"]))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: at for at, text in enumerate(self._candidates)}

    @cached_property
    def _utility_CJ(self) -> NDArray[np.float32]:
        names = {*TOLD, *text_weights(self.run.method)}
        return mixed_texts({name: self._array(f"utility_{name}") for name in names}, self.run.method)

    @cached_property
    def _scale(self) -> dict[str, float]:
        """Weights of the utilities over their standard deviations, as `mixed` has them."""
        spreads = {name: float(self._array(f"utility_{name}").std()) for name in text_weights(self.run.method)}
        weights = text_weights(self.run.method)
        return {name: weights[name] / spread if spread > 0 else 0.0 for name, spread in spreads.items()}

    @cached_property
    def _composer(self) -> Composer | None:
        if not self.run.method.compose:
            return None
        return Composer.of(self.fitted.texts["reports"], self._scale, RuleLabeler())

    @cached_property
    def _image(self) -> ImageTerm | None:
        weight = image_weight(self.run.method)
        if not weight:
            return None
        own_J = np.array([self._places[text] for text in self.fitted.texts["reports"]])
        return ImageTerm.fit(self._array("text_cd"), own_J, weight=weight)

    @cached_property
    def _term(self) -> FindingsTerm:
        return FindingsTerm(
            thresholds_O=self._array("thresholds"),
            spread_O=self._array("spread"),
            gamma=float(self.fitted.texts["gamma"]),
        )

    def draft(self, studies: Sequence[Features], decoding: DecodingConfig) -> list[Draft]:
        """The reports of highest expected utility, best first, with findings, expected scores and evidence.

        `decoding` is not used: nothing is decoded word by word.
        """
        weights_BJ = self.weights(studies)
        scores_BO = expected(weights_BJ, self._array("is_positive_jo").astype(np.float32))
        is_positive_CO = self._array("is_positive_co")
        total_BC = expected(weights_BJ, self._utility_CJ.T) + self._term.of(scores_BO, is_positive_CO)
        if self._image is not None:
            total_BC += self._image.of(weights_BJ)
        most = min(_ALTERNATIVES, total_BC.shape[1])
        best_BK = np.argsort(-total_BC, axis=1, kind="stable")[:, :most]
        return [self._drafted(*one) for one in zip(weights_BJ, scores_BO, best_BK)]

    def _drafted(self, weights_J: NDArray[np.float32], scores_O: NDArray[np.float32], best_K: NDArray[Any]) -> Draft:
        """One study's draft: the composed report, where asked for, before the best whole ones."""
        reports = [self._candidates[place] for place in best_K]
        if self._composer is not None:
            text = self._composer.composed(reports[0], weights_J, scores_O, self._term)
            reports = list(dict.fromkeys([text, *reports]))[:_ALTERNATIVES]
        first = self._statement(reports[0])
        return Draft(
            reports=reports,
            diagnosis=self._states(scores_O),
            probabilities=self._probabilities(scores_O),
            expected=self._told(weights_J, first),
            studies=self._evidence(weights_J, first),
        )

    def weights(self, studies: Sequence[Features]) -> NDArray[np.float32]:
        """How much every training study counts for these (B, J), signed."""
        settings, width = self.run.method, len(self._array("view0_centre"))
        views = PooledViews.of(studies, views=settings.views, grid=settings.grid, width=width)
        count, found = len(self.fitted.texts["reports"]), []
        for view, x_BF in enumerate(views.x_VBF):
            centre_F, scale_F, components_FK, solved_KJ = (
                self._array(f"view{view}_{name}") for name in ("centre", "scale", "components", "solved")
            )
            weights_BJ = np.zeros((len(x_BF), count), np.float32)
            weights_BJ[:, self._array(f"view{view}_rows")] = ((x_BF - centre_F) / scale_F) @ components_FK @ solved_KJ
            found.append(weights_BJ)
        return joined_weights(found, views.has_view_BV)

    def contributions(self, weights_J: NDArray[np.float32], report: str) -> NDArray[np.float64]:
        """What each training study adds to the total of a report of this model (J,).

        Utility and findings term are linear in the weights. So is the image's term while the length of the image's embedding
        is held.
        """
        return self._added(weights_J, self._statement(report))

    def _added(self, weights_J: NDArray[np.float32], one: _Statement) -> NDArray[np.float64]:
        scale = self._scale
        utility_J = sum((scale[name] * one.utilities[name] for name in scale), np.zeros(len(weights_J)))
        positive_JO = self._array("is_positive_jo").astype(np.float64)
        signs_O = (2.0 * one.positive_O - 1) / self._term.spread_O / positive_JO.shape[1]
        findings_J = (positive_JO - positive_JO.mean(0)) @ signs_O
        found: NDArray[np.float64] = weights_J * (utility_J - utility_J.mean() + self._term.gamma * findings_J)
        if self._image is not None and one.candidate is not None:
            found = found + self._image.shares(weights_J, one.candidate)
        return found

    def _statement(self, report: str) -> _Statement:
        place = self._places.get(report)
        if place is None:
            return self._composed(report)
        utilities = {name: self._array(f"utility_{name}")[place] for name in {*TOLD, *self._scale}}
        return _Statement(
            utilities=utilities, positive_O=self._array("is_positive_co")[place].astype(bool), candidate=place
        )

    def _composed(self, text: str) -> _Statement:
        assert self._composer is not None
        labels_1O = RuleLabeler().label([text])
        wanted_JO = np.where(self._array("is_positive_jo"), POSITIVE, NOT_MENTIONED).astype(np.int8)
        clinical_J = clinical_utility(labels_1O, wanted_JO, beta=self.run.method.beta)[0]
        return _Statement(
            utilities={**self._composer.index.utilities(text), "clinical": clinical_J},
            positive_O=labels_1O[0] == POSITIVE,
        )

    def _told(self, weights_J: NDArray[np.float32], one: _Statement) -> dict[str, float]:
        """What the report is expected to score, and its cosine with the image where that is aimed at."""
        found = {name: float(expected(weights_J[None], one.utilities[name][:, None])[0, 0]) for name in TOLD}
        if self._image is not None and one.candidate is not None:
            found["image"] = float(self._image.cosines(weights_J[None])[0, one.candidate])
        return found

    def _evidence(self, weights_J: NDArray[np.float32], one: _Statement) -> list[TrainingStudy]:
        added_J = np.maximum(0, self._added(weights_J, one))
        total = float(added_J.sum())
        best = np.argsort(-added_J, kind="stable")[: self.run.method.evidence]
        ids = self.fitted.texts["ids"]
        return [TrainingStudy(id=ids[at], share=float(added_J[at]) / total) for at in best if added_J[at] > 0]

    def _states(self, scores_O: NDArray[np.float32]) -> dict[str, str]:
        known_O = np.isfinite(self._array("calibration")).all(1)
        return {
            name: "positive" if scores_O[place] >= self._term.thresholds_O[place] else "negative"
            for place, name in enumerate(OBSERVATIONS)
            if known_O[place]
        }

    def _probabilities(self, scores_O: NDArray[np.float32]) -> dict[str, float]:
        found = {}
        for place, (centre, spread, slope, offset) in enumerate(self._array("calibration")):
            if np.isfinite(centre):
                found[OBSERVATIONS[place]] = float(sigmoid(slope * (scores_O[place] - centre) / spread + offset))
        return found

    def _array(self, name: str) -> NDArray[Any]:
        return self.fitted.weights[name].numpy()
