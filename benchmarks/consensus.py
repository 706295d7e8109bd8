"""What `train consensus` takes at the size of MIMIC-CXR: time and memory of the fit, and reports a second.

    OMP_NUM_THREADS=2 python benchmarks/consensus.py                            # 270,790 studies, some minutes, no images
    OMP_NUM_THREADS=1 python benchmarks/consensus.py --studies 1000 2000 4000 8000

Reports are those of the phantom world: normal ones that thousands share, and abnormal ones of which few are equal. Patients
have a few studies each. Features are noise of --width numbers, moved along a direction for every observation that the study
has; they are computed where they are read. Every size runs in a process of its own, because the peak of a process never falls.
Targets at 270,790 studies on two cores: fit below 30 minutes and 8 GB, at least 50 reports a second.

Shapes: B studies, V views, C numbers of a view's features, O observations.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscribe.data.cleaning import CLEANINGS
from rayscribe.data.phantom_reports import write_report
from rayscribe.data.phantom_truth import Truth, drawn_findings
from rayscribe.data.split_reports import SplitReports
from rayscribe.drafts import DecodingConfig
from rayscribe.labels import OBSERVATIONS, POSITIVE
from rayscribe.methods.consensus import consensus, fit_consensus
from rayscribe.methods.consensus_reporter import ConsensusReporter
from rayscribe.methods.method import Material
from rayscribe.metrics.clinical import clinical
from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.study import Study

STUDIES = 270_790
PATIENTS = 0.29  # for every study
SECOND_VIEW = 0.65
ABNORMAL, RARE = 0.6, 0.08
ASKED = 512
BATCH = 16
_SEED_OF_FEATURES = 7


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a fit and of drafts."""

    studies: int
    distinct: int
    seconds: float
    cpu: float
    gigabytes: float
    drafts_a_second: float
    "whole training reports"
    composed_a_second: float
    macro_f1: float
    "of drafts, for studies that were not fitted on"
    floats: int
    "of the model's tensors"


@dataclass(frozen=True)
class World:
    """Invented studies, with the observations that each has."""

    studies: list[Study]
    reports: list[str]
    labels_BO: NDArray[np.float32]
    width: int

    @classmethod
    def drawn(cls, count: int, width: int) -> World:
        """Truths and reports, each from its number alone."""
        studies, reports, labels = [], [], []
        for number in range(count):
            rng = np.random.default_rng([3, number])
            share, view, patient = rng.random(), rng.random(), int(rng.integers(max(1, int(PATIENTS * count))))
            findings = drawn_findings(rng, is_abnormal=share < ABNORMAL, is_rare=share < RARE)
            truth = Truth(id=str(number), seed=0, findings=findings)
            reports.append(CLEANINGS["r2gen-mimic"](write_report(truth, rng)[0]))
            labels.append(truth.labels)
            images = (f"{number}",) if view > SECOND_VIEW else (f"{number}", f"{number}b")
            studies.append(Study(id=str(number), images=(), subject=str(patient), sha256=images))
        return cls(studies, reports, np.array(labels, np.float32), width)

    def features(self, studies: Sequence[Study]) -> Iterator[NDArray[np.float16]]:
        """Of each study, (V, 1, C)."""
        directions_OC = np.random.default_rng(_SEED_OF_FEATURES).standard_normal((len(OBSERVATIONS), self.width))
        for study in studies:
            number = int(study.id)
            noise = np.random.default_rng([_SEED_OF_FEATURES, number]).standard_normal(
                (len(study.sha256), 1, self.width), np.float32
            )
            yield (noise + 0.15 * self.labels_BO[number] @ directions_OC).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, nargs="+", default=[STUDIES], help="sizes of the training split")
    parser.add_argument("--width", type=int, default=1280, help="numbers of a view's features")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="whole-number settings, e.g. references=1024"
    )
    arguments = parser.parse_args()
    settings = {name: int(value) for name, _, value in (one.partition("=") for one in arguments.set)}
    first: Cost | None = None
    print(
        "| studies | distinct reports | fit | CPU | peak | reports a second | composed | macro F1 | million numbers kept |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for studies in arguments.studies:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cost = pool.apply(cost_of, (studies, arguments.width, settings))
        first = first or cost
        print(
            f"| {cost.studies:,} | {cost.distinct:,} | {cost.seconds:.0f} s ({cost.seconds / first.seconds:.1f} x) | "
            f"{cost.cpu:.0f} s ({cost.cpu / first.cpu:.1f} x) | "
            f"{cost.gigabytes:.2f} GB ({cost.gigabytes / first.gigabytes:.1f} x) | {cost.drafts_a_second:.0f} | "
            f"{cost.composed_a_second:.1f} | "
            f"{cost.macro_f1:.3f} | {cost.floats / 1e6:.0f} |",
            flush=True,
        )


def cost_of(count: int, width: int, settings: dict[str, Any]) -> Cost:
    """Fits on so many studies, and drafts for others."""
    world = World.drawn(count + ASKED, width)
    training = SplitReports(world.studies[:count], world.reports[:count])
    run = consensus()
    run = replace(run, method=replace(run.method, grid=0, **settings))
    began = time.monotonic()
    said = lambda text: print(f"  {time.monotonic() - began:6.0f} s {peak():5.2f} GB: {text}", flush=True)  # noqa: E731
    said(f"{count:,} studies are invented")
    began, began_cpu = time.monotonic(), time.process_time()
    fitted = fit_consensus(run, Material(training=training, validation=training, features=world.features, notify=said))
    seconds, cpu, gigabytes = time.monotonic() - began, time.process_time() - began_cpu, peak()
    maps = list(world.features(world.studies[count:]))
    whole = ConsensusReporter(replace(run, method=replace(run.method, compose=False)), fitted)
    texts, rate = drafted(whole, maps)
    said(f"drafted; {len(set(texts))} distinct reports of {ASKED}")
    _, composed_rate = drafted(ConsensusReporter(run, fitted), maps[: ASKED // 4])
    said(f"composed; peak with drafts {peak():.2f} GB")
    own, wanted = (RuleLabeler().label(one) for one in (texts, world.reports[count:]))
    return Cost(
        studies=count,
        distinct=len(set(training.reports)),
        seconds=seconds,
        cpu=cpu,
        gigabytes=gigabytes,
        drafts_a_second=rate,
        composed_a_second=composed_rate,
        macro_f1=clinical(np.where(own == POSITIVE, own, 0), np.where(wanted == POSITIVE, wanted, 0)).scores()[
            "ce_f1_macro_14_uncertain_negative"
        ],
        floats=sum(one.numel() for one in fitted.weights.values()),
    )


def drafted(reporter: ConsensusReporter, maps: Sequence[NDArray[np.float16]]) -> tuple[list[str], float]:
    """The first report for each study, and reports a second; the first batch reads what is read once."""
    texts = [one.reports[0] for one in reporter.draft(maps[:BATCH], DecodingConfig())]
    began = time.monotonic()
    for start in range(BATCH, len(maps), BATCH):
        texts += [one.reports[0] for one in reporter.draft(maps[start : start + BATCH], DecodingConfig())]
    return texts, (len(maps) - BATCH) / (time.monotonic() - began)


def peak() -> float:
    """GB (1e9 bytes) that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
