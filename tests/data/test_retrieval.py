from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from conftest import small_config
from rayscribe.checkpoint import load_model
from rayscribe.config import BackboneConfig
from rayscribe.data.images import read_image
from rayscribe.data.manifest import Manifest, read_manifest, write_manifest
from rayscribe.data.retrieval import Retrieval
from rayscribe.data.retrieval_building import _FINDINGS, held_out_queries, recall_of, report_vectors, ridge
from rayscribe.data.split_reports import cleaned_report
from rayscribe.drafts import DecodingConfig
from rayscribe.errors import InputError
from rayscribe.inference.reporter import draft_reports, read_study
from rayscribe.labels import CONDITIONS, STATE_NAMES
from rayscribe.methods import find_method
from rayscribe.methods.method import Lookup
from rayscribe.methods.promptmrg import PromptMrgSettings
from rayscribe.methods.promptmrg_reports import RETRIEVED, ReportBank
from rayscribe.models.backbones import Backbone
from rayscribe.training.run import train_method

Command = Callable[..., str]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a tiny image encoder with weights on disk, and of a cache of its features."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    save_file(Backbone(BackboneConfig(name="test_resnet")).net.state_dict(), folder / "weights.safetensors")
    flags = ["--backbone.name", "test_resnet", "--backbone.weights", folder / "weights.safetensors"]
    sizes = ["--images.size", 64, "--images.resize", 68, "--width", 16, "--features", folder / "features"]
    return [str(part) for part in (*flags, *sizes)]


@pytest.fixture
def index(world: Path, tmp_path: Path, encoder: list[str], rayscribe: Command) -> Path:
    rayscribe("build", "retrieval", world, "--out", tmp_path / "index", *encoder)
    return tmp_path / "index"


def bank_of(folder: Path) -> Retrieval:
    return Retrieval.load(folder)


def test_the_verb_says_what_the_index_is_worth(
    world: Path, tmp_path: Path, encoder: list[str], rayscribe: Command
) -> None:
    said = rayscribe("build", "retrieval", world, "--out", tmp_path / "index", *encoder)
    assert "42 training reports, width 16" in said and "(chance: 50.0%)" in said
    assert "by maps that were fitted without them" in said and "--method.retrieval" in said
    again = rayscribe("build", "retrieval", world, "--out", tmp_path / "index", *encoder, code=1)
    assert "is not empty" in again


def test_rows_are_the_training_reports_in_their_order(world: Path, index: Path) -> None:
    found = bank_of(index)
    assert found.ids == [study.id for study in read_manifest(world).split("train")]
    assert found.bank_RM.shape == (42, 16) and found.findings_FM.shape == (20, 16) and len(_FINDINGS) == 20
    lengths = np.linalg.norm(found.bank_RM.astype(np.float32), axis=1)
    assert np.allclose(lengths, 1, atol=1e-2)
    text = json.dumps(json.loads((index / "retrieval.json").read_text()))
    report = cleaned_report(read_manifest(world).studies[0], small_config().text)
    assert report not in text and "medical device" in text


def test_reports_of_other_splits_have_no_influence(
    world: Path, index: Path, tmp_path: Path, encoder: list[str], rayscribe: Command
) -> None:
    manifest = read_manifest(world)
    studies = tuple(
        study if study.split == "train" else replace(study, findings="elephants and other words .")
        for study in manifest.studies
    )
    write_manifest(tmp_path / "other.parquet", Manifest(studies=studies, provenance=manifest.provenance))
    rayscribe("build", "retrieval", tmp_path / "other.parquet", "--out", tmp_path / "other", *encoder)
    for name in ("bank.safetensors", "encoder.safetensors"):
        assert (tmp_path / "other" / name).read_bytes() == (index / name).read_bytes(), name


def test_nearest_is_the_whole_search_without_own_study_and_patient(index: Path, world: Path) -> None:
    found = bank_of(index)
    studies = [replace(study, subject=f"p{row // 2}") for row, study in enumerate(read_manifest(world).split("train"))]
    found = replace(found, about=found.about | {"subjects": [study.subject for study in studies]})
    vectors = F.normalize(torch.randn(42, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    rows = found.nearest(vectors, top=5, studies=studies)
    scores = vectors @ torch.from_numpy(found.bank_RM).float().T
    for row in range(42):
        order = [other for other in scores[row].argsort(descending=True).tolist() if other // 2 != row // 2]
        assert torch.equal(scores[row][rows[row]], scores[row][order[:5]])  # equal reports may change places
        assert all(other // 2 != row // 2 for other in rows[row])
    own = found.nearest(torch.from_numpy(found.bank_RM).float(), top=1)
    assert np.allclose(
        found.bank_RM[own[:, 0]], found.bank_RM, atol=1e-3
    )  # its own, or that of a report with the same words
    with pytest.raises(
        InputError, match=r"42 training reports are too few for 41 besides 2 .* give --method.reports 40"
    ):
        found.nearest(vectors, top=41, studies=studies)


def test_of_equal_reports_the_lower_rows_come_first(index: Path) -> None:
    found = bank_of(index)
    found = replace(found, bank_RM=np.tile(found.bank_RM[:1], (42, 1)))
    rows = found.nearest(torch.from_numpy(found.bank_RM[:3]).float(), top=9)
    assert rows.tolist() == [list(range(9))] * 3


def test_faiss_finds_the_same(index: Path, world: Path) -> None:
    pytest.importorskip("faiss", reason="FAISS is an extra")
    studies = read_manifest(world).split("train")
    vectors = torch.randn(42, 16, generator=torch.Generator().manual_seed(0))
    found = bank_of(index)
    exact, by_faiss = (found.nearest(vectors, top=9, studies=studies, use_faiss=flag) for flag in (False, True))
    assert np.allclose(found.bank_RM[exact], found.bank_RM[by_faiss], atol=1e-3)  # equal reports may change places


def test_a_new_study_has_one_query_whether_by_cache_or_by_files(index: Path, world: Path, encoder: list[str]) -> None:
    found, studies = bank_of(index), read_manifest(world).split("test")
    cached = found.study_vectors(studies, folder=Path(encoder[-1]))
    assert cached.shape == (len(studies), 16)
    for study, vector in zip(studies[:3], cached, strict=False):
        loose = found.image_vector([read_image(path) for path in study.images])
        assert torch.allclose(loose, vector, atol=2e-3)


def test_training_studies_query_by_maps_that_never_saw_them(index: Path, world: Path) -> None:
    found, studies = bank_of(index), read_manifest(world).split("train")
    assert found.queries_RM is not None
    vectors = found.study_vectors(list(reversed(studies)))
    assert torch.equal(vectors, found.queries_RM.float().flip(0))
    fitted = torch.stack([found.image_vector([read_image(path) for path in study.images]) for study in studies])
    bank = torch.from_numpy(found.bank_RM).float()
    assert not torch.allclose(fitted, found.queries_RM.float(), atol=1e-2)
    assert recall_of(fitted, bank, 5).found > recall_of(found.queries_RM.float(), bank, 5).found


def test_a_study_of_another_data_set_with_a_known_id_has_a_query_of_its_own(index: Path, world: Path) -> None:
    found, manifest = bank_of(index), read_manifest(world)
    own, other = manifest.split("train")[0], manifest.split("test")[0]
    foreign = replace(other, id=own.id)
    vector = found.study_vectors([foreign])[0]
    assert torch.allclose(vector, found.study_vectors([other])[0])
    assert not torch.allclose(vector, found.study_vectors([own])[0], atol=1e-3)


def test_a_map_that_exists_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    x = F.normalize(torch.randn(400, 12, generator=generator), dim=-1)
    y = F.normalize(x @ torch.randn(12, 8, generator=generator), dim=-1)
    strength, queries = held_out_queries(x, y, 5)
    assert recall_of(queries, y, 5).found > 0.9 and strength < 1
    noise = F.normalize(torch.randn(400, 8, generator=generator), dim=-1)
    assert recall_of(held_out_queries(x, noise, 5)[1], noise, 5).found < 0.05


def test_ridge_solves_its_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 6, generator=generator), torch.randn(30, 3, generator=generator)
    (found,) = ridge(x, y, [2.0])
    assert torch.allclose((x.T @ x + 2 * torch.eye(6)) @ found, x.T @ y, atol=1e-4)


def test_alike_reports_are_near_and_names_lie_beside_what_they_name() -> None:
    reports = ["large pleural effusion", "small pleural effusion", "heart size normal", "heart size enlarged"] * 4
    bank, findings = report_vectors(reports, ["effusion", "zebra"], 8)
    assert bank[0] @ bank[1] > bank[0] @ bank[2]
    assert findings[0] @ bank[0] > findings[0] @ bank[2]
    assert (findings[1] == 0).all()  # no training report has the word


def test_a_word_that_no_report_has_stays_zero_where_reports_repeat() -> None:
    reports = ["the heart is normal .", "lungs are clear .", "no effusion or edema seen ."] * 20
    _, findings = report_vectors(reports, ["effusion", "zebra", "cicatrix"], 512)
    assert (findings[1:] == 0).all() and findings[0].norm() > 0.99


def test_equal_reports_are_no_merit_of_the_images() -> None:
    same = F.normalize(torch.ones(100, 8), dim=-1)
    assert recall_of(same, same, 21).found == pytest.approx(0.21)


def test_a_record_that_is_none_of_an_index_is_refused(index: Path) -> None:
    path = index / "retrieval.json"
    about = json.loads(path.read_text())
    hashes = about["sha256"]
    without_bank = {name: digest for name, digest in hashes.items() if name != "bank.safetensors"}
    for wrong in (
        {"ids": about["ids"][1:]},
        {"sha256": []},
        {"sha256": without_bank},
        {"sha256": hashes | {"../x": ""}},
    ):
        path.write_text(json.dumps(about | wrong))
        with pytest.raises(InputError, match=r"retrieval\.json"):
            Retrieval.load(index)


@pytest.mark.parametrize("name", ["bank.safetensors", "retrieval.json"])
def test_a_damaged_copy_is_made_anew(name: str, index: Path, tmp_path: Path) -> None:
    found = Retrieval.load(index)
    found.save(tmp_path / "copy")
    (tmp_path / "copy" / name).write_bytes(b"{")
    found.save(tmp_path / "copy")
    assert Retrieval.load(tmp_path / "copy").digest == found.digest


@pytest.mark.parametrize("name", ["bank.safetensors", "encoder.safetensors", "retrieval.json"])
def test_a_damaged_or_missing_file_is_named(name: str, index: Path) -> None:
    whole = (index / name).read_bytes()
    (index / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=name):
        Retrieval.load(index)
    (index / name).unlink()
    with pytest.raises(InputError, match=name):
        Retrieval.load(index)


def test_a_model_carries_its_index_and_writes_without_the_original(
    index: Path, world: Path, tmp_path: Path, encoder: list[str]
) -> None:
    config = small_config("promptmrg", epochs=1)
    config = replace(config, method=PromptMrgSettings(retrieval=str(index), reports=5))
    run = tmp_path / "run"
    train_method(config, world, run, features=Path(encoder[-1]), notify=lambda text: None)
    shutil.rmtree(index)
    trained = load_model(run)
    assert isinstance(trained.resources, ReportBank) and trained.resources.retrieval is not None
    assert trained.resources.retrieval.folder == run / "retrieval"
    study = read_manifest(world).split("test")[0]
    (draft,) = draft_reports(trained, [read_study(trained, study.images)], DecodingConfig(beams=2))
    assert draft.reports[0]
    assert list(draft.diagnosis) == list(CONDITIONS[:14]) and set(draft.diagnosis.values()) <= set(STATE_NAMES.values())
    assert "5 retrieved reports a study" in (run / "README.md").read_text()


def test_what_is_retrieved_is_another_studys_and_is_learned_from(
    index: Path, world: Path, tmp_path: Path, encoder: list[str]
) -> None:
    config = replace(small_config("promptmrg"), method=PromptMrgSettings(retrieval=str(index), reports=5))
    studies = read_manifest(world).split("train")
    bank = find_method("promptmrg").resources(config, None)
    assert isinstance(bank, ReportBank) and bank.retrieval is not None
    vectors_SM = bank.retrieval.study_vectors(studies, folder=Path(encoder[-1]))
    rows_SK = bank.retrieval.nearest(vectors_SM, top=5, studies=studies)
    of = bank.extras(studies, Lookup(features=Path(encoder[-1])))[RETRIEVED]
    for row, study in enumerate(studies):
        assert len(rows_SK[row]) == 5 and row not in rows_SK[row]
        assert (of(study) == bank.retrieval.bank_RM[rows_SK[row]]).all() and of(study).shape == (5, 16)


def test_an_index_of_other_data_or_sections_is_refused(index: Path, world: Path, tmp_path: Path) -> None:
    config = replace(small_config("promptmrg"), method=PromptMrgSettings(retrieval=str(index), reports=5))
    manifest = read_manifest(world)
    write_manifest(tmp_path / "fewer.parquet", Manifest(studies=manifest.studies[:-1], provenance=manifest.provenance))
    with pytest.raises(InputError, match=r"made from another manifest than .*fewer\.parquet; build it again"):
        train_method(config, tmp_path / "fewer.parquet", tmp_path / "run", notify=lambda text: None)
    other = replace(config, text=replace(config.text, section="impression"))
    with pytest.raises(InputError, match="built for section 'findings', this run reads 'impression'"):
        train_method(other, world, tmp_path / "run", notify=lambda text: None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--by", "clip"], "--by clip needs --clip FOLDER"),
        (["--clip", "x"], "--by clip needs --clip FOLDER, and --by aligned none"),
        ([], "name trained weights with --backbone.weights"),
        (["--width", "4"], "--width 4: at least 8"),
        (["--by", "clip", "--clip", "nowhere"], "nowhere: no such CLIP folder"),
    ],
)
def test_flags_that_do_not_fit_are_named(
    flags: list[str], message: str, world: Path, tmp_path: Path, rayscribe: Command
) -> None:
    assert message in rayscribe("build", "retrieval", world, "--out", tmp_path / "index", *flags, code=1)
    assert not (tmp_path / "index").exists()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A CLIP of a few thousand weights with a tokenizer of its own."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "<s>", "</s>", "<unk>", *"the heart lungs are clear effusion large normal .".split()]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 12, "eos_token_id": 2, "bos_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=8
    )
    torch.manual_seed(0)
    folder = tmp_path / "clip"
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder)
    return folder


def test_a_clip_from_disk_makes_an_index_that_needs_nothing_else(
    clip: Path, world: Path, tmp_path: Path, rayscribe: Command
) -> None:
    said = rayscribe("build", "retrieval", world, "--out", tmp_path / "index", "--by", "clip", "--clip", clip)
    assert "42 training reports, width 8" in said and "fitted without" not in said
    shutil.rmtree(clip)
    found = Retrieval.load(tmp_path / "index")
    assert found.queries_RM is None and found.about["kind"] == "clip" and found.least_images_side() == 32
    study = read_manifest(world).split("test")[0]
    vector = found.study_vectors([study])[0]
    assert torch.allclose(vector, found.image_vector([read_image(path) for path in study.images]), atol=1e-6)
    assert torch.allclose(vector.norm(), torch.ones(()))
    found.save(tmp_path / "copy")
    copy = Retrieval.load(tmp_path / "copy")
    assert copy.digest == found.digest and torch.equal(copy.study_vectors([study])[0], vector)
    (tmp_path / "index" / "encoder" / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.safetensors: missing or damaged"):
        Retrieval.load(tmp_path / "index")


def test_a_clip_that_lacks_a_part_is_refused(clip: Path, world: Path, tmp_path: Path, rayscribe: Command) -> None:
    command = ["build", "retrieval", world, "--out", tmp_path / "index", "--by", "clip", "--clip", clip]
    weights = load_file(clip / "model.safetensors")
    whole = (clip / "model.safetensors").read_bytes()
    del weights["text_projection.weight"]
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 CLIP weights, e.g. text_projection.weight" in rayscribe(*command, code=1)
    (clip / "model.safetensors").write_bytes(whole)
    for file in clip.glob("tokenizer*"):
        file.unlink()
    assert "has no tokenizer" in rayscribe(*command, code=1)
