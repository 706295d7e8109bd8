"""IU X-Ray (Open-i; Demner-Fushman et al., 2016) in the three layouts that users have.

r2gen    annotation.json, images `<id>/0.png`, `<id>/1.png`     findings and the published split
kaggle   indiana_reports.csv + indiana_projections.csv            findings, impression, projections; no split
openi    ecgen-radiology/*.xml or NLMCXR_reports.tgz              findings, impression; no split

The codes of Open-i's indexers (problems, "normal" among them) and the context (indication, comparison, title of the
examination) come from the Kaggle table or the XML files, which may also lie next to R2Gen's annotation.

Image names of every layout are also looked up in one flat folder of `<uid>_IM-....{png,jpg}` files.
"""

from __future__ import annotations

import csv
import json
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from rayscribe.errors import InputError
from rayscribe.study import SPLITS, Study

IuXrayLayout = Literal["r2gen", "kaggle", "openi"]

IU_XRAY_TERMS = "IU X-Ray / Open-i: CC BY-NC-ND 4.0; research use, no redistribution of changed images or text"

_IMAGE_FOLDERS = ("images", "images/images_normalized", "images_normalized", "NLMCXR_png", ".")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")


def read_iu_xray(root: Path, *, layout: IuXrayLayout | None = None) -> list[Study]:
    """The studies under `root`; the layout is detected from the files unless given. Images may be missing on disk."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that holds the reports and images")
    layout = layout or find_layout(root)
    return {"r2gen": _read_r2gen, "kaggle": _read_kaggle, "openi": _read_openi}[layout](root)


def find_layout(root: Path) -> IuXrayLayout:
    """The layout of the files in `root`. Raises InputError if it is none of the three."""
    if (root / "annotation.json").exists():
        return "r2gen"
    if (root / "indiana_reports.csv").exists():
        return "kaggle"
    if (root / "ecgen-radiology").is_dir() or (root / "NLMCXR_reports.tgz").exists():
        return "openi"
    raise InputError(
        f"{root}: none of annotation.json (R2Gen), indiana_reports.csv (Kaggle), ecgen-radiology/ or NLMCXR_reports.tgz "
        "(Open-i) is there; give the folder that holds one of them, or use `rayscribe prepare table`"
    )


def _read_r2gen(root: Path) -> list[Study]:
    path = root / "annotation.json"
    try:
        annotation = json.loads(path.read_text(encoding="utf-8"))
        records = [(split, record) for split in SPLITS for record in annotation[split]]
        images, about = _ImageIndex(root), _about(root)
        return [
            Study(
                id=record["id"],
                images=tuple(images.of_r2gen(record["id"], name) for name in record["image_path"]),
                findings=record["report"],
                split=split,
                **about.get(_uid(record["id"]), {}),
            )
            for split, record in records
        ]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not R2Gen's annotation ({error!r}); it needs train, val and test records") from error


def _read_kaggle(root: Path) -> list[Study]:
    images = _ImageIndex(root)
    views: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for row in _rows(root / "indiana_projections.csv", "uid", "filename", "projection"):
        views[row["uid"]].append((images.by_name(row["filename"]), row["projection"].lower()))
    studies = []
    for row in _rows(root / "indiana_reports.csv", "uid", "findings", "impression"):
        seen = sorted(views.get(row["uid"], []))
        studies.append(
            Study(
                id=f"CXR{row['uid']}",
                images=tuple(path for path, _ in seen),
                views=tuple(view for _, view in seen),
                findings=row["findings"] or "",
                impression=row["impression"] or "",
                **_about_row(row),
            )
        )
    return studies


def _read_openi(root: Path) -> list[Study]:
    images = _ImageIndex(root)
    studies = []
    for uid, tree in sorted(_xml_reports(root), key=lambda item: int(item[0])):
        texts = {node.get("Label"): (node.text or "").strip() for node in tree.iter("AbstractText")}
        names = sorted(str(node.get("id")) for node in tree.iter("parentImage"))
        studies.append(
            Study(
                id=f"CXR{uid}",
                images=tuple(images.by_name(f"{name}.png") for name in names),
                findings=texts.get("FINDINGS", ""),
                impression=texts.get("IMPRESSION", ""),
                **_about_tree(tree),
            )
        )
    return studies


def _about(root: Path) -> dict[str, dict[str, Any]]:
    """Problems and context by uid, from whichever source the folder contains."""
    if (root / "indiana_reports.csv").exists():
        return {row["uid"]: _about_row(row) for row in _rows(root / "indiana_reports.csv", "uid")}
    return {uid: _about_tree(tree) for uid, tree in _xml_reports(root)}


def _about_row(row: dict[str, Any]) -> dict[str, Any]:
    """Problems and context of a row of the Kaggle table."""
    problems = (part.strip().lower() for part in (row.get("Problems") or "").split(";"))
    return {
        "problems": tuple(dict.fromkeys(part for part in problems if part)),
        "indication": (row.get("indication") or "").strip(),
        "comparison": (row.get("comparison") or "").strip(),
        "exam": (row.get("image") or "").strip(),
    }


def _about_tree(tree: ElementTree.Element) -> dict[str, Any]:
    """The same from an XML file. Problems are the heads of the major MeSH terms: `Cardiomegaly/borderline` is cardiomegaly."""
    problems = ((node.text or "").split("/")[0].strip().lower() for node in tree.iter("major"))
    texts = {node.get("Label"): (node.text or "").strip() for node in tree.iter("AbstractText")}
    return {
        "problems": tuple(dict.fromkeys(part for part in problems if part)),
        "indication": texts.get("INDICATION", ""),
        "comparison": texts.get("COMPARISON", ""),
        "exam": (tree.findtext(".//parentImage/caption") or "").strip(),
    }


class _ImageIndex:
    """Image paths of one copy of the collection, by name without folder, suffix and study prefix."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._paths: dict[str, Path] = {}
        for folder in _IMAGE_FOLDERS:
            if (root / folder).is_dir():
                for path in sorted((root / folder).iterdir()):
                    if path.suffix.lower() in _SUFFIXES:
                        self._paths.setdefault(_stem(path.name), path)
        self._of_study: dict[str, list[str]] | None = None

    def by_name(self, name: str) -> Path:
        return self._paths.get(_stem(name), self.root / "images" / name)

    def of_r2gen(self, study: str, name: str) -> Path:
        """The file of R2Gen's `<id>/k.png`, or the k-th image of the study by sorted name."""
        direct = self.root / "images" / name
        if direct.exists() or not self._paths:
            return direct
        if self._of_study is None:
            self._of_study = self._names_by_study()
        names, position = self._of_study.get(_uid(study), []), Path(name).stem
        if not position.isdigit() or int(position) >= len(names):
            return direct
        return self.by_name(names[int(position)])

    def _names_by_study(self) -> dict[str, list[str]]:
        """From Open-i's own image lists if available, because a partial copy would shift the count."""
        names = defaultdict(list)
        for stem in sorted(self._paths):
            names[_uid(stem)].append(stem)
        for uid, tree in _xml_reports(self.root):
            listed = sorted(str(node.get("id")) for node in tree.iter("parentImage"))
            if listed:
                names[uid] = listed
        return names


def _stem(name: str) -> str:
    """`CXR1_1_IM-0001-3001.png`, `1_IM-0001-3001.dcm.png` and `1_IM-0001-3001.jpg` are the same image."""
    stem = re.sub(r"(\.dcm)?\.(png|jpe?g|dcm)$", "", Path(name).name, flags=re.IGNORECASE)
    return re.sub(r"^CXR(?:\d+_(?=\d+_IM)|(?=\d+_IM))", "", stem)


def _uid(name: str) -> str:
    match = re.match(r"(?:CXR)?(\d+)_", name)
    return match[1] if match else name


def _xml_reports(root: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    folder, archive = root / "ecgen-radiology", root / "NLMCXR_reports.tgz"
    if folder.is_dir():
        for path in folder.glob("*.xml"):
            yield path.stem, _parsed(path.read_bytes(), path)
    elif archive.exists():
        with tarfile.open(archive) as members:
            for member in members:
                file = members.extractfile(member) if member.name.endswith(".xml") else None
                if file is not None:
                    yield Path(member.name).stem, _parsed(file.read(), archive / member.name)


def _parsed(content: bytes, path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: damaged XML ({error}); download it again") from error


def _rows(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise InputError(f"{path}: missing; the Kaggle layout needs it beside the other table")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in needed if name not in (reader.fieldnames or [])]
        if lacking:
            raise InputError(f"{path}: no column {', '.join(lacking)}; is it the Kaggle table?")
        yield from reader
