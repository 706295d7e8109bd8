"""`rayscribe reader-study`: a page for readers and its key; `rayscribe reader-study score`: what their votes show.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rayscribe.cli.arguments import parsed
from rayscribe.errors import DISCLAIMER, InputError
from rayscribe.files import write_text


def reader_study(arguments: list[str]) -> None:
    """Two forms: `score` as the first word counts votes, anything else makes a study."""
    if arguments[:1] == ["score"]:
        _score_form(arguments[1:])
    else:
        _make_form(arguments)


def _make_form(arguments: list[str]) -> None:
    import tyro

    from rayscribe.reader_study.texts import ReaderStudyConfig

    @dataclass(frozen=True, kw_only=True)
    class MakeStudy:
        """Makes a blind study of two systems: a page for readers, and its key.

        Existing files are never overwritten.
        `rayscribe reader-study score KEY VOTES...` counts the votes.
        """

        predictions: tyro.conf.Positional[tuple[Path, Path]]
        "one file of ids and reports per system (JSONL, CSV or JSON); keep them from the readers"
        data: Path
        "the manifest"
        out: Path
        "the page to write, for the readers"
        key: Path
        "the key to write; keep it from the readers"
        worklist: Path | None = None
        "write a CSV of numbers and study ids to this file; give it to the readers if the page holds no images"
        names: tuple[str, str] | None = None
        "names of the systems in the result; by default those of their files. The page shows neither"
        config: Annotated[ReaderStudyConfig, tyro.conf.arg(name="")] = field(default_factory=ReaderStudyConfig)

    _make(parsed(MakeStudy, arguments, "reader-study"))


def _make(options: Any) -> None:
    from rayscribe.data.manifest import read_manifest
    from rayscribe.pages.reader_study import reader_study_page
    from rayscribe.reader_study.study import drawn_study
    from rayscribe.reader_study.texts import read_systems

    config = options.config
    _check_targets(options)
    if not (config.images or config.reference or options.worklist):
        raise InputError(
            "readers would have nothing to judge by: show the --reference or the --images, or write a --worklist"
        )
    manifest = read_manifest(options.data)
    study = drawn_study(manifest, read_systems(options.predictions, options.names, config), config)
    page = reader_study_page(study, manifest)
    _write_all(options, study, page)
    print("\n".join(study.notes))
    if not config.images and manifest.provenance.get("images_may_be_shown"):
        print("the data's terms allow copies of the images; --images puts them on the page")
    elif not config.images and options.worklist is None:
        print("the page holds no images; --worklist writes which study has which number")
    terms = manifest.provenance.get("terms", "not stated")
    print(f"wrote {options.out} for the readers; terms of the data: {terms}. {DISCLAIMER}")
    if options.worklist is not None:
        whom = "whoever shows the studies" if config.images else "the readers, too"
        print(f"wrote {options.worklist}, which study has which number, for {whom}")
    print(f"wrote {options.key}: keep it and the prediction files from the readers")
    print(f"next: rayscribe reader-study score {options.key} votes.json ...")


def _check_targets(options: Any) -> None:
    targets = {"--out": options.out, "--key": options.key, "--worklist": options.worklist}
    named = {option: path for option, path in targets.items() if path is not None}
    if len({path.resolve() for path in named.values()}) < len(named):
        raise InputError("--out, --key and --worklist must be different files")
    read = {path.resolve() for path in (*options.predictions, options.data)}
    for option, path in named.items():
        if path.resolve() in read:
            raise InputError(f"{path}: is read by this study; name another {option} to write")
        if path.exists():
            raise _taken(option, path)


def _taken(option: str, path: Path) -> InputError:
    reason = (
        "without it the votes of its study cannot be counted" if option == "--key" else "readers may be voting by it"
    )
    return InputError(f"{path}: already exists; {reason}. Name another {option}, or delete it when that study is over")


def _write_all(options: Any, study: Any, page: str) -> None:
    """The key first: a page without its key is worth nothing. Whatever fails or interrupts, no file of this run stays."""
    options.key.parent.mkdir(parents=True, exist_ok=True)
    try:
        options.key.touch(exist_ok=False)  # of two runs that name one key, the second ends here
    except FileExistsError as error:
        raise _taken("--key", options.key) from error
    written, done = [options.key], False
    try:
        write_text(options.key, json.dumps(study.key, indent=1, ensure_ascii=False) + "\n")
        if options.worklist is not None:
            rows = io.StringIO(newline="")
            csv.writer(rows).writerows([("number", "study"), *((item.number, item.study.id) for item in study.items)])
            written.append(options.worklist)
            write_text(options.worklist, rows.getvalue())
        written.append(options.out)
        write_text(options.out, page)
        done = True
    finally:
        if not done:
            for path in filter(Path.exists, written):
                path.unlink()


def _score_form(arguments: list[str]) -> None:
    import tyro

    def score_votes(
        key: tyro.conf.Positional[Path],
        votes: tyro.conf.Positional[tuple[Path, ...]],
        json: Path | None = None,
    ) -> None:
        """Unblinds the votes: counts, preference, sign test, agreement between readers.

        Args:
            key: the key of the study
            votes: the votes that the readers exported from the page, one JSON or CSV file per reader
            json: write everything to this file, with every vote unblinded; contains study ids and comments
        """
        _score(key, votes, json)

    parsed(score_votes, arguments, "reader-study score")


def _score(key_file: Path, votes: tuple[Path, ...], target: Path | None) -> None:
    from rayscribe.pages.reader_study import reader_study_text
    from rayscribe.reader_study.study import read_key
    from rayscribe.reader_study.votes import read_ballot, score_votes

    if target is not None and target.resolve() in {path.resolve() for path in (key_file, *votes)}:
        raise InputError(f"{target}: is the key or votes, which --json would overwrite; name another file")
    key = read_key(key_file)
    result = score_votes(key, [read_ballot(path, key) for path in votes])
    if target is not None:
        write_text(target, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"wrote {target}")
    print(reader_study_text(result))
