"""What the command line says before it does anything: the overview, and the way out of a typo."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rayscribe.cli.main import ALL_VERBS, Verb, main, overview


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What goes to stderr when the options are wrong."""
    monkeypatch.setattr(sys, "argv", ["rayscribe", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_the_overview_lists_every_verb_within_80_columns() -> None:
    lines = overview().splitlines()
    assert {line.split()[0] for line in lines if line.startswith("  ")} == {verb.name for verb in ALL_VERBS}
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", ALL_VERBS, ids=lambda verb: verb.name)
def test_every_verb_of_the_table_has_its_function(verb: Verb) -> None:
    module = importlib.import_module(f"rayscribe.cli.{verb.module}")
    assert callable(vars(module)[verb.function])


def test_the_overview_loads_neither_torch_nor_tyro() -> None:
    probe = (
        "import sys; from rayscribe.cli import main; main.run(['--help']); print({'torch', 'tyro'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["trian"], "no verb 'trian'; did you mean 'train'?"),
        (["classify", "trian"], "no kind 'trian'; did you mean 'train'?"),
        (["classify", "train", "multilable"], "no recipe 'multilable'; did you mean 'multilabel'?"),
        (["prepare", "iu_xray"], "no source 'iu_xray'; did you mean 'iu-xray'?"),
        (["train", "r2gen-cmn"], "no recipe 'r2gen-cmn'; did you mean 'r2gen_cmn'?"),
        (["train", "r2gen+itn"], "no method 'itn'; did you mean 'ithn'?"),
    ],
)
def test_a_mistyped_name_gets_the_nearest(rayscribe: Callable[..., str], typed: list[str], meant: str) -> None:
    assert meant in rayscribe(*typed, code=1)


@pytest.mark.parametrize(
    ("typed", "first_line"),
    [
        (
            ["generate", "--model", "m", "--data", "d", "--otu", "o"],
            "rayscribe generate: no option --otu; did you mean --out?",
        ),
        (["predict", "a.png", "--modle=m"], "rayscribe predict: no option --modle; did you mean --model?"),
        (
            ["train", "r2gen", "--data", "d", "--run", "r", "--train.epohcs", "3"],
            "rayscribe train r2gen: no option --train.epohcs; did you mean --train.epochs?",
        ),
        (["api-key", "ward", "--nothing-like-it", "x"], "rayscribe api-key: no option --nothing-like-it"),
    ],
)
def test_a_mistyped_option_gets_the_nearest_in_two_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: list[str], first_line: str
) -> None:
    lines = refused(monkeypatch, capsys, *typed).splitlines()
    assert lines[0] == first_line
    assert len(lines) == 2 and lines[1].endswith("--help` lists the options")


def test_options_that_are_missing_or_unreadable_are_named_without_a_box(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = refused(monkeypatch, capsys, "api-key", "ward")
    assert missing.startswith("rayscribe api-key: these options are missing:\n    --keys PATH\n")
    unreadable = refused(monkeypatch, capsys, "generate", "--decoding.strategy", "beem", "--model", "m", "--data", "d")
    assert "invalid choice 'beem' for argument '--decoding.strategy'" in unreadable
    for told in (missing, unreadable):
        assert not set("│╭╰\x1b") & set(told) and "---" not in told


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tr"], "train"),
        (["rea"], "reader-study"),
        (["classify", "t"], "train test tune"),
        (["classify", "tune", "m"], "multilabel"),
        (["prepare", ""], "iu-xray mimic-cxr table phantom"),
        (["train", "r2gen_"], "r2gen_cmn r2gen_cmn+ithn"),
        (["predict", "a"], ""),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_verbs_kinds_and_recipes(completions: Path, typed: list[str], offered: str) -> None:
    words = " ".join(f"'{word}'" for word in ["rayscribe", *typed])
    ask = f"source {completions}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _rayscribe; echo ${{COMPREPLY[@]}}"
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.strip() == offered


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash."""
    path = tmp_path_factory.mktemp("completion") / "rayscribe.bash"
    command = [sys.executable, "-m", "rayscribe", "completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


def test_completions_for_another_shell_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "invalid choice 'fish'" in refused(monkeypatch, capsys, "completion", "fish")
