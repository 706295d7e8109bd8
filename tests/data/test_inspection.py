from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rayscribe.data import inspection as inspection_module
from rayscribe.data.inspection import ImageInspection, inspect_images
from rayscribe.data.manifest import read_manifest


@pytest.fixture
def paths(world: Path, tmp_path: Path) -> list[str]:
    """Twelve images of our own, one of them cut, and one that is not there."""
    copies = []
    for number, study in enumerate(read_manifest(world).studies[:12]):
        copies.append(tmp_path / f"{number}.png")
        copies[-1].write_bytes(study.images[0].read_bytes())
    copies[3].write_bytes(copies[3].read_bytes()[:300])
    return [*map(str, copies), str(tmp_path / "nowhere.png")]


def test_processes_see_what_threads_see(paths: list[str]) -> None:
    assert list(inspect_images(paths, processes=True, workers=2)) == list(
        inspect_images(paths, processes=False, workers=2)
    )


def test_nothing_is_read_again_unless_its_file_changed_or_was_faulty(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "m.parquet.journal"
    first = list(inspect_images(paths, journal=journal))
    read: list[str] = []
    whole = inspection_module.read_whole_image
    monkeypatch.setattr(
        inspection_module, "read_whole_image", lambda path, at_least: (read.append(str(path)), whole(path))[1]
    )
    assert list(inspect_images(paths, journal=journal)) == first
    assert read == [paths[3]]
    read.clear()
    assert "damaged" in first[3].fault
    assert first[-1] == ImageInspection(missing=True)
    Path(paths[3]).write_bytes(Path(paths[4]).read_bytes())
    os.utime(paths[5], ns=(1, 1))
    again = list(inspect_images(paths, journal=journal))
    assert sorted(read) == [paths[3], paths[5]]
    assert again[3].sha256 == again[4].sha256


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_cut_last_line_is_read_again_and_spoils_nothing_after_it(paths: list[str], cut: int, tmp_path: Path) -> None:
    journal = tmp_path / "m.parquet.journal"
    first = list(inspect_images(paths, journal=journal))
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert list(inspect_images(paths, journal=journal)) == first
    entries = [json.loads(line) for line in journal.read_text().splitlines()[1:] if line.endswith("]")]
    assert {Path(entry[0]).name for entry in entries} == {Path(path).name for path in paths[:-1]}


def test_a_journal_of_another_version_is_begun_anew(paths: list[str], tmp_path: Path) -> None:
    journal = tmp_path / "m.parquet.journal"
    first = list(inspect_images(paths, journal=journal))
    wrong = journal.read_text().replace(first[0].sha256, "0" * 64).split("\n", 1)[1]
    journal.write_text(f'["rayscribe-journal-2", "0.0"]\n{wrong}')
    assert list(inspect_images(paths, journal=journal)) == first


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
def test_workers_end_with_a_parent_that_is_killed(paths: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom rayscribe.data.inspection import inspect_images\n"
        "if __name__ == '__main__':\n"
        "    found = inspect_images(sys.argv[1:], processes=True, workers=2)\n"
        "    next(found)\n    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    command = [sys.executable, str(script), *paths[:3]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
        children = [int(name) for name in _children(parent.pid)]
        assert len(children) >= 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 20
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(child) for child in children)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
