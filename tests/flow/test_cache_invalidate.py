"""Invalidation by hand: here at once, in other processes through the feed, from SQL with the transaction."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
import structlog

from handlers.cache import Cache
from handlers.cache_seams import Loaded
from pipeline.app.client import Client
from pipeline.core.events import Batch, Event
from pipeline.core.invalidation import CHANNEL
from pipeline.core.snapshot import Snapshot
from pipeline.errors import DatabaseUnavailable, PgreflexError, UsageError
from tests.conftest import eventually
from tests.flow.cache_kit import Clock, Counted, Feed, cache_fixture, clock_fixture, feed_fixture  # noqa: F401


@pytest.fixture
async def pair(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[tuple[Client, Client]]:
    """Two processes in all that counts: each with a cache and a connection to the feed of its own."""
    async with Client(dsn) as one, Client(dsn) as two:
        await eventually(lambda: one.cache.healthy().ok and two.cache.healthy().ok, why="both caches serve")
        yield one, two


async def stored(cache: Cache, **tags: str) -> None:
    for key, tag in tags.items():
        await cache.get_or_load(key, Counted(key), tags=tag)
    await eventually(lambda: names(cache) >= set(tags), why="all of it is stored")


def names(cache: Cache) -> set[object]:
    return set(cache.core.store.entries)


async def test_what_one_process_invalidates_goes_in_all_of_them(pair: tuple[Client, Client]) -> None:
    one, two = pair
    for client in pair:
        await stored(client.cache, a="orders:1", b="orders:2", c="prices:1", whole="orders")
    await one.cache.invalidate(tags=["orders:1"])
    assert names(one.cache) == {"b", "c"}  # at once; what depends on all orders goes with one of them
    await eventually(lambda: names(two.cache) == {"b", "c"})
    await two.cache.invalidate(prefix="pri")
    await eventually(lambda: names(one.cache) == names(two.cache) == {"b"})
    await stored(two.cache, untagged="x")
    await one.cache.clear()
    await eventually(lambda: names(one.cache) == names(two.cache) == set())


async def test_sql_invalidates_when_it_commits_and_not_when_it_does_not(
    pair: tuple[Client, Client], sql: asyncpg.Connection
) -> None:
    cache = pair[0].cache
    await stored(cache, a="orders:1", b="orders:2", c="prices:1")
    undone = sql.transaction()
    await undone.start()
    await sql.execute("select pipeline.invalidate(tags => '{orders:1}'), pipeline.invalidate(prefix => '')")
    await undone.rollback()
    async with sql.transaction():
        await sql.execute("select pipeline.invalidate('{prices:1}', 'orders:2')")
        assert names(cache) == {"a", "b", "c"}
    await eventually(lambda: names(cache) == {"a"})


async def test_any_role_that_may_use_the_schema_invalidates_as_many_tags_as_it_likes(
    pair: tuple[Client, Client], sql: asyncpg.Connection
) -> None:
    cache = pair[0].cache
    await stored(cache, first="t:0", last="t:9999", quoted='odd:"\\é{},', other="u")
    role = f"app_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {role}; grant usage on schema pipeline to {role}; set role {role}")
    try:
        many = [*(f"t:{n}" for n in range(10_000)), 'odd:"\\é{},', None]
        await sql.execute("select pipeline.invalidate($1)", many)
    finally:
        await sql.execute(f"reset role; revoke all on schema pipeline from {role}; drop role {role}")
    await eventually(lambda: names(cache) == {"other"})


async def test_sql_says_what_is_missing(sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="nothing is named"):
        await sql.execute("select pipeline.invalidate()")


async def test_a_load_that_an_invalidation_overtakes_is_not_stored(cache: Cache, feed: Feed) -> None:
    for said in ({"tags": "orders:7"}, {"prefix": "ord"}, {"prefix": "orders:7:x"}, {"prefix": ""}):
        loader = Counted("v", open_=False)
        asking = await begun(cache, loader)
        await cache.invalidate(**said)
        loader.gate.set()
        assert await asking == "v"
        assert names(cache) == set(), said
    loader = Counted("v", open_=False)
    asking = await begun(cache, loader)
    await cache.invalidate(tags="orders:8", prefix="orders:77")
    loader.gate.set()
    await asking
    assert names(cache) == {"k"}


async def test_what_a_transaction_from_before_an_invalidation_reads_after_it_is_not_stored(
    cache: Cache, feed: Feed
) -> None:
    for said in ({"tags": "orders:7"}, {"prefix": "ord"}):
        old = Snapshot.parse(await feed.sql.fetchval("select pg_current_snapshot()::text"))
        await cache.invalidate(**said)
        assert await cache.get_or_load("k", Counted(Loaded("old", old)), tags="orders:7") == "old"
        assert names(cache) == set(), said
        new = Snapshot.parse(await feed.sql.fetchval("select pg_current_snapshot()::text"))
        assert await cache.get_or_load("k", Counted(Loaded("new", new)), tags="orders:7") == "new"
        assert names(cache) == {"k"}


async def test_what_is_stored_from_an_older_transaction_while_an_invalidation_is_under_way_goes(
    cache: Cache, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = cache.source.invalidate
    old: Snapshot

    async def slowly(tags: Sequence[str] | None, prefix: str | None) -> int:
        await cache.get_or_load("k", Counted(Loaded("old", old)), tags="orders:7")
        assert names(cache) == {"k"}
        return await tell(tags, prefix)

    monkeypatch.setattr(cache.source, "invalidate", slowly)
    for said in ({"tags": "orders:7"}, {"prefix": "ord"}, {"prefix": ""}):
        old = Snapshot.parse(await feed.sql.fetchval("select pg_current_snapshot()::text"))
        await cache.invalidate(**said)
        assert names(cache) == set(), said
        await feed.position()  # past what was held, so that the next one may be stored


async def begun(cache: Cache, loader: Counted) -> object:
    asking = asyncio.ensure_future(cache.get_or_load("k", loader, tags="orders:7"))
    await eventually(lambda: loader.calls)
    return asking


async def test_what_is_no_invalidation_is_ignored_with_a_warning(cache: Cache, feed: Feed) -> None:
    await cache.get_or_load("k", Counted("v"), tags="orders:7")
    forged = [None, "", "[]", "{", '{"tags": "orders:7"}', '{"tags": [7]}', '{"prefix": 1}', "\x00"]
    with structlog.testing.capture_logs() as logs:
        for payload in forged:
            cache.on_batch(Batch("epoch", 1, 0, None, (Event(2**40, CHANNEL, "e", payload=payload),)))
        cache.on_batch(Batch("epoch", 1, 0, None, (Event(2**40, "other", "e", payload='{"prefix": ""}'),)))
    assert names(cache) == {"k"}
    assert [log["event"] for log in logs] == ["an invalidation could not be read and was ignored"] * len(forged)
    cache.on_batch(Batch("epoch", 1, 0, None, (Event(2**40, CHANNEL, "e", payload='{"tags": ["orders:7"]}'),)))
    assert names(cache) == set()


async def test_an_invalidation_that_the_others_cannot_hear_has_its_effect_here_and_fails(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with Client(dsn) as client:
        await eventually(lambda: client.cache.healthy().ok)
        await stored(client.cache, a="orders:1")
        await client.database.close()
        with pytest.raises((DatabaseUnavailable, PgreflexError)):
            await client.cache.invalidate(tags="orders:1")
        assert names(client.cache) == set()
        await client.database.open()
        with pytest.raises(UsageError, match="nothing is named"):
            await client.cache.invalidate()
