"""A job is part of the transaction of the connection that it is enqueued on, whatever library that is of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

import pipeline
from pipeline.db import foreign
from pipeline.db.jobs import JobStore
from pipeline.errors import DatabaseUnavailable, QueryFailed, TaskError, UsageError
from pipeline.registry import Registry, filling
from tests.callers_kit import CALLERS, SYNCHRONOUS, Caller, on
from tests.jobs_kit import job_store

ARGS = {"order_id": 7, "note": "100 % of it, for 'me' at $1 :now"}


@pytest.fixture(params=CALLERS)
async def caller(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Caller]:
    async with CALLERS[request.param](dsn) as made:
        yield made


@pytest.fixture(params=SYNCHRONOUS)
async def blocking(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Caller]:
    async with CALLERS[request.param](dsn) as made:
        yield made


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as made:
        yield made


async def tasks(sql: asyncpg.Connection) -> list[str]:
    return [row["task"] for row in await sql.fetch("select task from pipeline.job order by id")]


async def test_a_committed_transaction_leaves_its_job(
    caller: Caller, store: JobStore, sql: asyncpg.Connection
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    await caller.begin()
    made = await store.enqueue(
        "send", ARGS, queue="mail", run_at=later, priority=-3, max_attempts=2, timeout=4.5, conn=caller.conn
    )
    assert await tasks(sql) == []
    await caller.commit()
    [job] = await sql.fetch("select * from pipeline.job")
    assert (job["id"], job["task"], json.loads(job["args"])) == (made, "send", ARGS)
    assert (job["queue"], job["priority"], job["max_attempts"]) == ("mail", -3, 2)
    assert (job["run_at"], job["timeout"]) == (later, timedelta(seconds=4.5))


async def test_a_rolled_back_transaction_leaves_none(
    caller: Caller, store: JobStore, sql: asyncpg.Connection
) -> None:
    await caller.begin()
    await store.enqueue("send", ARGS, conn=caller.conn)
    await caller.rollback()
    assert await tasks(sql) == []


async def test_a_savepoint_takes_back_what_came_after_it(
    caller: Caller, store: JobStore, sql: asyncpg.Connection
) -> None:
    await caller.begin()
    await store.enqueue("before", conn=caller.conn)
    await caller.run("savepoint here")
    await store.enqueue("after", conn=caller.conn)
    await caller.run("rollback to savepoint here")
    await store.enqueue("at last", conn=caller.conn)
    await caller.commit()
    assert await tasks(sql) == ["before", "at last"]


async def test_a_failed_transaction_says_so_and_stays_failed(
    caller: Caller, store: JobStore, sql: asyncpg.Connection
) -> None:
    await caller.begin()
    await caller.run("savepoint here")
    with pytest.raises(Exception, match="division"):
        await caller.run("select 1 / 0")
    for _attempt in range(2):
        with pytest.raises(QueryFailed, match="has failed") as told:
            await store.enqueue("send", conn=caller.conn)
        assert told.value.sqlstate == "25P02"
        assert "savepoint" in told.value.hint
    await caller.run("rollback to savepoint here")
    await store.enqueue("send", conn=caller.conn)
    await caller.commit()
    assert await tasks(sql) == ["send"]


async def test_a_refusal_of_the_server_is_explained_without_the_arguments(
    caller: Caller, store: JobStore, sql: asyncpg.Connection
) -> None:
    await caller.begin()
    with pytest.raises(QueryFailed, match="priority 99999 is out of range") as told:
        await store.enqueue("send", ARGS, priority=99999, conn=caller.conn)
    assert told.value.sqlstate == "22023"
    assert "lower number" in told.value.hint
    assert "100 %" not in str(told.value)
    assert "order_id" not in str(told.value.__cause__)
    with pytest.raises(QueryFailed, match="has failed"):  # as the database left it
        await store.enqueue("send", conn=caller.conn)
    await caller.rollback()


async def test_a_synchronous_program_enqueues_without_a_loop(blocking: Caller, sql: asyncpg.Connection) -> None:
    made = pipeline.enqueue_in(blocking.conn, "send", {"queue": 1}, order_id=7, queue="mail", priority=2)
    assert await tasks(sql) == []
    await blocking.commit()
    [job] = await sql.fetch("select id, queue, priority, args from pipeline.job")
    assert (job["id"], job["queue"], job["priority"]) == (made, "mail", 2)
    assert json.loads(job["args"]) == {"queue": 1, "order_id": 7}
    pipeline.enqueue_in(blocking.conn, "send")
    await blocking.rollback()
    assert len(await tasks(sql)) == 1


async def test_a_synchronous_program_has_its_arguments_checked(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    monkeypatch.setattr("pipeline.app.enqueue.default", registry)
    with filling(registry):

        @pipeline.task(name="send", queue="mail")
        def send(job: pipeline.Job, order_id: int) -> None: ...

    with psycopg.connect(dsn) as connection:
        with pytest.raises(TaskError, match="does not take these arguments"):
            pipeline.enqueue_in(connection, send, order=7)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        pipeline.enqueue_in(connection, send, order_id=7)
        assert connection.execute("select queue from pipeline.job").fetchall() == [("mail",)]


async def test_autocommit_makes_the_job_at_once(dsn: str, store: JobStore, sql: asyncpg.Connection) -> None:
    plain = await asyncpg.connect(dsn)
    await store.enqueue("asyncpg", conn=plain)
    await plain.close()
    with psycopg.connect(dsn, autocommit=True) as connection:
        pipeline.enqueue_in(connection, "psycopg")
        assert await tasks(sql) == ["asyncpg", "psycopg"]
    engine = create_engine(on(dsn, "psycopg"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as alchemy:
        pipeline.enqueue_in(alchemy, "sqlalchemy")
        assert await tasks(sql) == ["asyncpg", "psycopg", "sqlalchemy"]


async def test_the_callers_own_settings_neither_change_nor_matter(dsn: str, store: JobStore) -> None:
    connection = await asyncpg.connect(dsn)
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await store.enqueue("send", ARGS, conn=connection)
    assert await connection.fetchval("select args from pipeline.job") == ARGS
    await connection.close()

    with psycopg.connect(dsn, autocommit=True) as plain:
        cursor = plain.cursor()
        cursor.execute("select generate_series(1, 3)")
        for _many in range(10):  # psycopg prepares what it has run five times
            pipeline.enqueue_in(cursor, "send")
        assert cursor.fetchall() == [(1,), (2,), (3,)]
        assert plain.execute("select count(*) from pg_prepared_statements").fetchall() == [(0,)]


async def test_a_unique_job_clashes_with_itself_on_every_connection(
    caller: Caller, store: JobStore, sql: asyncpg.Connection
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    options: dict[str, Any] = {"key": "shop:1", "expires_at": later, "unique_key": "once", "unique_for": 60.0}
    await caller.begin()
    first = await store.enqueue("send", conn=caller.conn, **options)
    assert await store.enqueue("send", conn=caller.conn, **options) == first
    if caller.synchronous:
        assert pipeline.enqueue_in(caller.conn, "send", **options) == first
    await caller.commit()
    [job] = await sql.fetch("select id, key, expires_at from pipeline.job")
    assert tuple(job) == (first, "shop:1", later)


async def test_a_percent_sign_of_a_statement_is_no_placeholder(caller: Caller) -> None:
    assert await foreign.fetchval(caller.conn, "select '100 %s of ' || $1::text", ["it"]) == "100 %s of it"


async def test_a_session_of_sqlalchemy_enqueues_inside_run_sync(dsn: str, sql: asyncpg.Connection) -> None:
    engine = create_async_engine(on(dsn, "asyncpg"), poolclass=NullPool)
    async with async_sessionmaker(engine)() as session:
        await session.run_sync(lambda plain: pipeline.enqueue_in(plain, "send", ARGS))
        assert await tasks(sql) == []
        await session.commit()
    assert await tasks(sql) == ["send"]


async def test_a_closed_connection_is_named(dsn: str, store: JobStore) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.close()
    closed = psycopg.connect(dsn)
    closed.close()
    engine = create_engine(on(dsn, "psycopg"), poolclass=NullPool)
    alchemy = engine.connect()
    alchemy.close()
    for conn in (connection, closed, alchemy):
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await store.enqueue("send", conn=conn)


async def test_what_is_no_connection_is_refused_by_name(dsn: str, store: JobStore) -> None:
    engine = create_engine("sqlite://")
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        for wrong in (pool, "postgresql://", engine, object()):
            with pytest.raises(UsageError, match="asyncpg, psycopg 3, or SQLAlchemy") as told:
                await store.enqueue("send", conn=wrong)
            assert type(wrong).__name__ in told.value.message
            assert "pipeline.enqueue(" in told.value.hint
            with pytest.raises(UsageError, match="asyncpg, psycopg 3, or SQLAlchemy"):
                pipeline.enqueue_in(wrong, "send")
    with engine.connect() as other, pytest.raises(UsageError, match="driver pysqlite"):
        pipeline.enqueue_in(other, "send")


@pytest.mark.parametrize("kind", [name for name in CALLERS if name not in SYNCHRONOUS])
async def test_an_asynchronous_connection_has_its_own_call(kind: str, dsn: str) -> None:
    async with CALLERS[kind](dsn) as caller:
        with pytest.raises(UsageError, match="is asynchronous") as told:
            pipeline.enqueue_in(caller.conn, "send")
        assert "await client.enqueue" in told.value.hint


async def test_the_client_takes_the_connection_too(dsn: str, sql: asyncpg.Connection) -> None:
    other = await asyncpg.connect(dsn)
    async with pipeline.connect(dsn, pump=False) as client:
        async with sql.transaction():
            await client.enqueue("send", order_id=7, conn=sql)
            assert await tasks(other) == []
        assert await tasks(sql) == ["send"]
    await other.close()
