"""README and docs: every Python block runs, every command is one that the command line takes."""

from __future__ import annotations

import functools
import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tyro

from documented_world import lay_out, make_recipes_small
from rayscribe.cli.main import run as run_verb
from rayscribe.files import write_text
from rayscribe.methods import find_recipe
from rayscribe.settings import to_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Parsed(Exception):
    """Every option was understood."""


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in _FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page: Path) -> list[str]:
    """Lines that begin with `rayscribe`, continuations joined, comments left out, the first of alternatives taken."""
    found = []
    for block in blocks(page, "", "bash", "sh", "console"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command = re.sub(r"\s#.*", "", line.strip().removeprefix("$ ").removeprefix(".venv/bin/"))
            if re.match(r"rayscribe [\w-]+", command):
                bare = re.sub(r"[\[\]]", "", re.sub(r"\s*[>&|]\s*\S*$", "", command))
                found.append(re.sub(r"([^\s|]+)\|\S+", r"\1", bare))
    return found


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
COMMANDS = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_blocks_run(
    page: Path, world: Path, served: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, world, served, monkeypatch)
    make_recipes_small(monkeypatch)
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(block, names)  # noqa: S102  # ours


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_documented_commands_are_understood(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tyro.cli

    def parse_only(kind: Callable[..., Any], **named: Any) -> NoReturn:
        @functools.wraps(kind, updated=())
        def stop(*values: Any, **options: Any) -> NoReturn:
            raise Parsed

        whole(stop if inspect.isfunction(kind) else kind, **named)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parse_only)
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"runs/(\w+)", command):  # --config and --resume read an earlier run's settings
        write_text(tmp_path / "runs" / name / "config.yaml", to_yaml(find_recipe("jima")))
    with pytest.raises((Parsed, SystemExit)) as outcome:
        run_verb(shlex.split(command.replace("...", ""))[1:])
    if isinstance(outcome.value, SystemExit):
        assert outcome.value.code in (0, None), command


def test_the_reader_of_commands_sees_them() -> None:
    assert len(COMMANDS) > 60 and {page for page, _ in COMMANDS} >= {"README.md", "docs/data.md", "docs/service.md"}
