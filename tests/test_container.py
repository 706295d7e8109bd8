"""The container files: linted, and true of the commands that they call. Nothing is built or started here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "deploy" / "compose.yaml"


def beside_python(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, which is not made for every machine")
    return found


def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]  # type: ignore[no-any-return]


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    checked = subprocess.run([beside_python("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_the_compose_file_fits_its_schema() -> None:
    command = [beside_python("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_the_image_runs_as_nobody_in_particular_and_says_whether_it_lives() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines and any(line.startswith("HEALTHCHECK") for line in lines)
    assert sum(line == "FROM ${BASE}" or line == "FROM ${BASE} AS build" for line in lines) == 2


@pytest.mark.parametrize("name", ["service", "worker"])
def test_our_containers_have_a_root_that_nobody_writes_and_no_powers(name: str) -> None:
    ours = services()[name]
    assert ours["read_only"] is True and ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for one in services().values() for port in one.get("ports", []))


@pytest.mark.parametrize("name", ["service", "worker"])
def test_their_commands_have_only_options_that_there_are(rayscribe: Callable[..., str], name: str) -> None:
    verb, *options = services()[name]["command"]
    described = rayscribe(verb, "--help")
    assert all(option in described for option in options if option.startswith("--"))


def test_the_images_own_command_is_the_services(rayscribe: Callable[..., str]) -> None:
    (line,) = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("CMD")]
    verb, *options = json.loads(line.removeprefix("CMD "))
    described = rayscribe(verb, "--help")
    assert all(option in described for option in options if option.startswith("--"))


def test_the_archive_knows_the_worker() -> None:
    archive = json.loads((ROOT / "deploy" / "orthanc.json").read_text())
    command = services()["worker"]["command"]
    title, _, place = command[command.index("--send-to") + 1].partition("@")
    assert (title, place) == (archive["DicomAet"], f"archive:{archive['DicomPort']}")
    ours = archive["DicomModalities"]["rayscribe"]
    assert ours == ["RAYSCRIBE", "worker", int(command[command.index("--dicom-port") + 1])]
