"""A vision LLM's folder: adapters with their base, merged without, wrapped as it comes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from vision_llm_settings import short

from rayscribe.api.models import open_reporter
from rayscribe.data.manifest import read_manifest
from rayscribe.drafts import DecodingConfig, first_reports
from rayscribe.errors import InputError
from rayscribe.files import beside
from rayscribe.inference.split import SplitJob, write_predictions
from rayscribe.vision_llm import base as base_module
from rayscribe.vision_llm import reporter as reporter_module
from rayscribe.vision_llm.base import base_digest, base_folder
from rayscribe.vision_llm.folder import ADAPTERS, TrainedLlm, load_llm, merge, wrap_base
from rayscribe.vision_llm.pictures import Example, Examples
from rayscribe.vision_llm.reporter import VisionLlmReporter, generation_settings, written
from rayscribe.vision_llm.training import train_llm

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tuned(bases: dict[str, Path], handful: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tuned") / "run"
    train_llm(short(bases["mllama"], max_steps=20, lr=5e-3), handful, run)
    return run


def likelihoods(folder: Path, handful: Path) -> torch.Tensor:
    trained = load_llm(folder, CPU)
    studies = read_manifest(handful).split("train")
    examples = Examples(studies, trained.config)
    lesson = trained.conversation.lesson([examples[row] for row in range(len(studies))])
    with torch.no_grad():
        return trained.model(**lesson).logits


def test_merged_weights_need_no_base_and_say_the_same(
    tuned: Path, bases: dict[str, Path], handful: Path, tmp_path: Path
) -> None:
    merge(tuned, tmp_path / "merged", dtype="float32")
    with_adapters, whole = likelihoods(tuned, handful), likelihoods(tmp_path / "merged", handful)
    assert (with_adapters - whole).abs().max() < 1e-4
    assert not (tmp_path / "merged" / ADAPTERS).exists()
    # What a server that knows transformers alone reads.
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert model.config.model_type == "mllama" and model.generation_config.eos_token_id is not None
    assert AutoProcessor.from_pretrained(tmp_path / "merged").chat_template
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["architectures"] == [
        "MllamaForConditionalGeneration"
    ]
    with pytest.raises(InputError, match="contains no adapters"):
        merge(tmp_path / "merged", tmp_path / "again")
    with pytest.raises(InputError, match="is not empty"):
        merge(tuned, tmp_path / "merged")


def test_adapters_are_laid_out_as_a_server_reads_them(tuned: Path, bases: dict[str, Path]) -> None:
    settings = json.loads((tuned / "adapter_config.json").read_text())
    assert (
        settings["peft_type"] == "LORA"
        and settings["r"] == 16
        and settings["base_model_name_or_path"] == str(bases["mllama"])
    )
    assert (tuned / "tokenizer.json").is_file() and (tuned / "chat_template.jinja").is_file()


def test_a_base_as_it_comes_writes_under_the_same_prompt(
    tuned: Path, bases: dict[str, Path], handful: Path, tmp_path: Path
) -> None:
    wrap_base(short(bases["mllama"]), tmp_path / "base")
    assert (likelihoods(tmp_path / "base", handful) - likelihoods(tuned, handful)).abs().max() > 0.1
    assert "as it came" in (tmp_path / "base" / "README.md").read_text()


def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(
    tuned: Path, bases: dict[str, Path], handful: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    monkeypatch.setattr("peft.peft_model.safe_save_file", full)
    with pytest.raises(InputError, match=r"merged: cannot be written .* free some disk space"):
        merge(tuned, tmp_path / "merged")
    assert not list((tmp_path / "merged").iterdir())
    with pytest.raises(InputError, match=r"run: cannot be written .* free some disk space and --resume"):
        train_llm(short(bases["llava"], max_steps=1), handful, tmp_path / "run")


def test_a_moved_base_is_named_and_another_one_refused(
    tuned: Path, bases: dict[str, Path], tmp_path: Path, handful: Path
) -> None:
    facts = json.loads((tuned / "model.json").read_text())
    run = tmp_path / "run"
    shutil.copytree(tuned, run, ignore=shutil.ignore_patterns("checkpoints"))
    facts["config"]["base"] = str(tmp_path / "gone")
    (run / "model.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="gone: not on this disk"):
        load_llm(run, CPU)
    with pytest.raises(InputError, match=r"not the model that .* was tuned on"):
        load_llm(run, CPU, base=str(bases["llava"]))
    assert load_llm(run, CPU, base=str(bases["mllama"])).base_sha256 == facts["base_sha256"]


def test_a_base_is_known_by_every_one_of_its_tensors(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(bases["llava"], folder)
    tensors = {"a": torch.zeros(1 << 19)} | {name: torch.zeros(3, 5) for name in "bcd"}  # two megabytes, then more
    digests = set()
    for name in (*tensors, None):
        changed = {key: value + 1 if key == name else value for key, value in tensors.items()}
        save_file(changed, folder / "model.safetensors")
        digests.add(base_digest(folder))
    assert len(digests) == len(tensors) + 1
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match=r"model.safetensors: damaged"):
        base_digest(folder)


def test_reports_of_a_base_asked_otherwise_are_not_gone_on_with(
    bases: dict[str, Path], handful: Path, tmp_path: Path
) -> None:
    config, out = short(bases["llava"]), tmp_path / "out.jsonl"
    greedy = DecodingConfig(beams=1, max_tokens=3)
    job = SplitJob(model=tmp_path / "base", data=handful, out=out, split="test", decoding=greedy)
    wrap_base(config, job.model)
    write_predictions(open_reporter(job.model), job)
    shutil.rmtree(tmp_path / "base")
    wrap_base(replace(config, prompt=replace(config.prompt, instruction="Look.")), tmp_path / "base")
    with pytest.raises(InputError, match="reports of another model"):
        write_predictions(open_reporter(job.model), job)


def test_damaged_adapters_and_pickles_are_refused(tuned: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run, ignore=shutil.ignore_patterns("checkpoints"))
    (run / ADAPTERS).write_bytes((run / ADAPTERS).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"missing, or not the adapters of model.json"):
        load_llm(run, CPU)
    pickled = tmp_path / "pickled"
    shutil.copytree(bases["llava"], pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="it needs config, processor and safetensors"):
        wrap_base(short(pickled), tmp_path / "out")


def test_a_base_that_lacks_weights_or_has_other_shapes_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    for name, value in (("num_hidden_layers", 3), ("intermediate_size", 80)):
        odd = tmp_path / name
        shutil.copytree(bases["llava"], odd)
        settings = json.loads((odd / "config.json").read_text())
        settings["text_config"][name] = value
        (odd / "config.json").write_text(json.dumps(settings))
        with pytest.raises(InputError, match=rf"{odd}: (its safetensors lack 9 tensors|not a readable vision LLM)"):
            wrap_base(short(odd), tmp_path / "out")


def test_a_base_without_chat_template_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(bases["llava"], plain, ignore=shutil.ignore_patterns("chat_template*"))
    with pytest.raises(InputError, match="no chat template; use the instruction-tuned version"):
        wrap_base(short(plain), tmp_path / "out")


class Gated(GatedRepoError):
    """As the hub's client raises it, without an answer of a server."""

    def __init__(self) -> None:
        Exception.__init__(self, "403")


def test_a_gated_licence_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(*_: object, **__: object) -> str:
        raise Gated

    monkeypatch.setattr(base_module, "snapshot_download", gated)
    with pytest.raises(InputError, match=r"accept its licence first.*hf auth login"):
        base_folder("meta-llama/Llama-3.2-11B-Vision-Instruct", download=True)


@pytest.mark.parametrize(
    "decoding",
    [
        DecodingConfig(beams=1, max_tokens=12),
        DecodingConfig(beams=3, max_tokens=12, block_ngrams=2, min_tokens=3),
        DecodingConfig(strategy="sample", temperature=1.5, min_p=0.1, max_tokens=12, seed=3),
    ],
)
def test_writing_is_repeatable_and_leaves_the_generator_alone(
    tuned: Path, handful: Path, decoding: DecodingConfig
) -> None:
    trained = load_llm(tuned, CPU)
    studies = read_manifest(handful).split("test")
    torch.manual_seed(7)
    first = first_reports(VisionLlmReporter(trained=trained).draft(studies, decoding))
    after = torch.rand(1)
    torch.manual_seed(7)
    assert after == torch.rand(1)
    assert first_reports(VisionLlmReporter(trained=trained).draft(studies, decoding)) == first
    assert not any("Describe it" in text or "assistant" in text for text in first)


def test_a_report_does_not_depend_on_its_batch_and_samples_are_drawn_apart(
    tuned: Path, handful: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_llm(tuned, CPU)
    first = read_manifest(handful).split("test")[0]
    one = replace(first, images=first.images[:1], views=first.views[:1], sha256=first.sha256[:1])
    two = replace(one, images=one.images * 2, views=one.views * 2, sha256=one.sha256 * 2)
    pictures: list[set[int]] = []

    def noted(trained: TrainedLlm, examples: Sequence[Example], decoding: DecodingConfig) -> list[list[str]]:
        pictures.append({len(example.pictures) for example in examples})
        return written(trained, examples, decoding)

    monkeypatch.setattr(reporter_module, "written", noted)
    reporter = VisionLlmReporter(trained=trained)
    greedy = DecodingConfig(beams=1, max_tokens=12)
    assert reporter.draft([one, two, one], greedy) == [reporter.draft([s], greedy)[0] for s in (one, two, one)]
    assert all(len(numbers) == 1 for numbers in pictures)
    drawn = first_reports(reporter.draft([one] * 16, DecodingConfig(strategy="sample", temperature=3.0, max_tokens=12)))
    assert drawn[:8] != drawn[8:]


def test_every_setting_of_the_decoding_reaches_transformers(tuned: Path) -> None:
    trained = load_llm(tuned, CPU)
    beams = generation_settings(trained, DecodingConfig(beams=3, block_ngrams=2, min_tokens=4, max_tokens=9), 2)
    assert (beams.num_beams, beams.num_return_sequences, beams.length_penalty, beams.do_sample) == (3, 2, 0.0, False)
    assert (beams.no_repeat_ngram_size, beams.min_new_tokens, beams.max_new_tokens) == (2, 4, 9)
    sampling = DecodingConfig(strategy="sample", temperature=1.5, top_k=7, top_p=0.9, min_p=0.1)
    drawn = generation_settings(trained, sampling, 1)
    assert (drawn.do_sample, drawn.temperature, drawn.top_k, drawn.top_p, drawn.min_p) == (True, 1.5, 7, 0.9, 0.1)
    assert drawn.max_new_tokens == trained.config.text.max_new_tokens and drawn.num_beams == 1


def test_n_best_begins_with_the_best_and_odd_settings_are_refused(tuned: Path, handful: Path) -> None:
    trained = load_llm(tuned, CPU)
    example = Examples(read_manifest(handful).split("test"), trained.config)[0]
    beams = DecodingConfig(beams=3, max_tokens=12)
    (three,) = written(trained, [example], beams, best=3)
    (one,) = written(trained, [example], beams)
    assert three[0] == one[0] and len(three) == 3
    with pytest.raises(InputError, match=r"--decoding.length-penalty"):
        written(trained, [example], replace(beams, length_penalty=1.0))
    with pytest.raises(InputError, match=r"--best 4: at most --decoding.beams 3"):
        written(trained, [example], beams, best=4)


@pytest.mark.slow
def test_a_quantised_run_is_merged_into_whole_weights(bases: dict[str, Path], handful: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run, studies = tmp_path / "run", read_manifest(handful).split("test")
    train_llm(replace(short(bases["llava"], max_steps=20, lr=5e-3), weights="int8"), handful, run)
    greedy = DecodingConfig(beams=1, max_tokens=12)
    merge(run, tmp_path / "merged", dtype="float32")
    with_adapters, whole = load_llm(run, CPU), load_llm(tmp_path / "merged", CPU)
    assert with_adapters.model.get_base_model().config.quantization_config.load_in_8bit
    written = [first_reports(VisionLlmReporter(trained=one).draft(studies, greedy)) for one in (with_adapters, whole)]
    assert written[0] == written[1] and len(set(written[0])) > 1
    assert not hasattr(whole.model.config, "quantization_config")


def test_what_a_killed_process_left_half_written_goes_when_the_folder_is_written_again(tmp_path: Path) -> None:
    (tmp_path / ".part.12345").mkdir()
    (tmp_path / ".part.12345" / ADAPTERS).write_bytes(b"half")
    with beside(tmp_path) as made:
        (made / "new.txt").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["new.txt"]
