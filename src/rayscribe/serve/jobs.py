"""Asynchronous studies in a database: an accepted study is stored, and a stored study is drafted exactly once.

SQLite or PostgreSQL through SQLAlchemy. A service claims a job for a few seconds at a time and renews the claim while it works;
if it is killed, the claim expires and another service claims the job. Only the holder of the claim can store a draft, in the
transaction that ends the job, so a job has exactly one result.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, TimeoutError

from rayscribe.data.images import Upload
from rayscribe.errors import InputError

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
AWAY = (DBAPIError, TimeoutError)
"Errors of an unavailable database: locked, full, gone, damaged, or out of connections."
CLAIM_SECONDS = 10.0
MOST_ATTEMPTS = 5

_tables = sql.MetaData()
_JOBS = sql.Table(
    "rayscribe_jobs",
    _tables,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("owner", sql.String(40), nullable=False),
    sql.Column("repeat_key", sql.String(64)),  # a digest of the client's Idempotency-Key
    sql.Column("sent_sha256", sql.String(64), nullable=False),
    sql.Column("created", sql.Float, nullable=False, index=True),
    sql.Column("state", sql.String(10), nullable=False, index=True),
    sql.Column("options", sql.Text, nullable=False),
    sql.Column("holder", sql.String(32)),
    sql.Column("held_until", sql.Float, nullable=False, default=0.0),
    sql.Column("attempts", sql.Integer, nullable=False, default=0),
    sql.Column("progress", sql.Float, nullable=False, default=0.0),
    sql.Column("stage", sql.String(60), nullable=False, default="waiting"),
    sql.Column("draft", sql.Text),
    sql.Column("problem", sql.Text),
    sql.Column("ended", sql.Float),
    sql.UniqueConstraint("owner", "repeat_key"),
)
_IMAGES = sql.Table(
    "rayscribe_job_images",
    _tables,
    sql.Column("job", sql.String(32), primary_key=True),
    sql.Column("place", sql.Integer, primary_key=True),
    sql.Column("content", sql.LargeBinary, nullable=False),
)
_WAITS = ("queued", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One asynchronous study, as stored."""

    id: str
    state: JobState
    options: str
    progress: float
    stage: str
    position: int | None
    "number of studies ahead of it in the queue"
    draft: dict[str, Any] | None
    problem: dict[str, Any] | None

    def plain(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        names = ("id", "state", "progress", "stage", "position", "draft", "problem")
        return dict(zip(names, self._values(), strict=True))

    def _values(self) -> tuple[Any, ...]:
        return self.id, self.state, self.progress, self.stage, self.position, self.draft, self.problem


class Repeated(Exception):
    """The Idempotency-Key was used by an earlier, different request."""


class Jobs:
    """The table. Every method is one transaction."""

    def __init__(self, url: str) -> None:
        """Raises InputError for a database that cannot be opened."""
        try:
            self._engine = sql.create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                sql.event.listen(self._engine, "connect", _settle_sqlite)
            _tables.create_all(self._engine)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise InputError(f"--database: not a database that SQLAlchemy can open ({type(error).__name__})") from None
        except AWAY:
            raise InputError(
                "--database: does not answer, or is not writable; check its address and permissions"
            ) from None
        if self._engine.dialect.name == "sqlite":
            path = self._engine.url.database
            if not path or path == ":memory:":  # every thread would get its own database
                raise InputError("--database: SQLite needs a file, sqlite:///FILE")
            Path(path).chmod(0o600)

    def add(self, images: Sequence[Upload], options: str, *, owner: str, repeat_key: str | None, digest: str) -> str:
        """Returns the id of the new job, or of an earlier identical request, once the job is on disk.

        Raises Repeated if a different request used the key.
        """
        id_ = uuid.uuid4().hex
        row = {"id": id_, "owner": owner, "repeat_key": repeat_key, "sent_sha256": digest, "options": options}
        contents = [{"job": id_, "place": place, "content": image.content} for place, image in enumerate(images, 1)]
        try:
            with self._engine.begin() as connection:
                connection.execute(_JOBS.insert().values(**row, created=time.time(), state="queued"))
                connection.execute(_IMAGES.insert(), contents)
            return id_
        except IntegrityError:
            with self._engine.begin() as connection:
                same = sql.and_(_JOBS.c.owner == owner, _JOBS.c.repeat_key == repeat_key)
                before = connection.execute(sql.select(_JOBS.c.id, _JOBS.c.sent_sha256).where(same)).one_or_none()
            if before is None:  # deleted in the meantime
                return self.add(images, options, owner=owner, repeat_key=repeat_key, digest=digest)
            if before.sent_sha256 != digest:
                raise Repeated from None
            return str(before.id)

    def find(self, id_: str, *, owner: str) -> Job | None:
        """The owner's job; None for other owners' jobs."""
        with self._engine.begin() as connection:
            row = connection.execute(sql.select(_JOBS).where(_of(id_, owner))).one_or_none()
            if row is None:
                return None
            earlier = sql.and_(_JOBS.c.state.in_(_WAITS), _JOBS.c.created < row.created)
            ahead = connection.execute(sql.select(sql.func.count()).select_from(_JOBS).where(earlier)).scalar_one()
        return _job(row, int(ahead))

    def queued(self) -> int:
        with self._engine.begin() as connection:
            waits = sql.select(sql.func.count()).select_from(_JOBS).where(_JOBS.c.state == "queued")
            return int(connection.execute(waits).scalar_one())

    def claim(self, holder: str) -> Job | None:
        """Claims the longest-waiting job for this holder; a job with an expired claim counts as waiting."""
        now = time.time()
        is_free = sql.or_(_JOBS.c.state == "queued", sql.and_(_JOBS.c.state == "running", _JOBS.c.held_until < now))
        first = sql.select(_JOBS.c.id).where(is_free).order_by(_JOBS.c.created, _JOBS.c.id).limit(1).scalar_subquery()
        mine = {"holder": holder, "held_until": now + CLAIM_SECONDS, "attempts": _JOBS.c.attempts + 1}
        claimed = _JOBS.update().where(_JOBS.c.id == first, is_free).values(state="running", **mine).returning(_JOBS)
        while True:
            with self._engine.begin() as connection:
                row = connection.execute(claimed).one_or_none()
            if row is None:
                return None
            if row.attempts <= MOST_ATTEMPTS:
                return _job(row, 0)
            told = f"the service ended {MOST_ATTEMPTS} times while it worked on this study; it is not tried again"
            self.end(
                row.id, holder, "failed", problem={"status": 500, "title": "Internal Server Error", "detail": told}
            )

    def images(self, id_: str) -> list[Upload]:
        """The uploaded images."""
        with self._engine.begin() as connection:
            rows = connection.execute(sql.select(_IMAGES).where(_IMAGES.c.job == id_).order_by(_IMAGES.c.place)).all()
        return [Upload(name=f"image {row.place}", content=bytes(row.content)) for row in rows]

    def renew(self, holder: str, progress: dict[str, tuple[float, str]]) -> set[str]:
        """Renews the claims on these jobs and stores their progress. Returns the jobs still held by `holder`."""
        mine = sql.and_(_JOBS.c.id.in_(progress), _JOBS.c.holder == holder, _JOBS.c.state == "running")
        with self._engine.begin() as connection:
            until = {"held_until": time.time() + CLAIM_SECONDS}
            held = {
                str(row.id)
                for row in connection.execute(_JOBS.update().where(mine).values(until).returning(_JOBS.c.id))
            }
            for id_ in held:
                share, stage = progress[id_]
                connection.execute(_JOBS.update().where(_JOBS.c.id == id_).values(progress=share, stage=stage))
        return held

    def end(self, id_: str, holder: str, state: JobState, *, draft: str | None = None, problem: Any = None) -> bool:
        """Stores the result and deletes the images if the holder still has the job; returns whether it has."""
        mine = sql.and_(_JOBS.c.id == id_, _JOBS.c.holder == holder, _JOBS.c.state == "running")
        told = None if problem is None else json.dumps(problem)
        result = {
            "state": state,
            "draft": draft,
            "problem": told,
            "ended": time.time(),
            "progress": 1.0,
            "stage": state,
        }
        with self._engine.begin() as connection:
            is_mine = connection.execute(_JOBS.update().where(mine).values(result)).rowcount == 1
            if is_mine:
                connection.execute(_IMAGES.delete().where(_IMAGES.c.job == id_))
        return is_mine

    def cancel(self, id_: str, *, owner: str) -> Job | None:
        """Ends a waiting or running job; deletes one that has ended. None if the owner has no such job."""
        waits = sql.and_(_of(id_, owner), _JOBS.c.state.in_(_WAITS))
        gone = {"state": "cancelled", "ended": time.time(), "stage": "cancelled", "holder": None}
        with self._engine.begin() as connection:
            is_cancelled = connection.execute(_JOBS.update().where(waits).values(gone)).rowcount == 1
            row = connection.execute(sql.select(_JOBS).where(_of(id_, owner))).one_or_none()
            if row is not None:
                connection.execute(_IMAGES.delete().where(_IMAGES.c.job == id_))
                if not is_cancelled:
                    connection.execute(_JOBS.delete().where(_JOBS.c.id == id_))
        return None if row is None else _job(row, 0)

    def forget(self, *, before: float) -> int:
        """Deletes jobs that ended before this time; returns their number."""
        with self._engine.begin() as connection:
            return connection.execute(_JOBS.delete().where(_JOBS.c.ended < before)).rowcount

    def close(self) -> None:
        self._engine.dispose()


def _of(id_: str, owner: str) -> sql.ColumnElement[bool]:
    return sql.and_(_JOBS.c.id == id_, _JOBS.c.owner == owner)


def _job(row: Any, ahead: int) -> Job:
    return Job(
        id=row.id,
        state=row.state,
        options=row.options,
        progress=row.progress,
        stage=row.stage,
        position=ahead if row.state == "queued" else None,
        draft=None if row.draft is None else json.loads(row.draft),
        problem=None if row.problem is None else json.loads(row.problem),
    )


def _settle_sqlite(connection: Any, _: Any) -> None:
    """Settings to survive a power loss, wait for another writer, and overwrite deleted data."""
    connection.execute("PRAGMA journal_mode = DELETE")  # a write-ahead log would keep deleted pixels for a while
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA busy_timeout = 30000")
