"""A model folder loads with nothing else, and says what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import small_config
from rayscribe.checkpoint import FittedModel, load_fitted, load_model, save_fitted, save_model
from rayscribe.config import BackboneConfig
from rayscribe.data.manifest import read_manifest
from rayscribe.data.tokenizer import Tokenizer
from rayscribe.drafts import DecodingConfig, first_reports
from rayscribe.errors import InputError
from rayscribe.inference.reporter import draft_reports, read_study
from rayscribe.inference.writer import ModelWriter
from rayscribe.methods import find_method, find_recipe, run_from_yaml
from rayscribe.methods.build import build_model
from rayscribe.methods.fitted import Fitted
from rayscribe.methods.method import TrainedModel
from rayscribe.models.backbones import Backbone
from rayscribe.settings import settings_from_yaml, to_yaml
from rayscribe.study import Study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.build(["the heart is normal .", "the lungs are clear ."], threshold=1)
    torch.manual_seed(0)
    model = build_model(small_config(), tokenizer.size).eval()
    trained = TrainedModel(
        method=find_method("r2gen"),
        model=model,
        tokenizer=tokenizer,
        config=small_config(),
        data={"source": "phantom", "terms": "synthetic", "digest": "0", "counts": {"train": 2}},
        training={"epoch": 1, "validation": {"bleu4": 0.1}},
    )
    save_model(path, trained)
    return path


def written(trained: TrainedModel, studies: Sequence[Study]) -> list[str]:
    writer = ModelWriter(trained=trained, device=torch.device("cpu"))
    return first_reports(writer.reporter(studies, states=None, features=None).draft(studies, DecodingConfig()))


def test_a_loaded_model_writes_what_the_saved_one_wrote(folder: Path, world: Path, tmp_path: Path) -> None:
    studies = read_manifest(world).studies[:3]
    first = load_model(folder)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    second = load_model(moved)
    assert first.config == second.config
    reports = [written(one, studies) for one in (first, second)]
    assert reports[0] == reports[1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
        "vocabulary.json",
    ]


def test_one_study_drafts_as_it_does_in_a_batch(folder: Path, world: Path) -> None:
    trained = load_model(folder)
    studies = read_manifest(world).studies[:4]
    reports = written(trained, studies)
    for study, report in zip(studies, reports, strict=True):
        (draft,) = draft_reports(trained, [read_study(trained, study.images)], DecodingConfig())
        assert draft.reports == [report]


def _other_vocabulary(folder: Path) -> None:
    Tokenizer.build(["other words"], threshold=1).save(folder / "vocabulary.json")


def _other_order(folder: Path) -> None:
    stored = Tokenizer.load(folder / "vocabulary.json")
    replace(stored, words=stored.words[::-1]).save(folder / "vocabulary.json")


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def _lose_a_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["stages.0.project.weight"]
    state["stages.0.project.bias"] = torch.zeros(3)
    vocabulary = Tokenizer.load(folder / "vocabulary.json").digest()
    save_file(state, folder / "model.safetensors", metadata={"vocabulary_sha256": vocabulary})


def _future_format(folder: Path) -> None:
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"format": "rayscribe-model-9"}))


def _unknown_setting(folder: Path) -> None:
    about = json.loads((folder / "model.json").read_text())
    about["config"]["model"]["telepathy"] = 1
    (folder / "model.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no rayscribe model"),
        (lambda folder: (folder / "model.json").write_text("{"), "not a rayscribe model"),
        (lambda folder: (folder / "vocabulary.json").unlink(), "copy the whole model folder"),
        (_other_vocabulary, r"the weights are for 12 token ids, but vocabulary\.json has 6"),
        (_other_order, r"vocabulary\.json is not the one"),
        (_cut_weights, "missing or damaged"),
        (_lose_a_weight, r"project\.weight is missing; stages\.0\.project\.bias is \(3,\), not \(32,\)"),
        (_future_format, "rayscribe-model-9"),
        (_unknown_setting, "telepathy"),
    ],
)
def test_a_folder_that_does_not_fit_says_what_differs(
    harm: Callable[[Path], None], message: str, folder: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    harm(broken)
    with pytest.raises(InputError, match=message):
        load_model(broken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": []}, "has no config"),
        ({"config": {"system": "r2gen"}}, "lacks the setting method; the model was written by another version"),
        (
            {"config": {"system": "nowhere", "method": {}}},
            "no method 'nowhere'.*the package that provides it may not be",
        ),
        ({"data": None}, "has no data"),
        ({"training": 3}, "has no training"),
    ],
)
def test_a_model_json_that_lacks_something_is_named(
    change: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    about = json.loads((broken / "model.json").read_text())
    (broken / "model.json").write_text(json.dumps(about | change))
    with pytest.raises(InputError, match=message) as error:
        load_model(broken)
    assert str(broken / "model.json") in str(error.value)


@pytest.mark.parametrize("part", ["method", "text", "model"])
def test_a_part_of_the_settings_that_is_no_mapping_is_named(part: str, folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    about = json.loads((broken / "model.json").read_text())
    about["config"][part] = [1]
    (broken / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"model\.json: .*in place of the settings of"):
        load_model(broken)


def test_what_was_fitted_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """Tensors that share memory and texts whose keys JSON turns into words included."""
    rows = torch.arange(12.0).reshape(4, 3)
    backbone = Backbone(BackboneConfig(name="test_resnet", trainable=False))
    fitted = Fitted(weights={"rows": rows, "first": rows[:2]}, texts={"by": {1: "a", 2: "b", 10: "c"}})
    config = replace(small_config("baseline"), backbone=BackboneConfig(name="test_resnet", trainable=False))
    trained = FittedModel(
        method=find_method("baseline"), config=config, backbone=backbone, fitted=fitted, data={}, training={}
    )
    save_fitted(tmp_path, trained)
    found = load_fitted(tmp_path)
    assert torch.equal(found.fitted.weights["first"], rows[:2]) and torch.equal(found.fitted.weights["rows"], rows)
    assert found.fitted.texts == {"by": {"1": "a", "2": "b", "10": "c"}} and found.config == config
    with pytest.raises(InputError, match="holds a method that was fitted in closed form; a report model is needed"):
        load_model(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(about | {"texts": {}}))
    with pytest.raises(InputError, match="are not of one run"):
        load_fitted(tmp_path)


@dataclass(frozen=True, kw_only=True)
class ManyKinds:
    table: Path | None = None
    place: Path = Path("here")
    words: list[str] = field(default_factory=list)
    pair: tuple[float, float] = (0.0, 1.0)


def test_settings_hold_paths_lists_and_tuples() -> None:
    config = ManyKinds(table=Path("a/b.csv"), words=["x"], pair=(1.0, 2.0))
    assert settings_from_yaml(ManyKinds, to_yaml(config), "text") == config
    assert settings_from_yaml(ManyKinds, to_yaml(ManyKinds()), "text") == ManyKinds()


def test_settings_survive_yaml() -> None:
    config = small_config()
    assert run_from_yaml(to_yaml(config), "text") == config
    with pytest.raises(InputError, match="unknown setting 'wings'"):
        run_from_yaml(to_yaml(config) + "wings: 2", "config.yaml")


def test_backbone_weights_come_from_a_local_file_only(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = Backbone(BackboneConfig(name="test_resnet"))
    state = {name: tensor.contiguous() for name, tensor in source.net.state_dict().items()}
    save_file(state | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "weights.safetensors")
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    for name in ("weights.safetensors", "weights.pth"):
        loaded = Backbone(BackboneConfig(name="test_resnet", weights=str(tmp_path / name), trainable=False))
        assert loaded.fingerprint() == source.fingerprint()
    with pytest.raises(InputError, match="another architecture"):
        Backbone(BackboneConfig(name="test_efficientnet", weights=str(tmp_path / "weights.pth")))
    with pytest.raises(InputError, match="no such weights file"):
        Backbone(BackboneConfig(name="test_resnet", weights=str(tmp_path / "none.pth")))
    with pytest.raises(InputError, match="no timm model"):
        Backbone(BackboneConfig(name="resnet1001x"))


def test_a_pickle_with_code_is_never_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"state_dict": Harm()}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth: not a weights file that can be read safely"):
        Backbone(BackboneConfig(name="test_resnet", weights=str(tmp_path / "weights.pth")))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("vocabulary", "encoder_decoder"),
    [(761, 35_973_369), (4336, 39_637_744)],
)
def test_r2gen_has_the_published_parameter_counts(vocabulary: int, encoder_decoder: int) -> None:
    """Specification 7.3; resnet101 as published."""
    model = build_model(find_recipe("r2gen"), vocabulary)

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    norms = model.decoder.norms
    assert count(model.backbone) == 42_500_160
    assert count(model) - count(model.backbone) == encoder_decoder
    assert count(norms.memory) == 2_626_560
    assert count(model.stages[1]) == 4_734_976
    decoder = count(model.decoder.layers) + count(norms) - count(norms.memory) + count(model.decoder.norm)
    assert decoder == 26_782_720


def test_mcln_starts_as_published() -> None:
    """Specification 2.3: biases of both layers 0.1, gains 1, every small matrix Xavier-uniform by itself."""
    model = build_model(small_config("r2gen"), 12)
    norms, width = model.decoder.norms, 32
    assert torch.all(norms.first.bias == 0.1) and torch.all(norms.second_bias_S1D == 0.1)
    assert torch.all(norms.gains_SD == 1) and torch.all(norms.biases_SD == 0)
    for block in norms.first.weight.chunk(2 * 6):
        limit = (6 / (3 * width + width)) ** 0.5
        assert 0.9 * limit < float(block.detach().abs().max()) <= limit
    for block in model.decoder.layers[0].self_attention.key_value.weight.chunk(2):
        limit = (6 / (2 * width)) ** 0.5
        assert 0.9 * limit < float(block.detach().abs().max()) <= limit


def test_a_model_whose_weights_are_not_numbers_writes_nothing(folder: Path, world: Path) -> None:
    trained = load_model(folder)
    with torch.no_grad():
        trained.model.decoder.head.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="scores are not numbers"):
        draft_reports(trained, [read_study(trained, read_manifest(world).studies[0].images)], DecodingConfig())


def test_a_frozen_backbone_stays_frozen_and_in_evaluation_mode() -> None:
    config = small_config("baseline")
    model = build_model(replace(config, backbone=replace(config.backbone, trainable=False)), 12).train()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 64, 64), dtype=np.uint8))
    before = model.backbone.fingerprint()
    first, second = model.backbone.images(pixels), model.backbone.images(pixels[:1])
    assert not first.requires_grad
    assert model.backbone.fingerprint() == before
    torch.testing.assert_close(first[:1], second)
