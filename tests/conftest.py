"""The smallest real things that the tests share: a drawn world, its manifest, small models, the real data's place."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from built_once import built_once
from rayscribe.classifiers.config import multilabel
from rayscribe.classifiers.run import train_classifier
from rayscribe.cli.main import main
from rayscribe.config import (
    BackboneConfig,
    ImageConfig,
    MethodSettings,
    ModelConfig,
    NoSettings,
    RunConfig,
    TextConfig,
    TrainConfig,
)
from rayscribe.data.iu_xray import read_iu_xray
from rayscribe.data.manifest import write_manifest
from rayscribe.data.phantom import write_phantom
from rayscribe.data.phantom_truth import PhantomConfig
from rayscribe.data.prepare import check
from rayscribe.drafts import DecodingConfig
from rayscribe.methods import find_method
from rayscribe.methods.build import build_model
from rayscribe.methods.compose import Plugged
from rayscribe.methods.jima import JimaSettings
from rayscribe.methods.kif_isd import KifSettings
from rayscribe.methods.promptmrg import PromptMrgSettings
from rayscribe.methods.r2gen import R2GenSettings
from rayscribe.methods.r2gen_cmn import R2GenCmnSettings
from rayscribe.models.report_model import ReportModel
from rayscribe.training.run import train_method
from sentence_standin import write_sentence_folder

# With default threads tiny models run many times slower on a busy two-core machine; processes that tests start inherit it.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """What runs keep for later ones goes to a folder of this session, which its processes share; never to the user's."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="rayscribe-cache-")
        config.add_cleanup(folder.cleanup)
        os.environ["RAYSCRIBE_CACHE"] = folder.name


def pytest_collection_finish() -> None:
    """What is imported stays: the collector, which trainers call again and again, need not walk over it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def iu_root() -> Path:
    """The real IU X-Ray files, which are not part of the repository."""
    root = SHARED / "data" / "iu_xray"
    if not root.is_dir():
        pytest.skip("needs the real IU X-Ray files in ../shared/data/iu_xray")
    return root


@pytest.fixture(scope="session")
def dicom_samples() -> Path:
    root = SHARED / "data" / "dicom_samples"
    if not root.is_dir():
        pytest.skip("needs the DICOM samples in ../shared/data/dicom_samples")
    return root


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 60 drawn studies at 64 pixels."""

    def build(folder: Path) -> None:
        write_phantom(folder / "phantom", PhantomConfig(studies=60, size=64))
        checked = check(read_iu_xray(folder / "phantom"), source={"source": "phantom"}, missing_is_fault=True)
        assert not checked.faults
        write_manifest(folder / "world.parquet", checked.manifest)

    return built_once(tmp_path_factory, "world", build) / "world.parquet"


@pytest.fixture(scope="session")
def served(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two report models and a classifier, trained for as long as it takes to write a few words."""

    def build(root: Path) -> None:
        for method in ("r2gen", "baseline"):
            train_method(small_config(method, epochs=6, lr=3e-3), world, root / method)
        findings = replace(multilabel().train, epochs=1, batch_size=8, workers=0)
        classifier = replace(
            multilabel(),
            backbone=BackboneConfig(name="test_resnet"),
            images=ImageConfig(size=64, resize=68),
            train=findings,
        )
        train_classifier(classifier, world, root / "findings", notify=lambda text: None)

    root = built_once(tmp_path_factory, "served", build)
    return {path.name: path for path in sorted(root.iterdir())}


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with a small BERT."""
    return built_once(tmp_path_factory, "letters", write_sentence_folder)


@pytest.fixture(scope="session")
def handful(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three drawn studies with short reports, for vision LLMs to learn by heart."""
    from vision_llm_settings import write_handful  # transformers: seconds to import

    folder = built_once(tmp_path_factory, "handful", lambda folder: write_handful(world, folder / "handful.parquet"))
    return folder / "handful.parquet"


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny vision LLMs by family."""
    from vision_llm_settings import FAMILIES

    return {name: built_once(tmp_path_factory, name, write) for name, write in FAMILIES.items()}


@pytest.fixture
def rayscribe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process. Returns what it printed, or its message when it should fail with `code`."""

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["rayscribe", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        status, printed = exit_.value.code, capsys.readouterr()
        if code:
            assert status not in (0, None), printed.out  # a message stands for exit code 1
            return str(status)
        assert status in (0, None), status
        return printed.out

    return run


def small_settings(method: str, *, epochs: int = 2) -> MethodSettings:
    """Of a method, for a model of a few thousand weights. Curricula begin in the second epoch; nothing is retrieved."""
    begins = epochs > 1
    return {
        "baseline": NoSettings(),
        "r2gen": R2GenSettings(memory_heads=4),
        "r2gen_cmn": R2GenCmnSettings(memory_heads=4, memory_size=64, memory_top=8),
        "jima": JimaSettings(warmup=1, report_curriculum=begins, entity_curriculum=begins),
        "promptmrg": PromptMrgSettings(memory=False),
        "kif": KifSettings(diagnosis=PromptMrgSettings(memory=False), width=24, hidden=16, node_heads=2, patch_heads=2),
    }[method]


def small_config(method: str = "r2gen", **train: object) -> RunConfig[Any]:
    """A model of a few thousand weights that sees 64-pixel images, see `small_settings`."""
    settings = replace(TrainConfig(epochs=2, batch_size=8, workers=0, lr=1e-3), **train)  # type: ignore[arg-type]
    return RunConfig(
        system=method,
        method=small_settings(method, epochs=settings.epochs),
        text=TextConfig(threshold=1, max_length=24),
        images=ImageConfig(size=64, resize=68),
        backbone=BackboneConfig(name="test_resnet"),
        model=ModelConfig(width=32, heads=4, feedforward=32, encoder_layers=1, decoder_layers=2),
        train=settings,
        decoding=DecodingConfig(beams=1),
        seed=1,
    )


def plugged(config: RunConfig[Any], name: str, settings: MethodSettings) -> RunConfig[Any]:
    """The same run with a plug-in around its training."""
    return replace(config, system=f"{config.system}+{name}", method=Plugged(host=config.method, plug_in=settings))


def small_model(
    method: str = "r2gen", vocabulary: int = 12, seed: int = 0, settings: MethodSettings | None = None, **model: object
) -> ReportModel:
    """In evaluation mode, with weights large enough that its words depend on everything. `settings`: of the method."""
    torch.manual_seed(seed)
    config = small_config(method)
    sizes = replace(config.model, **model)  # type: ignore[arg-type]
    config = replace(config, model=sizes, method=settings or config.method)
    built = build_model(config, vocabulary, find_method(config.system).resources(config, None))
    with torch.no_grad():
        for parameter in built.decoder.parameters():
            parameter.mul_(1.5).add_(0.05 * torch.randn_like(parameter))
    return built.eval()
