"""Consensus: the training report of highest expected utility, by ridge smoothers over frozen image features. Ours.

Minimum Bayes risk decoding (Kumar and Byrne, 2004; for captions Devlin et al., 2015) with a closed form: the weights of a
ridge regression say how much each training study counts for an image, and the utility of every candidate report against the
training reports, summed with these weights, is what the candidate is expected to score. The most probable report would be the
same normal one for nearly every study; the report of highest expected utility is not.

With the aim `findings` each observation has a threshold, and a term rewards candidates that state what passes it (spec:
expected utility, section 10). Ridge strength, thresholds and the term's weight are chosen on the training split alone, each
study scored by smoothers that were fitted without it, its patient and every study with an equal report.

The model folder holds training reports, so the terms of the data forbid to publish it where they forbid to publish those.

Shapes: J training studies, V views, N patches, C channels or candidates, F features, B studies, O observations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.config import BackboneConfig, RunConfig
from rayscribe.data.split_reports import SplitReports
from rayscribe.drafts import DecodingConfig, Draft, TrainingStudy
from rayscribe.errors import InputError
from rayscribe.labels import NOT_MENTIONED, OBSERVATIONS, POSITIVE
from rayscribe.methods.method import Features, Fitted, Material, Method
from rayscribe.metrics.classification import calibration, sigmoid
from rayscribe.metrics.clinical import clinical
from rayscribe.metrics.expected_utility import (
    FindingsTerm,
    Smoother,
    Space,
    expected,
    joined_weights,
)
from rayscribe.metrics.groups import groups_of
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.utility import mixed, utilities, utility_weights
from rayscribe.models.backbones import grid_side
from rayscribe.settings import need

_ALTERNATIVES = 10
_LEAST = 2  # positive studies without which an observation has no probability
_GAMMAS = (1.0, 2.0, 3.0, 6.0, 10.0, 20.0, 50.0)  # of the frontier
_PARTS = ("bleu4", "cider", "clinical")
"Utilities whose expected values a draft states."


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusSettings:
    """What is aimed at, and how the smoothers see an image."""

    aim: Literal["findings", "utility"] = "findings"
    "findings: state what passes its threshold, and among such reports maximise the utility; utility: the utility alone"
    utility: str = "bleu4=1,cider=1"
    "weighted sum of bleu4, cider, rouge_l and clinical, each divided by its standard deviation over all pairs"
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    "ridge strengths to choose from, in units of the mean squared component"
    gammas: tuple[float, ...] = (1.0, 3.0, 6.0, 10.0, 20.0)
    "weights of the findings term to choose from"
    beta: float = 1.0
    "of the clinical utility: above 1, missed findings cost more than added ones"
    components: int = 400
    "principal components of a view's features"
    grid: int = 2
    "features are means over this many squares along each side, beside the mean over all patches; 0: the mean alone"
    views: int = 2
    "images of a study that are read, in their order; each place has a smoother of its own"
    studies: int = 8000
    "training studies at most, drawn at random; time and memory grow with their square"
    evidence: int = 5
    "training studies that a draft names"

    def __post_init__(self) -> None:
        utility_weights(self.utility, "--method.utility")
        need(bool(self.strengths) and min(self.strengths) > 0, "--method.strengths", self.strengths, "above 0")
        need(bool(self.gammas) and min(self.gammas) >= 0, "--method.gammas", self.gammas, "not negative")
        need(self.beta > 0, "--method.beta", self.beta, "above 0")
        need(self.components >= 1, "--method.components", self.components, "at least 1")
        need(0 <= self.grid <= 7, "--method.grid", self.grid, "between 0 and 7")
        need(self.views >= 1, "--method.views", self.views, "at least 1")
        need(self.studies >= 10, "--method.studies", self.studies, "at least 10")
        need(self.evidence >= 0, "--method.evidence", self.evidence, "not negative")

    def check(self, run: RunConfig[Any]) -> None:
        """Everything is fitted in closed form, so nothing else of the run conflicts."""


def pooled_features(maps_VNC: Features, grid: int) -> NDArray[np.float32]:
    """Means over all patches and over the squares of a grid (V, C + grid^2 C)."""
    views, patches, channels = maps_VNC.shape
    side = grid_side(patches)
    maps_VSSC = maps_VNC.astype(np.float32).reshape(views, side, side, channels)
    parts = [maps_VSSC.mean((1, 2))]
    edges = [(side * at // max(1, grid), -(-side * (at + 1) // max(1, grid))) for at in range(grid)]
    parts += [maps_VSSC[:, top:below, left:right].mean((1, 2)) for top, below in edges for left, right in edges]
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Views:
    """Pooled features by view (V matrices of (B, F)), and which studies have each."""

    x_VBF: list[NDArray[np.float32]]
    has_view_BV: NDArray[np.bool_]

    @classmethod
    def of(cls, studies: Sequence[Features], settings: ConsensusSettings, width: int | None = None) -> _Views:
        """Views beyond `--method.views` are left out; missing ones are zero."""
        pooled = [pooled_features(maps_VNC[: settings.views], settings.grid) for maps_VNC in studies]
        width = width or pooled[0].shape[1]
        has_view_BV = np.array([[view < len(one) for view in range(settings.views)] for one in pooled])
        x_VBF = []
        for view in range(settings.views):
            x_BF = np.zeros((len(pooled), width), np.float32)
            for row in np.flatnonzero(has_view_BV[:, view]):
                x_BF[row] = pooled[row][view]
            x_VBF.append(x_BF)
        return cls(x_VBF=x_VBF, has_view_BV=has_view_BV)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Ridge strength and findings term, with the score that chose them."""

    score: float
    strength: float
    term: FindingsTerm
    scores_JO: NDArray[np.float32]
    "of every training study by smoothers without it"


def fit_consensus(run: RunConfig[ConsensusSettings], material: Material) -> Fitted:
    """Features, utilities, and the choice of strength, thresholds and gamma by leaving groups out."""
    settings = run.method
    training = _sample(material.training, settings.studies, run.seed)
    reports, count = training.reports, len(training.reports)
    if count < 10:
        raise InputError(f"{count} training studies; consensus needs at least 10")
    views = _Views.of(material.features(training.studies), settings)
    candidates = list(dict.fromkeys(reports))
    labeler, names = RuleLabeler(), (*_PARTS, *utility_weights(settings.utility, "--method.utility"))
    parts = utilities(candidates, reports, labeler, beta=settings.beta, names=names)
    is_positive_JO, is_positive_CO = labeler.label(reports) == POSITIVE, labeler.label(candidates) == POSITIVE
    groups_J = groups_of([study.subject for study in training.studies], reports)
    spaces, rows = [], []
    for view, x_JF in enumerate(views.x_VBF):
        rows.append(np.flatnonzero(views.has_view_BV[:, view]))
        if len(rows[-1]) < 2:
            raise InputError(
                f"{len(rows[-1])} training studies have {view + 1} images; give --method.views {max(1, view)}"
            )
        spaces.append(Space.fit(x_JF[rows[-1]], settings.components))
    projected = [space.project(x_JF[at]) for space, x_JF, at in zip(spaces, views.x_VBF, rows)]
    own_J = np.array([{text: at for at, text in enumerate(candidates)}[text] for text in reports])
    material.notify(f"{count} training studies, {len(candidates)} candidate reports")
    best: _Choice | None = None
    for strength in settings.strengths:
        smoothers = [Smoother.fit(x_JK, at, strength=strength) for x_JK, at in zip(projected, rows)]
        left_out = joined_weights([one.left_out(groups_J, count) for one in smoothers], views.has_view_BV)
        found = _choose(settings, strength, left_out, parts, is_positive_JO, is_positive_CO, own_J)
        material.notify(f"ridge {strength:g}: leave-one-out {_aimed(settings)} {found.score:.4f}")
        if best is None or found.score > best.score:
            best = found
    assert best is not None
    weights = _weights_to_keep(best, spaces, projected, rows, parts, is_positive_JO, is_positive_CO)
    texts = {
        "ids": [study.id for study in training.studies],
        "reports": list(reports),
        "strength": best.strength,
        "gamma": best.term.gamma,
    }
    return Fitted(weights=weights, texts=texts, scores={f"leave_one_out_{_aimed(settings)}": best.score})


def _choose(
    settings: ConsensusSettings,
    strength: float,
    left_out_JJ: NDArray[np.float32],
    parts: Mapping[str, NDArray[np.float32]],
    is_positive_JO: NDArray[np.bool_],
    is_positive_CO: NDArray[np.bool_],
    own_J: NDArray[np.int64],
) -> _Choice:
    """The best gamma at this strength; a study's own report is no candidate for it."""
    utility_CJ = mixed(parts, utility_weights(settings.utility, "--method.utility"))
    expected_JC = expected(left_out_JJ, utility_CJ.T)
    scores_JO = expected(left_out_JJ, is_positive_JO.astype(np.float32))
    rows_J = np.arange(len(own_J))
    found: _Choice | None = None
    for gamma in settings.gammas if settings.aim == "findings" else (0.0,):
        term = FindingsTerm.fit(scores_JO, is_positive_JO, gamma=gamma)
        total_JC = expected_JC + term.of(scores_JO, is_positive_CO)
        total_JC[rows_J, own_J] = -np.inf
        picks_J = total_JC.argmax(1)
        if settings.aim == "findings":
            score = _macro_f1(is_positive_CO[picks_J], is_positive_JO)
        else:
            score = float(utility_CJ[picks_J, rows_J].mean())
        if found is None or score > found.score:
            found = _Choice(score=score, strength=strength, term=term, scores_JO=scores_JO)
    assert found is not None
    return found


def _macro_f1(own_RO: NDArray[np.bool_], wanted_RO: NDArray[np.bool_]) -> float:
    """As `rayscribe evaluate` computes it."""
    own, wanted = (np.where(one, POSITIVE, NOT_MENTIONED).astype(np.int8) for one in (own_RO, wanted_RO))
    return clinical(own, wanted).scores()["ce_f1_macro_14_uncertain_negative"]


def _aimed(settings: ConsensusSettings) -> str:
    return "macro_f1" if settings.aim == "findings" else "utility"


def _sample(training: SplitReports, most: int, seed: int) -> SplitReports:
    if len(training.reports) <= most:
        return training
    picks = np.sort(np.random.default_rng(seed).choice(len(training.reports), most, replace=False))
    return SplitReports([training.studies[at] for at in picks], [training.reports[at] for at in picks])


def _weights_to_keep(
    best: _Choice,
    spaces: Sequence[Space],
    projected: Sequence[NDArray[np.float64]],
    rows: Sequence[NDArray[np.int64]],
    parts: Mapping[str, NDArray[np.float32]],
    is_positive_JO: NDArray[np.bool_],
    is_positive_CO: NDArray[np.bool_],
) -> dict[str, torch.Tensor]:
    """All that a draft needs, as tensors."""
    kept: dict[str, NDArray[Any]] = {
        "is_positive_jo": is_positive_JO,
        "is_positive_co": is_positive_CO,
        "thresholds": best.term.thresholds_O,
        "spread": best.term.spread_O,
        "calibration": _calibrations(best.scores_JO, is_positive_JO),
        **{f"utility_{name}": utility for name, utility in parts.items()},
    }
    for view, (space, x_JK, at) in enumerate(zip(spaces, projected, rows)):
        smoother = Smoother.fit(x_JK, at, strength=best.strength)
        kept |= {
            f"view{view}_centre": space.centre_F.astype(np.float32),
            f"view{view}_scale": space.scale_F.astype(np.float32),
            f"view{view}_components": space.components_FK.astype(np.float32),
            f"view{view}_solved": smoother.solved_KJ.astype(np.float32),
            f"view{view}_rows": at,
        }
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in kept.items()}


def _calibrations(scores_JO: NDArray[np.float32], is_positive_JO: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Centre, scale, slope and offset of every observation (O, 4); NaN where too few studies are positive."""
    found = np.full((is_positive_JO.shape[1], 4), np.nan)
    for place, (scores_J, is_positive_J) in enumerate(zip(scores_JO.T.astype(np.float64), is_positive_JO.T)):
        spread = float(scores_J.std())
        if min(is_positive_J.sum(), (~is_positive_J).sum()) >= _LEAST and spread > 0:
            centre = float(scores_J.mean())
            slope, offset = calibration((scores_J - centre) / spread, is_positive_J)
            found[place] = centre, spread, slope, offset
    return found


@dataclass(frozen=True)
class ConsensusReporter:
    """Drafts from a fitted folder."""

    run: RunConfig[ConsensusSettings]
    fitted: Fitted

    @cached_property
    def _candidates(self) -> list[str]:
        return list(dict.fromkeys(self.fitted.texts["reports"]))

    @cached_property
    def _utility_CJ(self) -> NDArray[np.float32]:
        weights = utility_weights(self.run.method.utility, "--method.utility")
        return mixed({name: self._array(f"utility_{name}") for name in weights}, weights)

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
        most = min(_ALTERNATIVES, total_BC.shape[1])
        best_BK = np.argsort(-total_BC, axis=1, kind="stable")[:, :most]
        told = {name: self._array(f"utility_{name}") for name in _PARTS}
        return [
            Draft(
                reports=[self._candidates[place] for place in best_K],
                diagnosis=self._states(scores_O),
                probabilities=self._probabilities(scores_O),
                expected={
                    name: float(expected(weights_J[None], utility_CJ[best_K[:1]].T)[0, 0])
                    for name, utility_CJ in told.items()
                },
                studies=self._evidence(weights_J, int(best_K[0])),
            )
            for weights_J, scores_O, best_K in zip(weights_BJ, scores_BO, best_BK)
        ]

    def weights(self, studies: Sequence[Features]) -> NDArray[np.float32]:
        """How much every training study counts for these (B, J), signed."""
        views = _Views.of(studies, self.run.method, width=len(self._array("view0_centre")))
        count, found = len(self.fitted.texts["reports"]), []
        for view, x_BF in enumerate(views.x_VBF):
            centre_F, scale_F, components_FK, solved_KJ = (
                self._array(f"view{view}_{name}") for name in ("centre", "scale", "components", "solved")
            )
            weights_BJ = np.zeros((len(x_BF), count), np.float32)
            weights_BJ[:, self._array(f"view{view}_rows")] = ((x_BF - centre_F) / scale_F) @ components_FK @ solved_KJ
            found.append(weights_BJ)
        return joined_weights(found, views.has_view_BV)

    def contributions(self, weights_J: NDArray[np.float32], candidate: int) -> NDArray[np.float64]:
        """What each training study adds to the candidate's total (J,): utility and findings term are linear in the weights."""
        utility_J = self._utility_CJ[candidate].astype(np.float64)
        positive_JO = self._array("is_positive_jo").astype(np.float64)
        signs_O = (2.0 * self._array("is_positive_co")[candidate] - 1) / self._term.spread_O / positive_JO.shape[1]
        findings_J = (positive_JO - positive_JO.mean(0)) @ signs_O
        found: NDArray[np.float64] = weights_J * (utility_J - utility_J.mean() + self._term.gamma * findings_J)
        return found

    def _evidence(self, weights_J: NDArray[np.float32], candidate: int) -> list[TrainingStudy]:
        added_J = np.maximum(0, self.contributions(weights_J, candidate))
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


def consensus_aims(run: RunConfig[ConsensusSettings], fitted: Fitted) -> dict[str, ConsensusReporter]:
    """The fit aimed at single utilities, and at both overlaps with the findings term in growing weight."""
    aims = [("bleu4", "bleu4=1", 0.0), ("cider", "cider=1", 0.0), ("clinical", "clinical=1", 0.0)]
    aims += [(f"both, gamma {gamma:g}", "bleu4=1,cider=1", gamma) for gamma in (0.0, *_GAMMAS)]
    return {
        name: ConsensusReporter(
            run=replace(run, method=replace(run.method, utility=utility)),
            fitted=replace(fitted, texts={**fitted.texts, "gamma": gamma}),
        )
        for name, utility, gamma in aims
    }


def consensus() -> RunConfig[ConsensusSettings]:
    """Aims at findings, on the features of a frozen image encoder."""
    return RunConfig(
        system="consensus",
        method=ConsensusSettings(),
        backbone=BackboneConfig(name="mobilenetv2_100", trainable=False),
    )


METHOD = Method(
    name="consensus",
    settings=ConsensusSettings,
    recipes={"consensus": consensus},
    fit=fit_consensus,
    reporter=ConsensusReporter,
    aims=consensus_aims,
)
