"""watch and unwatch: what they refuse and how, and that they never hold writers up."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from tests.conftest import eventually
from tests.flow.feed_kit import Feed, said

ITEM = "create table item (id int primary key, name text)"


@pytest.mark.parametrize(
    ("prepare", "name", "sqlstate", "message", "hint"),
    [
        ("", "nothing", "42P01", "there is no table nothing", "schema.table"),
        ("", "no.such.thing.at.all", "42P01", "there is no table", "schema.table"),
        ("", "", "42P01", "there is no table", "schema.table"),
        ('create table "Item" (id int)', "Item", "42P01", "there is no table Item", "double quotes"),
        ("create view seen as select 1", "seen", "42809", "is a view; watch the tables", "Ordinary"),
        ("create materialized view m as select 1", "m", "42809", "is a materialized view", "Ordinary"),
        ("create temp table t (id int)", "t", "42809", "is a temporary table", "Ordinary"),
        ("", "pg_class", "42809", "is a system catalog", "Ordinary"),
        ("", "information_schema.sql_features", "42809", "is a system catalog", "Ordinary"),
        ("", "pipeline.watch", "42809", "belongs to pgreflex", "Ordinary"),
        ("create index i on pipeline.setting (value)", "pipeline.i", "42809", "is not a table", "Ordinary"),
        (
            "create foreign data wrapper w; create server s foreign data wrapper w;"
            "create foreign table f (id int) server s",
            "f", "42809", "is a foreign table", "Ordinary",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_be_watched_is_refused_with_a_reason(
    sql: asyncpg.Connection, prepare: str, name: str, sqlstate: str, message: str, hint: str
) -> None:
    await sql.execute(prepare or "select 1")
    with pytest.raises(asyncpg.PostgresError) as caught:
        await sql.execute("select pipeline.watch($1)", name)
    assert caught.value.sqlstate == sqlstate
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")  # type: ignore[attr-defined]
    assert await sql.fetchval("select count(*) from pipeline.watched()") == 0


@pytest.mark.parametrize("argument", ["keys", "columns"])
async def test_a_missing_column_is_refused_and_the_others_are_listed(
    sql: asyncpg.Connection, argument: str
) -> None:
    await sql.execute(ITEM)
    with pytest.raises(asyncpg.UndefinedColumnError) as caught:
        await sql.execute(f"select pipeline.watch('item', {argument} => '{{nmae}}')")
    assert caught.value.args[0] == "public.item has no column nmae"
    assert caught.value.hint == "Its columns are: id, name."  # type: ignore[attr-defined]


async def test_a_second_watch_with_other_arguments_changes_the_first(feed: Feed) -> None:
    await feed.watch(ITEM, "'item', timing => true, replicated => true")
    await feed.told("select pipeline.watch('item', keys => '{name}', columns => '{name}')")
    events = await feed.told("insert into item values (1, 'a')", "update item set id = 2")
    assert [(e.keys, e.ms) for e in events] == [(("a",), None)]
    triggers = await feed.sql.fetch("select tgname from pg_trigger where tgname like 'pgreflex%' order by 1")
    assert [row["tgname"].split("_")[2] for row in triggers] == ["delete", "insert", "truncate", "update"]
    await feed.told("select pipeline.watch('item', timing => true)")
    [event] = await feed.told("update item set name = 'b'")
    assert event.keys == ("2",)
    assert event.ms is not None


async def test_watching_tells_that_the_table_may_have_changed(feed: Feed) -> None:
    events = await feed.told(ITEM, "select pipeline.watch('item')")
    assert [(event.name, event.op) for event in events] == [("item", "w")]


async def test_a_watch_in_a_transaction_that_is_rolled_back_is_none(feed: Feed) -> None:
    await feed.run(ITEM)
    transaction = feed.sql.transaction()
    await transaction.start()
    await feed.sql.execute("select pipeline.watch('item')")
    await transaction.rollback()
    assert await feed.told("insert into item values (1)") == []


async def test_after_unwatch_nothing_is_reported(feed: Feed) -> None:
    await feed.watch(ITEM, "'item', timing => true, replicated => true")
    assert await feed.sql.fetchval("select pipeline.unwatch('item')")
    assert [(event.name, event.op) for event in await feed.told()] == [("item", "w")]
    assert await feed.told("insert into item values (1)") == []
    assert not await feed.sql.fetchval("select pipeline.unwatch('item')")
    left = (
        "select (select count(*) from pg_trigger where tgname like 'pgreflex%')"
        " + (select count(*) from pg_proc where pronamespace = 'pipeline'::regnamespace"
        " and proname ~ '^watch_\\d')"
    )
    assert await feed.sql.fetchval(left) == 0


async def test_what_was_written_before_unwatch_keeps_its_name(feed: Feed) -> None:
    await feed.watch(ITEM, "'item'")
    async with feed.sql.transaction():
        await feed.sql.execute("insert into item values (1)")
        await feed.sql.execute("select pipeline.unwatch('item')")
    assert said(await feed.told()) == [("i", ["1"], 1), ("w", None, 0)]


async def test_unwatch_of_a_table_that_does_not_exist_says_so(sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.UndefinedTableError, match="there is no table nothing"):
        await sql.execute("select pipeline.unwatch('nothing')")


async def start_blocked(feed: Feed, hold: str, verb: str) -> tuple[asyncpg.Connection, asyncio.Future[str]]:
    """A transaction that holds a lock, and a call that has tried for the lock in vain at least once."""
    holder = await asyncpg.connect(feed.dsn)
    await holder.execute("begin")
    await holder.execute(hold)
    caller = await asyncpg.connect(feed.dsn)
    pid = caller.get_server_pid()
    call = asyncio.ensure_future(caller.execute(verb))
    call.add_done_callback(lambda _done: caller.terminate())
    waiting = f"select exists (select from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep')"
    await eventually(lambda: feed.sql.fetchval(waiting))
    return holder, call


BUSY = {
    "watch": ("insert into item values (1)", "select pipeline.watch('item')"),
    "watch again with less": ("select * from item", "select pipeline.watch('item')"),
    "unwatch": ("select * from item", "select pipeline.unwatch('item')"),
}


@pytest.mark.parametrize("case", BUSY)
async def test_writers_go_on_while_a_long_transaction_keeps_us_out_and_then_we_get_in(
    feed: Feed, case: str
) -> None:
    await feed.run(ITEM)
    if case != "watch":
        await feed.run("select pipeline.watch('item', timing => true)")
    hold, verb = BUSY[case]
    holder, call = await start_blocked(feed, hold, verb)
    slowest = 0.0
    for key in range(100, 140):
        began = time.monotonic()
        await feed.sql.execute("insert into item values ($1)", key)
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.01)
    assert not call.done()
    assert slowest < 0.6  # one attempt holds a writer up for 0.1 s at most
    await holder.execute("commit")
    await holder.close()
    await asyncio.wait_for(call, 5)
    watched = await feed.sql.fetchval("select count(*) from pipeline.watched()")
    assert watched == (0 if case == "unwatch" else 1)
    if case != "unwatch":
        await feed.told()
        assert said(await feed.told("insert into item values (2)")) == [("i", ["2"], 1)]


async def test_a_transaction_that_does_not_end_is_named_in_the_refusal(feed: Feed) -> None:
    await feed.run(ITEM)
    holder = await asyncpg.connect(feed.dsn)
    await holder.execute("begin")
    await holder.execute("insert into item values (1)")
    with pytest.raises(asyncpg.LockNotAvailableError) as caught:
        await feed.sql.execute(
            "select pipeline.lock_gently('item'::regclass, 'share row exclusive', interval '0.2 seconds')"
        )
    assert caught.value.args[0] == (
        f"public.item is in use by other transactions (process {holder.get_server_pid()})"
    )
    assert "Try again" in (caught.value.hint or "")  # type: ignore[attr-defined]
    await holder.close()


async def test_what_was_written_while_we_waited_is_covered_by_the_event_of_the_watch(feed: Feed) -> None:
    await feed.run(ITEM)
    holder, call = await start_blocked(feed, *BUSY["watch"])
    await holder.execute("commit")
    await holder.close()
    await call
    [event] = await feed.told()
    assert (event.name, event.op) == ("item", "w")
    assert feed.sink.positions == [] or event.xid > int(
        await feed.sql.fetchval("select xmin::text from item where id = 1")
    )
