"""What an application's role may do with the client: follow with usage of the schema alone, and never pump."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

import pipeline
from pipeline.app import Client
from pipeline.db.connection import Database
from pipeline.feed.pump import Pump
from pipeline.runtime import Supervisor
from tests.conftest import eventually


@pytest.fixture
async def app_dsn(dsn: str, sql: asyncpg.Connection) -> AsyncIterator[str]:
    """The address for a role that may use the schema and one table, and no more."""
    role = f"app_{uuid.uuid4().hex[:12]}"
    await sql.execute("create table item (id int primary key, name text)")
    await sql.execute("select pipeline.watch('item')")
    await sql.execute(f"create role {role} login password 'secret'")
    await sql.execute(f"grant usage on schema pipeline to {role}")
    await sql.execute(f"grant select, insert, update on item to {role}")
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"{role}:secret@{place}"))
    await sql.execute(f"drop owned by {role}")
    await sql.execute(f"drop role {role}")


async def names(client: Client) -> list[str]:
    rows = await client.cache.query("select name from item where id = $1", 1, tags=["item:1"])
    return [row["name"] for row in rows]


async def test_with_usage_of_the_schema_a_client_caches_and_is_told_of_changes(
    dsn: str, app_dsn: str, sql: asyncpg.Connection
) -> None:
    async with Database(dsn, purpose="test") as database:
        pumping = Supervisor([Pump(dsn, database)], drain_timeout=5)
        pumping.start()
        async with pipeline.connect(app_dsn) as client:
            await eventually(lambda: client.cache.healthy().ok)
            await sql.execute("insert into item values (1, 'old')")
            await eventually(lambda: client.follower.events_total)
            pipeline.record("role", 1.0)
            await client.timings.flush(everything=True)
            assert await sql.fetchval("select count(*) from pipeline.timing_series where name = 'role'") == 1
            assert await names(client) == ["old"]
            hits = client.cache.status().hits_total
            assert await names(client) == ["old"]
            assert client.cache.status().hits_total == hits + 1
            await sql.execute("update item set name = 'new'")
            await eventually(lambda: client.cache.status().invalidations_total)
            assert await names(client) == ["new"]
        await pumping.stop()


async def test_a_client_whose_role_may_not_pump_leaves_the_lead_to_others(dsn: str, app_dsn: str) -> None:
    async with pipeline.connect(app_dsn) as client:
        await eventually(lambda: "may not pump" in client.pump.healthy().detail)
        async with Database(dsn, purpose="test") as database:
            pump = Pump(dsn, database)
            pumping = Supervisor([pump], drain_timeout=5)
            pumping.start()
            await eventually(lambda: pump.leading)
            await eventually(lambda: client.cache.healthy().ok)
            assert not client.pump.leading
            await pumping.stop()


async def test_a_client_of_the_owner_pumps_when_nobody_else_does(dsn: str) -> None:
    async with pipeline.connect(dsn) as client:
        await eventually(lambda: client.pump.leading and client.cache.healthy().ok)
