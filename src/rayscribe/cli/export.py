"""`rayscribe export`: a model folder to one that can be passed on, or a draft to the formats of hospitals.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

from pathlib import Path

from rayscribe.cli.arguments import choice, parsed
from rayscribe.errors import DISCLAIMER, InputError


def export(arguments: list[str]) -> None:
    from rayscribe.reports.exports import KINDS

    kind = choice(
        arguments,
        ("model", *KINDS),
        "kind",
        "rayscribe export KIND [options] --out FILE",
    )
    if kind == "model":
        _export_model(arguments[1:])
    else:
        _export_draft(kind, arguments[1:])


def _export_model(arguments: list[str]) -> None:
    import tyro

    def copied(model: tyro.conf.Positional[Path], out: Path, terms_allow_it: bool = False) -> None:
        """Copies a model folder to share it, without logs, training states and local paths.

        Args:
            model: a model folder of any kind
            out: the folder to write
            terms_allow_it: confirm that the terms of its restricted training data allow you to share the model
        """
        from rayscribe.release import export_model

        export_model(model, out, terms_allow_it=terms_allow_it)
        print(f"wrote {out}. {DISCLAIMER}")

    parsed(copied, arguments, "export model")


def _export_draft(kind: str, arguments: list[str]) -> None:
    import tyro

    def written(draft: tyro.conf.Positional[Path], out: Path, images: tuple[Path, ...] = ()) -> None:
        """Converts a draft to another format; its status is preliminary in all of them.

        Args:
            draft: the draft that `rayscribe predict --out` wrote
            out: the file to write
            images: the study's DICOM files; required for sr and dicom-pdf, and for fhir to name study and patient
        """
        from rayscribe.files import whole_file
        from rayscribe.reports.document import read_document
        from rayscribe.reports.exports import exported
        from rayscribe.reports.source_images import read_source_images

        document = read_document(_content(draft, "write one with `rayscribe predict --out`"), str(draft))
        source_images = read_source_images([(str(path), _content(path, "check the path")) for path in images])
        made = exported(kind, document, source_images)
        with whole_file(out) as temporary:
            temporary.write_bytes(made.content)
        print(f"wrote {out}. {DISCLAIMER}")

    parsed(written, arguments, f"export {kind}")


def _content(path: Path, advice: str) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such file; {advice}")
    return path.read_bytes()
