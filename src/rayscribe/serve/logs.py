"""Logs without patient data: of an exception, only its type and location are logged, never its message.

Messages of libraries may quote their input: a DICOM value, a word of a report, a file name. So only the location of their log
records and warnings is written.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import Any

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class QuietFormatter(logging.Formatter):
    """Types and locations in a chain of exceptions, without messages and without source lines."""

    def formatException(self, ei: _Raised) -> str:  # logging's own name
        lines, error = [], ei[1]
        while error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            lines.append(f"{type(error).__module__}.{type(error).__qualname__}")
            lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
            error = error.__cause__ or error.__context__
        return "\n".join(lines)


def log_settings(level: str = "INFO") -> dict[str, Any]:
    """For `logging.config.dictConfig`: our logs and uvicorn's to stderr, through the formatter above."""
    handlers = {
        name: {"class": "logging.StreamHandler", "formatter": name, "stream": "ext://sys.stderr"}
        for name in ("ours", "others")
    }
    loggers = {
        name: {"handlers": ["ours"], "level": level, "propagate": False} for name in ("rayscribe.serve", "uvicorn")
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "ours": {"()": QuietFormatter, "fmt": "%(asctime)s %(levelname)s %(message)s"},
            "others": {"()": QuietFormatter, "fmt": "%(asctime)s %(levelname)s of %(name)s: %(pathname)s:%(lineno)d"},
        },
        "handlers": handlers,
        "root": {"handlers": ["others"], "level": "WARNING"},
        "loggers": loggers | {"uvicorn.access": {"handlers": [], "propagate": False}},
    }
