"""The feed's conversations with Postgres: leading it, ringing and sleeping, following it.

Owns: three kinds of session and the statements that each sends. Knows no loop and takes no decision.

Sessions that hold locks have a server-side limit on idling. A process that is frozen keeps its connections
open and, with them, its locks; the server ends such a session after IDLE_LIMIT_SECONDS, and somebody else
can lead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import asyncpg
import msgspec

from pipeline.core.events import Event, Line
from pipeline.core.snapshot import Snapshot
from pipeline.core.status import WatchStatus
from pipeline.db.connection import Database, OwnConnection, Record, connect_session, translated
from pipeline.db.statements import statement
from pipeline.errors import QueryFailed

IDLE_LIMIT_SECONDS = 5.0
CALL_SECONDS = 10.0
SLEEP_SECONDS = 25.0  # one wait for the asleep lock; below the statement limit of a connection

_HOLDS_LOCKS = {
    "idle_session_timeout": str(int(IDLE_LIMIT_SECONDS * 1000)),
    "client_connection_check_interval": "500",  # a waiting backend notices that its client is gone
    # what a role or a database prescribes to its applications is not for us: we wait for a lock on purpose
    "lock_timeout": "0",
    "default_transaction_isolation": "read committed",
}
_READS_OUTBOX = {
    "jit": "off",
    # the outbox is never analyzed and changes size a thousandfold, so the planner knows nothing of it
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
}


class Standing(msgspec.Struct, frozen=True):
    """Where the feed stands in the database. epoch: None while nobody has ever led. pid: the leader's process."""

    epoch: str | None
    lineage: str
    term: int
    pid: int
    seq: int
    position: Snapshot
    flush_until: int


class Reading(msgspec.Struct, frozen=True):
    """What one read found. full: writers have stopped writing events. ages_ms: how long ago each was written,
    by the server's clock alone. last: the (xid, id) to go on behind. wal: see Position."""

    upto: Snapshot
    full: bool
    lines: Sequence[Line]
    ages_ms: Sequence[float]
    last: tuple[int, int]
    wal: int | None = None


class Backlog(msgspec.Struct, frozen=True):
    """Bytes in the outbox, whether it is full, and how full the server's notification queue is, from 0 to 1."""

    bytes: int
    full: bool
    queue_usage: float


class Session:
    """One connection of the feed."""

    purpose = "feed"
    settings: ClassVar[dict[str, str]] = {}

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._connection: OwnConnection | None = None
        self.lost = asyncio.Event()

    async def open(self) -> None:
        """Connect. Raises LoginFailed, DatabaseUnavailable, TransactionPooler."""
        self.lost.clear()
        self._connection = await connect_session(self._dsn, purpose=self.purpose, settings=self.settings)
        self._connection.add_termination_listener(lambda _connection: self.lost.set())

    async def close(self) -> None:
        """Let go of the connection, whatever state it is in."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            connection.terminate()

    @property
    def live(self) -> OwnConnection:
        if self._connection is None:
            raise ConnectionError("the session is not open")
        return self._connection

    async def fetch(self, name: str, *args: Any, timeout: float = CALL_SECONDS) -> list[Record]:
        with translated():
            return await self.live.fetch(statement(name), *args, timeout=timeout)

    async def fetchval(self, name: str, *args: Any, timeout: float = CALL_SECONDS) -> Any:
        with translated():
            return await self.live.fetchval(statement(name), *args, timeout=timeout)

    async def standing(self) -> Standing | None:
        """Where the feed stands, or None while nobody has ever led it."""
        rows = await self.fetch("feed/standing")
        return _standing(rows[0]) if rows else None


class LeaderSession(Session):
    """What the leader sends: reading the outbox, broadcasting, turning it. Also hears the bell."""

    purpose = "lead"
    settings: ClassVar[dict[str, str]] = {**_HOLDS_LOCKS, **_READS_OUTBOX}

    async def open_and_listen(self, rung: Callable[[], None]) -> None:
        """Connect and call `rung` whenever a writer rings."""
        await self.open()
        with translated():
            await self.live.add_listener("pipeline_bell", lambda *_notification: rung())

    async def may_lead(self) -> bool:
        """Whether this role has the right to pump."""
        return bool(await self.fetchval("feed/may_lead"))

    async def try_lead(self) -> bool:
        return bool(await self.fetchval("feed/try_lead"))

    async def take_over(self) -> int:
        term = int(await self.fetchval("feed/take_over"))
        await self.fetch("feed/finish_turn", term, True)  # the last leader may have died in the middle of one
        return term

    async def read(self, since: Snapshot, upto: Snapshot | None, after: tuple[int, int], limit: int) -> Reading:
        """Events between two positions; `upto` None reads up to now. See sql/feed/read.sql."""
        rows = await self.fetch(
            "feed/read", str(since), None if upto is None else str(upto), str(after[0]), after[1], limit
        )
        first = rows[0]
        found = rows if first["id"] is not None else []
        return Reading(
            upto=Snapshot.parse(first["upto"]),
            full=bool(first["gate"] & 2),
            lines=[Line(row["xid"], row["name"], row["tail"]) for row in found],
            ages_ms=[row["age_ms"] for row in found],
            last=(rows[-1]["xid"], rows[-1]["id"]) if found else after,
            wal=first["wal"],
        )

    async def broadcast(
        self,
        term: int,
        lineage: str,
        first: int,
        batches: Sequence[str],
        notices: Sequence[str],
        position: Snapshot | None,
    ) -> None:
        at = None if position is None else str(position)
        await self.fetch("feed/broadcast", term, lineage, first, list(batches), list(notices), at)

    async def beat(self, term: int, payload: str) -> None:
        await self.fetch("feed/beat", term, payload)

    async def rotate(self, term: int, seq: int, position: Snapshot, turn_bytes: int, turn_after: float) -> bool:
        """Turn the outbox if it is time; returns whether it did."""
        args = (term, seq, str(position), turn_bytes, turn_after)
        if not await self.fetchval("feed/rotate", *args):
            return False
        was_full = await self.fetchval("feed/turn", term)
        await self.fetch("feed/finish_turn", term, was_full)
        return True

    async def silence_bell(self, silent: bool) -> None:
        await self.fetch("feed/silence_bell", silent)


class BellSession(Session):
    """Holds the asleep lock while the pump sleeps."""

    purpose = "bell"
    settings = _HOLDS_LOCKS

    async def sleep(self) -> bool:
        """Wait for the lock; False when it was not to be had in SLEEP_SECONDS or the wait was cancelled."""
        try:
            await self.live.execute(statement("feed/sleep"), timeout=SLEEP_SECONDS)
        except (TimeoutError, asyncpg.QueryCanceledError):
            return False
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise ConnectionError(str(error)) from error
        return True

    async def wake(self) -> None:
        """Give the lock back, or make sure that a cancelled wait has not left it held."""
        for _attempt in range(3):
            try:
                await self.fetch("feed/wake")
            except QueryFailed as error:
                if error.sqlstate != "57014":  # the cancellation of the wait came late and hit this
                    raise
            else:
                return

    def process_id(self) -> int:
        return self.live.process_id


class FollowerSession(Session):
    """Hears the broadcasts and reads what was missed."""

    purpose = "follow"

    async def open_and_listen(self, heard: Callable[[int, str], None]) -> None:
        """Connect, listen, and only then return: what commits from now on is heard, and who said it."""
        await self.open()
        with translated():
            await self.live.add_listener(
                "pipeline_feed", lambda _connection, pid, _channel, payload: heard(pid, str(payload))
            )

    async def replay(self, after: int) -> list[tuple[int, str]]:
        return [(row["seq"], row["payload"]) for row in await self.fetch("feed/replay", after)]


class ConsumerSession(Session):
    """Holds the consumers' lock."""

    purpose = "consume"
    settings = _HOLDS_LOCKS

    async def try_consume(self) -> bool:
        return bool(await self.fetchval("feed/try_consume"))


class FeedStore:
    """What is asked about the feed beside its own sessions, on the shared pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def places(self) -> dict[str, tuple[str, int]]:
        """How far each consumer has come: its name to (lineage, number of the last batch)."""
        return {r["name"]: (r["lineage"], r["seq"]) for r in await self._database.fetch("feed/places")}

    async def save_places(self, lineage: str, places: dict[str, int]) -> None:
        """Note how far consumers have come."""
        await self._database.execute("feed/save_places", lineage, list(places), list(places.values()))

    async def forget_durable(self, position: Snapshot, since: int) -> None:
        """Drop the durable events that `position` sees; none is left below transaction `since`."""
        await self._database.execute("feed/forget_durable", str(position), str(since))

    async def durable(self, after: tuple[int, int], limit: int) -> list[tuple[int, Event]]:
        """Durable events behind (xid, id) that not every consumer has handled, as (id, event)."""
        rows = await self._database.fetch("feed/durable", str(after[0]), after[1], limit)
        return [(row["id"], _event(row)) for row in rows]

    async def replay(self, after: int) -> list[tuple[int, str]]:
        """Up to 500 batches behind `after`, as (number, wire form)."""
        return [(r["seq"], r["payload"]) for r in await self._database.fetch("feed/replay", after)]

    async def cancel(self, process_id: int) -> None:
        await self._database.execute("feed/cancel", process_id)

    async def check_watches(self) -> list[tuple[str, str]]:
        """Follow DDL on watched tables; returns (tag, what was found)."""
        return [(r["tag"], r["finding"]) for r in await self._database.fetch("feed/check_watches")]

    async def watched(self) -> tuple[WatchStatus, ...]:
        return tuple(
            WatchStatus(r["relation"], tuple(r["keys"]), r["timing"], r["problem"])
            for r in await self._database.fetch("feed/watched")
        )

    async def backlog(self) -> Backlog:
        """What has piled up."""
        [row] = await self._database.fetch("feed/backlog")
        return Backlog(row["bytes"], row["is_full"], row["queue_usage"])

    async def silence_bell(self, silent: bool) -> None:
        await self._database.execute("feed/silence_bell", silent)


def _event(row: Record) -> Event:
    keys = None if row["keys"] is None else tuple(row["keys"])
    return Event(row["xid"], row["name"], row["op"], keys, row["rows"], row["ms"], row["payload"])


def _standing(row: Record) -> Standing:
    return Standing(
        row["epoch"],
        row["lineage"],
        row["term"],
        row["pid"],
        row["seq"],
        Snapshot.parse(row["position"]),
        row["flush_until"],
    )
