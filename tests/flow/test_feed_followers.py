"""Followers: what they missed is replayed or flushed, whatever happens to connections and leaders."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from itertools import pairwise

import asyncpg
import pytest

from pipeline.core.events import Batch, encode
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Database
from pipeline.feed import follower as follower_module
from pipeline.feed.follower import Follower
from pipeline.feed.pump import Pump
from pipeline.runtime import Supervisor
from tests.conftest import eventually
from tests.flow.feed_kit import Feed, Sink, running

ITEM = "create table item (id bigint primary key)"


async def test_a_follower_that_missed_batches_replays_them(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    feed.follower.session.live.terminate()
    events = await feed.told(*(f"insert into item values ({key})" for key in range(5)))
    assert [event.keys for event in events] == [(str(key),) for key in range(5)]
    assert len(feed.sink.flushes) == 1  # the first connection
    assert feed.follower.reconnects_total == 1


async def deaf_for(feed: Feed, *statements: str) -> None:
    """Batches that the follower does not hear although its connection lives."""
    known = feed.pump.events_total
    feed.follower._heard = _Dropping()
    await feed.run(*statements)
    await eventually(lambda: feed.pump.events_total >= known + len(statements))
    feed.follower._heard = deque()


class _Dropping(deque[tuple[int, str]]):
    """A queue that forgets what it is given."""

    def append(self, _heard: tuple[int, str]) -> None:
        return


async def test_a_gap_in_the_numbers_is_noticed_and_replayed(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await deaf_for(feed, "insert into item values (1)", "insert into item values (2)")
    events = await feed.told("insert into item values (3)")
    assert [event.keys for event in events] == [("1",), ("2",), ("3",)]
    assert len(feed.sink.flushes) == 1


async def test_without_the_look_at_the_numbers_a_gap_would_go_unnoticed(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trusting(self: Follower, batch: Batch) -> None:
        if batch.seq != batch.previous:
            self._deliver(batch)

    await feed.watch(ITEM, "'item'")
    monkeypatch.setattr(Follower, "_take", trusting)
    await deaf_for(feed, "insert into item values (1)")
    events = await feed.told("insert into item values (2)")
    assert [event.keys for event in events] == [("2",)]


async def test_a_gap_is_noticed_by_the_next_beat_even_when_nothing_else_is_sent(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await deaf_for(feed, "insert into item values (1)")
    await eventually(lambda: ("1",) in [event.keys for event in feed.sink.events], within=2)


async def test_a_follower_that_missed_more_than_the_feed_remembers_flushes(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await feed.told()
    known = feed.pump.events_total
    feed.follower._heard = _Dropping()
    await feed.run("insert into item values (1)")
    await eventually(lambda: feed.pump.events_total > known)
    await feed.run("truncate pipeline.ring_0, pipeline.ring_1")
    feed.follower._heard = deque()
    await feed.run("insert into item values (2)")
    await eventually(lambda: feed.sink.flushes[1:])
    assert feed.sink.flushes[1:] == ["flush: more was missed than the feed remembers"]
    assert ("1",) not in [event.keys for event in await feed.told()]


async def test_a_broadcast_that_is_no_batch_harms_nobody(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    for payload in ("", "hello", "{}", '{"e":1}', "[]", '{"e":"x","s":1,"p":0,"n":[],"v":[[1,5,"i"]]}'):
        feed.follower._hear(feed.follower._leader, payload)
    assert len(await feed.told("insert into item values (1)")) == 1
    assert feed.follower.reconnects_total == 0


async def test_a_batch_of_another_epoch_is_not_believed(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    forged = Batch("elsewhere", feed.pump.seq + 1, feed.pump.seq, events=())
    feed.follower._hear(feed.follower._leader, encode(forged))
    assert len(await feed.told("insert into item values (1)")) == 1
    assert len(feed.sink.flushes) == 1


async def test_a_flood_that_is_not_taken_in_is_dropped_and_replayed(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.watch(ITEM, "'item'")
    monkeypatch.setattr(follower_module, "MOST_HEARD", 3)
    for _ in range(5):
        await feed.sql.execute("select pg_notify('pipeline_feed', 'x') from generate_series(1, 50)")
        await feed.run(f"insert into item values ({random.randint(1, 10**9)})")
    await feed.told("insert into item values (0)")
    assert len([event for event in feed.sink.events if event.name == "item" and event.op == "i"]) == 6
    assert len(feed.sink.flushes) == 1


async def test_without_a_pump_the_feed_goes_down_and_comes_back_without_a_flush(dsn: str) -> None:
    async with running(dsn) as feed:
        await feed.watch(ITEM, "'item'")
        pumping = feed.pump
        await pumping.stop()
        await eventually(lambda: any(str(told).startswith("down") for told in feed.sink.story), within=4)
        assert not feed.follower.healthy().ok
        await feed.run("insert into item values (1)")
        async with Database(dsn) as database:
            successor = Supervisor([Pump(dsn, database)], drain_timeout=5)
            successor.start()
            try:
                await eventually(lambda: ("1",) in [event.keys for event in feed.sink.events], within=8)
                await eventually(lambda: feed.follower.up, within=8)
            finally:
                await successor.stop()
        assert len(feed.sink.flushes) == 1


async def test_a_connection_that_went_deaf_is_given_up(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "DEAF_SECONDS", 0.9)
    await feed.watch(ITEM, "'item'")
    with_deafness = feed.follower.session.live
    await with_deafness.execute("unlisten *")
    await feed.run("insert into item values (1)")
    await eventually(lambda: ("1",) in [event.keys for event in feed.sink.events], within=5)
    assert feed.follower.reconnects_total >= 1


async def test_followers_hear_positions_that_cover_what_they_were_told(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await feed.told("insert into item values (1)")
    now = await feed.sql.fetchval("select pg_current_snapshot()::text")
    await eventually(lambda: feed.sink.positions and feed.sink.positions[-1].covers(Snapshot.parse(now)))
    known = feed.sink.positions
    assert all(later.covers(earlier) for earlier, later in pairwise(known))


async def test_every_key_is_delivered_or_flushed_though_our_connections_are_killed_again_and_again(
    dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    committed: dict[str, float] = {}
    async with running(dsn) as feed:
        told_at: dict[str, float] = {}
        flushed_at: list[float] = []

        class Clock(Sink):
            def on_batch(self, batch: Batch) -> None:
                super().on_batch(batch)
                for event in batch.events:
                    for key in event.keys or ():
                        told_at.setdefault(key, time.monotonic())

            def on_flush(self, reason: str) -> None:
                super().on_flush(reason)
                flushed_at.append(time.monotonic())

        feed.sink = Clock()
        feed.follower._sinks = [feed.sink, feed.consumers]
        stop = asyncio.Event()

        async def write(number: int) -> None:
            connection = await asyncpg.connect(dsn)
            key = number * 1_000_000
            while not stop.is_set():
                key += 1
                await connection.execute("insert into item values ($1)", key)
                committed[str(key)] = time.monotonic()
                await asyncio.sleep(random.random() * 0.004)
            await connection.close()

        writers = [asyncio.ensure_future(write(n)) for n in (1, 2)]
        kill = (
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and application_name ~ '^pgreflex '"
        )
        killed = 0
        for _ in range(6):
            await asyncio.sleep(random.random() * 0.4)  # wherever they are at that moment
            killed += await sql.fetchval(kill)
        stop.set()
        await asyncio.gather(*writers)
        assert killed >= 12
        assert len(committed) > 100

        def undelivered() -> set[str]:
            return {
                key
                for key, at in committed.items()
                if key not in told_at and not any(flush > at for flush in flushed_at)
            }

        await eventually(lambda: not undelivered(), within=25)
        await eventually(lambda: set(committed) <= set(feed.handler.keys) or feed.handler.reasons, within=25)
