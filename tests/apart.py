"""Calls in processes of their own. They start at once: a server that has imported torch and timm is forked for each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

SECONDS = 300

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["timm", "torch._dynamo", "torch.utils.tensorboard", "rayscribe.training.run", "rayscribe.classifiers.run"]
)


def call_apart(folder: Path, call: Callable[..., object], *arguments: object, **named: object) -> tuple[int, str]:
    """The exit code of a process that made the call, negative for a signal, and what it printed.

    The function is one of a module, and a log is written into the folder.
    """
    ((code, printed),) = _called(folder, [{}], call, arguments, named)
    return code, printed


def call_by_two_processes(folder: Path, call: Callable[..., object], *arguments: object, **named: object) -> str:
    """Both are told of each other as by torchrun. Returns what they printed."""
    store = TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )  # on a free port, as torchrun's agent has it
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    environments = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    both = _called(folder, environments, call, arguments, named)
    printed = "\n".join(text for _, text in both)
    assert [code for code, _ in both] == [0, 0], printed[-6000:]
    return printed


def _called(
    folder: Path,
    environments: list[dict[str, str]],
    call: Callable[..., object],
    arguments: tuple[object, ...],
    named: dict[str, object],
) -> list[tuple[int, str]]:
    logs = [folder / f"process-{number}.log" for number in range(len(environments))]
    processes = [
        _SERVER.Process(target=_calls, args=(log, environment, call, arguments, named))
        for log, environment in zip(logs, environments, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(SECONDS)
        codes = [process.exitcode for process in processes]
        printed = [log.read_text() if log.exists() else "" for log in logs]
        assert None not in codes, f"not done after {SECONDS} seconds\n{printed}"
        return list(zip(codes, printed, strict=True))  # type: ignore[arg-type]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _calls(
    log: Path, environment: dict[str, str], call: Callable[..., object], arguments: Any, named: dict[str, Any]
) -> None:
    with open(log, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ.update(environment)
    torch.set_num_threads(1)
    call(*arguments, **named)
