import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from reference_cmn import TOP, ReferenceCMN
from reference_r2gen import ReferenceR2Gen, randomised, reference_beam_search

from rayscribe.checkpoint import load_model
from rayscribe.cli.import_r2gen import convert
from rayscribe.config import BackboneConfig, RunConfig
from rayscribe.data.manifest import Manifest, write_manifest
from rayscribe.errors import InputError
from rayscribe.files import sha256_of
from rayscribe.inference.reporter import hypotheses
from rayscribe.methods.build import build_model
from rayscribe.methods.method import TrainedModel
from rayscribe.methods.published_names import converted, sizes_of
from rayscribe.study import Batch, Study

pytestmark = pytest.mark.slow

REPORTS = (
    "The heart is normal in size. The lungs are clear. No pleural effusion.",
    "The heart is enlarged. The lungs are clear. No pneumothorax.",
    "The lungs are clear. The heart is normal. There is a small effusion on the left.",
)
ROWS = 22  # 20 words, <unk>, and id 0
MAX_LENGTH = 9
MEMORY = 96  # rows of R2GenCMN's memory, of which 32 answer: the number is read from the checkpoint

Reference = ReferenceR2Gen | ReferenceCMN
Model = TypeVar("Model", bound=Reference)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three drawn studies."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    studies = []
    for index, findings in enumerate(REPORTS):
        image = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(image)
        sha256 = (sha256_of(image),)
        studies.append(
            Study(id=str(index), images=(image,), findings=findings, split="train", sha256=sha256, views=("",))
        )
    write_manifest(folder / "data.parquet", Manifest(studies=tuple(studies), provenance={"source": "drawn"}))
    return folder / "data.parquet"


@pytest.fixture(scope="module", params=["r2gen", "r2gen_cmn"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return r2gen() if request.param == "r2gen" else cmn()


def r2gen() -> ReferenceR2Gen:
    """Two layers rather than three: the number is read from the checkpoint."""
    return lively(randomised(ReferenceR2Gen(ROWS, layers=2, images=True), seed=2), end=1.5)


def cmn() -> ReferenceCMN:
    model = lively(randomised(ReferenceCMN(ROWS, layers=2, images=True, memory=MEMORY), seed=3), end=0.5)
    with torch.no_grad():
        model.encoder_decoder.memory_matrix.mul_(20)  # so that the answers are as large as what asked
    return model


def lively(model: Model, *, end: float) -> Model:
    """Whose reports differ, and some of which end early."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.mul_(0.2)  # otherwise 33 blocks of random weights grow without bound
        model.encoder_decoder.model.tgt_embed[0].lut.weight.mul_(2)
        model.encoder_decoder.logit.weight.mul_(2)
        model.encoder_decoder.logit.bias[0] += end
    return model


@pytest.fixture(scope="module")
def published(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "model_iu_xray.pth"
    torch.save({"epoch": 14, "state_dict": reference.state_dict(), "optimizer": {}, "monitor_best": 0.165}, path)
    return path


@pytest.fixture(scope="module")
def imported(published: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    out = tmp_path_factory.mktemp("imported") / "model"
    convert(published, data, out, threshold=1, max_length=MAX_LENGTH)
    return load_model(out)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Six studies of two views, 64 x 64 pixels: 4 patches a view."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, ROWS, (6, MAX_LENGTH), generator=generator)
    tokens[:, 0] = 0
    return Batch(
        rows_B=torch.arange(6),
        has_view_BV=torch.ones(6, 2, dtype=torch.bool),
        tokens_BT=tokens,
        has_token_BT=torch.ones_like(tokens, dtype=torch.bool),
        pixels_BVHW=torch.randint(0, 256, (6, 2, 64, 64), generator=generator, dtype=torch.uint8),
    )


@pytest.fixture(scope="module")
def features(reference: Reference, batch: Batch) -> torch.Tensor:
    """What the published image encoder makes of the batch."""
    assert batch.pixels_BVHW is not None
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = batch.pixels_BVHW[:, :, None].float().expand(-1, -1, 3, -1, -1) / 255
    with torch.inference_mode():
        return reference.visual_extractor((images - mean[:, None, None]) / std[:, None, None])


def test_an_imported_model_scores_as_the_published_one(
    imported: TrainedModel, reference: Reference, batch: Batch, features: torch.Tensor
) -> None:
    with torch.inference_mode():
        ours = torch.log_softmax(imported.model(batch).logits_BTW, dim=-1)
        theirs = reference(features, batch.tokens_BT[:, :-1])
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_an_imported_model_writes_what_the_published_search_writes(
    imported: TrainedModel, reference: Reference, batch: Batch
) -> None:
    generator = torch.Generator().manual_seed(2)
    strength_B11C = 2 * torch.rand(6, 1, 1, 2048, generator=generator)
    features_BVNC = torch.randn(6, 2, 4, 2048, generator=generator).abs() * strength_B11C
    varied = replace(batch, pixels_BVHW=None, maps_BVNC=features_BVNC)
    settings = imported.config.decoding
    found = hypotheses(imported.model, imported.tokenizer, varied, settings, max_length=MAX_LENGTH)
    theirs = reference_beam_search(reference, features_BVNC.flatten(1, 2), max_length=MAX_LENGTH)
    assert [list(best[0].tokens) for best in found] == theirs
    assert len({len(report) for report in theirs}) > 2 and len(set(map(tuple, theirs))) > 3


def test_an_imported_model_knows_where_it_comes_from(imported: TrainedModel) -> None:
    assert imported.training == {"imported_from": "model_iu_xray.pth", "epoch": 14}
    assert imported.data["source"] == "drawn" and len(imported.data["digest"]) == 64
    assert imported.config.model.decoder_layers == 2 and imported.tokenizer.legacy_ids


def test_the_method_is_read_from_the_names(imported: TrainedModel, reference: Reference) -> None:
    system, settings = imported.config.system, imported.config.method
    if isinstance(reference, ReferenceCMN):
        assert (system, settings.memory_size, settings.memory_top) == ("r2gen_cmn", MEMORY, TOP)
    else:
        assert (system, settings.memory_slots) == ("r2gen", 3)


def test_a_wrong_threshold_is_refused_with_both_counts(published: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"for {ROWS} token ids.* give 12 at threshold 2; --threshold 1 fits"):
        convert(published, data, tmp_path / "model", threshold=2, max_length=MAX_LENGTH)
    assert not (tmp_path / "model").exists()


def test_a_model_is_not_written_over(published: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(InputError, match="holds a model already"):
        convert(published, data, tmp_path, threshold=1, max_length=MAX_LENGTH)


def test_a_pickle_with_code_is_refused(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "code": _Code(tmp_path / "ran")}, path)
    with pytest.raises(InputError, match=r"evil\.pth: not a checkpoint that can be read without running its code"):
        convert(path, data, tmp_path / "model", threshold=1, max_length=MAX_LENGTH)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_file_is_refused(content: bytes, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cut\.pth"):
        convert(path, data, tmp_path / "model", threshold=1, max_length=MAX_LENGTH)


@pytest.mark.parametrize(
    ("make", "lost"),
    [
        (r2gen, "encoder_decoder.model.rm.W.bias"),
        (cmn, "encoder_decoder.model.decoder.layers.1.src_attn.linears.1.bias"),
    ],
)
def test_missing_and_unknown_names_are_listed(
    make: Callable[[], Reference], lost: str, data: Path, tmp_path: Path
) -> None:
    state = dict(make().state_dict())
    del state[lost]
    state["encoder_decoder.extra"] = torch.zeros(1)
    expected = rf"other\.pth: .*{re.escape(lost)} is missing; encoder_decoder\.extra is unknown \(2 in all\)"
    with pytest.raises(InputError, match=expected):
        convert(saved(state, tmp_path), data, tmp_path / "model", threshold=1, max_length=MAX_LENGTH)


def test_two_different_copies_of_the_cross_modal_weights_are_refused(data: Path, tmp_path: Path) -> None:
    state = dict(cmn().state_dict())
    name = "cmn.linears.2.weight"
    state[f"encoder_decoder.model.{name}"] = state[f"encoder_decoder.{name}"] + 1e-3
    expected = rf"other\.pth: encoder_decoder\.{name} and encoder_decoder\.model\.{name} differ"
    with pytest.raises(InputError, match=expected):
        convert(saved(state, tmp_path), data, tmp_path / "model", threshold=1, max_length=MAX_LENGTH)


@pytest.mark.parametrize("left_out", ["encoder_decoder.cmn.", "encoder_decoder.model.cmn."])
def test_one_copy_of_the_cross_modal_weights_is_enough(left_out: str) -> None:
    state = ReferenceCMN(ROWS, layers=1, memory=MEMORY).state_dict()
    sizes, settings = sizes_of(state)
    run: RunConfig = RunConfig(
        system="r2gen_cmn", method=settings, backbone=BackboneConfig(name="resnet50"), model=sizes
    )
    bare = build_model(run, ROWS)
    wanted = {name: weight for name, weight in bare.state_dict().items() if not name.startswith("backbone.")}
    once = {name: weight for name, weight in state.items() if not name.startswith(left_out)}
    first, second = converted(state, run, wanted), converted(once, run, wanted)
    assert all(torch.equal(second[name], weight) for name, weight in first.items())


@pytest.mark.parametrize(
    "name",
    [
        "decoder.lstm.weight_ih_l0",
        "encoder_decoder.model.decoder.layers.0.sublayer.0.norm.gamma",  # of the plain baseline
    ],
)
def test_another_model_is_refused(name: str, data: Path, tmp_path: Path) -> None:
    path = saved({name: torch.zeros(2)}, tmp_path)
    with pytest.raises(InputError, match=r"other\.pth: no weights named .* only checkpoints of R2Gen and R2GenCMN"):
        convert(path, data, tmp_path / "model", threshold=1, max_length=MAX_LENGTH)


def saved(state: dict[str, torch.Tensor], folder: Path) -> Path:
    torch.save({"epoch": 1, "state_dict": state}, folder / "other.pth")
    return folder / "other.pth"


class _Code:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))
