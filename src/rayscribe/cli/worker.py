"""`rayscribe worker`: images from a PACS to draft reports in the PACS.

Annotations are evaluated here (no postponed ones), because tyro reads them from functions inside functions.
"""

import logging
import signal
import sys
import threading
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rayscribe.cli.arguments import parsed
from rayscribe.errors import DISCLAIMER, InputError, need_packages


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Images of studies in, draft reports back: DICOM SR, preliminary, unverified."""

    spool: Path
    "the folder of what is to be done; it holds images until their report is sent. One worker a spool"
    model: Path | None = None
    "the model folder"
    status: bool = False
    "say what is in the spool, and end"
    send_to: str | None = None
    "where reports go by C-STORE: AET@host:port"
    stow_url: str | None = None
    "where reports go by STOW-RS instead: http://host:port/dicom-web"
    dicom_port: int = 11112
    "where images come by C-STORE; 0 does not listen"
    bind: str = "127.0.0.1"
    "the address to listen at; the default is reached from this machine alone"
    ae_title: str = "RAYSCRIBE"
    "of the worker; images sent to another title are refused"
    callers: tuple[str, ...] = ()
    "AE titles that may send images; all when empty"
    qido_url: str | None = None
    "also ask this DICOMweb service for studies: http://host:port/dicom-web"
    poll: float = 30.0
    "seconds between two questions"
    days: int = 1
    "ask for studies of today and of so many days before"
    quiet: float = 5.0
    "a study is whole when no image has come for so many seconds"
    base: str | None = None
    "vision LLMs: where the base model lies now, if it was moved"


def worker(arguments: list[str]) -> None:
    settings = parsed(Settings, arguments, "worker")
    if settings.status:
        from rayscribe.pacs.spool import status_lines

        print("\n".join(status_lines(settings.spool)))
        return
    if settings.model is None:
        raise InputError("--model: name the folder of the model that drafts")
    need_packages("clinical", "highdicom")
    need_packages("pacs", "pynetdicom", "dicomweb_client")
    _silence()
    _work(settings, settings.model)


def _work(settings: Settings, model: Path) -> None:
    from rayscribe.api import open_reporter  # torch: seconds to import
    from rayscribe.pacs.fetch import Fetcher
    from rayscribe.pacs.receive import listening
    from rayscribe.pacs.send import check_title, checked_url, sender_of
    from rayscribe.pacs.spool import opened_spool
    from rayscribe.pacs.work import Worker
    from rayscribe.reports.drafting import author_of

    sender = sender_of(send_to=settings.send_to, stow_url=settings.stow_url, ae_title=settings.ae_title)
    for title in settings.callers:
        check_title(title)
    if settings.dicom_port == 0 and settings.qido_url is None:
        raise InputError("no images can come: give --dicom-port or --qido-url")
    fetcher = None
    if settings.qido_url is not None:
        fetcher = Fetcher(url=checked_url(settings.qido_url, "--qido-url"), days=settings.days)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as ended:
        spool = ended.enter_context(opened_spool(settings.spool))
        writer = open_reporter(model, base=settings.base)
        writer.check(states=False, features=False)
        working = Worker(
            spool=spool,
            writer=writer,
            author=author_of(model),
            sender=sender,
            notify=_say,
            quiet=settings.quiet,
            fetcher=fetcher,
            poll=settings.poll,
        )
        if settings.dicom_port:
            ended.callback(
                listening(
                    spool,
                    _say,
                    address=settings.bind,
                    port=settings.dicom_port,
                    ae_title=settings.ae_title,
                    callers=settings.callers,
                )
            )
            _say(f"listening at {settings.bind}:{settings.dicom_port} as {settings.ae_title}. {DISCLAIMER}")
        working.run(stop)
    _say("ended; what is left in the spool is done after the next start")


def _say(line: str) -> None:
    """Digests and counts only."""
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}", file=sys.stderr, flush=True)


def _silence() -> None:
    """What these packages log may hold a patient's name or id."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom", "highdicom", "dicomweb_client", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
