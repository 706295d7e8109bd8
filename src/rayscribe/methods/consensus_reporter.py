"""Drafts of consensus: the reports of highest expected utility, with findings, expected scores and evidence.

A reference stands for the training studies whose reports are equal or nearest to it. Reports are compared with references;
evidence is of single studies. Below `--method.references` distinct reports the two are the same.

Shapes: J training studies, B studies, V views, C candidates, L references, F features, K components or places, O observations.
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
from rayscribe.errors import InputError
from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS, POSITIVE
from rayscribe.methods.consensus_fit import TOLD, image_weight, mixed_texts, text_weights
from rayscribe.methods.consensus_studies import PooledViews
from rayscribe.methods.fitted import Features, Fitted
from rayscribe.metrics.classification import sigmoid
from rayscribe.metrics.composing import Composer
from rayscribe.metrics.expected_utility import FindingsTerm, ImageTerm, expected, joined_weights
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.utility import Matrix, TrainingTexts, clinical_utility, spread

if TYPE_CHECKING:
    from rayscribe.methods.consensus import ConsensusSettings

_ALTERNATIVES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A report beside the training reports."""

    utilities: Mapping[str, NDArray[Any]]
    "against each reference (L,)"
    positive_O: NDArray[np.bool_]
    candidate: int | None = None
    "which training report it is; None for a composed one"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighted:
    """Of one study, the weights of the training studies and of references, signed, and the scores of findings."""

    studies_J: Matrix
    references_L: Matrix
    scores_O: Matrix


@dataclass(frozen=True)
class ConsensusReporter:
    """Drafts from a fitted folder. Raises InputError for a folder that an earlier version fitted."""

    run: RunConfig[ConsensusSettings]
    fitted: Fitted

    def __post_init__(self) -> None:
        if "shares" not in self.fitted.weights:
            raise InputError(
                "the model was fitted by an earlier version of consensus; train it again, which takes seconds"
            )

    @cached_property
    def _candidates(self) -> list[str]:
        return list(self.fitted.texts["candidates"])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: at for at, text in enumerate(self._candidates)}

    @cached_property
    def _texts(self) -> TrainingTexts:
        shares_L = self._array("shares")
        references = self._candidates[: len(shares_L)]
        return TrainingTexts(references=references, shares_J=shares_L, documents=self.fitted.texts["reports"])

    @cached_property
    def _utility_CL(self) -> Matrix:
        names = {*TOLD, *text_weights(self.run.method)}
        parts = {name: self._array(f"utility_{name}") for name in names}
        return mixed_texts(parts, self.run.method, self._texts.shares_J)

    @cached_property
    def _scale(self) -> dict[str, float]:
        """Weights of the utilities over their standard deviations, as `mixed` has them."""
        weights = text_weights(self.run.method)
        spreads = {name: spread(self._array(f"utility_{name}"), self._texts.shares_J) for name in weights}
        return {name: weights[name] / spreads[name] if spreads[name] > 0 else 0.0 for name in weights}

    @cached_property
    def _composer(self) -> Composer | None:
        if not self.run.method.compose:
            return None
        return Composer.of(self._texts, self._scale, RuleLabeler())

    @cached_property
    def _image(self) -> ImageTerm | None:
        weight, shares_L = image_weight(self.run.method), self._texts.shares_J
        if not weight:
            return None
        return ImageTerm.fit(self._array("text_cd"), np.arange(len(shares_L)), weight=weight, shares_J=shares_L)

    @cached_property
    def _positive_JO(self) -> Matrix:
        return self._array("is_positive_jo").astype(np.float32)

    @cached_property
    def _positive_mean_O(self) -> NDArray[np.float64]:
        return np.asarray(self._array("is_positive_jo").mean(0))

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
        queries_VBK, has_view_BV = self._queries(studies)
        weights_BJ = self._joined("studies", queries_VBK, has_view_BV)
        weights_BL = self._joined("references", queries_VBK, has_view_BV)
        scores_BO = self._joined("findings", queries_VBK, has_view_BV) + self._positive_mean_O.astype(np.float32)
        total_BC = expected(weights_BL, self._utility_CL.T, self._texts.shares_J)
        total_BC += self._term.of(scores_BO, self._array("is_positive_co"))
        if self._image is not None:
            total_BC += self._image.of(weights_BL)
        return [
            self._drafted(
                _Weighted(studies_J=weights_J, references_L=weights_L, scores_O=scores_O),
                _highest(total_C, _ALTERNATIVES),
            )
            for weights_J, weights_L, scores_O, total_C in zip(weights_BJ, weights_BL, scores_BO, total_BC, strict=True)
        ]

    def _drafted(self, weighted: _Weighted, best_K: NDArray[Any]) -> Draft:
        """One study's draft: the composed report, where asked for, before the best whole ones."""
        reports, scores_O = [self._candidates[place] for place in best_K], weighted.scores_O
        if self._composer is not None:
            text = self._composer.composed(reports[0], weighted.references_L, scores_O, self._term)
            reports = list(dict.fromkeys([text, *reports]))[:_ALTERNATIVES]
        first = self._statement(reports[0])
        return Draft(
            reports=reports,
            diagnosis=self._states(scores_O),
            probabilities=self._probabilities(scores_O),
            expected=self._told(weighted.references_L, first),
            studies=self._evidence(weighted, first),
        )

    def weights(self, studies: Sequence[Features]) -> Matrix:
        """How much every training study counts for these (B, J), signed."""
        return self._joined("studies", *self._queries(studies))

    def _queries(self, studies: Sequence[Features]) -> tuple[list[Matrix], NDArray[np.bool_]]:
        """What a training study's components are multiplied with, by view (B, K), and which views there are (B, V)."""
        settings, width = self.run.method, len(self._array("view0_centre"))
        views = PooledViews.of(studies, views=settings.views, grid=settings.grid, width=width)
        found = []
        for view, x_BF in enumerate(views.x_VBF):
            centre_F, scale_F, solved_FK = (self._array(f"view{view}_{name}") for name in ("centre", "scale", "solved"))
            found.append(((x_BF - centre_F) / scale_F) @ solved_FK)
        return found, views.has_view_BV

    def _joined(self, name: str, queries_VBK: Sequence[Matrix], has_view_BV: NDArray[np.bool_]) -> Matrix:
        """Sums over the views of the queries and one of the tables by view."""
        tables = [self._array(f"view{view}_{name}") for view in range(len(queries_VBK))]
        return joined_weights([x_BK @ table_KX for x_BK, table_KX in zip(queries_VBK, tables)], has_view_BV)

    def contributions(self, study: Features, report: str) -> Matrix:
        """What each training study adds to the total of a report of this model for a study (J,).

        Utility and findings term are linear in the weights. So is the image's term while the length of the image's embedding
        is held. Where a reference stands for several studies, the utility is that against the reference.
        """
        queries_VBK, has_view_BV = self._queries([study])
        studies_J, references_L, scores_O = (
            self._joined(name, queries_VBK, has_view_BV)[0] for name in ("studies", "references", "findings")
        )
        weighted = _Weighted(studies_J=studies_J, references_L=references_L, scores_O=scores_O)
        return self._added(weighted, self._statement(report))

    def _added(self, weighted: _Weighted, one: _Statement) -> Matrix:
        scale, shares_L = self._scale, self._texts.shares_J
        slope_L = sum((scale[name] * one.utilities[name] for name in scale), np.zeros(len(shares_L)))
        slope_L = slope_L - shares_L @ slope_L
        if self._image is not None and one.candidate is not None:
            slope_L = slope_L + self._image.slopes(weighted.references_L, one.candidate)
        signs_O = (2.0 * one.positive_O - 1) / self._term.spread_O / len(one.positive_O)
        slope_L = slope_L - self._term.gamma * (self._positive_mean_O @ signs_O)
        slope_J = self._positive_JO @ (self._term.gamma * signs_O).astype(np.float32)
        slope_J += slope_L.astype(np.float32)[self._array("reference_of")]
        slope_J *= weighted.studies_J
        return slope_J

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
        wanted_LO = np.where(self._array("is_positive_co")[: len(self._texts.references)], POSITIVE, NOT_MENTIONED)
        clinical_L = clinical_utility(
            labels_1O, wanted_LO.astype(np.int8), beta=self.run.method.beta, shares_J=self._texts.shares_J
        )[0]
        return _Statement(
            utilities={**self._composer.index.utilities(text), "clinical": clinical_L},
            positive_O=labels_1O[0] == POSITIVE,
        )

    def _told(self, weights_L: Matrix, one: _Statement) -> dict[str, float]:
        """What the report is expected to score, and its cosine with the image where that is aimed at."""
        told_LT = np.stack([one.utilities[name] for name in TOLD], axis=1)
        found = dict(zip(TOLD, expected(weights_L[None], told_LT, self._texts.shares_J)[0].tolist(), strict=True))
        if self._image is not None and one.candidate is not None:
            found["image"] = float(self._image.cosines(weights_L[None])[0, one.candidate])
        return found

    def _evidence(self, weighted: _Weighted, one: _Statement) -> list[TrainingStudy]:
        if not self.run.method.evidence:
            return []
        added_J = np.maximum(0, self._added(weighted, one))
        total, ids = float(added_J.sum()), self.fitted.texts["ids"]
        best = _highest(added_J, self.run.method.evidence)
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
        for place, (centre, deviation, slope, offset) in enumerate(self._array("calibration")):
            if np.isfinite(centre):
                found[OBSERVATIONS[place]] = float(sigmoid(slope * (scores_O[place] - centre) / deviation + offset))
        return found

    def _array(self, name: str) -> NDArray[Any]:
        return self.fitted.weights[name].numpy()


def _highest(values_N: NDArray[Any], most: int) -> NDArray[np.int64]:
    """The places of the highest values, from the highest down; the first of equal ones first."""
    least = np.partition(values_N, -most)[-most] if most < len(values_N) else values_N.min()
    places = np.flatnonzero(values_N >= least)
    return places[np.argsort(-values_N[places], kind="stable")][:most]
