"""The fit of consensus, from its training studies alone: the same studies give the same numbers, which lets a model forget.

Nothing here grows with the square of the studies (metrics/ridge_sums.py).

Shapes: J training studies, S of them on which choices are made, B studies of a block, D distinct reports, C candidates, L
references, V views, F features, K components, O observations; of embeddings, D numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.config import RunConfig
from rayscribe.data.retrieval_building import report_vectors
from rayscribe.errors import InputError
from rayscribe.labels import NOT_MENTIONED, POSITIVE
from rayscribe.methods.consensus_references import References
from rayscribe.methods.consensus_studies import LearnedStudies, PooledViews
from rayscribe.methods.fitted import Fitted, Material
from rayscribe.metrics.classification import calibration
from rayscribe.metrics.clinical import DEFAULT_MACRO, clinical
from rayscribe.metrics.expected_utility import FindingsTerm, ImageTerm, Space, expected, joined_weights
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.ridge_sums import Kin, LeftOut, Ridge, gram, group_sums, members, weighted_sums
from rayscribe.metrics.statistics import Floats, Ints
from rayscribe.metrics.utility import Matrix, TrainingTexts, mixed, utilities, utility_weights

if TYPE_CHECKING:
    from rayscribe.methods.consensus import ConsensusSettings

IMAGE = "image"
"The utility that compares a candidate with the image."
TOLD = ("bleu4", "cider", "clinical")
"Utilities whose expected values a draft states."
_LEAST = 2  # positive studies without which an observation has no probability
_WIDTH = 256  # of the embedding of texts
_LEAST_STUDIES = 10
_ROWS = 1024  # studies whose totals of all candidates are in memory


def text_weights(settings: ConsensusSettings) -> dict[str, float]:
    """Weights of the utilities that compare texts."""
    found = utility_weights(settings.utility, "--method.utility", more=[IMAGE])
    return {name: weight for name, weight in found.items() if name != IMAGE}


def image_weight(settings: ConsensusSettings) -> float:
    """Weight of the utility that compares with the image; 0 without it."""
    return utility_weights(settings.utility, "--method.utility", more=[IMAGE]).get(IMAGE, 0.0)


def mixed_texts(parts: Mapping[str, Matrix], settings: ConsensusSettings, shares_L: Floats) -> Matrix:
    """The weighted sum of the utilities that compare texts (C, L); zeros without any."""
    weights = text_weights(settings)
    return mixed(parts, weights, shares_L) if weights else np.zeros_like(parts[TOLD[0]])


def fitted_on(run: RunConfig[ConsensusSettings], known: LearnedStudies, notify: Callable[[str], None]) -> Fitted:
    """The fit on these studies. Raises InputError for fewer than 10, or where fewer than two have a view."""
    spaces = view_spaces(known, run.method)
    everyone = Everyone(
        ids=known.ids,
        reports=known.reports,
        patients=known.patients,
        x_VJK=projected(known.views, spaces),
        has_view_JV=known.views.has_view_BV,
        sample_S=np.arange(len(known.ids)),
    )
    fitted = fitted_to(run, everyone, spaces, notify)
    return replace(fitted, weights={**fitted.weights, **known.tensors()}, texts={**fitted.texts, **known.texts()})


def fitted_to(
    run: RunConfig[ConsensusSettings], everyone: Everyone, spaces: Sequence[Space], notify: Callable[[str], None]
) -> Fitted:
    """Smoothers, utilities, and the choice of strength, thresholds and gamma by leaving a study's kin out.

    Exact: ridge, scores of findings, thresholds and probabilities, which use all studies, and what is left out for each. Of the
    sample alone: the score that chooses strength and gamma, document frequencies, and sentences to compose from. By references,
    where there are more distinct reports than `--method.references`: utilities, and what the mean of a utility is.
    """
    settings, count, sample_S = run.method, len(everyone.ids), everyone.sample_S
    problem = _Problem.of(settings, everyone)
    references = problem.references
    notify(
        f"{count} training studies, {len(references.candidates)} candidate reports, {len(references.shares_L)} references"
    )
    if len(sample_S) < count:
        notify(f"ridge strength and gamma are chosen on {len(sample_S)} of the studies, drawn by their ids")
    kin, sums = Kin.of(references.report_J, everyone.patients), _Sums.of(everyone, problem)
    best: _Choice | None = None
    for strength in settings.strengths:
        left_out = [ridge.left_out(sample_S, kin) for ridge in sums.ridges(strength)]
        has_view_SV = everyone.has_view_JV[sample_S]
        weights = [one.weights(sums_KL, references.reference_D) for one, sums_KL in zip(left_out, sums.references_VKL)]
        scores_SO = problem.scores(left_out, sums, has_view_SV)
        found = _choose(problem, strength, joined_weights(weights, has_view_SV), scores_SO)
        notify(f"ridge {strength:g}: leave-one-out {_aimed(settings)} {found.score:.4f}")
        if best is None or found.score > best.score:
            best = found
    assert best is not None
    ridges = sums.ridges(best.strength)
    if len(sample_S) < count:
        notify(f"thresholds and probabilities from all {count} studies")
        left_out = [ridge.left_out(np.arange(count), kin) for ridge in ridges]
        scores_JO = problem.scores(left_out, sums, everyone.has_view_JV)
        best = replace(best, scores_SO=scores_JO, positive_SO=problem.is_positive_JO)
    kept = problem.arrays() | _choice_arrays(best)
    for view, (space, ridge) in enumerate(zip(spaces, ridges, strict=True)):
        kept |= {
            f"view{view}_centre": space.centre_F.astype(np.float32),
            f"view{view}_scale": space.scale_F.astype(np.float32),
            f"view{view}_solved": (space.components_FK @ ridge.inverse_KK).astype(np.float32),
            f"view{view}_references": sums.references_VKL[view].astype(np.float32),
            f"view{view}_findings": sums.findings_VKO[view].astype(np.float32),
            f"view{view}_studies": ridge.x_JK.T,
        }
    return Fitted(
        weights={name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in kept.items()},
        texts={
            "ids": everyone.ids,
            "reports": problem.documents,
            "candidates": references.candidates,
            "strength": best.strength,
            "gamma": best.gamma,
        },
        scores={f"leave_one_out_{_aimed(settings)}": best.score},
    )


def view_spaces(known: LearnedStudies, settings: ConsensusSettings) -> list[Space]:
    """The principal components of each view. Raises InputError as `fitted_on` does."""
    if len(known.ids) < _LEAST_STUDIES:
        raise InputError(f"{len(known.ids)} training studies; consensus needs at least {_LEAST_STUDIES}")
    spaces = []
    for view, x_JF in enumerate(known.views.x_VBF):
        rows = np.flatnonzero(known.views.has_view_BV[:, view])
        if len(rows) < 2:
            raise InputError(f"{len(rows)} training studies have {view + 1} images; give --method.views {max(1, view)}")
        spaces.append(Space.fit(x_JF[rows], settings.components))
    return spaces


def projected(views: PooledViews, spaces: Sequence[Space]) -> list[Matrix]:
    """The components of each view (B, K); zero for studies without it."""
    found = [space.project(x_BF).astype(np.float32) for space, x_BF in zip(spaces, views.x_VBF, strict=True)]
    for view, x_BK in enumerate(found):
        x_BK[~views.has_view_BV[:, view]] = 0
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Everyone:
    """All training studies, with the components of their views."""

    ids: list[str]
    reports: list[str]
    patients: list[str]
    x_VJK: list[Matrix]
    has_view_JV: NDArray[np.bool_]
    sample_S: Ints
    "studies on which choices are made; all of them up to `--method.studies`"


def everyone_of(
    settings: ConsensusSettings, material: Material, known: LearnedStudies, spaces: Sequence[Space]
) -> Everyone:
    """All training studies of a material, of which `known` are the sample; features of the others are read in blocks."""
    studies = material.training.studies
    rows = {one: row for row, one in enumerate(material.training.ids)}
    sample_S = np.array([rows[one] for one in known.ids])
    rest = np.setdiff1d(np.arange(len(studies)), sample_S)
    x_VJK = [np.zeros((len(studies), space.components_FK.shape[1]), np.float32) for space in spaces]
    has_view_JV = np.zeros((len(studies), len(spaces)), np.bool_)

    def put(at: Ints, views: PooledViews) -> None:
        for x_JK, x_BK in zip(x_VJK, projected(views, spaces), strict=True):
            x_JK[at] = x_BK
        has_view_JV[at] = views.has_view_BV

    put(sample_S, known.views)
    features = iter(material.features([studies[row] for row in rest]))
    for start in range(0, len(rest), _ROWS):
        views = PooledViews.of(islice(features, _ROWS), views=settings.views, grid=settings.grid)
        put(rest[start : start + _ROWS], views)
    return Everyone(
        ids=material.training.ids,
        reports=list(material.training.reports),
        patients=[study.subject for study in studies],
        x_VJK=x_VJK,
        has_view_JV=has_view_JV,
        sample_S=sample_S,
    )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What reports say, and what is aimed at; it knows no image."""

    settings: ConsensusSettings
    references: References
    documents: list[str]
    "reports of the sample, whose document frequencies count and whose sentences are composed from"
    sample_S: Ints
    parts: Mapping[str, Matrix]
    image: ImageTerm | None

    @classmethod
    def of(cls, settings: ConsensusSettings, everyone: Everyone) -> _Problem:
        labeler = RuleLabeler()
        references = References.of(
            everyone.reports, labeler, candidates=settings.most_candidates, references=settings.references
        )
        documents = [everyone.reports[row] for row in everyone.sample_S]
        image = None
        if weight := image_weight(settings):
            text_CD = _embedded(references.candidates, documents)
            own_L = np.arange(len(references.shares_L))
            image = ImageTerm.fit(text_CD, own_L, weight=weight, shares_J=references.shares_L)
        texts = TrainingTexts(references=references.texts, shares_J=references.shares_L, documents=documents)
        names = tuple(dict.fromkeys((*TOLD, *text_weights(settings))))
        return cls(
            settings=settings,
            references=references,
            documents=documents,
            sample_S=everyone.sample_S,
            parts=utilities(references.candidates, texts, labeler, beta=settings.beta, names=names),
            image=image,
        )

    @cached_property
    def texts_CL(self) -> Matrix:
        """The sum of the utilities that compare texts."""
        return mixed_texts(self.parts, self.settings, self.references.shares_L)

    @cached_property
    def utility_CL(self) -> Matrix:
        """The whole sum, where a study's report is known."""
        return self.texts_CL if self.image is None else self.texts_CL + self.image.pairs()

    @cached_property
    def is_positive_JO(self) -> NDArray[np.bool_]:
        return self.references.is_positive_DO[self.references.report_J]

    @cached_property
    def deviations_DO(self) -> Floats:
        """Labels of distinct reports about the mean of the studies."""
        return self.references.is_positive_DO - self.is_positive_JO.mean(0)

    def scores(self, left_out: Sequence[LeftOut], sums: _Sums, has_view_SV: NDArray[np.bool_]) -> Matrix:
        """Label means (S, O) by smoothers without each study's kin."""
        found = [one.scores(sums_KO, self.deviations_DO) for one, sums_KO in zip(left_out, sums.findings_VKO)]
        scores: Matrix = joined_weights(found, has_view_SV) + self.is_positive_JO.mean(0).astype(np.float32)
        return scores

    def expected_BC(self, weights_BL: Matrix) -> Matrix:
        found_BC = expected(weights_BL, self.texts_CL.T, self.references.shares_L)
        return found_BC if self.image is None else found_BC + self.image.of(weights_BL)

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {
            "shares": self.references.shares_L,
            "reference_of": self.references.reference_J.astype(np.int32),
            "is_positive_jo": self.is_positive_JO,
            "is_positive_co": self.references.is_positive_CO,
            **{f"utility_{name}": utility for name, utility in self.parts.items()},
        }
        return found if self.image is None else found | {"text_cd": self.image.text_CD.astype(np.float32)}


def _embedded(candidates: list[str], documents: list[str]) -> NDArray[np.float32]:
    """The vectors of candidates in the space of the documents and of candidates that are not among them."""
    texts = [*documents, *(text for text in candidates if text not in set(documents))]
    vectors = report_vectors(texts, (), _WIDTH)[0].numpy()
    first = {text: at for at, text in reversed(list(enumerate(texts)))}
    return vectors[[first[text] for text in candidates]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """What does not depend on the ridge strength: X'X, and sums over the studies of every reference and of labels."""

    x_VJK: list[Matrix]
    gram_VKK: list[Floats]
    references_VKL: list[Floats]
    findings_VKO: list[Floats]

    @classmethod
    def of(cls, everyone: Everyone, problem: _Problem) -> _Sums:
        references = problem.references
        rows_of = members(references.reference_J, len(references.shares_L))
        deviations_JO = problem.deviations_DO[references.report_J]
        return cls(
            x_VJK=everyone.x_VJK,
            gram_VKK=[gram(x_JK) for x_JK in everyone.x_VJK],
            references_VKL=[group_sums(x_JK, rows_of) for x_JK in everyone.x_VJK],
            findings_VKO=[weighted_sums(x_JK, deviations_JO) for x_JK in everyone.x_VJK],
        )

    def ridges(self, strength: float) -> list[Ridge]:
        return [
            Ridge.fit(x_JK, gram_KK, strength=strength) for x_JK, gram_KK in zip(self.x_VJK, self.gram_VKK, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Ridge strength and weight of the findings term, with the score that chose them."""

    score: float
    strength: float
    gamma: float
    scores_SO: Matrix
    "of training studies by smoothers without their kin"
    positive_SO: NDArray[np.bool_]


def _choose(problem: _Problem, strength: float, weights_SL: Matrix, scores_SO: Matrix) -> _Choice:
    """The best gamma at this strength; a study's own report is no candidate for it."""
    settings, references, sample_S = problem.settings, problem.references, problem.sample_S
    positive_SO, own_S = problem.is_positive_JO[sample_S], references.candidate_D[references.report_J[sample_S]]
    gammas = settings.gammas if settings.aim == "findings" else (0.0,)
    term = FindingsTerm.fit(scores_SO, positive_SO, gamma=1.0)
    picks = []
    for start in range(0, len(sample_S), _ROWS):
        block = slice(start, start + _ROWS)
        expected_BC = problem.expected_BC(weights_SL[block])
        rows_B = np.flatnonzero(own_S[block] >= 0)
        expected_BC[rows_B, own_S[block][rows_B]] = -np.inf
        term_BC = term.of(scores_SO[block], references.is_positive_CO)
        picks.append([(expected_BC + np.float32(gamma) * term_BC).argmax(1) for gamma in gammas])
    found: _Choice | None = None
    for gamma, parts in zip(gammas, zip(*picks), strict=True):
        picks_S = np.concatenate(parts)
        if settings.aim == "findings":
            score = _macro_f1(references.is_positive_CO[picks_S], positive_SO)
        else:
            score = float(problem.utility_CL[picks_S, references.reference_J[sample_S]].mean())
        if found is None or score > found.score:
            found = _Choice(score=score, strength=strength, gamma=gamma, scores_SO=scores_SO, positive_SO=positive_SO)
    assert found is not None
    return found


def _macro_f1(own_RO: NDArray[np.bool_], wanted_RO: NDArray[np.bool_]) -> float:
    """As `rayscribe evaluate` computes it."""
    own, wanted = (np.where(one, POSITIVE, NOT_MENTIONED).astype(np.int8) for one in (own_RO, wanted_RO))
    return clinical(own, wanted).scores()[DEFAULT_MACRO]


def _aimed(settings: ConsensusSettings) -> str:
    return "macro_f1" if settings.aim == "findings" else "utility"


def _choice_arrays(best: _Choice) -> dict[str, NDArray[Any]]:
    """What the choice adds to a model's tensors."""
    term = FindingsTerm.fit(best.scores_SO, best.positive_SO, gamma=best.gamma)
    return {
        "thresholds": term.thresholds_O,
        "spread": term.spread_O,
        "calibration": _calibrations(best.scores_SO, best.positive_SO),
    }


def _calibrations(scores_JO: Matrix, is_positive_JO: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Centre, scale, slope and offset of every observation (O, 4); NaN where too few studies are positive."""
    found = np.full((is_positive_JO.shape[1], 4), np.nan)
    for place, (scores_J, is_positive_J) in enumerate(zip(scores_JO.T.astype(np.float64), is_positive_JO.T)):
        spread = float(scores_J.std())
        if min(is_positive_J.sum(), (~is_positive_J).sum()) >= _LEAST and spread > 0:
            centre = float(scores_J.mean())
            slope, offset = calibration((scores_J - centre) / spread, is_positive_J)
            found[place] = centre, spread, slope, offset
    return found
