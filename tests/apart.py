"""Calls in processes of their own. They start at once: a server that has imported the heavy libraries is forked for each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from rayscribe.cli.main import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        *("timm", "torch._dynamo", "torch.utils.tensorboard", "rayscribe.training.run", "rayscribe.classifiers.run"),
        *("rayscribe.serve.app", "rayscribe.serve.start", "uvicorn", "sqlalchemy.dialects.sqlite"),
        *("rayscribe.pacs.work", "rayscribe.pacs.receive", "rayscribe.pacs.fetch", "dicomweb_client", "highdicom"),
    ]
)


def start_apart(
    log: Path,
    call: Callable[..., object],
    *arguments: object,
    environment: dict[str, str] | None = None,
    **named: object,
) -> BaseProcess:
    """A process that makes the call and appends what it prints to the log. The function is one of a module."""
    process = _SERVER.Process(target=_calls, args=(log, environment or {}, call, arguments, named), daemon=True)
    process.start()
    return process


def call_apart(folder: Path, call: Callable[..., object], *arguments: object, **named: object) -> tuple[int, str]:
    """The exit code of a process that made the call, negative for a signal, and what it printed."""
    process = start_apart(folder / "process.log", call, *arguments, **named)
    return exit_code(process), (folder / "process.log").read_text()


def call_by_two_processes(folder: Path, call: Callable[..., object], *arguments: object, **named: object) -> None:
    """They are told of each other as torchrun tells its processes."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a free port; torchrun's agent has it
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    logs = [folder / f"process-{rank}.log" for rank in range(2)]
    both = [
        start_apart(log, call, *arguments, environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **named)
        for rank, log in enumerate(logs)
    ]
    codes = [exit_code(process) for process in both]
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)


def run_command(*arguments: object) -> None:
    """`rayscribe` with these arguments in this process, where the libraries are imported."""
    sys.argv = ["rayscribe", *map(str, arguments)]
    main()


def start_command(*arguments: object) -> None:
    """`rayscribe` with these arguments in place of this process, as a user starts it."""
    os.execv(sys.executable, [sys.executable, "-m", "rayscribe", *map(str, arguments)])


def exit_code(process: BaseProcess, *, seconds: float = 300) -> int:
    """Its exit code, negative for a signal."""
    process.join(seconds)
    is_late = process.exitcode is None
    process.kill()
    process.join()
    assert not is_late and process.exitcode is not None, f"not done in {seconds} seconds"
    return process.exitcode


def _calls(
    log: Path, environment: dict[str, str], call: Callable[..., object], arguments: Any, named: dict[str, Any]
) -> None:
    with open(log, "a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ.update(environment)
    torch.set_num_threads(1)
    call(*arguments, **named)
