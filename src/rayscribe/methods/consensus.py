"""Consensus: the report of highest expected utility, by ridge smoothers over frozen image features. Ours.

Minimum Bayes risk decoding (Kumar and Byrne, 2004; for captions Devlin et al., 2015) with a closed form: the weights of a
ridge regression say how much each training study counts for an image, and the utility of every candidate report against the
training reports, summed with these weights, is what the candidate is expected to score. The most probable report would be the
same normal one for nearly every study; the report of highest expected utility is not. From the best training report a local
search composes a new one from training sentences (metrics/composing.py).

With the aim `findings` each observation has a threshold, and a term rewards candidates that state what passes it (spec:
expected utility, section 10). Ridge strength, thresholds and the term's weight are chosen on the training split alone, each
study scored by smoothers that were fitted without it, its patient and every study with an equal report.

The ridge and with it the scores of findings use every training study, however many. Above 4,096 distinct reports references
stand for several studies each, above 20,000 not every report can be written, and above 8,000 studies components and choices are
those of a sample; below, nothing is approximated (`fitted_to` in `consensus_fit.py` has the list).

The model folder holds training reports and the pooled features of their images, so the terms of the data forbid to publish it
where they forbid to publish those. With these it forgets training studies exactly.

The fit is in `consensus_fit.py`, what it knows of the training studies in `consensus_studies.py`, drafts in
`consensus_reporter.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from rayscribe.config import BackboneConfig, RunConfig
from rayscribe.errors import InputError
from rayscribe.methods.consensus_fit import IMAGE, everyone_of, fitted_on, fitted_to, text_weights, view_spaces
from rayscribe.methods.consensus_reporter import ConsensusReporter
from rayscribe.methods.consensus_studies import LearnedStudies, PooledViews, sampled
from rayscribe.methods.fitted import Fitted, Forgotten, Material
from rayscribe.methods.method import Method
from rayscribe.metrics.composing import COMPOSED
from rayscribe.metrics.utility import utility_weights
from rayscribe.settings import need

_FRONTIER_GAMMAS = (1.0, 2.0, 3.0, 6.0, 10.0, 20.0, 50.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusSettings:
    """What is aimed at, and how the smoothers see an image."""

    aim: Literal["findings", "utility"] = "findings"
    "findings: state what passes its threshold, and among such reports maximise the utility; utility: the utility alone"
    utility: str = "bleu4=1,cider=1"
    """weighted sum of bleu4, cider, rouge_l, clinical and image, each divided by its standard deviation over all pairs; image:
    the cosine of a report's embedding and what the smoothers expect the embedding to be"""
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0)
    "ridge strengths to choose from, in units of the mean squared component"
    gammas: tuple[float, ...] = (1.0, 3.0, 6.0, 10.0, 20.0)
    "weights of the findings term to choose from"
    compose: bool = True
    "write a new report from training sentences, at most one on each observation, instead of a whole training report"
    beta: float = 1.0
    "of the clinical utility: above 1, missed findings cost more than added ones"
    components: int = 400
    "principal components of a view's features"
    grid: int = 2
    "features are means over this many squares along each side, beside the mean over all patches; 0: the mean alone"
    views: int = 2
    "images of a study that are read, in their order; each place has a smoother of its own"
    studies: int = 8000
    """of more training studies so many, drawn by a hash of seed and id, give the principal components, the choice of strength
    and gamma, document frequencies and sentences; ridge, thresholds and probabilities use all"""
    most_candidates: int = 20_000
    "distinct training reports at most that can be written; above it, as many of every pattern of findings as there are"
    references: int = 4096
    "distinct training reports at most that candidates are compared with; above it, each study counts for the nearest"
    evidence: int = 5
    "training studies that a draft names"

    def __post_init__(self) -> None:
        utility_weights(self.utility, "--method.utility", more=[IMAGE])
        need(bool(self.strengths) and min(self.strengths) > 0, "--method.strengths", self.strengths, "above 0")
        need(bool(self.gammas) and min(self.gammas) >= 0, "--method.gammas", self.gammas, "not negative")
        composes = utility_weights(self.utility, "--method.utility", more=[IMAGE]).keys() <= COMPOSED
        need(
            composes or not self.compose,
            "--method.utility",
            self.utility,
            f"--method.compose weighs {' and '.join(sorted(COMPOSED))} alone; add --method.no-compose",
        )
        need(self.beta > 0, "--method.beta", self.beta, "above 0")
        need(self.components >= 1, "--method.components", self.components, "at least 1")
        need(0 <= self.grid <= 7, "--method.grid", self.grid, "between 0 and 7")
        need(self.views >= 1, "--method.views", self.views, "at least 1")
        need(self.studies >= 10, "--method.studies", self.studies, "at least 10")
        need(self.references >= 10, "--method.references", self.references, "at least 10")
        need(
            self.most_candidates >= self.references,
            "--method.most-candidates",
            self.most_candidates,
            f"at least --method.references ({self.references})",
        )
        need(self.evidence >= 0, "--method.evidence", self.evidence, "not negative")

    def check(self, run: RunConfig[Any]) -> None:
        """Everything is fitted in closed form, so nothing else of the run conflicts."""


def fit_consensus(run: RunConfig[ConsensusSettings], material: Material) -> Fitted:
    """Reads features study by study, then fits. Raises InputError for too few studies.

    Features of up to `--method.studies` studies are kept in the model folder; of more studies, only their components are.
    """
    settings, training = run.method, material.training
    sample = sampled(training, settings.studies, run.seed)
    views = PooledViews.of(material.features(sample.studies), views=settings.views, grid=settings.grid)
    known = LearnedStudies.of(sample, views)
    if len(sample.reports) == len(training.reports):
        return fitted_on(run, known, material.notify)
    spaces = view_spaces(known, settings)
    return fitted_to(run, everyone_of(run.method, material, known, spaces), spaces, material.notify)


def forget_studies(
    run: RunConfig[ConsensusSettings], fitted: Fitted, ids: Sequence[str], notify: Callable[[str], None]
) -> Forgotten:
    """The fit on the training studies without these: weights, texts and scores equal those of a manifest without them.

    Raises InputError for ids that are not among the training studies, for a folder that does not keep the features of all of
    them (above `--method.studies`), for one of a version that kept none, and where fewer than 10 studies would remain.
    """
    if len(fitted.texts["ids"]) > len(fitted.texts["reports"]):
        raise InputError(
            f"the model was fitted on {len(fitted.texts['ids'])} training studies, and its folder keeps the features of none: "
            f"above --method.studies ({run.method.studies}) it keeps components and sums, which cannot be fitted again; "
            "train it again on a manifest without the studies"
        )
    known = LearnedStudies.kept_in(fitted)
    if known is None:
        raise InputError(
            "the model was fitted by an earlier version, which kept no features to fit again from; train it again on a "
            "manifest without the studies"
        )
    own = set(known.ids)
    for one in ids:
        if one not in own:
            near = get_close_matches(one, known.ids, n=1)
            asked = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"no training study {one!r} among {len(own)}{asked} Nothing was changed")
    rest = known.without(set(ids))
    return Forgotten(
        fitted=fitted_on(run, rest, notify),
        images=frozenset(known.all_images() - rest.all_images()),
        reports=frozenset(known.reports) - frozenset(rest.reports),
        studies=len(known.ids) - len(rest.ids),
        remaining=len(rest.ids),
        same_patients=known.of_same_patients(set(ids)),
    )


def consensus_aims(run: RunConfig[ConsensusSettings], fitted: Fitted) -> dict[str, ConsensusReporter]:
    """The fit aimed at single utilities, and at both overlaps with the findings term in growing weight."""
    aims = [("bleu4", "bleu4=1", 0.0), ("cider", "cider=1", 0.0), ("clinical", "clinical=1", 0.0)]
    aims += [(f"both, gamma {gamma:g}", "bleu4=1,cider=1", gamma) for gamma in (0.0, *_FRONTIER_GAMMAS)]
    composed = ConsensusReporter(run=replace(run, method=replace(run.method, compose=True)), fitted=fitted)
    whole = {
        name: ConsensusReporter(
            run=replace(run, method=replace(run.method, utility=utility, compose=False)),
            fitted=replace(fitted, texts={**fitted.texts, "gamma": gamma}),
        )
        for name, utility, gamma in aims
    }
    return whole | ({"composed": composed} if text_weights(run.method).keys() <= COMPOSED else {})


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
    forget=forget_studies,
)
