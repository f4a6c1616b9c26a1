"""The doorbell: nothing that commits is slept through, whatever the writers do.

The pump of these tests has no safety net: its beats, which also poll, are set so far apart that a bell that was
missed shows as an event that is not delivered. Each guard is then taken out, and the same schedule must fail.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from pipeline.core.events import Event, Line, Parcel, decode
from pipeline.core.snapshot import Snapshot
from pipeline.db import feed as db_feed
from pipeline.db.connection import Database
from pipeline.db.feed import BellSession, LeaderSession, Reading
from pipeline.feed import pump as pump_module
from pipeline.feed.pump import Pump
from pipeline.runtime import Supervisor
from tests.conftest import eventually

BOUND_SECONDS = 1.5  # for one delivery, on a machine that runs other tests beside this one
WRITERS = 6
SECONDS = 4.0


class Delivered:
    """When each key was broadcast."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def note(self, events: tuple[Event, ...]) -> None:
        now = time.monotonic()
        for event in events:
            for key in event.keys or ():
                self.at.setdefault(key, now)


@asynccontextmanager
async def pumping(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Pump, Delivered]]:
    """A pump that only the bell can wake."""
    monkeypatch.setattr(pump_module, "BEAT_SECONDS", 600.0)
    monkeypatch.setattr(pump_module, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(pump_module, "CHECK_SECONDS", 600.0)
    monkeypatch.setitem(db_feed._HOLDS_LOCKS, "idle_session_timeout", "0")
    delivered = Delivered()
    send = Pump._send

    async def noted(self: Pump, parcels: list[Parcel], position: Snapshot | None) -> None:
        await send(self, parcels, position)
        for parcel in parcels:
            delivered.note(decode(parcel.payload).events)

    monkeypatch.setattr(Pump, "_send", noted)
    async with Database(dsn) as database:
        pump = Pump(dsn, database)
        supervisor = Supervisor([pump], drain_timeout=5)
        supervisor.start()
        try:
            await eventually(lambda: pump.bell.asleep, why="the pump falling asleep")
            yield pump, delivered
        finally:
            await supervisor.stop()


async def write_at_random(
    dsn: str, number: int, until: float, committed: dict[str, float], rng: random.Random
) -> None:
    """Transactions short and long, rolled back, with savepoints, under an old snapshot or a fresh one."""
    connection = await asyncpg.connect(dsn)
    key = number * 1_000_000
    try:
        while time.monotonic() < until:
            key += 1
            isolation = rng.choice(["read_committed", "repeatable_read"])
            transaction = connection.transaction(isolation=isolation)
            await transaction.start()
            await connection.fetch("select 1 from item limit 1")
            if rng.random() < 0.3:
                savepoint = connection.transaction()
                await savepoint.start()
                await connection.execute("insert into item values ($1)", -key)
                await (savepoint.rollback() if rng.random() < 0.5 else savepoint.commit())
            await connection.execute("insert into item values ($1)", key)
            length = rng.random()
            await asyncio.sleep(0 if length < 0.6 else rng.random() * (0.03 if length < 0.95 else 0.6))
            if rng.random() < 0.15:
                await transaction.rollback()
            else:
                await transaction.commit()
                committed[str(key)] = time.monotonic()
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.01, 0.05, 0.15]))
    finally:
        await connection.close()


async def late_or_lost(dsn: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the random schedule; returns the keys that were delivered after the bound, or not at all."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table item (id bigint primary key)")
    await connection.execute("select pipeline.watch('item')")
    await connection.close()
    committed: dict[str, float] = {}
    async with pumping(dsn, monkeypatch) as (pump, delivered):
        slept = pump.bell.sleeps_total
        until = time.monotonic() + SECONDS
        writers = [write_at_random(dsn, n, until, committed, random.Random(n)) for n in range(1, WRITERS + 1)]
        await asyncio.gather(*writers)
        deadline = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < deadline and committed.keys() - delivered.at.keys():
            await asyncio.sleep(0.01)
        assert len(committed) > 100
        assert pump.bell.sleeps_total >= slept
        return [key for key, at in committed.items() if delivered.at.get(key, float("inf")) > at + BOUND_SECONDS]


async def test_every_committed_event_is_delivered_within_the_bound(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await late_or_lost(dsn, monkeypatch) == []


async def test_the_schedule_notices_a_pump_that_sleeps_before_silent_writers_have_ended(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_grace(self: BellSession) -> bool:
        await self.live.fetchval("select pg_try_advisory_lock(1885697639, 3)")
        return True

    monkeypatch.setattr(BellSession, "sleep", no_grace)
    assert await late_or_lost(dsn, monkeypatch) != []


async def test_the_schedule_notices_reading_by_id(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def by_id(
        self: LeaderSession, since: Snapshot, upto: Snapshot | None, after: tuple[int, int], limit: int
    ) -> Reading:
        last = getattr(self, "last_id", 0)
        rows = await self.live.fetch(
            "select id, xid::text::bigint as xid, keys from pipeline.outbox where id > $1 order by id", last
        )
        upto = Snapshot.parse(await self.live.fetchval("select pg_current_snapshot()::text"))
        self.last_id = rows[-1]["id"] if rows else last  # type: ignore[attr-defined]
        lines = [Line(r["xid"], "item", f'"i",["{(r["keys"] or [0])[0]}"]]') for r in rows]
        return Reading(upto, False, lines, [0.0] * len(lines), after)

    monkeypatch.setattr(LeaderSession, "read", by_id)
    assert await late_or_lost(dsn, monkeypatch) != []


async def sleeps_beside_aborted_writers(dsn: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the pump falls asleep while some transaction that kept silent is open at every moment."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table item (id bigint primary key)")
    await connection.execute("select pipeline.watch('item')")
    await connection.close()
    stop = asyncio.Event()
    writing: set[int] = set()

    async def write_and_roll_back(key: int) -> None:
        writer = await asyncpg.connect(dsn)
        while not stop.is_set():
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute("insert into item values ($1)", key)
            writing.add(key)
            await asyncio.sleep(0.3 + key / 20)
            await transaction.rollback()
        await writer.close()

    async with pumping(dsn, monkeypatch) as (pump, _delivered):
        monkeypatch.setattr(pump_module, "IDLE_SECONDS", 600.0)
        await sql_once(dsn, "insert into item values (0)")
        await eventually(lambda: not pump.bell.asleep, why="the pump waking")
        writers = asyncio.gather(*(write_and_roll_back(key) for key in (1, 2, 3, 4)))
        await eventually(lambda: len(writing) == 4, why="all writers writing")
        slept = pump.bell.sleeps_total
        monkeypatch.setattr(pump_module, "IDLE_SECONDS", 0.02)
        try:
            await eventually(lambda: pump.bell.sleeps_total > slept, within=3.0)
        except AssertionError:
            return False
        finally:
            stop.set()
            await writers
    return True


async def sql_once(dsn: str, text: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(text)
    await connection.close()


async def test_writers_that_overlap_and_roll_back_do_not_keep_the_pump_awake(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await sleeps_beside_aborted_writers(dsn, monkeypatch)


async def test_a_try_in_place_of_the_queue_would_keep_the_pump_awake(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def by_trying(self: BellSession) -> bool:
        while not await self.live.fetchval("select pg_try_advisory_lock(1885697639, 3)"):
            await asyncio.sleep(0.002)
        return True

    monkeypatch.setattr(BellSession, "sleep", by_trying)
    assert not await sleeps_beside_aborted_writers(dsn, monkeypatch)


async def test_a_bell_that_rings_during_the_last_poll_is_heard(
    dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql.execute("create table item (id bigint primary key)")
    await sql.execute("select pipeline.watch('item')")
    read = LeaderSession.read
    armed = asyncio.Event()

    async with pumping(dsn, monkeypatch) as (pump, delivered):

        async def read_then_a_writer_rings(self: LeaderSession, *args: object) -> Reading:
            reading = await read(self, *args)  # type: ignore[arg-type]
            if armed.is_set() and pump.bell.asleep and not reading.lines:
                armed.clear()
                rung = pump.bell.bells_total
                await sql.execute("insert into item values (7)")
                await eventually(lambda: pump.bell.bells_total > rung)
            return reading

        monkeypatch.setattr(LeaderSession, "read", read_then_a_writer_rings)
        armed.set()
        pump.bell.rung.set()  # one poll more
        await eventually(lambda: "7" in delivered.at, within=BOUND_SECONDS)


async def test_a_busy_feed_rings_no_bells(
    dsn: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql.execute("create table item (id bigint primary key)")
    await sql.execute("select pipeline.watch('item')")
    async with pumping(dsn, monkeypatch) as (pump, delivered):
        monkeypatch.setattr(pump_module, "IDLE_SECONDS", 2.0)
        for key in range(500):
            await sql.execute("insert into item values ($1)", key)
        await eventually(lambda: len(delivered.at) == 500)
        assert pump.bell.bells_total < 50
