"""Reads on a real standby: kept when it has replayed what the feed has told of, and never when it has not."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from handlers.cache_seams import Loaded
from pipeline.app.client import Client, connect
from pipeline.db.migrate import migrate
from pipeline.db.statements import statement
from pipeline.embedded import EmbeddedServer
from tests.conftest import eventually, with_database
from tests.standby_kit import standby_of

N = "select n from counter where id = $1"


class Pair:
    """A primary and its standby."""

    def __init__(self, primary: EmbeddedServer, standby: EmbeddedServer) -> None:
        self.primary = primary
        self.standby = standby


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """One for all tests of the module: a copy of a server takes seconds."""
    home = Path(tempfile.mkdtemp(prefix="pgreflex-standby-"))
    home.chmod(0o755)
    primary = EmbeddedServer(home / "primary", settings={"fsync": "off", "wal_level": "replica"})
    primary.start()
    standby = standby_of(primary, home / "standby")
    try:
        yield Pair(primary, standby)
    finally:
        standby.stop("immediate")
        primary.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


class World:
    """A fresh database on both servers, and who changes what."""

    def __init__(self, pair: Pair, name: str, sql: asyncpg.Connection, there: asyncpg.Connection) -> None:
        self.dsn = with_database(pair.primary.dsn, name)
        self.read_dsn = with_database(pair.standby.dsn, name)
        self.sql = sql
        self.there = there

    async def pause(self) -> None:
        await self.there.execute("select pg_wal_replay_pause()")
        await eventually(lambda: self.there.fetchval("select pg_get_wal_replay_pause_state() = 'paused'"))

    async def resume(self) -> None:
        await self.there.execute("select pg_wal_replay_resume()")

    async def increment(self) -> None:
        await self.sql.execute("update counter set n = n + 1")

    async def on_standby(self) -> Any:
        return await self.there.fetchval(N, 1)


@pytest.fixture
async def world(pair: Pair, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    name = f"s_{abs(hash(request.node.name)):x}"
    admin = await asyncpg.connect(pair.primary.dsn)
    await admin.execute(f'create database "{name}"')
    dsn = with_database(pair.primary.dsn, name)
    await migrate(dsn)
    sql = await asyncpg.connect(dsn)
    await sql.execute("create table counter (id int primary key, n int not null)")
    await sql.execute("insert into counter values (1, 0), (2, 0)")
    await sql.execute("select pipeline.watch('counter', keys => '{id}')")
    there = await eventually(
        lambda: reachable(with_database(pair.standby.dsn, name)), why="the copy of the database"
    )
    await eventually(lambda: there.fetchval("select count(*) = 2 from counter"), why="the table on the standby")
    yield World(pair, name, sql, there)
    await there.execute("select pg_wal_replay_resume() where pg_is_in_recovery()")
    await there.close()
    await sql.close()
    await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()


async def reachable(dsn: str) -> asyncpg.Connection | None:
    try:
        connection = await asyncpg.connect(dsn)
    except asyncpg.PostgresError:
        return None
    try:
        await connection.fetchval("select 1 from counter limit 1")
    except asyncpg.PostgresError:
        await connection.close()
        return None
    return connection


async def read(client: Client, row: int = 1) -> Any:
    return (await client.cache.query(N, row, tags=f"counter:{row}"))[0]["n"]


async def serving(client: Client) -> None:
    await eventually(lambda: client.cache.healthy().ok, why="the cache serves")
    await eventually(lambda: client.replicas.marks.newest is not None, why="the feed tells of the log")


async def test_what_a_standby_gives_is_kept_under_a_long_transaction_too(world: World) -> None:
    writer = await asyncpg.connect(world.dsn)
    await writer.execute("begin")
    await writer.execute("insert into counter values (3, 0)")  # an xid that stays in progress
    async with connect(world.dsn, read_dsn=world.read_dsn) as client:
        await serving(client)

        async def kept() -> bool:
            await world.increment()  # committed above the open transaction
            await asyncio.sleep(0.05)
            there, entries = client.replicas.standby_reads, client.cache.status().hits_total
            await read(client)
            await read(client)
            return client.replicas.standby_reads == there + 1 and client.cache.status().hits_total == entries + 1

        await eventually(kept, why="a value read on the standby is served from the cache")
        assert await read(client) == await world.sql.fetchval(N, 1)
    await writer.execute("rollback")
    await writer.close()


async def test_a_standby_that_lags_is_not_asked_and_nothing_old_is_kept(world: World) -> None:
    async with connect(world.dsn, read_dsn=world.read_dsn) as client:
        await serving(client)
        assert await read(client) == 0
        await world.pause()
        for expected in range(1, 6):
            await world.increment()
            await eventually(lambda: "counter:1" not in tags_of(client), why="the change is delivered")
            assert await read(client) == expected
            assert await read(client) == expected
            assert await world.on_standby() == 0
        there = client.replicas.standby_reads
        assert client.replicas.primary_reads >= 5
        await world.resume()

        async def back() -> bool:
            await world.increment()
            await asyncio.sleep(0.1)
            await read(client)
            return client.replicas.standby_reads > there

        await eventually(back, why="it is asked again once it has caught up")
        assert await read(client) == await world.sql.fetchval(N, 1)


def tags_of(client: Client) -> set[str]:
    return {tag for entry in client.cache.core.store.entries.values() for tag in entry.tags}


async def test_a_loader_of_ones_own_on_a_lagging_standby_is_refused_until_it_has_caught_up(world: World) -> None:
    writer = await asyncpg.connect(world.dsn)
    await writer.execute("begin")
    await writer.execute("insert into counter values (3, 0)")
    async with connect(world.dsn) as client:
        await serving(client)

        async def load() -> Loaded:
            seen = await client.snapshot_of(world.there)
            return Loaded(await world.on_standby(), seen)

        async def ask() -> Any:
            return await client.cache.get_or_load("k", load, tags="counter:1")

        await world.pause()
        heard = client.cache.core.fence.number
        await world.increment()
        await eventually(lambda: client.cache.core.fence.number > heard, why="the change is delivered")
        assert await ask() == 0
        assert client.cache.status().entries == 0  # an old value, to this caller alone
        await world.resume()

        async def stored() -> bool:
            return await ask() == 1 and client.cache.status().entries == 1

        await eventually(stored, why="what it reads then is kept, although a transaction stays open")
    await writer.execute("rollback")
    await writer.close()


async def test_a_standby_that_is_gone_costs_nothing_but_its_help(world: World) -> None:
    gone = world.read_dsn.replace("port=5432", "port=5999")
    async with connect(world.dsn, read_dsn=gone) as client:
        await serving(client)
        assert await read(client) == 0
        assert client.replicas.standby_reads == 0


async def test_how_far_a_standby_is_behind_is_unknown_to_a_role_that_may_not_see_it(world: World) -> None:
    sql = await asyncpg.connect(world.dsn)
    try:
        assert {row["value"] for row in await sql.fetch(statement("alert_metrics/replication_lag"))} != {None}
        await sql.execute("create role looker; set session authorization looker")
        assert {row["value"] for row in await sql.fetch(statement("alert_metrics/replication_lag"))} == {None}
        await sql.execute("reset session authorization; drop role looker")
    finally:
        await sql.close()


async def test_read_dsn_may_name_the_primary(world: World) -> None:
    async with connect(world.dsn, read_dsn=world.dsn) as client:
        await serving(client)
        await read(client)
        await read(client)
        assert (client.replicas.standby_reads, client.cache.status().hits_total) == (1, 1)


async def test_a_standby_is_not_read_under_other_settings_than_those_of_the_primary(world: World) -> None:
    await world.sql.execute("create schema other")
    await world.sql.execute("create table other.counter as select id, -1 as n from counter")
    joined = "&" if "?" in world.read_dsn else "?"
    async with connect(world.dsn, read_dsn=f"{world.read_dsn}{joined}search_path=other") as client:
        await serving(client)
        for number in range(3):
            rows = await client.cache.query(f"select n, {number} from counter where id = $1", 1)
            assert rows[0]["n"] == await world.sql.fetchval(N, 1)
        assert client.replicas.standby_reads == 0


async def test_after_a_promotion_a_standby_of_the_old_history_does_not_count(world: World, pair: Pair) -> None:
    """The feed of the promoted server has an epoch of its own; what the old one's standby shows is another's."""
    home = Path(tempfile.mkdtemp(prefix="pgreflex-promoted-"))
    home.chmod(0o755)
    other = standby_of(pair.primary, home / "other")
    try:
        async with connect(world.dsn) as before:
            await serving(before)  # so that the epoch of the old history is on the standby
            old = before.replicas.marks.epoch
            shown = "select value = $1 from pipeline.setting where name = 'feed_epoch'"
            await eventually(lambda: world.there.fetchval(shown, old), why="the epoch on the standby")
        there = await asyncpg.connect(with_database(other.dsn, name_of(world)))
        await there.execute("select pg_promote()")
        await there.close()
        async with connect(with_database(other.dsn, name_of(world)), read_dsn=world.read_dsn) as client:
            await serving(client)
            assert client.replicas.marks.epoch != old
            for _ in range(300):  # the old history is longer, so that by places alone it would be ahead
                await world.increment()
            assert await read(client) == 0
            assert client.replicas.standby_reads == 0
            known = await client.snapshot_of(world.there)
            assert not known.sees(3)
    finally:
        other.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)


def name_of(world: World) -> str:
    return world.dsn.partition("@/")[2].partition("?")[0]
