"""Reports for a manifest split, written line by line, so that an interrupted run resumes where it stopped.

Next to `predictions.jsonl`, `predictions.jsonl.meta.json` records model, data and decoding. Only a run with the same three may
resume a file. It also names the model's folder, where `evaluate` records every use of the test split.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rayscribe import __version__
from rayscribe.data.conditions import given_states
from rayscribe.data.manifest import Manifest, read_manifest
from rayscribe.data.split_sets import RESPLIT
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import naming, sha256_of, write_text
from rayscribe.inference.reporter import BATCH
from rayscribe.inference.writer import Writer
from rayscribe.models.folder import origin_of, weights_sha256
from rayscribe.progress import ProgressBar
from rayscribe.provenance import check_unseen, note_test
from rayscribe.study import Study


@dataclass(frozen=True, slots=True)
class Written:
    """What a predictions file contains after a run."""

    reports: int
    protocol: dict[str, str]
    "section, and cleaning if the model writes cleaned words"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitJob:
    """Which reports to write, from what, and where."""

    model: Path
    data: Path
    out: Path
    split: str
    decoding: DecodingConfig
    features: Path | None = None
    "folder of the feature cache"
    states: Path | None = None
    "table of findings for the prompt of a diagnosing model or a vision LLM"


def write_predictions(writer: Writer, job: SplitJob, *, progress: ProgressBar = iter) -> Written:
    """Writes one line {"id", "report", "disclaimer"} per study of the split that has the model's section.

    `writer` is that of `job.model`. Whole batches from an earlier run are kept. Every use of the test split is recorded in the
    model's folder. Raises InputError if no study has the section, if the model was trained on another random split and has
    learned from these studies, or if the file was written by another model, data or decoding.
    """
    writer.check(states=job.states is not None, features=job.features is not None)
    manifest = read_manifest(job.data)
    studies = writer.studies(manifest, job.split)
    if not studies:
        raise InputError(f"{job.data}: no study of split {job.split} has the section {writer.protocol['section']!r}")
    _check_same_split(job, manifest, studies)
    about = _about(writer, job, manifest)
    given = None
    if job.states is not None:
        given = given_states(job.states, [study.id for study in studies])
        about |= {"states": f"{job.states.name} {sha256_of(job.states)[:12]}"}
    done = _lines_to_keep(job.out, about, job.model, studies)
    if done < len(studies):
        reporter = writer.reporter(studies[done:], states=given, features=job.features)
        if job.split == "test":
            note_test(job.model, {"out": job.out.name} | about)
        with naming(job.out), open(job.out, "a", encoding="utf-8") as file:
            for start in progress(range(done, len(studies), BATCH)):
                batch = studies[start : start + BATCH]
                # Every batch of a sampled run has its own random stream.
                drafts = reporter.draft(batch, replace(job.decoding, seed=job.decoding.seed + start))
                for study, draft in zip(batch, drafts, strict=True):
                    line = {"id": study.id, "report": draft.reports[0], "disclaimer": DISCLAIMER}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
    return Written(len(studies), writer.protocol)


def _check_same_split(job: SplitJob, manifest: Manifest, studies: list[Study]) -> None:
    """Raises InputError where model and manifest are of different random splits, and the model has learned from these."""
    learned = next(iter(origin_of(str(job.model))), {})
    is_resplit = RESPLIT in learned or RESPLIT in manifest.provenance
    if job.split != "train" and is_resplit and learned.get("digest") != manifest.digest():
        check_unseen(job.model, studies, f"split {job.split} of {job.data}")


def _about(writer: Writer, job: SplitJob, manifest: Manifest) -> dict[str, Any]:
    """What a predictions file must share with a run that resumes it."""
    return {
        "rayscribe": __version__,
        "disclaimer": DISCLAIMER,
        "model": job.model.name,
        "weights_sha256": weights_sha256(job.model),
        "data_digest": manifest.digest(),
        "split": job.split,
        **writer.protocol,
        "decoding": asdict(job.decoding),
    }


def _lines_to_keep(out: Path, about: dict[str, Any], model: Path, studies: list[Study]) -> int:
    """Truncates `out` to its last whole batch and returns the lines left; starts the file if there is none."""
    meta = out.with_name(out.name + ".meta.json")
    if not out.exists():
        write_text(meta, json.dumps(about | {"folder": str(model.resolve())}, indent=2) + "\n")
        return 0
    made = json.loads(meta.read_text()) if meta.exists() else {}
    made.pop("folder", None)  # a moved model is the same model
    if made != json.loads(json.dumps(about)):
        raise InputError(
            f"{out}: holds reports of another model, data or decoding; give another --out, or delete the file"
        )
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = 0
    for line, study in zip(lines, studies, strict=False):
        if not line.endswith("\n") or json.loads(line)["id"] != study.id:
            break
        whole += 1
    if whole < len(studies):
        # The same batches as an uninterrupted run, so that the same arithmetic gives the same reports.
        whole -= whole % BATCH
        write_text(out, "".join(lines[:whole]))
    return whole
