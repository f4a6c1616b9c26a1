"""The outbox: it turns without losing anything, stays bounded, and old transactions slow nobody down."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from pipeline.core.snapshot import BEGINNING
from pipeline.db.feed import LeaderSession
from pipeline.db.statements import statement
from pipeline.feed import pump as pump_module
from tests.conftest import eventually
from tests.flow.feed_kit import Feed, running

ITEM = "create table item (id bigint primary key)"
TINY = 64 * 1024


async def gate(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("select last_value from pipeline.gate"))


async def turns(sql: asyncpg.Connection) -> str:
    return str(await sql.fetchval("select turned_at::text from pipeline.leader"))


@asynccontextmanager
async def leading(dsn: str) -> AsyncIterator[LeaderSession]:
    """A leader's session without a pump, for one step at a time."""
    session = LeaderSession(dsn)
    await session.open()
    yield session
    await session.close()


async def begin_late(dsn: str) -> asyncpg.Connection:
    late = await asyncpg.connect(dsn)
    await late.execute("begin")
    await late.execute("insert into item values (1)")
    return late


async def late_event_is_there(sql: asyncpg.Connection) -> bool:
    return bool(await sql.fetchval("select exists (select from pipeline.outbox where keys = '{1}')"))


async def write_at_random(dsn: str, number: int, until: float, committed: set[str]) -> None:
    """Transactions of one or two inserts, some of which stay open over several turns."""
    rng = random.Random(number)
    connection = await asyncpg.connect(dsn)
    key = number * 1_000_000
    while time.monotonic() < until:
        key += 2
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("select pg_current_xact_id()")
        await asyncio.sleep(rng.choice([0, 0, 0, 0.005, 0.1, 0.4]))
        await connection.execute("insert into item values ($1)", key)
        await asyncio.sleep(rng.choice([0, 0, 0, 0.005, 0.1]))
        await connection.execute("insert into item values ($1)", key + 1)
        if rng.random() < 0.1:
            await transaction.rollback()
        else:
            await transaction.commit()
            committed.update((str(key), str(key + 1)))
    await connection.close()


async def lost_over_many_turns(dsn: str, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], int]:
    """Random writers while the outbox turns as often as it may; (keys not delivered, turns)."""
    monkeypatch.setattr(pump_module, "TURN_BYTES", 1)
    monkeypatch.setattr(pump_module, "ROTATE_SECONDS", 0.0)
    committed: set[str] = set()
    counted = 0
    async with running(dsn) as feed:
        turn = feed.pump.session.rotate

        async def count(*args: Any) -> bool:
            nonlocal counted
            turned = await turn(*args)
            counted += turned
            return turned

        monkeypatch.setattr(feed.pump.session, "rotate", count)
        await feed.watch(ITEM, "'item'")
        until = time.monotonic() + 2.5
        await asyncio.gather(*(write_at_random(dsn, n, until, committed) for n in range(1, 7)))
        await feed.told()
        told = {key for event in feed.sink.events for key in event.keys or ()}
        assert len(feed.sink.flushes) == 1  # the one of the first connection
        return committed - told, counted


async def test_nothing_is_lost_over_many_turns_under_random_writers(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, counted = await lost_over_many_turns(dsn, monkeypatch)
    assert lost == set()
    assert counted > 1


async def test_a_transaction_that_stays_open_delays_nobody_else_and_only_the_turn(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "TURN_BYTES", 1)
    monkeypatch.setattr(pump_module, "ROTATE_SECONDS", 0.0)
    async with running(dsn) as feed:
        await feed.watch(ITEM, "'item'")
        idle = await asyncpg.connect(dsn)
        await idle.execute("begin")
        await idle.execute("insert into item values (-1)")
        for key in range(3):
            await feed.told(f"insert into item values ({key})")
        await eventually(lambda: blocked(feed.sql))
        before = await turns(feed.sql)
        for key in range(10, 30):
            assert [e.keys for e in await feed.told(f"insert into item values ({key})")] == [(str(key),)]
        assert await turns(feed.sql) == before
        await idle.execute("commit")
        await idle.close()
        assert [e.keys for e in await feed.told()] == [("-1",)]

        async def turned() -> bool:
            return await turns(feed.sql) != before

        await eventually(turned, why="another turn")


async def blocked(sql: asyncpg.Connection) -> bool:
    """Whether the oldest open transaction could still write into the resting tables."""
    query = (
        "select pg_snapshot_xmin(pg_current_snapshot()) < retired_xmax and retired_xmax < '18446744073709551615'"
        " from pipeline.leader"
    )
    return bool(await sql.fetchval(query))


def buffers(plan: str) -> int:
    found = re.search(r"Buffers: shared hit=(\d+)", plan)
    assert found is not None
    return int(found[1])


async def pages_of_a_round(sql: asyncpg.Connection, since: str) -> int:
    """How many buffers one read visits that finds nothing new."""
    await sql.execute(
        "set enable_seqscan = off; set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan"
    )
    await sql.execute(f"prepare reading (text, text, text, bigint, int) as {statement('feed/read')}")
    call = f"execute reading ('{since}', null, '0', 0, 5000)"
    await sql.execute(call)  # so that the catalogs are read already
    rows = await sql.fetch(f"explain (analyze, buffers, timing off) {call}")
    await sql.execute("deallocate reading")
    return buffers("\n".join(row[0] for row in rows))


async def test_under_an_open_transaction_a_round_visits_no_more_pages_as_time_goes_by(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    idle = await asyncpg.connect(dsn)
    await idle.execute("begin")
    await idle.execute("insert into item values (-1)")
    visited = []
    for _ in range(3):
        await sql.execute("do $$ begin for i in 1 .. 10000 loop perform pipeline.emit('x'); end loop; end $$")
        for _ in range(50):
            await sql.execute("select pipeline.emit('x')")
        visited.append(await pages_of_a_round(sql, await sql.fetchval("select pg_current_snapshot()::text")))
    await idle.close()
    assert visited[2] <= visited[0] + 8  # the index may have grown by a level


async def test_the_read_uses_the_indexes_even_of_a_large_outbox(sql: asyncpg.Connection) -> None:
    await sql.execute("do $$ begin for i in 1 .. 5000 loop perform pipeline.emit('x'); end loop; end $$")
    since = await sql.fetchval("select pg_current_snapshot()::text")
    await sql.execute(
        "set enable_seqscan = off; set enable_bitmapscan = off; set plan_cache_mode = force_generic_plan"
    )
    await sql.execute(f"prepare reading (text, text, text, bigint, int) as {statement('feed/read')}")
    rows = await sql.fetch(f"explain execute reading ('{since}', null, '0', 0, 5000)")
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on outbox" not in plan
    for index in ("outbox_0_xid", "outbox_1_xid", "outbox_durable_xid"):
        assert index in plan


async def fill(sql: asyncpg.Connection) -> None:
    """Write until the gate closes."""
    await sql.execute("update pipeline.setting set value = '65536' where name = 'outbox_max_bytes'")
    for _ in range(40):
        await sql.execute("do $$ begin for i in 1 .. 100 loop perform pipeline.emit('filler'); end loop; end $$")
        if await gate(sql) & 2:
            return
    raise AssertionError("the gate did not close")


async def test_without_a_pump_writers_go_on_ring_nobody_and_the_outbox_is_bounded(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    bells: list[object] = []
    await sql.add_listener("pipeline_bell", lambda *bell: bells.append(bell))
    await fill(sql)
    size = "select pg_relation_size('pipeline.outbox_0') + pg_relation_size('pipeline.outbox_1')"
    before = await sql.fetchval(size)
    for key in range(300):
        await sql.execute("insert into item values ($1)", key)
    assert await sql.fetchval(size) == before
    assert bells == []
    other = await asyncpg.connect(dsn)  # the listener does work
    await other.execute("notify pipeline_bell")
    await eventually(lambda: len(bells) == 1)
    await other.close()


async def test_a_pump_that_finds_the_outbox_full_flushes_everybody_and_opens_it(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    await fill(sql)
    await sql.execute("insert into item values (1)")
    async with running(dsn) as feed:
        await eventually(lambda: feed.pump.flushes_total >= 1)

        async def opened() -> bool:
            return not await gate(sql) & 2

        await eventually(opened)
        await eventually(lambda: not feed.pump._flushing(), why="the end of the flushes")
        assert [e.keys for e in await feed.told("insert into item values (2)")][-1:] == [("2",)]
        flushes = feed.pump.flushes_total
        await feed.told("insert into item values (3)")
        assert feed.pump.flushes_total == flushes


async def flushed_after_late_commit(sql: asyncpg.Connection, dsn: str) -> bool:
    """Whether a follower is flushed after the commit of a transaction that wrote while the outbox was full."""
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    await fill(sql)
    late = await begin_late(dsn)
    async with running(dsn) as feed:

        async def opened() -> bool:
            return not await gate(sql) & 2

        await eventually(opened)
        await feed.told("insert into item values (2)", "insert into item values (3)")
        await late.execute("commit")
        await late.close()
        told_before = len(feed.sink.story)
        await feed.told()
        await feed.told()
        told = feed.sink.story[told_before:]
        keys = {k for batch in told if not isinstance(batch, str) for e in batch.events for k in e.keys or ()}
        assert "1" not in keys  # else this proves nothing
        return "flush: the outbox was full" in told


async def test_a_transaction_that_wrote_while_it_was_full_and_commits_late_flushes(
    sql: asyncpg.Connection, dsn: str
) -> None:
    assert await flushed_after_late_commit(sql, dsn)


async def test_without_the_mark_until_which_to_flush_the_late_commit_would_go_unnoticed(
    sql: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def only_while_full(self: pump_module.Pump, reading: Any) -> None:
        if reading.full:
            await flush(self, reading)

    flush = pump_module.Pump._flush_if_full
    monkeypatch.setattr(pump_module.Pump, "_flush_if_full", only_while_full)
    assert not await flushed_after_late_commit(sql, dsn)


async def test_a_turn_that_opened_the_gate_and_died_still_flushes_late_commits(
    sql: asyncpg.Connection, dsn: str
) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    await fill(sql)
    late = await begin_late(dsn)
    async with leading(dsn) as session:
        term = await session.take_over()
        now = await session.read(BEGINNING, None, (0, 0), 100_000)
        assert await session.fetchval("feed/rotate", term, 0, str(now.upto), 1, 0.0)
    dying = sql.transaction()
    await dying.start()
    await sql.execute("select pipeline.turn($1)", term)
    await dying.rollback()  # the gate stays open: sequences are not rolled back
    assert not await gate(sql) & 2
    async with running(dsn) as feed:
        flushes = len(feed.sink.flushes)
        await late.execute("commit")
        await late.close()
        await feed.told()
        await feed.told()
        assert len(feed.sink.flushes) > flushes


async def turned_over_a_late_writer(sql: asyncpg.Connection, dsn: str) -> bool:
    """Whether the outbox turned although a late writer's event lay unread in the tables that rest."""
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    async with leading(dsn) as session:
        term = await session.take_over()
        late = await begin_late(dsn)
        now = await session.read(BEGINNING, None, (0, 0), 10)
        assert await session.rotate(term, 0, now.upto, 1, 0)
        term = await session.take_over()
        await sql.execute("insert into item values (3)")  # so that there is a reason to turn
        now = await session.read(now.upto, None, (0, 0), 10)
        await late.execute("commit")  # after the last read, which did not see it; until now its lock kept us out
        await late.close()
        return await session.rotate(term, 0, now.upto, 1, 0)


async def test_a_new_leader_does_not_empty_what_a_late_writer_wrote_before_the_last_turn(
    sql: asyncpg.Connection, dsn: str
) -> None:
    assert not await turned_over_a_late_writer(sql, dsn)
    assert await late_event_is_there(sql)


GUARDS = (
    "pg_snapshot_xmin(p_position) < v_leader.retired_xmax",
    "exists (select from pipeline.outbox_0 where not pg_visible_in_snapshot(xid, p_position))",
    "exists (select from pipeline.outbox_1 where not pg_visible_in_snapshot(xid, p_position))",
)


@pytest.mark.parametrize("kept", [GUARDS[:1], GUARDS[1:], ()], ids=["the id", "the look", "neither"])
async def test_either_guard_of_a_turn_keeps_a_late_event_and_without_both_it_is_lost(
    sql: asyncpg.Connection, dsn: str, kept: tuple[str, ...]
) -> None:
    source = await sql.fetchval("select pg_get_functiondef('pipeline.rotate'::regproc)")
    for guard in GUARDS:
        assert guard in source
        source = source if guard in kept else source.replace(guard, "false")
    await sql.execute(source)
    assert await turned_over_a_late_writer(sql, dsn) == (not kept)
    assert await late_event_is_there(sql) == bool(kept)


@pytest.mark.parametrize("dies", [False, True])
async def test_a_writer_that_reads_the_gate_in_the_middle_of_a_turn_is_waited_for(
    sql: asyncpg.Connection, dsn: str, dies: bool
) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    async with leading(dsn) as session:
        term = await session.take_over()
        now = await session.read(BEGINNING, None, (0, 0), 10)
        assert await session.fetchval("feed/rotate", term, 0, str(now.upto), 1, 0.0)
        await sql.execute("select pg_advisory_lock(1885697639, 4)")  # holds the turn up before it sets the gate
        turn = asyncio.ensure_future(session.fetchval("feed/turn", term))
        waiting = "select exists (select from pg_locks where locktype = 'advisory' and objid = 4 and not granted"
        waiting += " and database = (select oid from pg_database where datname = current_database()))"
        await eventually(lambda: sql.fetchval(waiting))
        late = await begin_late(dsn)  # its id is above that of every transaction that will have ended
        await sql.execute("select pg_advisory_unlock(1885697639, 4)")
        was_full = await turn
        if dies:
            term = await session.take_over()
        else:
            await session.fetch("feed/finish_turn", term, was_full)
        await sql.execute("insert into item values (3)")  # so that there is a reason to turn
        now = await session.read(now.upto, None, (0, 0), 10)
        await late.execute("commit")  # after the last read, which did not see it; until now its lock kept us out
        await late.close()
        assert not await session.rotate(term, 0, now.upto, 1, 0)
        assert await late_event_is_there(sql)
        await sql.execute("insert into item values (2)")

        async def turned() -> bool:
            reached = (await session.read(now.upto, None, (0, 0), 10)).upto
            return await session.rotate(term, 0, reached, 1, 0)

        await eventually(turned, why="the turn after the late commit")


async def test_an_old_leader_is_refused_whatever_it_tries(sql: asyncpg.Connection) -> None:
    old = await sql.fetchval("select pipeline.take_over()")
    await sql.fetchval("select pipeline.take_over()")
    for call in (
        "select pipeline.broadcast($1, '', 1, '{x}', '{x}', null)",
        "select pipeline.rotate($1, 0, pg_current_snapshot(), 1, interval '0')",
        "select pipeline.turn($1)",
        statement("feed/beat").replace("$2", "'x'"),
    ):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="another process leads"):
            await sql.execute(call, old)
    assert await sql.fetchval("select count(*) from pipeline.ring") == 0
    assert await gate(sql) == 0


async def test_a_turn_does_not_wait_for_somebody_who_reads_our_tables(feed: Feed) -> None:
    reader = await asyncpg.connect(feed.dsn)
    await reader.execute("begin")
    await reader.execute("select * from pipeline.outbox, pipeline.ring")
    began = time.monotonic()
    await feed.told(ITEM, "select pipeline.watch('item')")
    arguments = (feed.pump._term, 0, str(feed.pump.position), 1, 0.0)
    assert not await feed.sql.fetchval(statement("feed/rotate"), *arguments)
    assert time.monotonic() - began < 3
    await reader.close()
    assert await feed.sql.fetchval(statement("feed/rotate"), *arguments)
