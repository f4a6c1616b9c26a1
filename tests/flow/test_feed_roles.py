"""Roles: writers need no rights on our tables, and an ordinary role can install and run everything."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from pipeline.db.feed import FeedStore
from pipeline.db.migrate import migrate
from tests.conftest import eventually
from tests.flow.feed_kit import Feed, running, said

ITEM = "create table item (id int primary key, name text)"
WAITS_LONG = """
    select exists (
        select from pg_stat_activity
        where datname = current_database() and application_name = 'pgreflex bell' and wait_event = 'advisory'
          and clock_timestamp() - query_start > interval '300 ms')
"""


@pytest.fixture
async def role(server_dsn: str) -> AsyncIterator[str]:
    """A role without any rights; what it owns has gone with its database when it is dropped."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(server_dsn)
    await connection.execute(f"create role {name} login password 'secret'")
    yield name
    await connection.execute(f"drop role {name}")
    await connection.close()


def as_role(dsn: str, role: str) -> str:
    """The same address for another role, over whichever way the first one took."""
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{place}"))


@pytest.fixture
async def writer(feed: Feed, role: str) -> AsyncIterator[asyncpg.Connection]:
    """A role that may only insert into a watched table."""
    await feed.watch(ITEM, "'item', timing => true, replicated => true")
    await feed.run(f"grant insert on item to {role}")
    connection = await asyncpg.connect(as_role(feed.dsn, role))
    yield connection
    await connection.close()
    await feed.run(f"drop owned by {role}")


async def test_a_role_that_may_only_insert_is_reported(feed: Feed, writer: asyncpg.Connection) -> None:
    await writer.execute("insert into item values (1)")
    [event] = await feed.told()
    assert (event.op, event.keys) == ("i", ("1",))


async def test_a_writers_settings_cannot_mislead_the_triggers(feed: Feed, writer: asyncpg.Connection) -> None:
    await writer.execute("create temp table watch (id int)")
    await writer.execute("create temp table outbox_0 (id int)")
    await writer.execute(
        "create function pg_temp.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz'"
    )
    await writer.execute("set search_path = pg_temp, pipeline, public")
    await writer.execute("set pipeline.began_1 = 'rubbish'")
    await writer.execute("set pipeline.own_ddl = 'on'")
    await writer.execute("insert into public.item values (1)")
    assert said(await feed.told()) == [("i", ["1"], 1)]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from pipeline.outbox",
        "select pipeline.emit('x')",
        "select pipeline.watch('item')",
        "select pipeline.unwatch('item')",
        "select nextval('pipeline.outbox_id')",
        "select pipeline.write_event(1, 'i', null, 1, null)",
        "select pipeline.take_over()",
    ],
)
async def test_a_role_without_rights_reaches_nothing_of_ours(writer: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await writer.execute(statement)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("select pipeline.emit('x')", True),
        ("select * from pipeline.outbox", False),
        ("select * from pipeline.watch", False),
        ("select pipeline.watch('item')", False),
        ("select pipeline.unwatch('item')", False),
        ("select pipeline.write_event(1, 'i', null, 1, null)", False),
        ("select pipeline.check_watches()", False),
        ("select pipeline.take_over()", False),
        ("select pipeline.silence_bell(true)", False),
        ("select pipeline.watch_1_insert()", False),
        ("select setval('pipeline.gate', 3)", False),
    ],
)
async def test_usage_of_the_schema_lets_an_application_emit_and_nothing_else(
    feed: Feed, writer: asyncpg.Connection, role: str, statement: str, allowed: bool
) -> None:
    await feed.run(f"grant usage on schema pipeline to {role}")
    if allowed:
        await writer.execute(statement)
    else:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute(statement)


async def test_no_function_of_ours_runs_with_rights_and_an_open_search_path(sql: asyncpg.Connection) -> None:
    await sql.execute(ITEM)
    await sql.execute("select pipeline.watch('item', timing => true, replicated => true)")
    open_ones = await sql.fetch(
        "select proname from pg_proc where pronamespace = 'pipeline'::regnamespace"
        " and not exists (select from unnest(proconfig) c where c like 'search_path=%pg_temp')"
    )
    assert [row["proname"] for row in open_ones] == []


class TestInstalledByAnOrdinaryRole:
    """No event triggers: the periodic check follows what is done to tables."""

    @pytest.fixture
    async def feed(self, empty_dsn: str, role: str, server_dsn: str) -> AsyncIterator[Feed]:
        admin = await asyncpg.connect(empty_dsn)
        name = urlsplit(empty_dsn).path[1:]
        await admin.execute(f'alter database "{name}" owner to {role}')
        await admin.execute(f"alter schema public owner to {role}")
        own = as_role(empty_dsn, role)
        await migrate(own)
        async with running(own) as feed:
            await feed.watch(ITEM, "'item', timing => true")
            yield feed
        await admin.execute(f"reassign owned by {role} to current_user")
        await admin.execute(f"drop owned by {role}")
        await admin.close()

    async def check(self, feed: Feed) -> list[str]:
        return [finding for _tag, finding in await FeedStore(feed.database).check_watches()]

    async def test_there_are_no_event_triggers(self, feed: Feed) -> None:
        assert await feed.sql.fetchval("select rolsuper from pg_roles where rolname = current_user") is False
        assert await feed.sql.fetchval("select count(*) from pg_event_trigger") == 0

    async def test_changes_are_reported(self, feed: Feed) -> None:
        assert said(await feed.told("insert into item values (1)")) == [("i", ["1"], 1)]

    async def test_when_all_is_well_a_check_finds_and_writes_nothing(self, feed: Feed) -> None:
        async with feed.sql.transaction():
            assert await feed.sql.fetch("select * from pipeline.check_watches()") == []
            assert await feed.sql.fetchval("select pg_current_xact_id_if_assigned()") is None

    async def test_a_rename_is_found(self, feed: Feed) -> None:
        await feed.run("alter table item rename to thing")
        assert await self.check(feed) == ["renamed to thing"]
        assert [(e.name, e.op) for e in await feed.told()] == [("item", "w"), ("thing", "w")]
        assert await self.check(feed) == []

    async def test_a_drop_is_found(self, feed: Feed) -> None:
        await feed.run("drop table item")
        assert await self.check(feed) == ["dropped"]
        assert [(e.name, e.op) for e in await feed.told()] == [("item", "w")]

    async def test_new_and_detached_partitions_are_found(self, feed: Feed) -> None:
        await feed.watch("create table sale (id int primary key) partition by list (id)", "'sale'")
        await feed.run("create table sale_1 partition of sale for values in (1)")
        assert await self.check(feed) == ["partitions changed", "triggers created on public.sale_1"]
        assert {(e.name, e.op) for e in await feed.told()} == {("sale", "w")}
        assert said(await feed.told("insert into sale_1 values (1)")) == [("i", ["1"], 1)]
        await feed.run("alter table sale detach partition sale_1")
        assert await self.check(feed) == ["partitions changed", "triggers removed"]
        assert {(e.name, e.op) for e in await feed.told("insert into sale_1 values (2)")} == {("sale", "w")}

    async def test_a_busy_partition_is_named_as_changed_at_each_check_until_it_can_be_had(
        self, feed: Feed
    ) -> None:
        await feed.watch("create table sale (id int primary key) partition by list (id)", "'sale'")
        await feed.run("create table sale_1 partition of sale for values in (1)")
        holder = await asyncpg.connect(feed.dsn)
        await holder.execute("begin")
        await holder.execute("insert into sale_1 values (1)")
        first = await self.check(feed)
        assert first[0] == "partitions changed"
        assert first[1].startswith("triggers are missing: ")
        await feed.told()
        assert len(await self.check(feed)) == 1
        assert {(e.name, e.op) for e in await feed.told()} == {("sale", "w")}
        problem = "select problem from pipeline.watched() where relation = 'sale'"
        assert await feed.sql.fetchval(problem) == "triggers are missing on public.sale_1"
        await holder.execute("commit")
        await holder.close()
        assert await self.check(feed) == ["triggers created on public.sale_1"]

    async def test_a_dropped_trigger_is_found(self, feed: Feed) -> None:
        await feed.run("drop trigger pgreflex_1_insert on item")
        assert await self.check(feed) == ["triggers created on public.item"]
        await feed.told()
        assert said(await feed.told("insert into item values (1)")) == [("i", ["1"], 1)]


async def test_a_session_in_another_time_zone_knows_the_same_epoch(feed: Feed) -> None:
    await feed.run("set timezone = 'Asia/Tokyo'", "set datestyle = 'German, DMY'")
    assert await feed.sql.fetchval("select pipeline.epoch()") == feed.follower.epoch


async def test_what_a_database_prescribes_to_applications_does_not_stop_the_pump(
    dsn: str, sql: asyncpg.Connection
) -> None:
    name = urlsplit(dsn).path[1:]
    await sql.execute(f"alter database {name} set lock_timeout = '100ms'")
    async with running(dsn) as feed:
        await feed.watch(ITEM, "'item'")
        term = feed.pump._term
        async with sql.transaction():
            await sql.execute("insert into item values (1)")  # silent: the pump cannot sleep before its end
            await eventually(lambda: feed.sql.fetchval(WAITS_LONG), why="a wait past the limit")
        assert feed.pump._term == term
