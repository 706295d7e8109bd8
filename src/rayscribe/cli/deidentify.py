"""`rayscribe deidentify`: copies of DICOM images without their patients.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import secrets
import sys
from pathlib import Path

from rayscribe.cli.arguments import parsed
from rayscribe.errors import InputError
from rayscribe.progress import progress_bar

_SHORTEST_KEY = 16
_BURNT_IN = "Text that is burned into the pixels is NOT removed: check every image before you share it."


def deidentify(arguments: list[str]) -> None:
    import tyro

    def deidentify_files(
        inputs: tyro.conf.Positional[tuple[Path, ...]],
        out: Path,
        key: Path | None = None,
        accept_burnt_in: bool = False,
    ) -> None:
        """Writes de-identified copies of DICOM images (PS3.15, Basic Application Level Confidentiality Profile).

        Removes private attributes, names, dates and free text, and replaces UIDs and patient ids consistently.
        Does not remove text that is burned into the pixels.

        Args:
            inputs: DICOM files, or folders of them
            out: the folder for the copies, which are named by their new UIDs; existing files are never overwritten
            key: a file of at least 16 secret bytes; the same key gives the same UIDs and ids. By default random, and not kept
            accept_burnt_in: also copy files that declare burned-in text; the text stays
        """
        _deidentify(inputs, out, key, accept_burnt_in)

    parsed(deidentify_files, arguments, "deidentify")


def _deidentify(inputs: tuple[Path, ...], out: Path, key: Path | None, burnt_in: bool) -> None:
    from rayscribe.data.dicom_deidentify import deidentified, dicom_files
    from rayscribe.data.dicom_profile import Pseudonyms, profile_actions

    profile_actions()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: a file; name a folder")
    secret = secrets.token_bytes(32) if key is None else _secret(key)
    found = dicom_files(inputs, out)
    if not found.files:
        raise InputError("no DICOM file among the inputs; name files, or a folder that holds some")
    faults: list[str] = []
    for path in progress_bar(found.files, desc="de-identifying", unit="file"):
        try:
            deidentified(path, out, Pseudonyms(secret), burnt_in=burnt_in)
        except InputError as error:
            faults.append(str(error))
    written = len(found.files) - len(faults)
    others = f"; {found.others} other files in the folders left out" if found.others else ""
    print(f"{written} of {len(found.files)} DICOM files de-identified into {out}{others}\n{_BURNT_IN}")
    if faults:
        print("\n".join(faults), file=sys.stderr)
        raise InputError(f"{len(faults)} files have no copy; see the reasons above")


def _secret(key: Path) -> bytes:
    if not key.is_file():
        raise InputError(f"--key {key}: no such file; write one with `head -c 32 /dev/urandom > {key}`")
    secret = key.read_bytes()
    if len(secret) < _SHORTEST_KEY:
        raise InputError(f"--key {key}: {len(secret)} bytes; at least {_SHORTEST_KEY}, and nobody else may know them")
    return secret
