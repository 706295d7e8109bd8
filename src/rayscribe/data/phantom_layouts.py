"""Writes phantom reports in the three published layouts of IU X-Ray, with the truth next to them."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rayscribe.data.phantom_hands import Hand
from rayscribe.data.phantom_truth import PhantomConfig, PhantomStudy, Truth
from rayscribe.files import whole_file
from rayscribe.labels import OBSERVATIONS


def image_names(truth: Truth, layout: str) -> list[str]:
    """Paths below `images/`; the frontal film comes first, also alphabetically."""
    uid, number = _uid(truth), truth.id.partition("_")[2]
    views = ("1001", "2001") if truth.has_lateral else ("1001",)
    if layout == "r2gen":
        return [f"{truth.id}/{position}.png" for position, _ in enumerate(views)]
    if layout == "kaggle":
        return [f"images_normalized/{uid}_{number}-{view}.dcm.png" for view in views]
    return [f"CXR{uid}_1_{number}-{view}.png" for view in views]


def write_r2gen(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    annotation: dict[str, list[dict[str, object]]] = {"train": [], "val": [], "test": []}
    for position, study in enumerate(studies):
        share = position / len(studies)
        split = "train" if share < config.train else "val" if share < config.train + config.val else "test"
        paths = image_names(study.truth, config.layout)
        record: dict[str, object] = {
            "id": study.truth.id,
            "report": study.findings,
            "image_path": paths,
            "split": split,
        }
        annotation[split].append(record)
    replace_text(root / "annotation.json", json.dumps(annotation, indent=1))
    if config.hands > 1:
        _write_reports(root, studies)  # the context, as the Kaggle table may lie next to the annotation


def write_kaggle(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    _write_reports(root, studies)
    projections = [["uid", "filename", "projection"]]
    for study in studies:
        for name, projection in zip(image_names(study.truth, config.layout), ("Frontal", "Lateral"), strict=False):
            projections.append([_uid(study.truth), name.rpartition("/")[2], projection])
    replace_text(root / "indiana_projections.csv", _csv(projections))


def _write_reports(root: Path, studies: Sequence[PhantomStudy]) -> None:
    reports = [["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"]]
    for study in studies:
        mesh, problems = ";".join(_mesh(study.truth)), ";".join(term.split("/")[0] for term in _mesh(study.truth))
        words = [study.indication, _comparison(study.truth), study.findings, study.impression]
        reports.append([_uid(study.truth), mesh, problems, _caption(study.truth), *words])
    replace_text(root / "indiana_reports.csv", _csv(reports))


def write_openi(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    for study in studies:
        top = ElementTree.Element("eCitation")
        ElementTree.SubElement(top, "uId", id=f"CXR{_uid(study.truth)}")
        citation = ElementTree.SubElement(top, "MedlineCitation")
        abstract = ElementTree.SubElement(ElementTree.SubElement(citation, "Article"), "Abstract")
        sections = {"COMPARISON": _comparison(study.truth), "INDICATION": study.indication}
        sections |= {"FINDINGS": study.findings, "IMPRESSION": study.impression}
        for label, text in sections.items():
            ElementTree.SubElement(abstract, "AbstractText", Label=label).text = text
        headings = ElementTree.SubElement(top, "MeSH")
        for term in _mesh(study.truth):
            ElementTree.SubElement(headings, "major").text = term
        for name in image_names(study.truth, config.layout):
            image = ElementTree.SubElement(top, "parentImage", id=name.removesuffix(".png"))
            ElementTree.SubElement(image, "caption").text = _caption(study.truth)
        ElementTree.indent(top)
        xml = ElementTree.tostring(top, encoding="unicode", xml_declaration=True)
        replace_text(root / "ecgen-radiology" / f"{_uid(study.truth)}.xml", xml)


def write_truth(root: Path, studies: Sequence[PhantomStudy], config: PhantomConfig) -> None:
    """Writes the truth, by the ids that the layout's reader assigns."""
    rows = [["id", *OBSERVATIONS, "details", "hand"]]
    for study in studies:
        truth = study.truth
        details = json.dumps([asdict(finding) for finding in truth.findings])
        name = truth.id if config.layout == "r2gen" else f"CXR{_uid(truth)}"
        rows.append([name, *map(str, truth.labels), details, str(truth.hand)])
    replace_text(root / "truth.csv", _csv(rows))


def _uid(truth: Truth) -> str:
    return truth.id.removeprefix("CXR").partition("_")[0]


def _mesh(truth: Truth) -> list[str]:
    terms = []
    for finding in truth.findings:
        words = (finding.observation, finding.side, finding.size)
        terms.append("/".join(word for word in words if word != "none"))
    return terms or ["normal"]


def _caption(truth: Truth) -> str:
    return Hand(truth.hand).title("Xray Chest PA and Lateral" if truth.has_lateral else "Xray Chest PA")


def _comparison(truth: Truth) -> str:
    return Hand(truth.hand).comparison("None.")


def _csv(rows: Iterable[Iterable[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def replace_text(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
