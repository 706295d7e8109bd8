"""The service as a process: logs, socket, signals."""

from __future__ import annotations

import logging.config
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from rayscribe.errors import InputError
from rayscribe.serve.app import create_app
from rayscribe.serve.logs import log_settings
from rayscribe.serve.settings import ServeConfig


def start(config: ServeConfig, *, notify: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM, then finishes all accepted work. `notify` receives the address once it listens."""
    logging.config.dictConfig(log_settings())
    logging.captureWarnings(True)
    app = create_app(config)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((config.host, config.port))
        except OSError as error:
            raise InputError(f"--port {config.port}: {error.strerror}; give another one") from None
        host = f"[{config.host}]" if ":" in config.host else config.host
        notify(f"http://{host}:{listening.getsockname()[1]}")
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=config.queue,
            timeout_keep_alive=15,
            # Accepted work is finished; a client that never reads its response does not block the shutdown.
            timeout_graceful_shutdown=int(config.max_seconds) + 5,
        )
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, _ended)  # uvicorn re-raises the signal after a clean shutdown
        uvicorn.Server(settings).run(sockets=[listening])


def _ended(_: int, __: FrameType | None) -> None: ...
