"""What the tests of the feed share: a whole feed on a database, and recorders at its ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from pipeline.core.events import Batch, Event
from pipeline.core.query_plan import DDL
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database
from pipeline.feed.consumers import Consumers
from pipeline.feed.follower import Follower
from pipeline.feed.pump import Pump
from pipeline.runtime import Supervisor
from tests.conftest import eventually

MARK = "mark"


class Sink:
    """Keeps whatever a follower says, in order. `story` has batches, and texts like `flush: reason`."""

    def __init__(self) -> None:
        self.story: list[Batch | str] = []
        self.positions: list[Snapshot] = []

    def on_batch(self, batch: Batch) -> None:
        self.story.append(batch)

    def on_position(self, position: Snapshot) -> None:
        self.positions.append(position)

    def on_flush(self, reason: str) -> None:
        self.story.append(f"flush: {reason}")

    def on_down(self, reason: str) -> None:
        self.story.append(f"down: {reason}")

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch.events]

    @property
    def batches(self) -> list[Batch]:
        return [told for told in self.story if isinstance(told, Batch)]

    @property
    def flushes(self) -> list[str]:
        return [told for told in self.story if isinstance(told, str) and told.startswith("flush")]

    def has_mark(self, number: str) -> bool:
        return any(event.name == MARK and event.payload == number for event in reversed(self.events))


class Handler:
    """A consumer that keeps what it is given; `act` may raise or wait."""

    def __init__(self, name: str = "recorder") -> None:
        self.name = name
        self.seen: list[Event] = []
        self.reasons: list[str] = []
        self.act: Callable[[Sequence[Event]], Awaitable[None]] | None = None

    async def handle(self, events: Sequence[Event]) -> None:
        if self.act is not None:
            await self.act(events)
        self.seen.extend(events)

    async def missed(self, reason: str) -> None:
        self.reasons.append(reason)

    @property
    def keys(self) -> list[str]:
        return [key for event in self.seen for key in event.keys or ()]


class Feed:
    """A pump, a follower and consumers on one database, and a user's connection to it."""

    def __init__(self, dsn: str, database: Database, sql: asyncpg.Connection, pump: Pump, names: str) -> None:
        self.dsn = dsn
        self.database = database
        self.sql = sql
        self.pump = pump
        self.sink = Sink()
        self.handlers = [Handler(name) for name in names.split()]
        self.follower = Follower(dsn, [self.sink])
        self.consumers = Consumers(dsn, database, self.handlers)
        self.follower._sinks = [self.sink, self.consumers]
        self._marks = itertools.count(1)
        self._told = 0

    @property
    def handler(self) -> Handler:
        return self.handlers[0]

    async def run(self, *statements: str) -> None:
        """Each statement in a transaction of its own."""
        for one in statements:
            await self.sql.execute(one)

    async def told(self, *statements: str) -> list[Event]:
        """Run the statements; the events since the last call, once everything committed was delivered."""
        await self.run(*statements)
        number = str(next(self._marks))
        await self.sql.execute("select pipeline.emit($1, $2)", MARK, number)
        await eventually(lambda: self.sink.has_mark(number), why=f"the mark {number}")
        events = self.sink.events
        fresh, self._told = events[self._told :], len(events)
        return [event for event in fresh if event.name not in (MARK, DDL)]

    async def watch(self, create: str, watch: str) -> None:
        """Create tables, watch one, and forget the event of the watch itself."""
        await self.told(create, f"select pipeline.watch({watch})")


@asynccontextmanager
async def running(
    dsn: str, *, two_phase: bool = False, consumers: str = "recorder", sql_dsn: str | None = None
) -> AsyncIterator[Feed]:
    """A feed that is up. consumers: their names. sql_dsn: the user's address, where it is another."""
    sql = await asyncpg.connect(sql_dsn or dsn)
    async with Database(dsn, purpose="test feed") as database:
        pump = Pump(dsn, database, two_phase=two_phase)
        pumping = Supervisor([pump], drain_timeout=5)
        pumping.start()
        try:
            await eventually(lambda: pump.leading, why="the pump leading")
            feed = Feed(dsn, database, sql, pump, consumers)
            following = Supervisor([feed.follower, feed.consumers], drain_timeout=5)
            following.start()
            try:
                await eventually(lambda: feed.follower.epoch and feed.consumers.leading, why="the feed being up")
                yield feed
            finally:
                await following.stop()
        finally:
            await pumping.stop()
            with suppress(asyncpg.PostgresError, OSError):
                await sql.close(timeout=2)


def said(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """Events as (operation, keys in order, rows), for comparison."""
    return [(e.op, None if e.keys is None else sorted(e.keys), e.rows) for e in events]


async def connections(dsn: str, number: int) -> list[asyncpg.Connection]:
    return list(await asyncio.gather(*(asyncpg.connect(dsn) for _ in range(number))))
