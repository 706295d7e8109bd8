"""`rayscribe prepare`: a source's options, its reader, and what the check found, printed.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rayscribe.cli.arguments import choice, parsed
from rayscribe.cli.checked_manifest import resplit, write_checked
from rayscribe.progress import progress_bar
from rayscribe.provenance import RESTRICTED


def prepare(arguments: list[str]) -> None:
    kinds: dict[str, Callable[[list[str]], None]] = {
        "iu-xray": _iu_xray,
        "mimic-cxr": _mimic_cxr,
        "table": _table,
        "phantom": _phantom,
    }
    source = choice(arguments, tuple(kinds), "source", "rayscribe prepare SOURCE [options] --out data.parquet")
    kinds[source](arguments[1:])


def _iu_xray(arguments: list[str]) -> None:
    import tyro

    from rayscribe.data import iu_xray

    def from_iu_xray(
        root: tyro.conf.Positional[Path],
        out: Path,
        layout: iu_xray.IuXrayLayout | None = None,
        splits: Path | None = None,
        leave_out_faulty: bool = False,
    ) -> None:
        """Reads IU X-Ray in the layout of R2Gen, Kaggle or Open-i.

        Args:
            root: the folder with the reports and images
            out: the manifest to write
            layout: which layout to read when the folder holds several
            splits: a table of ids and splits that replaces the source's split, such as `rayscribe audit --resplit` writes
            leave_out_faulty: write the manifest without the studies that are broken
        """
        studies = resplit(iu_xray.read_iu_xray(root, layout=layout), splits)
        about = {
            "source": "iu-xray",
            "root": str(root),
            "layout": layout or iu_xray.find_layout(root),
            "terms": iu_xray.IU_XRAY_TERMS,
        }
        write_checked(studies, about, out, missing_is_fault=False, leave_out_faulty=leave_out_faulty)

    parsed(from_iu_xray, arguments, "prepare iu-xray")


def _mimic_cxr(arguments: list[str]) -> None:
    from rayscribe.cli.prepare_mimic import from_mimic_cxr

    parsed(from_mimic_cxr, arguments, "prepare mimic-cxr")


def _table(arguments: list[str]) -> None:
    import tyro

    from rayscribe.data.table import Columns, read_table

    @dataclass(frozen=True, kw_only=True)
    class PrepareTable:
        """Reads a table (CSV, TSV, JSONL or Parquet) of ids, image paths and reports."""

        file: tyro.conf.Positional[Path]
        "the table"
        out: Path
        "the manifest to write"
        columns: Columns = field(default_factory=Columns)
        "which column holds what"
        image_root: Path | None = None
        "the folder that relative image paths start from; by default the table's"
        terms: str = "not stated"
        "what the licence of the data allows; recorded in every model trained on them"
        images_may_be_shown: bool = False
        "the terms allow copies of the images, so pages may include them"
        restricted: bool = False
        "the data are under a use agreement: pages show no report text, and models are exported only with --terms-allow-it"
        splits: Path | None = None
        "a table of ids and splits that replaces the source's split, such as `rayscribe audit --resplit` writes"
        without_reports: bool = False
        "keep studies that have no report, to train classifiers; their labels may be codes (--columns.problems)"
        leave_out_faulty: bool = False
        "write the manifest without the studies that are broken"

    options = parsed(PrepareTable, arguments, "prepare table")
    needs_text = not options.without_reports
    studies = read_table(options.file, columns=options.columns, image_root=options.image_root, needs_text=needs_text)
    about = {
        "source": "table",
        "root": str(options.file),
        "terms": options.terms,
        "images_may_be_shown": options.images_may_be_shown,
    }
    about |= {RESTRICTED: True} if options.restricted else {}
    write_checked(
        resplit(studies, options.splits),
        about,
        options.out,
        missing_is_fault=True,
        needs_text=needs_text,
        leave_out_faulty=options.leave_out_faulty,
    )


def _phantom(arguments: list[str]) -> None:
    import tyro

    from rayscribe.data.phantom_truth import PhantomConfig

    def from_phantom(
        out: Path,
        phantom: Annotated[PhantomConfig, tyro.conf.arg(name="")] = PhantomConfig(),  # noqa: B008  # frozen
    ) -> None:
        """Draws chest X-rays and writes their reports, into a folder beside the manifest.

        Args:
            out: the manifest to write; the folder takes its name, without the suffix
        """
        write_phantom_manifest(out, phantom)

    parsed(from_phantom, arguments, "prepare phantom")


def write_phantom_manifest(out: Path, phantom: Any) -> None:
    """Draws the phantom world beside `out` and writes its manifest."""
    from dataclasses import asdict

    from rayscribe.data.iu_xray import read_iu_xray
    from rayscribe.data.phantom import write_phantom

    root = out.with_suffix("")
    write_phantom(root, phantom, progress=partial(progress_bar, desc="drawing", unit="study"))
    about = {
        "source": "phantom",
        "settings": asdict(phantom),
        "terms": "synthetic; no restriction",
        "images_may_be_shown": True,
    }
    write_checked(read_iu_xray(root), about, out, missing_is_fault=True, leave_out_faulty=False)
