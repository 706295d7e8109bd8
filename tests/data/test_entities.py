"""Clinical words: which words the rules take, every form of file, and what a training run is told when they are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from rayscribe.config import TextConfig
from rayscribe.data.entities import EntityTargets, LexiconEntities, read_entities, study_entities, words_of
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import read_manifest
from rayscribe.data.split_reports import cleaned_report
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.errors import InputError

# Own sentences, marked by hand as RadGraph's scheme asks: anatomy and observation words, whatever their presence.
MARKED = {
    "the heart size is normal .": "heart size normal",
    "no pleural effusion or pneumothorax is seen .": "pleural effusion pneumothorax",
    "there is a small left pleural effusion with adjacent atelectasis .": "small left pleural effusion adjacent atelectasis",
    "the lungs are clear bilaterally .": "lungs clear bilaterally",
    "findings are consistent with mild pulmonary edema .": "mild pulmonary edema",
    "an endotracheal tube terminates above the carina .": "endotracheal tube terminates above carina",
    "no acute displaced rib fracture is identified on this exam .": "acute displaced rib fracture",
    "compared to the prior study the right basilar opacity has increased .": "right basilar opacity increased",
    "degenerative changes of the thoracic spine are noted .": "degenerative changes thoracic spine",
    "cannot exclude early pneumonia in the right lower lobe .": "early pneumonia right lower lobe",
    "the mediastinal contours are within normal limits .": "mediastinal contours normal limits",
    "calcified granuloma in the left upper lung .": "calcified granuloma left upper lung",
}


def annotation(*tokens: str) -> dict[str, object]:
    entities = {str(at): {"tokens": text, "label": "x", "relations": []} for at, text in enumerate(tokens)}
    return {"entities": entities}


def test_the_rules_take_most_of_what_a_hand_marks_and_little_else() -> None:
    found = LexiconEntities().words(list(MARKED))
    pairs = [(set(words), set(wanted.split())) for words, wanted in zip(found, MARKED.values(), strict=True)]
    hits = sum(len(words & wanted) for words, wanted in pairs)
    assert hits / sum(len(words) for words, _ in pairs) > 0.9
    assert hits / sum(len(wanted) for _, wanted in pairs) > 0.9


def test_the_rules_leave_out_grammar_reporting_numbers_and_masks() -> None:
    assert LexiconEntities().words(["Compared to XXXX, there is no 5 mm nodule; heart."]) == [["mm", "nodule", "heart"]]


def test_radgraphs_words_are_split_and_lower() -> None:
    assert words_of(annotation("Pleural Effusion", "left")) == ["pleural", "effusion", "left"]
    assert words_of(None) == []


def test_targets_are_the_words_of_the_vocabulary() -> None:
    targets = EntityTargets.build([["b", "b", "z"], [], ["c", "a"]], ["a", "b", "c"])
    wanted = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    assert torch.equal(targets.of(torch.tensor([2, 0, 1])), wanted)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"id": "s1", "entities": ["Heart", "size"]}\n'),
        ("a.csv", "id,entities\ns1,heart size\n"),
        ("b.csv", "study_id,tokens\ns1,heart size\n"),
        ("a.json", '{"s1": ["heart", "size"]}'),
        ("b.json", json.dumps({"s1": annotation("heart size")})),
        ("c.json", '{"train": [{"id": "s1", "tokens": ["heart", "size"], "report": "x"}], "val": []}'),
    ],
)
def test_every_form_of_file_is_read(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    found = read_entities(path, section="findings")
    assert found["s1"] == ["heart", "size"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"id": "s1", "words": []}\n', "line 1: not an id with its entities"),
        ("a.jsonl", '{"id": "s1", "entities": [1]}\n', "line 1: not an id with its entities"),
        ("a.jsonl", '{"id": "s1", "entities": []}\n' * 2, "line 2: duplicate study s1"),
        ("a.jsonl", "no json\n", "not a file of entities"),
        (
            "a.jsonl",
            '\n{"id": "s1", "section": "impression", "entities": []}\n',
            "line 2: written for the section impression",
        ),
        ("a.csv", f"id,entities\ns1,{'x' * 200_000}\n", "field larger than field limit"),
        ("a.csv", "id,other\ns1,heart\n", "line 2: not an id with its entities"),
        ("a.json", "[1, 2]", "not a file of entities"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_entities(path, section="findings")
    assert str(path) in str(caught.value)


def test_studies_without_entities_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"s1": ["heart"]}')
    assert study_entities(str(path), ["s1"], [""], section="findings") == [["heart"]]
    with pytest.raises(InputError, match=r"1 training studies have no entities, e.g. s2; .*build entities"):
        study_entities(str(path), ["s1", "s2"], ["", ""], section="findings")
    with pytest.raises(InputError, match="no such file of entities"):
        study_entities(str(tmp_path / "none.json"), [], [], section="findings")


def test_extraction_goes_on_where_it_was_interrupted(
    world: Path, tmp_path: Path, rayscribe: Callable[..., str]
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert "60 studies by lexicon" in rayscribe("build", "entities", world, "--out", whole)
    lines = whole.read_text().splitlines(keepends=True)
    about = {"data": read_manifest(world).digest(), "by": "lexicon", **asdict(TextConfig())}
    part = tmp_path / ".broken.jsonl.part"
    marked = lines[0].replace('"entities": [', '"entities": ["kept", ')
    part.write_text(json.dumps(about) + "\n" + marked + lines[1] + lines[2][:10])
    rayscribe("build", "entities", world, "--out", broken)
    assert broken.read_text() == marked + "".join(lines[1:])
    assert not part.exists()
    assert "exists already" in rayscribe("build", "entities", world, "--out", broken, code=1)
    assert "a name that ends with .jsonl" in rayscribe("build", "entities", world, "--out", tmp_path / "a.json", code=1)
    part.write_text("{}\n")
    broken.unlink()
    assert "left by a run on other data" in rayscribe("build", "entities", world, "--out", broken, code=1)


def test_the_rules_name_about_as_many_words_of_iu_x_ray_as_radgraph(iu_root: Path) -> None:
    reports = [cleaned_report(study, TextConfig()) for study in read_iu_xray(iu_root) if study.split == "train"]
    tokenizer = Tokenizer.build(reports, threshold=3)
    found = LexiconEntities().words(reports)
    targets = EntityTargets.build(found, tokenizer.words)
    # RadGraph-XL: 595 distinct words of the vocabulary, 51,709 words in 2,955 reports = 17.5 a report (spec 4.2).
    assert len(set(targets.places_E.tolist())) == pytest.approx(595, rel=0.05)
    assert sum(map(len, found)) / len(found) == pytest.approx(17.5, rel=0.1)
