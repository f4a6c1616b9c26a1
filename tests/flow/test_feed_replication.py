"""Rows that logical replication applies are reported where that is asked for."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.conftest import eventually
from tests.flow.feed_kit import Feed

ITEM = "create table item (id int primary key, name text)"


@pytest.fixture
async def publisher(feed: Feed, empty_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Another database whose table `item` the feed's database subscribes to."""
    name = f"s_{uuid.uuid4().hex[:12]}"
    source = await asyncpg.connect(empty_dsn)
    await source.execute(ITEM)
    await source.execute("insert into item values (1, 'before')")
    await source.execute("create publication p for table item")
    # made here, since a subscription to the same server would wait for itself
    await source.execute("select pg_create_logical_replication_slot($1, 'pgoutput')", name)
    await feed.watch(ITEM, "'item', replicated => true")
    address = await source.fetchval(
        "select format('host=%s port=%s dbname=%s user=%s', split_part(setting, ',', 1),"
        " current_setting('port'), current_database(), current_user)"
        " from pg_settings where name = 'unix_socket_directories'"
    )
    await feed.sql.execute(
        f"create subscription {name} connection '{address}' publication p"
        f" with (create_slot = false, slot_name = '{name}')"
    )
    yield source
    await feed.sql.execute(f"alter subscription {name} disable")
    await feed.sql.execute(f"alter subscription {name} set (slot_name = none)")
    await feed.sql.execute(f"drop subscription {name}")

    async def idle() -> bool:
        query = "select active from pg_replication_slots where slot_name = $1"
        return not await source.fetchval(query, name)

    await eventually(idle)
    await source.execute("select pg_drop_replication_slot($1)", name)
    await source.close()


async def test_rows_that_replication_copies_and_applies_are_reported(
    feed: Feed, publisher: asyncpg.Connection
) -> None:
    def told(op: str, *keys: str) -> bool:
        found = {key for event in feed.sink.events if event.op == op for key in event.keys or ()}
        return found >= set(keys)

    await eventually(lambda: told("i", "1"), why="the first copy", within=20)
    await publisher.execute("insert into item values (2), (3)")
    await eventually(lambda: told("i", "2", "3"), why="the inserts")
    await publisher.execute("update item set id = 20 where id = 2")
    await eventually(lambda: told("u", "2", "20"), why="the update")
    await publisher.execute("delete from item where id = 3")
    await eventually(lambda: told("d", "3"), why="the delete")
    await publisher.execute("truncate item")
    await eventually(lambda: any(event.op == "t" for event in feed.sink.events), why="the truncation")


async def test_what_is_written_here_is_reported_once_also_where_applied_rows_are(feed: Feed) -> None:
    await feed.watch(ITEM, "'item', replicated => true")
    events = await feed.told("insert into item values (1)")
    assert [(event.op, event.keys) for event in events] == [("i", ("1",))]
