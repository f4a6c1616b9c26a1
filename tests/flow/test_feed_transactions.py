"""An event is delivered if and only if its transaction commits."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from tests.conftest import eventually
from tests.flow.feed_kit import Feed, running, said

ITEM = "create table item (id int primary key, name text)"


@pytest.fixture
async def shop(feed: Feed) -> Feed:
    await feed.watch(ITEM, "'item'")
    return feed


async def test_a_transaction_that_is_rolled_back_gives_no_event(shop: Feed) -> None:
    transaction = shop.sql.transaction()
    await transaction.start()
    await shop.sql.execute("insert into item values (1)")
    await shop.sql.execute("select pipeline.emit('mail')")
    await transaction.rollback()
    assert await shop.told() == []


async def test_a_savepoint_that_is_rolled_back_gives_no_event(shop: Feed) -> None:
    async with shop.sql.transaction():
        await shop.sql.execute("insert into item values (1)")
        await shop.sql.execute("savepoint s")
        await shop.sql.execute("insert into item values (2)")
        await shop.sql.execute("rollback to s")
    assert said(await shop.told()) == [("i", ["1"], 1)]


async def test_a_savepoint_that_is_released_gives_one_event_of_its_transaction(shop: Feed) -> None:
    async with shop.sql.transaction():
        await shop.sql.execute("savepoint s")
        await shop.sql.execute("insert into item values (2)")
        await shop.sql.execute("release s")
        xid = int(await shop.sql.fetchval("select pg_current_xact_id()::text"))
    [event] = await shop.told()
    assert (event.keys, event.xid) == (("2",), xid)


async def test_a_failed_statement_gives_no_event(shop: Feed) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await shop.sql.execute("insert into item values (1), (1)")
    assert await shop.told() == []


async def test_a_transaction_that_commits_late_is_not_skipped(shop: Feed) -> None:
    late = await asyncpg.connect(shop.dsn)
    await late.execute("begin")
    await late.execute("insert into item values (1)")
    assert said(await shop.told("insert into item values (2)")) == [("i", ["2"], 1)]
    await late.execute("commit")
    await late.close()
    assert said(await shop.told()) == [("i", ["1"], 1)]


async def test_an_emit_carries_its_channel_and_payload(shop: Feed) -> None:
    [event] = await shop.told("""select pipeline.emit('mail.sent', '{"to": "ä☃"}')""")
    assert (event.name, event.op, event.payload, list(event.tags())) == ("mail.sent", "e", '{"to": "ä☃"}', [])


async def test_an_emit_without_payload_has_none(shop: Feed) -> None:
    [event] = await shop.told("select pipeline.emit('ping')")
    assert event.payload is None


@pytest.mark.parametrize("size", [7_000, 8_000, 100_000, 1_048_576])
async def test_an_emit_of_any_size_up_to_1_mb_arrives(shop: Feed, size: int) -> None:
    [event] = await shop.told(f"select pipeline.emit('big', repeat('x', {size}))")
    assert event.payload == "x" * size
    await eventually(lambda: any(seen.payload == "x" * size for seen in shop.handler.seen))


async def test_an_emit_above_1_mb_is_refused_with_its_size(shop: Feed) -> None:
    with pytest.raises(asyncpg.ProgramLimitExceededError) as caught:
        await shop.sql.execute("select pipeline.emit('big', repeat('x', 1048577))")
    assert "1048577 bytes" in str(caught.value)
    assert "Store the data in a table" in (caught.value.hint or "")  # type: ignore[attr-defined]
    assert await shop.told() == []


@pytest.mark.parametrize("channel", [None, "", "c" * 201])
async def test_an_emit_needs_a_channel(shop: Feed, channel: str | None) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="1 to 200 bytes"):
        await shop.sql.execute("select pipeline.emit($1)", channel)


async def test_a_session_in_replica_mode_reports_as_any_other(shop: Feed) -> None:
    await shop.run("set session_replication_role = replica")
    assert said(await shop.told("insert into item values (1)", "truncate item")) == [
        ("i", ["1"], 1), ("t", None, 0)
    ]  # fmt: skip


async def test_a_prepared_transaction_is_delivered_when_it_is_committed(dsn: str) -> None:
    async with running(dsn, two_phase=True) as feed:
        await feed.watch(ITEM, "'item', timing => true")
        names = [uuid.uuid4().hex, uuid.uuid4().hex]
        for key, name in enumerate(names):
            await feed.run("begin", f"insert into item values ({key})", "select pipeline.emit('mail')")
            await feed.run(f"prepare transaction '{name}'")
        assert said(await feed.told("insert into item values (7)")) == [("i", ["7"], 1)]
        events = await feed.told(f"commit prepared '{names[0]}'", f"rollback prepared '{names[1]}'")
        assert [(event.name, event.keys) for event in events] == [("item", ("0",)), ("mail", None)]


async def test_a_prepared_transaction_does_not_keep_a_pump_that_polls_from_anything(dsn: str) -> None:
    async with running(dsn, two_phase=True) as feed:
        await feed.watch(ITEM, "'item'")
        name = uuid.uuid4().hex
        await feed.run("begin", "insert into item values (1)", f"prepare transaction '{name}'")
        locks = "select count(*) from pg_locks where locktype = 'advisory' and pid is null"
        locks += " and database = (select oid from pg_database where datname = current_database())"
        assert await feed.sql.fetchval(locks) == 0
        await feed.run(f"rollback prepared '{name}'")


async def test_while_the_notification_queue_fills_up_writers_ring_no_more_and_are_still_heard(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await feed.watch("create table item (id int primary key)", "'item'")
    await feed.pump._heed_queue(0.6)
    assert await feed.sql.fetchval("select last_value & 4 from pipeline.gate") == 4
    rung = feed.pump.bell.bells_total
    for key in range(3):
        [event] = await feed.told(f"insert into item values ({key})")
        assert event.keys == (str(key),)
    assert feed.pump.bell.bells_total == rung
    await feed.pump._heed_queue(0.3)  # not calm yet
    assert await feed.sql.fetchval("select last_value & 4 from pipeline.gate") == 4
    await feed.pump._heed_queue(0.1)
    assert await feed.sql.fetchval("select last_value & 4 from pipeline.gate") == 0
    await eventually(lambda: feed.pump.bell.asleep, why="the pump falling asleep again")
