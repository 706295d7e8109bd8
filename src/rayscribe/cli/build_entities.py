"""`rayscribe build entities`: the clinical words of every report of a manifest, line by line.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from rayscribe.cli.arguments import parsed
from rayscribe.config import TextConfig
from rayscribe.errors import InputError
from rayscribe.files import write_text
from rayscribe.progress import Meter

_BLOCK = 64  # reports
_USUAL = TextConfig()


def build_entities(arguments: list[str]) -> None:
    import tyro

    def extract(
        data: tyro.conf.Positional[Path],
        out: Path,
        radgraph: Path | None = None,
        section: Literal["findings", "impression", "findings+impression"] = _USUAL.section,
        cleaning: Literal["r2gen-iu", "r2gen-mimic"] = _USUAL.cleaning,
    ) -> None:
        """Writes the clinical words of every report: what JIMA's entity task learns (--method.entities OUT).

        An interrupted run goes on where it stopped. OUT holds words of reports: the terms of the data hold for it.

        Args:
            data: the manifest
            out: JSON lines, a study's id and its entities each
            radgraph: folder of a RadGraph model on disk, as the paper used it; the built-in rules without it
            section: of the report, as the training will read it
            cleaning: as the training will clean it; RadGraph reads the report as it was written
        """
        if out.suffix != ".jsonl":
            raise InputError(f"{out}: JSON lines are written; give --out a name that ends with .jsonl")
        count, name = _write(data, out, radgraph, replace(_USUAL, section=section, cleaning=cleaning))
        print(f"{count} studies by {name}; wrote {out}")
        from rayscribe.methods import recipe_with

        print(f"next: rayscribe train {recipe_with('entities')} --data {data} --method.entities {out} --run RUN")

    parsed(extract, arguments, "build entities")


def _write(data: Path, out: Path, radgraph: Path | None, text: TextConfig) -> tuple[int, str]:
    from rayscribe.data.entities import EntityExtractor, LexiconEntities, RadGraphEntities
    from rayscribe.data.manifest import read_manifest
    from rayscribe.data.sections import section_text
    from rayscribe.data.split_reports import cleaned_report
    from rayscribe.metrics.radgraph import RadGraph

    manifest = read_manifest(data)
    studies = [study for study in manifest.studies if cleaned_report(study, text)]
    if not studies:
        raise InputError(f"{data}: no study has the section {text.section!r} (--section)")
    if out.exists():
        raise InputError(f"{out}: exists already; delete it, or give another --out")
    extractor: EntityExtractor = LexiconEntities() if radgraph is None else RadGraphEntities(RadGraph.load(radgraph))
    part = out.with_name(f".{out.name}.part")
    done = _start(part, {"data": manifest.digest(), "by": extractor.name, **asdict(text)})
    with (
        open(part, "a", encoding="utf-8") as file,
        Meter(desc="entities", total=len(studies), initial=done, unit="report") as bar,
    ):
        for start in range(done, len(studies), _BLOCK):
            block = studies[start : start + _BLOCK]
            reports = [
                section_text(study.findings, study.impression, text.section)
                if radgraph
                else cleaned_report(study, text)
                for study in block
            ]
            for study, words in zip(block, extractor.words(reports), strict=True):
                file.write(json.dumps({"id": study.id, "section": text.section, "entities": words}) + "\n")
            file.flush()
            bar.update(len(block))
    _, lines = _read(part)
    write_text(out, "".join(lines))
    part.unlink()
    return len(studies), extractor.name


def _start(part: Path, about: dict[str, Any]) -> int:
    """How many studies an interrupted run has left; begins the file where there is none."""
    if not part.exists():
        write_text(part, json.dumps(about) + "\n")
        return 0
    header, lines = _read(part)
    if header != json.dumps(about) + "\n":
        raise InputError(f"{part}: left by a run on other data, section or model; delete it")
    write_text(part, header + "".join(lines))
    return len(lines)


def _read(part: Path) -> tuple[str, list[str]]:
    """The header and the whole lines after it."""
    header, *lines = part.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    return header, [line for line in lines if line.endswith("\n")]
