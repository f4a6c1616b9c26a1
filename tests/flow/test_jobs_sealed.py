"""Encrypted arguments on their way through the queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import psycopg
import pytest

import pipeline
from handlers.jobs import JobWorker
from pipeline.app import Client
from pipeline.app.keys import sealer
from pipeline.core.limits import Unique
from pipeline.core.seal import SEALED
from pipeline.db.jobs import JobStore, job_database
from pipeline.errors import TaskError
from pipeline.registry import Registry, default
from tests.conftest import eventually

FIRST, SECOND = "A" * 43, "ab" * 32
CARD = "4111-1111"


@pytest.fixture
def ran() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def registry(ran: list[tuple[str, dict[str, Any]]]) -> Registry:
    registry = Registry()

    async def pay(job: Any, **args: Any) -> None:
        ran.append((job.task, args))
        if args.get("fail"):
            raise ValueError(f"the card {args['card']} was refused")

    registry.add_task(pay, name="pay", encrypt=True, max_attempts=2)
    return registry


@asynccontextmanager
async def store(dsn: str, registry: Registry, keys: Sequence[str]) -> AsyncIterator[JobStore]:
    async with job_database(dsn) as database:
        yield JobStore(database, registry=registry, sealer=sealer(keys))


@asynccontextmanager
async def worker(dsn: str, registry: Registry, keys: Sequence[str]) -> AsyncIterator[JobWorker]:
    async with store(dsn, registry, keys) as jobs:
        worker = JobWorker(jobs, registry, {"default": 5}, poll_seconds=0.02)
        await worker.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            yield worker
            await worker.stop()


async def ended(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return await sql.fetch("select task, state, attempt, args, error from pipeline.job_archive order by id")


async def test_a_worker_with_the_key_runs_the_job_and_neither_table_shows_the_arguments(
    dsn: str, sql: asyncpg.Connection, registry: Registry, ran: list[Any]
) -> None:
    async with store(dsn, registry, [FIRST]) as jobs:
        await jobs.enqueue("pay", {"card": CARD})
        await jobs.enqueue_many("pay", [{"card": CARD, "n": n} for n in range(2)])
    for args in await sql.fetch("select args::text from pipeline.job"):
        assert SEALED in args["args"]
        assert "4111" not in args["args"]
    async with worker(dsn, registry, [SECOND, FIRST]):
        await eventually(lambda: len(ran) == 3, why="three runs")
    assert sorted(args.get("n", -1) for _, args in ran) == [-1, 0, 1]
    assert all(args["card"] == CARD for _, args in ran)
    rows = await ended(sql)
    assert [row["state"] for row in rows] == ["finished"] * 3
    assert all("4111" not in str(row) for row in rows)


async def test_the_arguments_stay_sealed_while_a_job_waits_for_its_retry(
    dsn: str, sql: asyncpg.Connection, registry: Registry, ran: list[Any]
) -> None:
    async with store(dsn, registry, [FIRST]) as jobs:
        await jobs.enqueue("pay", {"card": CARD, "fail": True})
    async with worker(dsn, registry, [FIRST]):
        await eventually(lambda: sql.fetchval("select attempt = 2 from pipeline.job"), why="a retry")
    assert "4111" not in str(await sql.fetch("select * from pipeline.job"))
    error = await sql.fetchval("select error from pipeline.job")
    assert error.startswith("ValueError: the card [redacted] was refused\n")
    assert "test_jobs_sealed.py" in error


async def test_an_error_does_not_repeat_a_redacted_argument(
    dsn: str, sql: asyncpg.Connection, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    async def sign_up(job: Any, name: str, password: str) -> None:
        raise ValueError("x" * 1_978 + f" {name}: {password}")

    registry.add_task(sign_up, name="sign_up", redact=["password"], max_attempts=1)
    async with store(dsn, registry, []) as jobs:
        await jobs.enqueue("sign_up", {"name": "Ada", "password": "correct horse"})
    async with worker(dsn, registry, []):
        await eventually(lambda: ended(sql), why="the end of the job")
    [row] = await ended(sql)
    assert "x Ada: [red" in row["error"]
    told = capsys.readouterr()
    assert "corr" not in row["error"] + told.out + told.err


@pytest.mark.parametrize("keys", [[], [SECOND]])
async def test_without_the_key_the_job_waits_and_burns_no_attempt(
    keys: list[str], dsn: str, sql: asyncpg.Connection, registry: Registry, ran: list[Any]
) -> None:
    async with store(dsn, registry, [FIRST]) as jobs:
        await jobs.enqueue("pay", {"card": CARD})
    async with worker(dsn, registry, keys):
        await eventually(lambda: sql.fetchval("select error is not null from pipeline.job"), why="the snooze")
    row = await sql.fetchrow("select *, run_at - now() as wait from pipeline.job")
    assert row["attempt"] == 1
    assert 5 < row["wait"].total_seconds() <= 10
    assert "sealed with key" in row["error"]
    assert "jobs.encryption_keys" in row["error"]
    assert not ran
    await sql.execute("update pipeline.job set run_at = now()")
    async with worker(dsn, registry, [FIRST]):
        await eventually(lambda: ended(sql), why="the end of the job")
    assert ran == [("pay", {"card": CARD})]
    [row] = await ended(sql)
    assert (row["state"], row["attempt"]) == ("finished", 1)


async def test_a_token_that_was_moved_to_another_task_fails_at_once_and_is_kept(
    dsn: str, sql: asyncpg.Connection, registry: Registry, ran: list[Any]
) -> None:
    async def refund(job: Any, **args: Any) -> None:
        ran.append((job.task, args))

    registry.add_task(refund, name="refund")
    async with store(dsn, registry, [FIRST]) as jobs:
        await jobs.enqueue("pay", {"card": CARD})
    await sql.execute("update pipeline.job set task = 'refund'")
    async with worker(dsn, registry, [FIRST]):
        await eventually(lambda: ended(sql), why="the end of the job")
    [row] = await ended(sql)
    assert (row["task"], row["state"], row["attempt"]) == ("refund", "failed", 1)
    assert "do not open" in row["error"]
    assert SEALED in row["args"]
    assert not ran


async def test_without_a_key_an_encrypted_task_is_not_enqueued(
    dsn: str, sql: asyncpg.Connection, registry: Registry
) -> None:
    async with store(dsn, registry, []) as jobs:
        with pytest.raises(TaskError, match="wants its arguments encrypted"):
            await jobs.enqueue("pay", {"card": CARD})
        with pytest.raises(TaskError, match="wants its arguments encrypted"):
            await jobs.enqueue_many("pay", [{"card": CARD}])
    assert await sql.fetchval("select count(*) from pipeline.job") == 0


async def test_arguments_that_sql_gives_in_clear_are_run_as_they_are(
    dsn: str, sql: asyncpg.Connection, registry: Registry, ran: list[Any]
) -> None:
    await sql.execute("""select pipeline.enqueue('pay', '{"card": "5500"}')""")
    async with worker(dsn, registry, []):
        await eventually(lambda: ended(sql), why="the end of the job")
    assert ran == [("pay", {"card": "5500"})]


async def test_a_client_seals_with_its_keys_on_its_own_and_on_a_given_connection(
    dsn: str, sql: asyncpg.Connection, registry: Registry
) -> None:
    async with Client(dsn, registry=registry, encryption_keys=[FIRST], pump=False) as client:
        await client.enqueue("pay", card=CARD)
        await client.enqueue("pay", card=CARD, conn=sql)
    rows = await sql.fetch("select args::text from pipeline.job")
    assert len(rows) == 2
    assert all(SEALED in row["args"] and "4111" not in row["args"] for row in rows)


async def test_keys_are_made_from_the_arguments_before_they_are_sealed(
    dsn: str, sql: asyncpg.Connection, registry: Registry
) -> None:
    async def charge(job: Any, customer: int, card: str) -> None: ...

    registry.add_task(charge, name="charge", encrypt=True, concurrency_key="customer:{customer}", concurrency=1)
    registry.add_task(
        partial(charge), name="once", encrypt=True, unique=Unique(), tenant="tenant:{customer}", max_attempts=1
    )
    registry.add_task(partial(charge), name="one", encrypt=True, unique=Unique(by="{customer}", window=60))
    one, two = {"customer": 1, "card": CARD}, {"customer": 2, "card": CARD}
    async with store(dsn, registry, [FIRST]) as jobs:
        await jobs.enqueue("charge", one)
        await jobs.enqueue_many("charge", [one, two])
        ids = [await jobs.enqueue("once", args) for args in (one, two, dict(reversed(one.items())))]
        assert len(set(ids)) == 2
        assert len(set(await jobs.enqueue_many("one", [one, {**one, "card": "other"}, two]))) == 2
        assert await jobs.enqueue("charge", one, key="given")
    found = await sql.fetch("select task, key from pipeline.job order by id")
    keys = [row["key"] for row in found if row["task"] == "charge"]
    assert keys == ["customer:1", "customer:1", "customer:2", "given"]
    assert [row["key"] for row in found if row["task"] == "once"] == ["tenant:1", "tenant:2"]
    unique = [row["key"] for row in await sql.fetch("select key from pipeline.job_unique")]
    assert sorted(key for key in unique if key.startswith("one:")) == ["one:1", "one:2"]
    assert "4111" not in str(await sql.fetch("select args::text from pipeline.job")) + str(unique)


async def test_many_sealed_jobs_with_keys_are_all_added_or_none(
    dsn: str, sql: asyncpg.Connection, registry: Registry
) -> None:
    async def charge(job: Any, customer: int) -> None: ...

    registry.add_task(charge, name="charge", encrypt=True, concurrency_key="customer:{customer}", concurrency=1)
    async with store(dsn, registry, [FIRST]) as jobs:
        with pytest.raises(TaskError):
            await jobs.enqueue_many("charge", [{"customer": 1}, {"customer": "no number"}])
    assert await sql.fetchval("select count(*) from pipeline.job") == 0


def test_a_synchronous_program_seals_with_the_keys_of_its_configuration(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pay(job: Any, card: str) -> None: ...

    found = default.add_task(pay, name="pay.at_once", encrypt=True)
    monkeypatch.setenv("PGREFLEX_JOBS_ENCRYPTION_KEYS", FIRST)
    try:
        with psycopg.connect(dsn) as conn:
            pipeline.enqueue_in(conn, found, card=CARD)
            [(args,)] = conn.execute("select args from pipeline.job").fetchall()
    finally:
        del default.tasks["pay.at_once"]
    assert sealer([FIRST]).open("pay.at_once", args) == {"card": CARD}


def in_a_process(job: Any, card: str) -> None:
    raise ValueError("x" * 1_978 + f" for {card}")


async def test_an_error_from_another_process_does_not_repeat_a_redacted_argument_either(
    dsn: str, sql: asyncpg.Connection, registry: Registry
) -> None:
    registry.add_task(in_a_process, name="far", process=True, redact=["card"], max_attempts=1)
    async with store(dsn, registry, []) as jobs:
        await jobs.enqueue("far", {"card": CARD})
    async with worker(dsn, registry, []):
        await eventually(lambda: ended(sql), within=30, why="the end of the job")
    [row] = await ended(sql)
    assert "x for " in row["error"]
    assert "4111" not in row["error"]
