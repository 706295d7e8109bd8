"""MIMIC-CXR at its full size with invented patients: how long `rayscribe prepare mimic-cxr` takes, and how much memory.

    python benchmarks/mimic_rehearsal.py --folder /tmp/rehearsal                  # 377,110 images; some minutes, 3 GB of disk
    python benchmarks/mimic_rehearsal.py --folder /tmp/rehearsal --studies 3000   # seconds

Writes the published layout: tables, the zip of reports (or files, --files) and images, hard links to a few tiny JPEGs.
Then `prepare` runs, is killed in the middle of the images and runs again. Real images are larger: their decoding comes on top.
Peak memory is that of all processes together, sampled three times a second, pages shared by processes counted once (PSS).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from rayscribe.data.inspection import inspect_images
from rayscribe.data.manifest import read_manifest
from rayscribe.labels import OBSERVATIONS

IMAGES, STUDIES, SUBJECTS = 377_110, 227_835, 65_379
LINKS = 30_000  # of one file; ext4 allows 65,000
SIDE = 64
READINGS = (("one thread", False, 1), ("threads", False, None), ("processes", True, None))
METADATA_COLUMNS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)
FINDINGS = (
    "The lungs are clear.",
    "There is no pleural effusion or pneumothorax.",
    "The cardiomediastinal silhouette is within normal limits.",
    "A small left pleural effusion is new since ___.",
    "Bibasilar opacities are most likely atelectasis.",
    "A right internal jugular catheter ends in the low SVC.",
    "No displaced rib fracture is seen.",
    "There is mild pulmonary vascular congestion without frank edema.",
)
IMPRESSIONS = ("No acute cardiopulmonary process.", "1. Small left effusion.\n 2. Basal atelectasis.", "No pneumonia.")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One invented examination."""

    subject: str
    study: str
    dicoms: tuple[str, ...]
    views: tuple[str, ...]
    split: str
    report: str


@dataclass
class Watched:
    """What a watched run took."""

    seconds: float = 0.0
    cpu: float = 0.0
    "of all its processes; of a killed run 0, since its workers are nobody's"
    peak: int = 0
    code: int = 0
    output: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where to write; what is there is used again")
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--files", action="store_true", help="extracted reports instead of the zip")
    arguments = parser.parse_args()
    root = arguments.folder / f"mimic-{arguments.studies}{'-files' if arguments.files else ''}"
    if not (root / "whole").exists():
        began = time.monotonic()
        write_layout(root, studies=arguments.studies, zipped=not arguments.files, packed=True)
        (root / "whole").touch()
        print(f"wrote the layout in {time.monotonic() - began:.0f} s", flush=True)
    out = arguments.folder / "rehearsal.parquet"
    for old in arguments.folder.glob("rehearsal*"):
        old.unlink()
    command = [sys.executable, "-m", "rayscribe", "prepare", "mimic-cxr", str(root), "--out", str(out)]
    journal = out.with_name(f"{out.name}.journal")
    half = arguments.studies * IMAGES // STUDIES // 2
    killed = watched(command, stop=lambda: lines_of(journal) > half)
    report(f"killed with {lines_of(journal):,} images in the journal", killed)
    resumed = watched(command)
    report("resumed", resumed)
    again = read_manifest(out).digest()
    unbroken = watched(command)
    report("unbroken", unbroken)
    manifest = read_manifest(out)
    assert manifest.digest() == again, "a resumed run gives another manifest"
    print("".join(unbroken.output), end="")
    print(f"killed and resumed together {killed.seconds + resumed.seconds:.0f} s; load {os.getloadavg()[0]:.1f}")
    paths = sorted({str(path) for study in manifest.studies for path in study.images})[:20_000]
    rates = {name: rate(paths, processes=pool, workers=workers) for name, pool, workers in READINGS}
    journaled = rate(paths, processes=True, workers=None, journal=arguments.folder / "rehearsal.journal")
    base = rates["one thread"]
    print(f"reading {len(paths):,} images, images a second (against one thread without a journal)")
    for name, value in {**rates, "processes with the journal": journaled}.items():
        print(f"| {name} | {value:.0f} | {value / base:.2f} |")


def report(what: str, run: Watched) -> None:
    print(f"| {what} | {run.seconds:.0f} s | {run.cpu:.0f} CPU s | {run.peak / 2**20:.0f} MB |", flush=True)


def rate(paths: Sequence[str], *, processes: bool, workers: int | None, journal: Path | None = None) -> float:
    began = time.monotonic()
    for _ in inspect_images(paths, processes=processes, workers=workers, journal=journal):
        pass
    return len(paths) / (time.monotonic() - began)


def watched(command: list[str], *, stop: Callable[[], bool] = lambda: False) -> Watched:
    """Runs to the end, or kills when `stop` says so. The workers end by themselves."""
    run = Watched()
    began, spent = time.monotonic(), cpu_of_children()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=run.output.extend, args=(process.stdout,))
        reader.start()
        while process.poll() is None:
            run.peak = max(run.peak, sum(map(proportional_kb, family(process.pid))))
            if stop():
                process.send_signal(signal.SIGKILL)
            time.sleep(0.3)
        run.seconds = time.monotonic() - began
        reader.join()
    run.code = process.returncode
    run.cpu = 0.0 if run.code else cpu_of_children() - spent
    if run.code not in (0, -signal.SIGKILL):
        sys.exit(f"prepare failed: {''.join(run.output)}")
    run.peak *= 1024
    return run


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from family(int(child))


def proportional_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def lines_of(path: Path) -> int:
    """Roughly, by the size: a line of the journal is about 300 bytes long."""
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        head = file.read(100_000)
    return path.stat().st_size * head.count(b"\n") // max(1, len(head))


def write_layout(
    root: Path,
    *,
    studies: int,
    zipped: bool = False,
    packed: bool = False,
    reports: str = "mimic-cxr-reports/files",
    suffix: str = "jpg",
    seed: int = 0,
) -> list[Drawn]:
    """The published layout under `root`. `zipped`: reports stay in their zip; `packed`: tables are .csv.gz."""
    drawn = draw(studies, seed)
    write_tables(root, drawn, packed=packed)
    members = ((f"p{one.subject[:2]}/p{one.subject}/s{one.study}.txt", one.report) for one in drawn if one.report)
    if zipped:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, text in members:
                archive.writestr(f"files/{name}", text)
    else:
        for name, text in members:
            path = root / reports / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    write_images(root, drawn, suffix)
    return drawn


def draw(studies: int, seed: int) -> list[Drawn]:
    """In the published proportions of images, studies and patients; the first study's patient is p10000032."""
    chance = random.Random(seed)
    images = studies * IMAGES // STUDIES
    further = [0] * studies
    for row in chance.choices(range(studies), k=images - studies):
        further[row] += 1
    numbers = sorted(chance.sample(range(10_000_032, 20_000_000), max(2, studies * SUBJECTS // STUDIES) - 1))
    subjects = [10_000_032, *numbers]
    split_of = {subject: chance.choices(("train", "validate", "test"), (0.97, 0.01, 0.02))[0] for subject in subjects}
    # Small sets need every split.
    split_of |= dict(zip(subjects[-2:], ("validate", "test")))
    owners = sorted([*subjects, *chance.choices(subjects, k=studies)][:studies])
    names = chance.sample(range(50_000_000, 60_000_000), studies)
    drawn = []
    for row, (subject, study, more) in enumerate(zip(owners, names, further)):
        dicoms = tuple("-".join(f"{chance.getrandbits(32):08x}" for _ in range(5)) for _ in range(1 + more))
        views = tuple(chance.choice(("PA", "AP", "LATERAL", "LL", "", "SWIMMERS")) for _ in dicoms)
        drawn.append(Drawn(str(subject), str(study), dicoms, views, split_of[subject], written(row, chance)))
    return drawn


def written(row: int, chance: random.Random) -> str:
    """A report of one of the kinds that are there, by the row; about a quarter lack findings, one in fifty has no section."""
    findings = "\n ".join(chance.sample(FINDINGS, 4))
    impression = chance.choice(IMPRESSIONS)
    head = f"{' ' * 33}FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___F with cough.\n \n"
    kind = row % 50
    if kind == 7:
        return f"{head} Comparison is made with ___. No change.\n"
    if kind == 11:
        return f"{head} FINDINGS AND IMPRESSION:  {findings}\n"
    if kind == 13:
        return f" WET READ: ___ ___ 9:05 PM\n  No acute process.\n ____________\n{head} CHEST, PA AND LATERAL:  {findings}\n"
    if kind % 4 == 1:
        return f"{head} IMPRESSION: \n \n {impression}\n"
    end = " \n NOTIFICATION:  Told to Dr. ___ by phone.\n" if kind % 4 == 2 else ""
    return f"{head} FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n{end}"


def write_tables(root: Path, drawn: Sequence[Drawn], *, packed: bool) -> None:
    chance = random.Random(1)
    images = [(one, dicom, view) for one in drawn for dicom, view in zip(one.dicoms, one.views)]
    folder = {one.study: f"files/p{one.subject[:2]}/p{one.subject}/s{one.study}" for one in drawn}
    save = Saver(root, packed)
    save(
        "mimic-cxr-2.0.0-split",
        ["dicom_id", "study_id", "subject_id", "split"],
        ([dicom, one.study, one.subject, one.split] for one, dicom, _ in images),
    )
    save(
        "mimic-cxr-2.0.0-metadata",
        METADATA_COLUMNS,
        (
            [
                dicom,
                one.subject,
                one.study,
                "CHEST (PA AND LAT)",
                view,
                3056,
                2544,
                21800506,
                "213014.531",
                "",
                "",
                "Erect",
            ]
            for one, dicom, view in images
        ),
    )
    save(
        "cxr-record-list",
        ["subject_id", "study_id", "dicom_id", "path"],
        ([one.subject, one.study, dicom, f"{folder[one.study]}/{dicom}.dcm"] for one, dicom, _ in images),
    )
    save(
        "cxr-study-list",
        ["subject_id", "study_id", "path"],
        ([one.subject, one.study, f"{folder[one.study]}.txt"] for one in drawn),
    )
    names = sorted(OBSERVATIONS)
    for labeler in ("chexpert", "negbio"):
        save(
            f"mimic-cxr-2.0.0-{labeler}",
            ["subject_id", "study_id", *names],
            ([one.subject, one.study, *chance.choices(("1.0", "0.0", "-1.0", ""), k=14)] for one in drawn),
        )
    radiologists = ["study_id", *(name.replace("Lung Opacity", "Airspace Opacity") for name in OBSERVATIONS)]
    labelled = [one for one in drawn if one.split == "test"][:687]
    Saver(root, False)(
        "mimic-cxr-2.1.0-test-set-labeled",
        radiologists,
        ([one.study, *chance.choices(("1.0", "0.0", "-1.0", ""), k=14)] for one in labelled),
    )


@dataclass(frozen=True)
class Saver:
    """Writes tables into a folder, packed or not."""

    root: Path
    packed: bool

    def __call__(self, name: str, header: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / f"{name}.csv{'.gz' if self.packed else ''}"
        with gzip.open(path, "wt", 1, newline="") if self.packed else open(path, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)


def write_images(root: Path, drawn: Sequence[Drawn], suffix: str) -> None:
    """Hard links to as few files as their number allows."""
    generator = np.random.default_rng(0)
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    images = [(one, dicom) for one in drawn for dicom in one.dicoms]
    for number, (one, dicom) in enumerate(images):
        picture = root / "pictures" / f"{number // LINKS}.jpg"
        if not picture.exists():
            Image.fromarray(generator.integers(0, 256, (SIDE, SIDE), np.uint8)).save(picture, quality=60)
        folder = f"{root}/files/p{one.subject[:2]}/p{one.subject}/s{one.study}"
        os.makedirs(folder, exist_ok=True)
        os.link(picture, f"{folder}/{dicom}.{suffix}")


if __name__ == "__main__":
    main()
