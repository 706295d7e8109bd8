"""How long loops show how far they are, on a terminal and in a log."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from rayscribe.progress import Meter, progress_bar


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("rayscribe.progress.monotonic", made)
    return made


def test_a_log_gets_whole_lines_half_a_minute_apart_and_a_last_one(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in progress_bar(range(100), desc="generating", unit="batch"):
        clock.now += 6
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert lines[0] == "generating: 5 of 100 batches, 30 s, about 10 min left"
    assert lines[1] == "generating: 10 of 100 batches, 1 min, about 9 min left"
    assert lines[-1] == "generating: 100 of 100 batches, 10 min"
    assert len(lines) == 20 and "\r" not in err


def test_a_short_loop_leaves_no_line_in_a_log(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress_bar(range(100), desc="generating", unit="batch"):
        clock.now += 0.29
    assert capsys.readouterr().err == ""


def test_a_loop_that_fails_says_how_far_it_came(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), Meter(desc="reading", unit="study", total=4, initial=1) as meter:
        clock.now += 3600
        meter.update()
        meter.update()
        raise ValueError
    assert capsys.readouterr().err.splitlines() == [
        "reading: 2 of 4 studies, 60 min, about 2 h left",
        "reading: 3 of 4 studies, 60 min, about 30 min left",
    ]


def test_a_loop_of_unknown_length_counts_without_a_guess(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(desc="epoch 1/3", unit="batch") as meter:
        clock.now += 40
        meter.describe("epoch 1/3", note="loss 2.345")
        meter.update(7)
    assert capsys.readouterr().err == "epoch 1/3: 7 batches, 40 s, loss 2.345\n"


def test_a_loop_that_is_not_shown_is_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress_bar(range(3), desc="validation", unit="batch", is_shown=False):
        clock.now += 100
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress_bar(iter("abc"), desc="drawing", unit="study", total=3)) == ["a", "b", "c"]
    assert "drawing: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()


def test_a_log_needs_no_tqdm() -> None:
    probe = (
        "import sys\nfrom rayscribe.progress import progress_bar\n"
        "print(list(progress_bar([1], desc='', unit='step')), 'tqdm' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[1] False"
