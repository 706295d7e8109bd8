"""What mining negatives costs, and what the search beyond the exact size loses, on invented reports.

    .venv/bin/python benchmarks/mining.py                    # 2,069 and 20,000 studies, a minute
    .venv/bin/python benchmarks/mining.py --studies 270000   # the size of MIMIC-CXR's training split

Reports of 2 to 8 invented sentences over about 6,000 words whose frequencies fall as in real text, a third of them copies of
another report; 1.5 studies a patient. Each size in a process of its own, with all threads. `lost`: how much lower the best
found negative scores than the best one of an exact search, on 300 studies drawn at random.

Shapes: N studies, W words, Q studies of the check.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from rayscribe.data.mining import Texts, mine
from rayscribe.study import Study

QUERIES, WORDS, SENTENCES = 300, 6000, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, nargs="+", default=[2_069, 20_000])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(line(arguments.studies[0]))
        return
    print("| studies | wall s | CPU s | peak GB above the reports | best found | best exact | lost |")
    for count in arguments.studies:
        command = [sys.executable, __file__, "--inside", "--studies", str(count)]
        print(subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip(), flush=True)


def line(count: int) -> str:
    reports = invented_reports(count)
    studies = [Study(id=str(i), images=(), subject=str(2 * i // 3)) for i in range(count)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.monotonic(), time.process_time()
    found = mine(studies, reports, top=5)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    asked, exact = exact_best(studies, reports)
    ours = np.array([found[row][0][1] for row in asked])
    lost = float((exact - ours).mean())
    return f"| {count} | {wall:.1f} | {cpu:.1f} | {peak:.2f} | {ours.mean():.4f} | {exact.mean():.4f} | {lost:.4f} |"


def exact_best(studies: list[Study], reports: list[str]) -> tuple[list[int], np.ndarray]:
    """The best allowed cosine of some studies, by comparing them with everything."""
    texts = Texts.of(reports)
    asked = np.random.default_rng(1).choice(len(studies), QUERIES, replace=False).tolist()
    asked_QW = texts.part(torch.tensor(asked)).spread()
    scores_NQ = texts.times(asked_QW.T.contiguous())
    for place, row in enumerate(asked):
        same = [
            i for i in range(len(studies)) if reports[i] == reports[row] or studies[i].subject == studies[row].subject
        ]
        scores_NQ[same, place] = -torch.inf
    return asked, scores_NQ.amax(0).numpy()


def invented_reports(count: int) -> list[str]:
    random = np.random.default_rng(0)
    frequency_W = 1 / (10 + np.arange(WORDS))
    frequency_W /= frequency_W.sum()
    sentences = [
        " ".join(f"w{word}" for word in random.choice(WORDS, random.integers(4, 12), p=frequency_W)) + " ."
        for _ in range(SENTENCES)
    ]
    frequency_S = 1 / (5 + np.arange(SENTENCES))
    frequency_S /= frequency_S.sum()
    reports: list[str] = []
    for _ in range(count):
        if reports and random.random() < 1 / 3:
            reports.append(reports[int(len(reports) * random.random() ** 3)])
        else:
            reports.append(
                " ".join(sentences[i] for i in random.choice(SENTENCES, random.integers(2, 9), p=frequency_S))
            )
    return reports


if __name__ == "__main__":
    main()
