"""How long a statement took is reported where it is asked for, and only there."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.conftest import eventually
from tests.flow.feed_kit import Feed

ITEM = "create table item (id int primary key, name text)"


@pytest.fixture
async def timed(feed: Feed) -> Feed:
    await feed.watch(ITEM, "'item', timing => true")
    return feed


async def test_without_timing_there_are_no_milliseconds(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    [event] = await feed.told("insert into item values (1)")
    assert event.ms is None


async def test_every_kind_of_statement_is_timed(timed: Feed) -> None:
    events = await timed.told("insert into item values (1)", "update item set name = 'a'", "delete from item")
    assert [event.op for event in events] == ["i", "u", "d"]
    assert all(event.ms is not None and 0 < event.ms < 5_000 for event in events)


async def test_the_time_includes_what_the_statement_did(timed: Feed) -> None:
    [event] = await timed.told("insert into item select 1 from pg_sleep(0.12)")
    assert event.ms is not None
    assert 120 <= event.ms < 5_000


async def test_the_time_includes_a_wait_for_a_row_lock(timed: Feed) -> None:
    await timed.told("insert into item values (1)")
    blocker = await asyncpg.connect(timed.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("update item set name = 'first'")
    waiting = asyncio.ensure_future(timed.sql.execute("update item set name = 'second'"))
    await eventually(lambda: blocker.fetchval("select exists (select from pg_locks where not granted)"))
    await blocker.execute("select pg_sleep(0.15)")
    await transaction.rollback()
    await waiting
    await blocker.close()
    [event] = await timed.told()
    assert event.ms is not None
    assert event.ms >= 150


async def test_a_statement_inside_another_on_the_same_table_is_timed_apart(timed: Feed) -> None:
    await timed.run(
        """create function echo() returns trigger language plpgsql as $$
           begin
               if new.id < 100 then
                   insert into item select new.id + 100 from pg_sleep(0.1);
                   perform pg_sleep(0.1);
               end if;
               return new;
           end $$""",
        "create trigger echo before insert on item for each row execute function echo()",
    )
    inner, outer = await timed.told("insert into item values (1)")
    assert (inner.keys, outer.keys) == (("101",), ("1",))
    assert inner.ms is not None
    assert outer.ms is not None
    assert 100 <= inner.ms < outer.ms
    assert outer.ms >= 200
    [later] = await timed.told("insert into item values (200)")
    assert later.ms is not None
    assert later.ms < 100


async def test_an_insert_on_conflict_gives_both_halves_a_time(timed: Feed) -> None:
    await timed.told("insert into item values (1)")
    events = await timed.told("insert into item values (1), (2) on conflict (id) do update set name = 'x'")
    assert sorted(event.op for event in events) == ["i", "u"]
    assert all(event.ms is not None for event in events)


async def test_a_failed_statement_leaves_no_clock_running(timed: Feed) -> None:
    await timed.told("insert into item values (1)")
    async with timed.sql.transaction():
        for _ in range(3):
            with pytest.raises(asyncpg.UniqueViolationError):
                async with timed.sql.transaction():
                    await timed.sql.execute("insert into item values (1)")
        await timed.sql.execute("select pg_sleep(0.1)")
        await timed.sql.execute("insert into item values (2)")
        left = await timed.sql.fetchval("select current_setting('pipeline.began_1', true)")
    [event] = await timed.told()
    assert event.ms is not None
    assert event.ms < 100
    assert left == ""


async def test_a_statement_that_changes_nothing_leaves_no_clock_running(timed: Feed) -> None:
    async with timed.sql.transaction():
        await timed.sql.execute("update item set name = 'a'")
        await timed.sql.execute("delete from item")
        await timed.sql.execute("insert into item select 1 where false")
        assert await timed.sql.fetchval("select current_setting('pipeline.began_1', true)") == ""


async def test_cascades_are_timed_and_leave_no_clock_running(feed: Feed) -> None:
    await feed.run("create table parent (id int primary key)", "insert into parent values (1), (2)")
    await feed.watch(
        "create table child (id int primary key, parent int references parent on delete cascade);"
        "insert into child values (10, 1), (20, 2)",
        "'child', timing => true",
    )
    async with feed.sql.transaction():
        await feed.sql.execute("delete from parent")
        clock = "select string_agg(current_setting(format('pipeline.began_%s', id), true), '') from pipeline.watch"
        assert await feed.sql.fetchval(clock) == ""
    events = await feed.told()
    assert {key for event in events for key in event.keys or ()} == {"10", "20"}
    assert all(event.ms is not None for event in events)
