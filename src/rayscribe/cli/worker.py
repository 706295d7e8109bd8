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
    """Drafts reports for the studies of a PACS, and returns them as DICOM SR: preliminary, unverified."""

    spool: Path
    "the folder of pending work; it holds images until their report is sent. One worker per spool"
    model: Path | None = None
    "the model folder"
    status: bool = False
    "print what is in the spool, and exit"
    send_to: str | None = None
    "send reports here by C-STORE: AET@host:port"
    stow_url: str | None = None
    "send reports here by STOW-RS instead: http://host:port/dicom-web"
    dicom_port: int = 11112
    "the port that receives images by C-STORE; 0 turns it off"
    bind: str = "127.0.0.1"
    "the address to listen on; the default accepts connections from this machine only"
    ae_title: str = "RAYSCRIBE"
    "the worker's title; images sent to another one are refused"
    callers: tuple[str, ...] = ()
    "AE titles that may send images; by default all"
    qido_url: str | None = None
    "also query this DICOMweb service for studies: http://host:port/dicom-web"
    poll: float = 30.0
    "seconds between queries"
    days: int = 1
    "query the studies of today and of this many days before"
    quiet: float = 5.0
    "a study is complete when no image has arrived for this many seconds"
    base: str | None = None
    "vision LLMs: where the base model is now, if it was moved"


def worker(arguments: list[str]) -> None:
    settings = parsed(Settings, arguments, "worker")
    if settings.status:
        from rayscribe.pacs.spool import status_lines

        print("\n".join(status_lines(settings.spool)))
        return
    if settings.model is None:
        raise InputError("--model: name the folder of the model that drafts the reports")
    need_packages("clinical", "highdicom")
    need_packages("pacs", "pynetdicom", "dicomweb_client")
    _silence()
    _work(settings, settings.model)


def _work(settings: Settings, model: Path) -> None:
    from rayscribe.api.models import open_reporter  # torch: seconds to import
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
        raise InputError("no way to receive images: give --dicom-port or --qido-url")
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
    _say("stopped; the next start continues with what is left in the spool")


def _say(line: str) -> None:
    """Digests and counts only."""
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}", file=sys.stderr, flush=True)


def _silence() -> None:
    """What these packages log may hold a patient's name or id."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom", "highdicom", "dicomweb_client", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
