"""`import rayscribe as rs`: the names, what they take, and that the command line says the same."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

import rayscribe as rs
from conftest import small_config
from dicom_files import radiograph
from documented_world import lay_out, make_recipes_small
from rayscribe.data.image_inputs import image_file
from rayscribe.data.images import read_image
from rayscribe.data.manifest import read_manifest
from rayscribe.evaluation.evaluate import evaluate_predictions
from rayscribe.evaluation.protocol import Protocol
from rayscribe.evaluation.scorers import Scorers

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., str]


@pytest.fixture(scope="module")
def model(served: dict[str, Path]) -> Any:
    return rs.load(served["r2gen"], device="cpu")


@pytest.fixture(scope="module")
def images(world: Path) -> list[Path]:
    """Of one study."""
    return list(next(study for study in read_manifest(world).split("test") if len(study.images) > 1).images)


def imported_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_import_needs_no_library() -> None:
    assert not imported_after("import rayscribe") & {"torch", "timm", "numpy", "pyarrow", "PIL", "tyro", "pydicom"}


def test_scoring_and_labelling_need_no_torch() -> None:
    code = "import rayscribe as rs\nrs.score(['The lungs are clear.'], ['Clear lungs.'])\nrs.label(['Edema.'])"
    assert not imported_after(code) & {"torch", "timm"}


def test_readme_page_and_module_name_the_same() -> None:
    page = set(re.findall(r"^\| `rs\.(\w+)` \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
    assert page == set(rs.__all__)
    spoken = set(re.findall(r"\brs\.(\w+)", (ROOT / "README.md").read_text() + (ROOT / "docs" / "api.md").read_text()))
    assert spoken == set(rs.__all__)
    assert all(name in dir(rs) and hasattr(rs, name) for name in rs.__all__)


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        rs.laod  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", ["load", "recipe", "train", "evaluate", "score", "label", "read_manifest"])
def test_docstrings_state_arguments_errors_and_an_example(name: str) -> None:
    function = attrgetter(name)(rs)
    text = inspect.getdoc(function) or ""
    assert "Raises:" in text and "Example:" in text
    assert "Args:" in text or len(inspect.signature(function).parameters) < 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["load", "list_recipes", "recipe", "train", "read_manifest", "evaluate", "score", "label"]
)
def test_examples_of_docstrings_run(
    name: str, world: Path, served: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = attrgetter(name)(rs).__doc__
    lay_out(tmp_path, world, served, monkeypatch)
    names: dict[str, Any] = {"rs": rs}
    if name == "train":
        make_recipes_small(monkeypatch)
    examples = doctest.DocTestParser().get_examples(text)
    assert examples
    for example in examples:
        if example.want:
            assert repr(eval(example.source, names)) + "\n" == example.want  # noqa: S307  # ours
        else:
            exec(example.source, names)  # noqa: S102  # ours


def test_every_kind_of_image_gives_the_same_draft(model: Any, images: list[Path]) -> None:
    pixels = np.asarray(Image.open(images[0]))
    text = model.draft(images[0]).text
    assert text
    for image in (str(images[0]), [images[0]], pixels, Image.open(images[0]), Image.fromarray(pixels), [pixels]):
        assert model.draft(image).text == text


def test_sixteen_bits_are_read_on_the_full_scale(model: Any, images: list[Path]) -> None:
    pixels = np.asarray(Image.open(images[0]))
    deep = np.round(pixels.astype(np.float64) * 65535 / 255).astype(np.uint16)
    assert model.draft(deep).text == model.draft(pixels).text


def test_a_data_set_is_read_as_its_file_is(model: Any, images: list[Path], tmp_path: Path) -> None:
    deep = np.asarray(Image.open(images[0]).resize((128, 128))).astype(np.uint16) * 16
    data = radiograph(deep)
    data.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    by_file = model.draft(tmp_path / "film.dcm")
    assert model.draft(pydicom.dcmread(tmp_path / "film.dcm")).text == by_file.text
    with pytest.raises(rs.InputError, match=r"image 1\.dcm"):
        model.draft(radiograph(deep, Modality="CT"))
    with pytest.raises(rs.InputError, match=r"image 1: the data set cannot be written.*pydicom\.dcmread"):
        model.draft(pydicom.Dataset())
    broken = radiograph(deep)
    broken.Rows = "many"
    with pytest.raises(rs.InputError, match="image 1: the data set cannot be written") as refused:
        model.draft(broken)
    assert "\n" not in str(refused.value)


def test_a_draft_is_what_the_command_line_prints(model: Any, images: list[Path], rayscribe: Command) -> None:
    printed = rayscribe("predict", *images, "--model", model.folder)
    draft = model.draft(images)
    assert printed.splitlines()[0].lower().replace(" ", "") == draft.text.lower().replace(" ", "")
    assert draft.images == len(images) and draft.model.system == "r2gen"


def test_several_studies_are_drafted_as_each_alone(model: Any, world: Path) -> None:
    studies = [list(study.images) for study in read_manifest(world).studies[:18]]
    drafts = model.draft(studies)
    assert [draft.text for draft in drafts] == [model.draft(study).text for study in studies]


def test_a_draft_has_sentences_evidence_and_alternatives(model: Any, images: list[Path]) -> None:
    draft = model.draft(images, best=3, decoding=rs.DecodingConfig(beams=3))
    assert " ".join(sentence.text for sentence in draft.sentences) == draft.text
    assert len(draft.evidence) == len(draft.sentences) and len(draft.evidence[0]) == len(images)
    assert len(draft.alternatives) == 2 and draft.text not in draft.alternatives


def test_file_names_are_in_no_draft(model: Any, tmp_path: Path) -> None:
    bright = np.full((96, 96), 230, np.uint8)
    bright[20:76, 30:66] = 40
    Image.fromarray(bright).save(tmp_path / "DOE JANE.png")
    draft = model.draft(tmp_path / "DOE JANE.png")
    assert any("image 1: looks inverted" in warning for warning in draft.warnings)
    assert "DOE" not in str(draft)


def test_a_classifier_gives_findings_and_no_text(served: dict[str, Path], model: Any, images: list[Path]) -> None:
    findings = rs.load(served["findings"], device="cpu")
    alone = findings.draft(images)
    assert alone.text == "" and alone.sentences == () and alone.findings
    assert all(0 <= finding.probability <= 1 for finding in alone.findings)
    beside = model.draft(images, classifier=findings)
    assert beside.findings == alone.findings and beside.text == model.draft(images).text
    with pytest.raises(rs.InputError, match="is no classifier"):
        model.draft(images, classifier=model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((64, 64), np.float32), "image 1: an array of float32"),
        (np.zeros((2, 64, 64), np.uint8), r"image 1: an array of uint8 and shape \(2, 64, 64\)"),
        (np.zeros((64, 64), np.uint8), "image 1: the picture is blank"),
        ([], "name at least one image"),
        (3, "name at least one image"),
        ({"image": "missing.png"}, "name at least one image"),
        ([["missing.png"], []], r"study 2: no list of images, or an empty one \(a list\)"),
        ([["missing.png"], None], r"study 2: no list of images, or an empty one \(a NoneType\)"),
        ([["missing.png"], "missing.png"], "images and lists of images are mixed"),
        ([3.5], "image 1: a float is no image; give a path"),
        ([[3.5]], "study 1, image 1: a float is no image"),
        ([["missing.png", None]], "study 1, image 2: a NoneType is no image"),
        ([["missing.png"], [np.zeros((64, 64), np.uint8)]], "missing.png: no such image"),
        ([[np.zeros((64, 64), np.uint8)], ["missing.png"]], "study 1, image 1: the picture is blank"),
        ("missing.png", "missing.png: no such image"),
        ("", "image 1: the path is empty; give the path of an image file"),
        ("a\0b.png", r"image 1: the path 'a\\x00b.png' contains a null character"),
        (np.zeros((0, 0), np.uint8), r"image 1: an array of uint8 and shape \(0, 0\)"),
        (Image.new("F", (64, 64), 0.5), "image 1: a PIL image of mode F with pixels from 0.5 to 0.5; scale them to 0"),
        (Image.new("F", (64, 64), float("nan")), "image 1: a PIL image of mode F with pixels that are NaN or infinite"),
        (Image.new("F", (64, 64), float("inf")), "image 1: a PIL image of mode F with pixels that are NaN or infinite"),
        (Image.new("I", (64, 64), -3), "image 1: a PIL image of mode I with pixels from -3 to -3"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_radiograph_is_named(model: Any, given: Any, message: str) -> None:
    with pytest.raises(rs.InputError, match=message):
        model.draft(given)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX", "I;16L", "La", "RGBa"])
def test_a_mode_of_other_pictures_is_named_with_the_conversion(model: Any, mode: str) -> None:
    with pytest.raises(rs.InputError, match=f"image 1: a PIL image of mode {mode}; convert it to L .*, I;16 .* or RGB"):
        model.draft(Image.new(mode, (64, 64)))


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_picture_that_its_file_turns_is_read_as_the_file_is(mode: str, images: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(images[0]).resize((96, 128))
    picture = Image.fromarray(np.asarray(upright).astype(np.uint16) * 200) if mode == "I;16" else upright.convert(mode)
    picture.save(tmp_path / "rot.png", exif=exif)
    by_path = read_image(tmp_path / "rot.png")
    assert by_path.shape == (96, 128)
    np.testing.assert_array_equal(read_image(image_file(Image.open(tmp_path / "rot.png"), "image 1")), by_path)


def test_arrays_of_the_other_byte_order_are_read(images: list[Path]) -> None:
    pixels = np.asarray(Image.open(images[0])).astype(np.uint16) * 200
    native = read_image(image_file(pixels, "image 1"))
    np.testing.assert_array_equal(read_image(image_file(pixels.astype(">u2"), "image 1")), native)


def test_generators_of_images_and_a_tilde_are_read(
    model: Any, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = model.draft(images).text
    assert model.draft(iter(images)).text == text
    assert [draft.text for draft in model.draft(iter(study) for study in [images, images])] == [text, text]
    monkeypatch.setenv("HOME", str(images[0].parent))
    assert model.draft(f"~/{images[0].name}").text == model.draft(images[0]).text
    monkeypatch.setenv("HOME", str(model.folder.parent))
    assert rs.load(f"~/{model.folder.name}", device="cpu").folder == model.folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": 1.5}, "best 1.5: a whole number, at least 1"),
        ({"best": "2"}, "best '2': a whole number, at least 1"),
        ({"best": None}, "best None: a whole number"),
        ({"best": 0}, "best 0: a whole number, at least 1"),
        ({"classifier": "runs/findings"}, r"classifier: of type str; open its folder with rs\.load"),
        ({"decoding": {"beams": 1}}, r"decoding: of type dict; give rs\.DecodingConfig"),
    ],
)
def test_options_of_a_draft_are_checked(model: Any, images: list[Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(rs.InputError, match=message):
        model.draft(images, **options)


def test_a_model_is_opened_by_its_path(model: Any, tmp_path: Path) -> None:
    import torch

    assert rs.load(model.folder, device=torch.device("cpu")).kind == "report model"
    for folder in (None, "", 3):
        with pytest.raises(rs.InputError, match=f"folder {folder!r}: give the path of a model folder"):
            rs.load(folder)  # type: ignore[arg-type]
    for number in (1, 2, 10):
        (tmp_path / f"generation-{number}").mkdir()
        (tmp_path / f"generation-{number}" / "model.json").touch()
    with pytest.raises(
        rs.InputError, match=r"a run of several generations, no model; load the newest, .*generation-10"
    ):
        rs.load(tmp_path)


def test_training_says_what_is_no_setting_and_no_path(world: Path, tmp_path: Path) -> None:
    config = rs.recipe("r2gen")
    for wrong in ("r2gen", {"train.epochs": 3}, None):
        kind = type(wrong).__name__
        with pytest.raises(
            rs.InputError, match=rf"config: of type {kind}, not settings; make them with rs\.recipe\('r2"
        ):
            rs.train(wrong, world, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(rs.InputError, match="data: of type Manifest; give the path of the manifest"):
        rs.train(config, read_manifest(world), tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(rs.InputError, match="run: ''; give the path of a folder"):
        rs.train(config, world, "")
    with pytest.raises(rs.InputError, match="features: of type int; give the path of a folder"):
        rs.train(config, world, tmp_path / "run", features=3)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_training_returns_a_model_that_loads_again(world: Path, tmp_path: Path, images: list[Path]) -> None:
    trained = rs.train(small_config(epochs=1), str(world), str(tmp_path / "run"), device="cpu")
    assert trained.draft(images).text == rs.load(str(tmp_path / "run")).draft(images).text
    with pytest.raises(rs.InputError, match="already holds a run"):
        rs.train(small_config(epochs=1), world, tmp_path / "run")


def test_a_frozen_encoder_brings_its_image_settings() -> None:
    assert rs.recipe("r2gen", {"images.flip": True}).images.flip
    changes = {"backbone.trainable": False, "images.rotation": 5.0}
    with pytest.raises(rs.InputError, match=r"--images\.rotation 5\.0"):
        rs.recipe("r2gen", changes)
    assert not rs.recipe("r2gen", {"backbone.trainable": False}).images.flip


def test_changes_of_a_recipe_are_checked() -> None:
    run = rs.recipe("kif+isd", {"method.host.graph": "graph.json", "backbone.trainable": False, "images.size": 128})
    assert run.method.host.graph == "graph.json" and run.images.size == 128 and not run.backbone.trainable
    assert rs.recipe("r2gen+ithn", as_published=True).method.plug_in.negative == "released"
    with pytest.raises(rs.InputError, match=r"train\.epoch: no such setting of r2gen; did you mean train\.epochs\?"):
        rs.recipe("r2gen", {"train.epoch": 3})
    with pytest.raises(rs.InputError, match="train: no such setting"):
        rs.recipe("r2gen", {"train": 3})
    with pytest.raises(rs.InputError, match=r"--train\.epochs 0: at least 1"):
        rs.recipe("r2gen", {"train.epochs": 0})


def test_recipes_say_what_is_no_name_and_no_change() -> None:
    with pytest.raises(rs.InputError, match=r"recipe None: give a name, such as 'r2gen'; rs\.list_recipes"):
        rs.recipe(None)  # type: ignore[arg-type]
    with pytest.raises(rs.InputError, match="changes: of type list; give values by dotted path"):
        rs.recipe("r2gen", ["train.epochs"])  # type: ignore[arg-type]
    with pytest.raises(rs.InputError, match="system: is no setting; choose the method by its name"):
        rs.recipe("r2gen", {"system": "r2gen_cmn"})
    with pytest.raises(rs.InputError, match=r"train\.batch-size: changed twice"):
        rs.recipe("r2gen", {"train.batch_size": 3, "train.batch-size": 4})


def test_changes_are_named_as_flags_are() -> None:
    run: Any = rs.recipe("r2gen+ithn", {"method.ithn.candidates": 7, "train.batch-size": 8, "--train.epochs": 3})
    assert run.method.plug_in.candidates == 7 and run.train.batch_size == 8 and run.train.epochs == 3
    run = rs.recipe("r2gen+ithn", {"method.plug_in.candidates": 7})
    assert run.method.plug_in.candidates == 7
    with pytest.raises(rs.InputError, match=r"did you mean method\.ithn\.candidates\?"):
        rs.recipe("r2gen+ithn", {"method.ithn.candidate": 7})
    assert rs.recipe("r2gen", {"backbone.trainable": False, "train.batch-size": 8}).train.batch_size == 8


def test_classifiers_have_recipes() -> None:
    assert {"multilabel", "binary", "r2gen", "r2gen_cmn+ithn"} <= set(rs.list_recipes())
    config: Any = rs.recipe(
        "binary", {"train.batch-size": 8, "cohort.findings": ["Edema"], "backbone.trainable": False}
    )
    assert config.train.batch_size == 8 and config.cohort.findings == ("Edema",) and config.images.rotation == 0
    with pytest.raises(rs.InputError, match="dropuot: no such setting of multilabel; did you mean dropout"):
        rs.recipe("multilabel", {"dropuot": 0.1})
    with pytest.raises(rs.InputError, match=r"--dropout 2\.0: at least 0"):
        rs.recipe("multilabel", {"dropout": 2})
    with pytest.raises(rs.InputError, match="as_published: binary is a classifier"):
        rs.recipe("binary", as_published=True)


def test_evaluate_is_the_evaluation_of_the_command_line(
    world: Path, tmp_path: Path, rayscribe: Command, served: dict[str, Path]
) -> None:
    import json

    predictions = tmp_path / "predictions.jsonl"
    rayscribe("generate", "--model", served["r2gen"], "--data", world, "--out", predictions)
    rayscribe("evaluate", predictions, "--data", world, "--json", tmp_path / "scores.json")
    assert rs.evaluate(predictions, data=world) == json.loads((tmp_path / "scores.json").read_text())


def test_two_lists_score_as_a_manifest_of_them(world: Path) -> None:
    manifest = read_manifest(world)
    references = {study.id: study.findings for study in manifest.split("test")}
    hypotheses = dict(zip(references, reversed(references.values()), strict=True))
    patients = [study.subject for study in manifest.split("test")]
    whole = evaluate_predictions(
        hypotheses, manifest, split="test", protocol=Protocol(), scorers=Scorers(image_floors=False)
    )
    found = rs.score(list(references.values()), list(hypotheses.values()), patients=patients if all(patients) else ())
    assert found["scores"] == whole["scores"] and found["floors"]["shuffled"] == whole["floors"]["shuffled"]
    training = [study.findings for study in manifest.split("train")]
    more = rs.score(list(references.values()), list(hypotheses.values()), training=training)
    assert {"constant", "most_frequent", "shuffled"} <= more["floors"].keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], ["a", "b"]), "1 references and 2 hypotheses"),
        (([], []), "0 references and 0 hypotheses"),
        (("clear", "clear"), "references: give a list, one value a study, not a value of type str"),
        (({"clear"}, ["clear"]), "references: give a list, .* type set"),
        (({"a": "clear"}, ["clear"]), "references: give a list, .* type dict"),
        ((["clear"], pd.DataFrame({"text": ["clear"]})), "hypotheses: give a list, .* type DataFrame"),
        ((np.array("clear"), ["clear"]), r"references: give a list, one value a study \(iteration over a 0-d array\)"),
        ((None, ["clear"]), "references: give a list, .* type NoneType"),
        ((["clear", " "], ["clear", "clear"]), "reference 1 .* is empty"),
        ((["clear", 3], ["clear", "clear"]), r"references: text 1 \(counted from 0\) is of type int, not a text"),
        ((["clear"], [None]), r"hypotheses: text 0 \(counted from 0\) is of type NoneType, not a text"),
        ((["clear"], ["so \ud800"]), r"hypotheses: text 0 .*: character 4 is half of a surrogate pair \('\\ud800'\)"),
    ],
)
def test_lists_that_do_not_fit_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(rs.InputError, match=message):
        rs.score(*arguments)


def test_scores_take_any_ordered_collection_of_texts() -> None:
    references, hypotheses = ["The heart is enlarged.", "Clear lungs."], ["Heart size is normal.", "Clear lungs."]
    expected = rs.score(references, hypotheses)
    for kind in (tuple, np.array, pd.Series, iter):
        assert rs.score(kind(references), kind(hypotheses), training=None) == expected  # type: ignore[operator]


def test_unknown_patients_are_resampled_as_studies_and_noted() -> None:
    texts = ["The heart is enlarged.", "Clear lungs.", "No effusion."]
    known = rs.score(texts, texts, patients=np.array([7, 7, 8]))
    assert "over patients" in known["interval"] and not any("patients" in note for note in known["notes"])
    for patients in ([7, None, 8], [7.0, float("nan"), 8.0], pd.Series(["7", "", "8"]), ["7", pd.NA, "8"]):
        some = rs.score(texts, texts, patients=patients)
        assert "over studies" in some["interval"]
        assert some["notes"][1].startswith(
            "the patients of 1 of 3 studies are unknown; the bootstrap resamples studies"
        )
    none = rs.score(texts, texts, patients=[None] * 3)
    assert "over studies" in none["interval"] and not any("patients" in note for note in none["notes"])
    with pytest.raises(rs.InputError, match="3 references and 2 patients; give one a study"):
        rs.score(texts, texts, patients=[7, 8])


def test_one_study_raises_no_alarm_of_grounding() -> None:
    result = rs.score(["The heart is enlarged."], ["Heart size is normal."])
    assert not any("NOT GROUNDED" in alarm for alarm in result["alarms"])
    assert any(note.startswith("too few studies for the permutation test (1; it needs 20)") for note in result["notes"])
    assert set(result["grounding"]) == {"text_similarity", "shared_findings"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": "x"}, "--references x: there are full, r2gen_compat"),
        ({"section": "x"}, "--section x: there are findings, impression, findings\\+impression"),
        ({"cleaning": "none"}, "--cleaning none: there are r2gen-iu, r2gen-mimic"),
        ({"max_length": 0}, "--max-length 0: a whole number, at least 3"),
        ({"max_length": 60.5}, "--max-length 60.5: a whole number"),
        ({"threshold": 0}, "--threshold 0: a whole number, at least 1"),
    ],
)
def test_a_protocol_is_checked_where_it_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(rs.InputError, match=message):
        rs.Protocol(**changes)
    if "cleaning" in changes:
        with pytest.raises(rs.InputError, match=message):
            rs.score(["clear"], ["clear"], **changes)


def test_predictions_that_are_none_are_refused(world: Path) -> None:
    ids = [study.id for study in read_manifest(world).split("test")]
    good = dict.fromkeys(ids, "Clear lungs.")
    for wrong, kind in ((None, "NoneType"), (3, "int")):
        with pytest.raises(rs.InputError, match=f"the prediction of study {ids[0]} is of type {kind}, not a text"):
            rs.evaluate({**good, ids[0]: wrong}, data=world)  # type: ignore[dict-item]
    for table in (["a"], pd.DataFrame({"id": ids}), pd.Series(ids), None):
        with pytest.raises(rs.InputError, match=f"predictions: of type {type(table).__name__}; give a file's path, or"):
            rs.evaluate(table, data=world)  # type: ignore[arg-type]
    with pytest.raises(rs.InputError, match=r"protocol: of type dict; give rs\.Protocol"):
        rs.evaluate(good, data=world, protocol={"section": "findings"})  # type: ignore[arg-type]
    with pytest.raises(rs.InputError, match="data: of type NoneType; give a manifest's path"):
        rs.evaluate(good, data=None)  # type: ignore[arg-type]


def test_a_tilde_is_the_home_folder(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(world.parent))
    assert rs.read_manifest(f"~/{world.name}") == rs.read_manifest(world)


def test_labels_are_states_in_words() -> None:
    (labels,) = rs.label(["Small left pleural effusion. No pneumothorax."])
    assert len(labels) == 14 and labels["Pleural Effusion"] == "positive" and labels["Pneumothorax"] == "negative"
    assert rs.label(text for text in ["No pneumothorax."]) == rs.label(np.array(["No pneumothorax."]))
    for wrong in ("one text", {"one text"}, {"a": "text"}):
        with pytest.raises(rs.InputError, match="reports: give a list, one value a study"):
            rs.label(wrong)
    with pytest.raises(rs.InputError, match=r"reports: text 1 \(counted from 0\) is of type NoneType"):
        rs.label(["clear", None])  # type: ignore[list-item]
    with pytest.raises(rs.InputError, match="no reading 'bogus'"):
        rs.label(["clear"], reading="bogus")  # type: ignore[arg-type]
