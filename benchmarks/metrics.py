"""Cost of the metrics against what the field uses, in one run: CPU seconds of each side and their ratio.

    python benchmarks/metrics.py             # needs pycocoevalcap; Java for the METEOR jar
    python benchmarks/metrics.py --pairs 500 --no-jar

The reports are drawn from invented sentences, about as long as those of MIMIC-CXR (60 words), so that no data set is needed.
"""

import argparse
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from rayscribe.metrics.labeler import RuleLabeler
from rayscribe.metrics.meteor import find_resources, meteor_name, meteor_score, meteor_statistics
from rayscribe.metrics.overlap import overlap
from rayscribe.metrics.statistics import intervals

SIDES = ("left", "right", "bilateral")
SIZES = ("small", "moderate", "large", "tiny", "unchanged", "new")
FINDINGS = (
    "pleural effusion",
    "pneumothorax",
    "consolidation",
    "opacity",
    "atelectasis",
    "edema",
    "rib fracture",
    "nodule",
)
PLACES = ("base", "apex", "lower lobe", "upper lobe", "hilum", "costophrenic angle", "mid lung zone")
FRAMES = (
    "there is a {size} {side} {finding} at the {place} .",
    "no {finding} is seen .",
    "{size} {finding} in the {side} {place} may represent pneumonia .",
    "the heart size is {size} and the mediastinal contours are stable compared with the prior examination .",
    "compared with the previous radiograph the {side} {finding} has decreased in size .",
    "there is no evidence of {finding} or {other} .",
    "the lungs are otherwise clear without {finding} .",
    "a {side} sided line terminates near the {place} in unchanged position .",
)


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    value: object


def report(random_: random.Random) -> str:
    sentences = []
    while sum(len(one.split()) for one in sentences) < random_.randint(30, 80):
        sentences.append(
            random_.choice(FRAMES).format(
                size=random_.choice(SIZES),
                side=random_.choice(SIDES),
                finding=random_.choice(FINDINGS),
                other=random_.choice(FINDINGS),
                place=random_.choice(PLACES),
            )
        )
    return " ".join(sentences)


def cpu(work: Callable[[], object], *, children: bool = False) -> Cost:
    """CPU seconds of this process, or of the processes that it started and waited for."""

    def now() -> float:
        if not children:
            return time.process_time()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = now()
    value = work()
    return Cost(now() - before, value)


def pycocoevalcap_scores(hypotheses: list[str], references: list[str]) -> dict[str, float]:
    gold = {i: [text] for i, text in enumerate(references)}
    given = {i: [text] for i, text in enumerate(hypotheses)}
    bleu = Bleu(4).compute_score(gold, given, verbose=0)[0]
    return {
        "bleu4": bleu[3],
        "rouge_l": Rouge().compute_score(gold, given)[0],
        "cider": Cider().compute_score(gold, given)[0],
    }


def jar_score(hypotheses: list[str], references: list[str]) -> float:
    """The corpus score of the METEOR jar, called on files as its authors do."""
    jar = find_resources().jar
    assert jar is not None, "the jar comes with pycocoevalcap"
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, texts in (("hypotheses", hypotheses), ("references", references)):
            files.append(Path(folder) / name)
            files[-1].write_text("\n".join(texts) + "\n")
        command = ["java", "-Xmx2G", "-jar", str(jar), *map(str, files), "-l", "en", "-norm"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(printed.rsplit("Final score:", 1)[1])


def show(what: str, ours: float, theirs: float, name: str) -> None:
    print(f"{what}: rayscribe {ours:.2f} CPU s, {name} {theirs:.2f} CPU s, ratio {theirs / ours:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=3858)
    parser.add_argument("--jar", action=argparse.BooleanOptionalAction, default=shutil.which("java") is not None)
    wanted = parser.parse_args()
    random_ = random.Random(0)
    hypotheses = [report(random_) for _ in range(wanted.pairs)]
    references = [report(random_) for _ in range(wanted.pairs)]
    print(f"{wanted.pairs} pairs, {np.mean([len(text.split()) for text in references]):.0f} words on average")

    ours = cpu(lambda: overlap(hypotheses, references).scores())
    theirs = cpu(lambda: pycocoevalcap_scores(hypotheses, references))
    assert isinstance(ours.value, dict) and isinstance(theirs.value, dict)
    worst = max(abs(ours.value[name] - value) for name, value in theirs.value.items())
    show("BLEU, ROUGE-L, CIDEr", ours.seconds, theirs.seconds, "pycocoevalcap")
    print(f"  largest difference {worst:.1e}")

    few = min(590, wanted.pairs)
    rows = overlap(hypotheses[:few], references[:few])
    sampled = cpu(lambda: intervals(rows))
    print(f"10,000 bootstrap resamples of {few} reports, all overlap scores: {sampled.seconds:.2f} CPU s")

    resources = find_resources()
    aligned = cpu(lambda: meteor_statistics(hypotheses[:few], references[:few], resources).sum(0, keepdims=True))
    print(f"{meteor_name(resources)} of {few} pairs: rayscribe {aligned.seconds:.2f} CPU s")
    if wanted.jar:
        jar = cpu(lambda: jar_score(hypotheses[:few], references[:few]), children=True)
        show(f"METEOR of {few} pairs, tables loaded", aligned.seconds, jar.seconds, "jar")
        assert isinstance(jar.value, float)
        print(f"  difference {abs(float(meteor_score(aligned.value)[0]) - jar.value):.1e}")

    labelled = cpu(lambda: RuleLabeler().label(references))
    print(f"labeler: {wanted.pairs / labelled.seconds:.0f} reports/s on one core")


if __name__ == "__main__":
    main()
