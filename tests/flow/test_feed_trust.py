"""What the feed does not let itself be told, and what a wrong setting does not break."""

from __future__ import annotations

import asyncpg
import pytest

from pipeline.core.events import Batch, Event, encode
from pipeline.core.snapshot import Snapshot
from tests.conftest import eventually
from tests.flow.feed_kit import Feed

FORGE = "select pg_notify('pipeline_feed', $1)"
FUTURE = Snapshot(10**12, 10**12)


async def test_a_forged_batch_is_not_delivered_and_hides_no_true_one(feed: Feed) -> None:
    await feed.watch("create table item (id int primary key)", "'item'")
    epoch, seq = feed.pump._epoch, feed.follower.seq
    forged = Batch(epoch, seq + 1, seq, events=(Event(1, "forged", "w"),))
    await feed.sql.execute(FORGE, encode(forged))
    events = await feed.told("insert into item values (1)")
    assert [(event.name, event.keys) for event in events] == [("item", ("1",))]


async def test_a_forged_position_proves_nothing(feed: Feed) -> None:
    seq = feed.follower.seq
    await feed.sql.execute(FORGE, encode(Batch(feed.pump._epoch, seq, seq, str(FUTURE))))
    told = len(feed.sink.positions)
    await eventually(lambda: len(feed.sink.positions) > told + 1, why="two beats more")
    assert FUTURE not in feed.sink.positions


async def test_the_next_leader_is_believed(feed: Feed) -> None:
    await feed.watch("create table item (id int primary key)", "'item'")
    former = feed.follower._leader
    feed.pump.session.live.terminate()
    await eventually(lambda: feed.follower._leader not in (0, former), why="another leader")
    [event] = await feed.told("insert into item values (1)")
    assert event.keys == ("1",)


async def test_a_bound_that_is_no_number_fails_no_write(sql: asyncpg.Connection) -> None:
    await sql.execute("update pipeline.setting set value = '128MB' where name = 'outbox_max_bytes'")
    await sql.execute("do $$ begin for i in 1 .. 600 loop perform pipeline.emit('filler'); end loop; end $$")
    assert await sql.fetchval("select last_value & 2 from pipeline.gate") == 0


async def test_a_writer_that_fails_while_it_closes_the_outbox_gives_the_lock_back(sql: asyncpg.Connection) -> None:
    await sql.execute("update pipeline.setting set value = '0' where name = 'outbox_max_bytes'")
    await sql.execute("alter sequence pipeline.gate maxvalue 1")  # now setval fails, as if cancelled
    await sql.execute("select pipeline.emit('filler')")
    with pytest.raises(asyncpg.NumericValueOutOfRangeError):
        await sql.execute("select pipeline.close_if_full(0)")
    held = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    assert await sql.fetchval(held) == 0
