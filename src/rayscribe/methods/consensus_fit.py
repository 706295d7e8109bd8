"""The fit of consensus, from its training studies alone: the same studies give the same numbers, which lets a model forget.

Shapes: J training studies, C candidates, F features, K components, O observations, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rayscribe.config import RunConfig
from rayscribe.data.retrieval_building import report_vectors
from rayscribe.errors import InputError
from rayscribe.labels import NOT_MENTIONED, POSITIVE
from rayscribe.methods.consensus_studies import LearnedStudies
from rayscribe.methods.method import Fitted
from rayscribe.metrics.classification import calibration
from rayscribe.metrics.clinical import clinical
from rayscribe.metrics.expected_utility import FindingsTerm, ImageTerm, Smoother, Space, expected, joined_weights
from rayscribe.metrics.groups import groups_of
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.utility import Matrix, mixed, utilities, utility_weights

if TYPE_CHECKING:
    from rayscribe.methods.consensus import ConsensusSettings

IMAGE = "image"
"The utility that compares a candidate with the image."
TOLD = ("bleu4", "cider", "clinical")
"Utilities whose expected values a draft states."
_LEAST = 2  # positive studies without which an observation has no probability
_WIDTH = 256  # of the embedding of texts
_LEAST_STUDIES = 10


def text_weights(settings: ConsensusSettings) -> dict[str, float]:
    """Weights of the utilities that compare texts."""
    found = utility_weights(settings.utility, "--method.utility", more=[IMAGE])
    return {name: weight for name, weight in found.items() if name != IMAGE}


def image_weight(settings: ConsensusSettings) -> float:
    """Weight of the utility that compares with the image; 0 without it."""
    return utility_weights(settings.utility, "--method.utility", more=[IMAGE]).get(IMAGE, 0.0)


def mixed_texts(parts: Mapping[str, Matrix], settings: ConsensusSettings) -> Matrix:
    """The weighted sum of the utilities that compare texts (C, J); zeros without any."""
    weights = text_weights(settings)
    return mixed(parts, weights) if weights else np.zeros_like(parts[TOLD[0]])


def fitted_on(run: RunConfig[ConsensusSettings], known: LearnedStudies, notify: Callable[[str], None]) -> Fitted:
    """Smoothers, utilities, and the choice of strength, thresholds and gamma by leaving groups out.

    Raises InputError for fewer than 10 studies, or where fewer than two have a view.
    """
    settings, count = run.method, len(known.ids)
    if count < _LEAST_STUDIES:
        raise InputError(f"{count} training studies; consensus needs at least {_LEAST_STUDIES}")
    problem = _Problem.of(settings, known.reports)
    groups_J = groups_of(known.patients, known.reports)
    spaces, rows = _spaces(known, settings)
    projected = [space.project(x_JF[at]) for space, x_JF, at in zip(spaces, known.views.x_VBF, rows)]
    notify(f"{count} training studies, {len(problem.candidates)} candidate reports")
    best: _Choice | None = None
    for strength in settings.strengths:
        smoothers = [Smoother.fit(x_JK, at, strength=strength) for x_JK, at in zip(projected, rows)]
        left_out = joined_weights([one.left_out(groups_J, count) for one in smoothers], known.views.has_view_BV)
        found = _choose(problem, strength, left_out)
        notify(f"ridge {strength:g}: leave-one-out {_aimed(settings)} {found.score:.4f}")
        if best is None or found.score > best.score:
            best = found
    assert best is not None
    kept = problem.arrays() | _choice_arrays(best, problem)
    for view, (space, x_JK, at) in enumerate(zip(spaces, projected, rows)):
        smoother = Smoother.fit(x_JK, at, strength=best.strength)
        kept |= {
            f"view{view}_centre": space.centre_F.astype(np.float32),
            f"view{view}_scale": space.scale_F.astype(np.float32),
            f"view{view}_components": space.components_FK.astype(np.float32),
            f"view{view}_solved": smoother.solved_KJ.astype(np.float32),
            f"view{view}_rows": at,
            f"view{view}_features": known.views.x_VBF[view][at],
        }
    return Fitted(
        weights={name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in kept.items()},
        texts=known.texts() | {"strength": best.strength, "gamma": best.term.gamma},
        scores={f"leave_one_out_{_aimed(settings)}": best.score},
    )


def _spaces(known: LearnedStudies, settings: ConsensusSettings) -> tuple[list[Space], list[NDArray[np.int64]]]:
    """The principal components of each view, and the rows of the studies that have it."""
    spaces, rows = [], []
    for view, x_JF in enumerate(known.views.x_VBF):
        rows.append(np.flatnonzero(known.views.has_view_BV[:, view]))
        if len(rows[-1]) < 2:
            raise InputError(
                f"{len(rows[-1])} training studies have {view + 1} images; give --method.views {max(1, view)}"
            )
        spaces.append(Space.fit(x_JF[rows[-1]], settings.components))
    return spaces, rows


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What reports say, and what is aimed at; it knows no image."""

    settings: ConsensusSettings
    candidates: list[str]
    own_J: NDArray[np.int64]
    "the candidate that is each study's report"
    parts: Mapping[str, Matrix]
    is_positive_JO: NDArray[np.bool_]
    is_positive_CO: NDArray[np.bool_]
    image: ImageTerm | None

    @classmethod
    def of(cls, settings: ConsensusSettings, reports: list[str]) -> _Problem:
        candidates = list(dict.fromkeys(reports))
        places = {text: at for at, text in enumerate(candidates)}
        own_J = np.array([places[text] for text in reports])
        labeler = RuleLabeler()
        image = None
        if weight := image_weight(settings):
            text_RD, _ = report_vectors(reports, (), _WIDTH)
            first_C = np.unique(own_J, return_index=True)[1]
            image = ImageTerm.fit(text_RD.numpy()[first_C], own_J, weight=weight)
        return cls(
            settings=settings,
            candidates=candidates,
            own_J=own_J,
            parts=utilities(candidates, reports, labeler, beta=settings.beta, names=(*TOLD, *text_weights(settings))),
            is_positive_JO=labeler.label(reports) == POSITIVE,
            is_positive_CO=labeler.label(candidates) == POSITIVE,
            image=image,
        )

    @cached_property
    def texts_CJ(self) -> Matrix:
        """The sum of the utilities that compare texts."""
        return mixed_texts(self.parts, self.settings)

    @cached_property
    def utility_CJ(self) -> Matrix:
        """The whole sum, where a study's report is known."""
        return self.texts_CJ if self.image is None else self.texts_CJ + self.image.pairs()

    def expected_JC(self, left_out_JJ: Matrix) -> Matrix:
        found_JC = expected(left_out_JJ, self.texts_CJ.T)
        return found_JC if self.image is None else found_JC + self.image.of(left_out_JJ)

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {
            "is_positive_jo": self.is_positive_JO,
            "is_positive_co": self.is_positive_CO,
            **{f"utility_{name}": utility for name, utility in self.parts.items()},
        }
        return found if self.image is None else found | {"text_cd": self.image.text_CD.astype(np.float32)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """Ridge strength and findings term, with the score that chose them."""

    score: float
    strength: float
    term: FindingsTerm
    scores_JO: NDArray[np.float32]
    "of every training study by smoothers without it"


def _choose(problem: _Problem, strength: float, left_out_JJ: Matrix) -> _Choice:
    """The best gamma at this strength; a study's own report is no candidate for it."""
    settings = problem.settings
    expected_JC = problem.expected_JC(left_out_JJ)
    scores_JO = expected(left_out_JJ, problem.is_positive_JO.astype(np.float32))
    rows_J = np.arange(len(problem.own_J))
    found: _Choice | None = None
    for gamma in settings.gammas if settings.aim == "findings" else (0.0,):
        term = FindingsTerm.fit(scores_JO, problem.is_positive_JO, gamma=gamma)
        total_JC = expected_JC + term.of(scores_JO, problem.is_positive_CO)
        total_JC[rows_J, problem.own_J] = -np.inf
        picks_J = total_JC.argmax(1)
        if settings.aim == "findings":
            score = _macro_f1(problem.is_positive_CO[picks_J], problem.is_positive_JO)
        else:
            score = float(problem.utility_CJ[picks_J, rows_J].mean())
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


def _choice_arrays(best: _Choice, problem: _Problem) -> dict[str, NDArray[Any]]:
    """What the choice adds to a model's tensors."""
    return {
        "thresholds": best.term.thresholds_O,
        "spread": best.term.spread_O,
        "calibration": _calibrations(best.scores_JO, problem.is_positive_JO),
    }


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
