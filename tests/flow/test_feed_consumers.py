"""Consumers see every event at least once, each at its own pace, whatever they raise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from pipeline.core.events import Event
from pipeline.db.statements import statement
from pipeline.feed import consumers as consumers_module
from pipeline.feed.consumers import Consumers
from pipeline.feed.follower import Follower
from pipeline.runtime import Supervisor
from tests.conftest import eventually
from tests.flow.feed_kit import Feed, Handler, running

ITEM = "create table item (id bigint primary key)"


def item_keys(handler: Handler) -> list[str]:
    return [key for event in handler.seen if event.name == "item" for key in event.keys or ()]


async def insert(feed: Feed, keys: range) -> None:
    for key in keys:
        await feed.sql.execute("insert into item values ($1)", key)


async def test_a_consumer_that_raises_sees_the_same_events_again(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    calls: list[list[tuple[str, ...] | None]] = []

    async def fail_twice(events: Sequence[Event]) -> None:
        calls.append([event.keys for event in events if event.name == "item"])
        if len(calls) < 3:
            raise RuntimeError("not now")

    await eventually(lambda: "w" in [event.op for event in feed.handler.seen])
    feed.handler.act = fail_twice
    await feed.run("insert into item values (1)")
    await eventually(lambda: not feed.consumers.healthy().ok, why="the trouble being told")
    assert "recorder fails: RuntimeError: not now" in feed.consumers.healthy().detail
    await eventually(lambda: item_keys(feed.handler) == ["1"])
    assert calls[:3] == [[("1",)]] * 3
    assert feed.consumers.healthy().ok


async def test_a_consumer_that_hangs_does_not_hold_the_others_up(dsn: str) -> None:
    async with running(dsn, consumers="slow quick") as feed:
        await feed.watch(ITEM, "'item'")
        slow, quick = feed.handlers
        release = asyncio.Event()

        async def wait(_events: Sequence[Event]) -> None:
            await release.wait()

        slow.act = wait
        await insert(feed, range(20))
        await eventually(lambda: len(item_keys(quick)) == 20)
        assert item_keys(slow) == []
        release.set()
        await eventually(lambda: item_keys(slow) == item_keys(quick))


async def test_several_consumers_miss_no_news_though_all_read_from_the_ring(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One consumer's look at the news must not make it old for another whose read is under way."""
    monkeypatch.setattr(consumers_module, "IN_MEMORY", 0)
    async with running(dsn, consumers="one two three") as feed:
        await feed.watch(ITEM, "'item'")
        replay = feed.consumers._store.replay
        held = asyncio.Event()
        told = asyncio.Event()

        async def hold_the_first_that_finds_nothing(after: int) -> list[tuple[int, str]]:
            rows = await replay(after)
            if not rows and not held.is_set():
                held.set()
                await told.wait()
            return rows

        monkeypatch.setattr(feed.consumers._store, "replay", hold_the_first_that_finds_nothing)
        await feed.sql.execute("insert into item values (1)")
        await held.wait()
        await feed.sql.execute("insert into item values (2)")
        await eventually(lambda: sum("2" in item_keys(handler) for handler in feed.handlers) == 2)
        told.set()
        await eventually(lambda: all("2" in item_keys(handler) for handler in feed.handlers), within=3)


async def test_a_slow_consumer_keeps_the_ring(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    release = asyncio.Event()

    async def wait(_events: Sequence[Event]) -> None:
        await release.wait()

    async def rotated() -> bool:
        arguments = (feed.pump._term, feed.pump.seq, str(feed.pump.position), 1, 0.0)
        return bool(await feed.sql.fetchval(statement("feed/rotate"), *arguments))

    await feed.sql.execute("select pipeline.emit('before')")
    await eventually(lambda: "before" in [event.name for event in feed.handler.seen])
    feed.handler.act = wait
    await insert(feed, range(5))
    # the ring that holds what it has not seen comes to rest, with nothing else in the way
    await feed.told()
    await feed.consumers._save()
    await feed.run("select setval('pipeline.gate', 1)")
    assert not await rotated()
    release.set()
    await eventually(lambda: item_keys(feed.handler) == [str(key) for key in range(5)])
    await feed.consumers._save()
    await feed.run("select pipeline.emit('x')")
    await eventually(rotated, why="the turn once the consumer has caught up")


async def test_a_consumer_that_was_away_for_ten_minutes_does_not_keep_the_ring(feed: Feed) -> None:
    await feed.told(ITEM, "select pipeline.watch('item')", "insert into item values (1)")
    await feed.run(
        "insert into pipeline.consumer values ('gone', pipeline.lineage(), 0, clock_timestamp())",
        "select setval('pipeline.gate', 1)",
        "select pipeline.emit('x')",
    )
    await feed.told()
    await eventually(lambda: len(feed.handler.seen) >= 3)

    async def rotated() -> bool:
        await feed.consumers._save()
        arguments = (feed.pump._term, feed.pump.seq, str(feed.pump.position), 1, 0.0)
        return bool(await feed.sql.fetchval(statement("feed/rotate"), *arguments))

    assert not await rotated()
    await feed.run("update pipeline.consumer set saved_at = saved_at - interval '11 minutes' where name = 'gone'")
    await eventually(rotated)


class Second:
    """The consumers of another process."""

    def __init__(self, feed: Feed, *names: str) -> None:
        self.handlers = [Handler(name) for name in names]
        self.consumers = Consumers(feed.dsn, feed.database, self.handlers)
        follower = Follower(feed.dsn, [self.consumers])
        self.supervisor = Supervisor([follower, self.consumers], drain_timeout=5)
        self.supervisor.start()


async def test_one_process_consumes_and_another_goes_on_where_it_stopped(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await insert(feed, range(5))
    await eventually(lambda: len(item_keys(feed.handler)) == 5)
    second = Second(feed, "recorder")
    try:
        assert second.consumers.healthy().detail == "standing by"
        await feed.consumers.stop()
        await insert(feed, range(5, 10))
        await eventually(lambda: item_keys(second.handlers[0])[-1:] == ["9"], within=5)
        both = item_keys(feed.handler) + item_keys(second.handlers[0])
        assert both == [str(key) for key in range(10)]  # a clean stop repeats nothing
        assert second.handlers[0].reasons == []
    finally:
        await second.supervisor.stop()


async def test_a_new_consumer_begins_now(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await insert(feed, range(5))
    await eventually(lambda: len(item_keys(feed.handler)) == 5)
    await feed.consumers.stop()
    second = Second(feed, "recorder", "newcomer")
    try:
        await eventually(lambda: second.consumers.leading, within=5)
        await insert(feed, range(5, 6))
        await eventually(lambda: all(item_keys(handler) for handler in second.handlers))
        assert item_keys(second.handlers[1]) == ["5"]
    finally:
        await second.supervisor.stop()


async def test_a_new_consumer_whose_process_dies_at_once_misses_nothing(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.watch(ITEM, "'item'")
    await feed.consumers.stop()
    monkeypatch.setattr(consumers_module, "SAVE_SECONDS", 600.0)
    first = Second(feed, "newcomer")
    await eventually(lambda: first.consumers.leading, within=5)

    async def never(_events: Sequence[Event]) -> None:
        await asyncio.Event().wait()

    first.handlers[0].act = never
    await insert(feed, range(3))
    first.supervisor._tasks["consumers"].cancel()  # without a word, as a kill would
    second = Second(feed, "newcomer")
    try:
        await eventually(lambda: item_keys(second.handlers[0]) == ["0", "1", "2"], within=5)
    finally:
        await second.supervisor.stop()
        await first.supervisor.stop()


async def test_a_consumer_that_could_not_be_told_what_it_missed_is_told_by_the_next_process(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.watch(ITEM, "'item'")
    await feed.consumers.stop()
    await feed.run("insert into pipeline.consumer values ('other', 'another lineage', 7, now())")
    first = Second(feed, "other")

    async def fail(_reason: str) -> None:
        raise RuntimeError("not now")

    first.handlers[0].missed = fail  # type: ignore[method-assign]
    await eventually(lambda: not first.consumers.healthy().ok, within=5)
    monkeypatch.setattr(consumers_module, "DRAIN_SECONDS", 0.1)
    await first.consumers._save()
    await first.supervisor.stop()
    second = Second(feed, "other")
    try:
        await eventually(lambda: second.handlers[0].reasons, within=5)
        assert second.handlers[0].reasons == ["the server crashed or was replaced"]
    finally:
        await second.supervisor.stop()


async def test_a_consumer_whose_place_the_ring_has_forgotten_is_told_and_keeps_what_is_durable(
    feed: Feed,
) -> None:
    await feed.watch(ITEM, "'item'")
    await feed.told("create table deed (id int primary key)", "select pipeline.watch('deed', durable => true)")
    await insert(feed, range(1))
    await eventually(lambda: item_keys(feed.handler) == ["0"])
    await feed.consumers.stop()
    await eventually(lambda: not feed.consumers.leading)
    await feed.told(
        "insert into item values (1)", "insert into deed values (7), (8)", "delete from deed where id = 7"
    )
    await feed.run("truncate pipeline.ring_0, pipeline.ring_1")
    await feed.told("insert into item values (2)")
    second = Second(feed, "recorder")
    try:
        handler = second.handlers[0]
        await eventually(lambda: item_keys(handler) == ["2"], within=5)
        assert handler.reasons == ["the feed's memory does not reach back far enough"]
        deeds = [(event.op, sorted(event.keys or ())) for event in handler.seen if event.name == "deed"]
        assert deeds[-2:] == [("i", ["7", "8"]), ("d", ["7"])]
    finally:
        await second.supervisor.stop()


async def test_durable_events_are_forgotten_once_every_consumer_has_handled_them(feed: Feed) -> None:
    await feed.watch(ITEM, "'item', durable => true")
    await insert(feed, range(5))
    await eventually(lambda: len(item_keys(feed.handler)) == 5)

    async def forgotten() -> bool:
        await feed.run("select pipeline.emit('x')")
        return not await feed.sql.fetchval("select count(*) from pipeline.outbox_durable")

    await eventually(forgotten)


async def test_durable_events_stay_while_a_consumer_fails(feed: Feed, sql: asyncpg.Connection) -> None:
    await feed.watch(ITEM, "'item', durable => true")

    async def fail(_events: Sequence[Event]) -> None:
        raise RuntimeError("never")

    await eventually(lambda: "w" in [event.op for event in feed.handler.seen])
    feed.handler.act = fail
    await insert(feed, range(3))
    await eventually(lambda: not feed.consumers.healthy().ok)
    await feed.consumers._save()
    assert await sql.fetchval("select count(*) from pipeline.outbox_durable where op = 'i'") == 3
    feed.handler.act = None


async def test_a_consumer_that_does_not_come_to_an_end_does_not_hold_up_the_stop(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers_module, "DRAIN_SECONDS", 0.2)

    async def hang(_events: Sequence[Event]) -> None:
        await asyncio.Event().wait()

    await feed.watch(ITEM, "'item'")
    feed.handler.act = hang
    await insert(feed, range(1))
    await feed.told()
    await feed.consumers.stop()
    await eventually(lambda: not feed.consumers.leading, within=3)


async def test_a_full_outbox_is_told_to_consumers(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    await feed.run(
        "select setval('pipeline.gate', last_value | 2) from pipeline.gate", "insert into item values (1)"
    )
    await eventually(lambda: "the outbox was full" in feed.handler.reasons)
