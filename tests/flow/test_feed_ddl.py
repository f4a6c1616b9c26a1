"""What is done to a watched table itself is followed, and never fails because of us."""

from __future__ import annotations

import uuid

import asyncpg
import pytest

from pipeline.db.feed import FeedStore
from tests.conftest import eventually
from tests.flow.feed_kit import Feed, said

ITEM = "create table item (id int primary key, name text)"


@pytest.fixture
async def shop(feed: Feed) -> Feed:
    await feed.watch(ITEM, "'item', columns => '{name}', timing => true, replicated => true")
    return feed


async def problem(feed: Feed) -> str | None:
    rows = await feed.sql.fetch("select problem from pipeline.watched()")
    assert len(rows) == 1
    value: str | None = rows[0]["problem"]
    return value


async def test_a_renamed_table_is_known_by_its_new_name_at_once(shop: Feed) -> None:
    events = await shop.told("alter table item rename to thing", "insert into thing values (1)")
    assert [(e.name, e.op, e.keys) for e in events] == [
        ("item", "w", None), ("thing", "w", None), ("thing", "i", ("1",))
    ]  # fmt: skip
    assert await problem(shop) is None


async def test_a_table_moved_to_another_schema_is_known_by_its_full_name(shop: Feed) -> None:
    await shop.run("create schema shop")
    events = await shop.told("alter table item set schema shop", "insert into shop.item values (1)")
    assert [(e.name, e.op) for e in events] == [("item", "w"), ("shop.item", "w"), ("shop.item", "i")]


async def test_a_renamed_schema_renames_its_tables(feed: Feed) -> None:
    await feed.run("create schema shop", "create table shop.item (id int primary key)")
    await feed.told("select pipeline.watch('shop.item')")
    events = await feed.told("alter schema shop rename to market")
    assert {event.name for event in events} == {"shop.item", "market.item"}


@pytest.mark.parametrize("column", ["id", "name"])
async def test_after_a_column_was_renamed_writes_go_on_and_count_for_the_whole_table(
    shop: Feed, column: str
) -> None:
    await shop.told("insert into item values (1, 'a')", f"alter table item rename {column} to other")
    events = await shop.told(f"update item set {'name' if column == 'id' else 'other'} = 'b'")
    assert said(events) == [("u", None, 1)]
    assert await problem(shop) == f"column {column} is gone; every change counts for the whole table"
    await shop.run("set session_replication_role = replica")
    assert {event.op for event in await shop.told("delete from item")} == {"d"}
    assert await shop.sql.fetchval("select count(*) from item") == 0


async def test_a_column_whose_type_changes_goes_on(shop: Feed) -> None:
    await shop.told("insert into item values (1)", "alter table item alter id type text")
    assert said(await shop.told("insert into item values ('b')")) == [("i", ["b"], 1)]


async def test_a_key_that_becomes_a_time_reads_the_same_in_every_session(feed: Feed) -> None:
    await feed.watch("create table item (id text primary key)", "'item'")
    await feed.told("alter table item alter id type timestamptz using id::timestamptz")
    [one] = await feed.told("insert into item values ('2024-03-01 12:00:00+00')")
    [two] = await feed.told("set timezone = 'Asia/Tokyo'", "delete from item")
    assert one.keys == two.keys


async def test_a_dropped_table_is_no_longer_watched(shop: Feed) -> None:
    events = await shop.told("drop table item")
    assert [(event.name, event.op) for event in events] == [("item", "w")]
    assert await shop.sql.fetchval("select count(*) from pipeline.watched()") == 0
    left = "select count(*) from pg_proc where pronamespace = 'pipeline'::regnamespace and proname ~ '^watch_1_'"
    assert await shop.sql.fetchval(left) == 0


async def test_events_before_a_drop_keep_their_name(shop: Feed) -> None:
    async with shop.sql.transaction():
        await shop.sql.execute("insert into item values (1)")
        await shop.sql.execute("drop table item")
    assert {event.name for event in await shop.told()} == {"item"}


async def test_a_dropped_schema_drops_its_watches(feed: Feed) -> None:
    await feed.run("create schema shop", "create table shop.item (id int primary key)")
    await feed.told("select pipeline.watch('shop.item')")
    assert {e.op for e in await feed.told("drop schema shop cascade")} == {"w"}
    assert await feed.sql.fetchval("select count(*) from pipeline.watched()") == 0


async def test_a_table_created_anew_has_to_be_watched_anew(shop: Feed) -> None:
    await shop.told("drop table item", ITEM)
    assert await shop.told("insert into item values (1)") == []
    await shop.told("select pipeline.watch('item')")
    assert said(await shop.told("insert into item values (2)")) == [("i", ["2"], 1)]


async def test_a_trigger_dropped_by_hand_comes_back(shop: Feed) -> None:
    name = await shop.sql.fetchval("select tgname from pg_trigger where tgname like '%insert'")
    assert {event.op for event in await shop.told(f"drop trigger {name} on item")} == {"w"}
    assert said(await shop.told("insert into item values (1)")) == [("i", ["1"], 1)]


async def test_a_disabled_trigger_is_named_and_made_good_at_each_check(shop: Feed) -> None:
    await shop.told("alter table item disable trigger all")
    assert await problem(shop) == "triggers are disabled on public.item"
    assert await shop.told("insert into item values (1)") == []
    await FeedStore(shop.database).check_watches()
    assert {event.op for event in await shop.told()} == {"w"}
    await shop.told("alter table item enable trigger all")
    assert await problem(shop) is None


async def test_enabling_all_triggers_again_makes_the_watch_whole_again(shop: Feed) -> None:
    await shop.told("alter table item disable trigger all", "alter table item enable trigger all")
    assert said(await shop.told("insert into item values (1)")) == [("i", ["1"], 1)]
    assert await problem(shop) is None
    await shop.run("set session_replication_role = replica")
    assert said(await shop.told("insert into item values (2)"))[0] == ("i", ["2"], 1)


async def test_the_users_lock_timeout_survives_our_look_at_their_ddl(feed: Feed) -> None:
    await feed.watch("create table sale (id int primary key) partition by list (id)", "'sale'")
    async with feed.sql.transaction():
        await feed.sql.execute("set local lock_timeout = '7s'")
        await feed.sql.execute("create table sale_1 partition of sale for values in (1)")
        assert await feed.sql.fetchval("select count(*) from pg_trigger where tgrelid = 'sale_1'::regclass") == 4
        assert await feed.sql.fetchval("show lock_timeout") == "7s"


async def test_ddl_that_is_rolled_back_changes_nothing(shop: Feed) -> None:
    transaction = shop.sql.transaction()
    await transaction.start()
    await shop.sql.execute("alter table item rename to thing")
    await transaction.rollback()
    assert said(await shop.told("insert into item values (1)")) == [("i", ["1"], 1)]


async def test_a_user_without_rights_on_the_schema_can_rename_a_watched_table(feed: Feed) -> None:
    role = f"owner_{uuid.uuid4().hex[:12]}"
    await feed.run(f"create role {role}", f"grant create, usage on schema public to {role}")
    try:
        await feed.watch(f"create table item (id int primary key); alter table item owner to {role}", "'item'")
        await feed.run(f"set role {role}")
        await feed.run("alter table item rename to thing", "insert into thing values (1)")
        await feed.run("reset role")
        assert [(e.name, e.op) for e in await feed.told()] == [("item", "w"), ("thing", "w"), ("thing", "i")]
    finally:
        await feed.run("reset role", f"drop owned by {role}", f"drop role {role}")


async def test_the_schema_can_be_dropped(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item')")
    await sql.execute("drop schema pipeline cascade")
    await sql.execute("insert into item values (1)")
    await sql.execute("drop table item")
    assert await sql.fetchval("select count(*) from pg_event_trigger where evtname like 'pgreflex%'") == 0


async def test_the_pump_itself_looks_after_the_watches(shop: Feed) -> None:
    await shop.run("alter event trigger pgreflex_ddl disable")
    await shop.told("alter table item rename to thing")
    assert (await problem(shop)) == "the table was renamed from item"
    await eventually(lambda: "thing" in {event.name for event in shop.sink.events}, within=8)
