"""What users test their tasks with: run inline, drain, assert what is enqueued."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from pipeline.core.directives import Cancel, Discard, Snooze
from pipeline.core.job import Job
from pipeline.core.retry import Backoff
from pipeline.errors import TaskError, UsageError
from pipeline.registry import Registry, filling, middleware, task
from pipeline.testing import InlineHost, jobs, run_inline

KEY, OTHER = "A" * 43, "ab" * 32


@pytest.fixture
def shop() -> Registry:
    registry = Registry()
    ran: list[Any] = []
    registry.ran = ran  # type: ignore[attr-defined]
    with filling(registry):

        @task("shop.greet", queue="mail")
        async def greet(job: Job, name: str, tags: Any = ()) -> str:
            ran.append((name, tags))
            return f"hello {name}"

        @task("shop.flaky", max_attempts=3, backoff=Backoff(first=60, jitter=0))
        async def flaky(job: Job, until: int) -> int:
            if job.attempt < until:
                raise ValueError(f"attempt {job.attempt} is too early")
            return job.attempt

        @task("shop.sync")
        def sync(job: Job, n: int) -> int:
            job.log(f"n is {n}", "warning")
            job.wait(job.save({"n": n}))
            return int(job.wait(job.saved())["n"]) + 1

        @task("shop.pay", encrypt=True, redact=["card"])
        async def pay(job: Job, card: str) -> None:
            ran.append(card)

    return registry


async def waiting(sql: asyncpg.Connection) -> int:
    return await sql.fetchval("select count(*) from pipeline.job")


async def test_a_task_runs_inline_with_its_arguments_and_gives_what_it_returns(shop: Registry) -> None:
    assert await run_inline("shop.greet", name="Ada", registry=shop) == "hello Ada"
    assert await run_inline(shop.tasks["shop.greet"].function, {"name": "Bob"}, registry=shop) == "hello Bob"


async def test_a_task_that_runs_inline_raises_its_own_error(shop: Registry) -> None:
    with pytest.raises(ValueError, match="attempt 1 is too early"):
        await run_inline("shop.flaky", until=2, registry=shop)
    assert await run_inline("shop.flaky", until=2, attempt=2, registry=shop) == 2


async def test_arguments_that_run_inline_are_checked_and_go_through_json(shop: Registry) -> None:
    with pytest.raises(TaskError, match="does not take these arguments"):
        await run_inline("shop.greet", whom="Ada", registry=shop)
    with pytest.raises(TaskError, match="not JSON"):
        await run_inline("shop.greet", name="Ada", tags=object(), registry=shop)
    await run_inline("shop.greet", name="Ada", tags=("a", "b"), registry=shop)
    assert shop.ran[-1] == ("Ada", ["a", "b"])  # type: ignore[attr-defined]


async def test_a_task_that_is_not_known_cannot_run_inline(shop: Registry) -> None:
    with pytest.raises(TaskError, match=r"no task is named shop\.nothing"):
        await run_inline("shop.nothing", registry=shop)
    with pytest.raises(TaskError, match="is not a task"):
        await run_inline(waiting, registry=shop)


async def test_middleware_is_around_an_inline_run(shop: Registry) -> None:
    with filling(shop):

        @middleware
        async def louder(job: Job, call_next: Any) -> Any:
            return (await call_next(job)).upper()

    assert await run_inline("shop.greet", name="Ada", registry=shop) == "HELLO ADA"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_batch_of_one_runs_inline_and_is_drained(kind: str, shop: Registry, dsn: str) -> None:
    def outcome(many: list[Job]) -> list[Any]:
        return [ValueError("no") if job.args["n"] < 0 else job.args["n"] + 1 for job in many]

    async def later(many: list[Job]) -> list[Any]:
        return outcome(many)

    shop.add_task(later if kind == "async" else outcome, name="shop.many", batch=10, max_attempts=1)
    assert await run_inline("shop.many", n=1, registry=shop) == 2
    with pytest.raises(ValueError, match="no"):
        await run_inline("shop.many", n=-1, registry=shop)
    async with jobs(dsn, registry=shop) as queue:
        await queue.enqueue("shop.many", n=1)
        await queue.enqueue("shop.many", n=-1)
        assert await queue.drain() == {"finished": 1, "failed": 1}


async def test_directives_of_a_task_are_raised_inline_and_counted_when_drained(shop: Registry, dsn: str) -> None:
    with filling(shop):

        @task("shop.asks")
        async def asks(job: Job, what: str) -> None:
            raise {"snooze": Snooze(60), "cancel": Cancel("unwanted"), "discard": Discard("hopeless")}[what]

    with pytest.raises(Cancel, match="unwanted"):
        await run_inline("shop.asks", what="cancel", registry=shop)
    async with jobs(dsn, registry=shop) as queue:
        for what in ("snooze", "cancel", "discard"):
            await queue.enqueue("shop.asks", what=what)
        assert await queue.drain() == {"delayed": 1, "cancelled": 1, "failed": 1}
        await queue.advance(61)
        assert await queue.drain() == {"delayed": 1}
        assert (await queue.assert_enqueued("shop.asks")).attempt == 1


async def test_typed_arguments_are_what_they_are_declared_as_and_can_be_asserted(shop: Registry, dsn: str) -> None:
    day = date(2030, 1, 2)
    with filling(shop):

        @task("shop.typed")
        async def typed(job: Job, day: date) -> None:
            shop.ran.append(day)  # type: ignore[attr-defined]

    await run_inline("shop.typed", day=day, registry=shop)
    async with jobs(dsn, registry=shop) as queue:
        await queue.enqueue("shop.typed", day=day)
        assert (await queue.assert_enqueued("shop.typed", day=day)).args == {"day": "2030-01-02"}
        assert await queue.drain() == {"finished": 1}
    assert shop.ran == [day, day]  # type: ignore[attr-defined]


async def test_what_a_task_saves_logs_and_tells_inline_is_there_to_be_looked_at(shop: Registry) -> None:
    host = InlineHost(saved=1, results={"first": 2})
    assert await run_inline("shop.sync", n=7, host=host, registry=shop) == 8
    assert host.value == {"n": 7}
    assert host.lines == [("warning", "n is 7")]

    with filling(shop):

        @task("shop.tells")
        async def tells(job: Job) -> list[Any]:
            await job.progress(1, 2, "half")
            return [await job.saved(), await job.results()]

    assert await run_inline("shop.tells", host=host, registry=shop) == [{"n": 7}, {"first": 2}]
    assert host.progressed == [(1, 2, "half")]


async def test_a_transaction_of_an_inline_run_needs_a_connection(shop: Registry, sql: asyncpg.Connection) -> None:
    await sql.execute("create table orders (id int)")
    with filling(shop):

        @task("shop.order")
        async def order(job: Job, n: int) -> None:
            async with job.transaction() as conn:
                await conn.execute("insert into orders values ($1)", n)
                if n < 0:
                    raise ValueError(n)

    with pytest.raises(UsageError, match="needs a database"):
        await run_inline("shop.order", n=1, registry=shop)
    await run_inline("shop.order", n=1, conn=sql, registry=shop)
    with pytest.raises(ValueError, match="-1"):
        await run_inline("shop.order", n=-1, conn=sql, registry=shop)
    assert await sql.fetch("select id from orders") == [(1,)]


async def test_drain_runs_what_is_due_and_counts_how_it_ended(
    shop: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    async with jobs(dsn, registry=shop) as queue:
        await sql.execute("""select pipeline.enqueue('shop.greet', '{"name": "Ada"}', queue => 'mail')""")
        await queue.enqueue("shop.greet", name="Bob")
        await queue.enqueue("shop.flaky", until=9)
        drained = await queue.drain()
        assert drained == {"finished": 2, "delayed": 1}
        [error] = drained.errors
        assert "shop.flaky, attempt 1: ValueError: attempt 1 is too early" in error
        assert "attempt 1 is too early" in repr(drained)
        assert await queue.drain() == {}
    assert [name for name, _ in shop.ran] == ["Ada", "Bob"]  # type: ignore[attr-defined]
    states = await sql.fetch("select task, state, result from pipeline.job_archive order by id")
    assert [tuple(row) for row in states] == [
        ("shop.greet", "finished", '"hello Ada"'),
        ("shop.greet", "finished", '"hello Bob"'),
    ]


async def test_a_retry_runs_again_when_its_time_has_come_and_not_before(shop: Registry, dsn: str) -> None:
    async with jobs(dsn, registry=shop) as queue:
        await queue.enqueue("shop.flaky", until=3)
        assert await queue.drain() == {"delayed": 1}
        await queue.advance(55)
        assert await queue.drain() == {}
        assert (await queue.assert_enqueued("shop.flaky")).attempt == 2
        await queue.advance(6)
        assert await queue.drain() == {"delayed": 1}
        await queue.advance(121)
        assert await queue.drain() == {"finished": 1}


async def test_a_job_that_has_failed_for_good_is_counted_as_failed(shop: Registry, dsn: str) -> None:
    async with jobs(dsn, registry=shop) as queue:
        await queue.enqueue("shop.flaky", until=9)
        for expected in ({"delayed": 1}, {"delayed": 1}, {"failed": 1}, {}):
            assert await queue.drain() == expected
            await queue.advance(3600)


async def test_the_clock_that_was_put_forward_goes_on(shop: Registry, dsn: str) -> None:
    async with jobs(dsn, registry=shop) as queue:
        await queue.advance(100)
        one = await queue.enqueue("shop.greet", name="Ada")
        await asyncio.sleep(0.05)
        two = await queue.enqueue("shop.greet", name="Bob")
        begun = {job.id: job.run_at for job in await queue.enqueued()}
        assert begun[two] - begun[one] >= timedelta(seconds=0.05)
        assert begun[one] - datetime.now(UTC) > timedelta(seconds=90)
        with pytest.raises(UsageError, match="put back"):
            await queue.advance(-1)


async def test_drain_takes_one_queue_alone_and_no_more_runs_than_asked_for(shop: Registry, dsn: str) -> None:
    async with jobs(dsn, registry=shop) as queue:
        await queue.enqueue("shop.sync", n=1)
        for name in "abc":
            await queue.enqueue("shop.greet", name=name)
        assert await queue.drain("mail", limit=2) == {"finished": 2}
        assert [job.args for job in await queue.enqueued()] == [{"n": 1}, {"name": "c"}]
        assert await queue.drain("mail") == {"finished": 1}
        await queue.refute_enqueued(queue="mail")


async def test_jobs_that_add_jobs_are_drained_too_and_one_that_never_ends_is_stopped(
    shop: Registry, dsn: str
) -> None:
    with filling(shop):

        @task("shop.again")
        async def again(job: Job, left: int) -> None:
            if left:
                connection = await asyncpg.connect(dsn)
                args = msgspec.json.encode({"left": left - 1}).decode()
                await connection.execute("select pipeline.enqueue('shop.again', $1)", args)
                await connection.close()

    async with jobs(dsn, registry=shop) as queue:
        await queue.enqueue("shop.again", left=3)
        assert await queue.drain() == {"finished": 4}
        await queue.enqueue("shop.again", left=1_000_000)
        assert await queue.drain(limit=7) == {"finished": 7}
        await queue.assert_enqueued("shop.again", left=1_000_000 - 7)


async def test_inside_a_transaction_everything_is_rolled_back(
    shop: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("create table orders (id int)")
    with filling(shop):

        @task("shop.insert", backoff=Backoff(first=5, jitter=0))
        async def insert(job: Job, n: int | None) -> None:
            await sql.execute("insert into orders values ($1)", n)
            await sql.execute("select 1 / $1::int", n)

    outer = sql.transaction()
    await outer.start()
    async with jobs(conn=sql, registry=shop) as queue:
        await sql.execute("""select pipeline.enqueue('shop.insert', '{"n": 1}')""")
        await queue.enqueue("shop.insert", n=0)
        assert await queue.drain() == {"finished": 1, "delayed": 1}
        assert await sql.fetch("select id from orders") == [(1,)]
        await queue.advance(6)
        assert await queue.drain() == {"delayed": 1}
        await queue.assert_enqueued("shop.insert", n=0)
    assert await sql.fetchval("select abs(extract(epoch from pipeline.now() - clock_timestamp())) < 5")
    await outer.rollback()
    counts = "select (select count(*) from pipeline.job) + (select count(*) from pipeline.job_archive)"
    assert await sql.fetchval(counts) + await sql.fetchval("select count(*) from orders") == 0
    assert await sql.fetchval("select count(*) from pipeline.worker") == 0
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0


async def test_the_block_ends_quietly_in_a_transaction_that_was_aborted(
    shop: Registry, sql: asyncpg.Connection
) -> None:
    async def a_test_that_fails() -> None:
        async with sql.transaction(), jobs(conn=sql, registry=shop) as queue:
            await queue.advance(60)
            await sql.execute("select 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await a_test_that_fails()
    assert await sql.fetchval("select abs(extract(epoch from pipeline.now() - clock_timestamp())) < 5")


async def test_a_connection_that_is_given_stays_open_and_need_not_be_in_a_transaction(
    shop: Registry, sql: asyncpg.Connection
) -> None:
    async with jobs(conn=sql, registry=shop) as queue:
        await queue.enqueue("shop.greet", name="Ada")
        assert await queue.drain() == {"finished": 1}
    assert await waiting(sql) == 0
    assert await sql.fetchval("select count(*) from pipeline.worker") == 0


async def test_a_connection_that_cannot_serve_is_refused_with_a_reason(shop: Registry, dsn: str) -> None:
    with pytest.raises(UsageError, match="conn is a str, not a connection of asyncpg"):
        async with jobs(conn="postgresql://", registry=shop):
            pass
    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec("jsonb", encoder=str, decoder=msgspec.json.decode, schema="pg_catalog")
    with pytest.raises(UsageError, match="codec of its own for jsonb"):
        async with jobs(conn=connection, registry=shop):
            pass
    await connection.close()


async def test_jobs_that_a_test_was_interrupted_in_are_given_back(
    shop: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    with filling(shop):

        @task("shop.hangs")
        async def hangs(job: Job) -> None:
            await asyncio.sleep(60)

    async def drain() -> None:
        async with jobs(dsn, registry=shop) as queue:
            await queue.enqueue("shop.hangs")
            await queue.enqueue("shop.hangs")
            await queue.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(drain(), 0.5)
    assert await sql.fetchval("select count(*) from pipeline.lease") == 0
    assert await waiting(sql) == 2


async def test_what_is_enqueued_is_found_by_task_queue_time_and_some_of_its_arguments(
    shop: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with jobs(dsn, registry=shop) as queue:
        id_ = await queue.enqueue("shop.greet", name="Ada", tags=["a"])
        await sql.execute(
            """select pipeline.enqueue('shop.greet', '{"name": "Bob"}', queue => 'slow', run_at => $1)""", later
        )
        found = await queue.assert_enqueued("shop.greet", name="Ada")
        assert (found.id, found.queue, found.args) == (id_, "mail", {"name": "Ada", "tags": ["a"]})
        assert (await queue.assert_enqueued(shop.tasks["shop.greet"], {"tags": ("a",)})).id == id_
        assert (await queue.assert_enqueued("shop.greet", queue="slow", run_at=later)).args == {"name": "Bob"}
        assert len(await queue.enqueued()) == len(await queue.enqueued("shop.greet")) == 2
        await queue.refute_enqueued("shop.greet", name="Cid")
        await queue.refute_enqueued("shop.sync")


async def failure(assertion: Awaitable[Any]) -> str:
    with pytest.raises(AssertionError) as caught:
        await assertion
    return str(caught.value)


async def test_an_assertion_that_fails_says_what_was_wanted_and_what_there_is(
    shop: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    async with jobs(dsn, registry=shop) as queue:
        told = await failure(queue.assert_enqueued("shop.greet", name="Ada"))
        assert told == 'no job for shop.greet with {"name":"Ada"} is enqueued; there is none at all'
        id_ = await queue.enqueue("shop.greet", name="Bob")
        await sql.execute("select pipeline.enqueue('shop.x', run_at => now() + interval '1 hour')")
        told = await failure(queue.assert_enqueued("shop.greet", {"name": "Ada"}, queue="mail"))
        assert told.splitlines()[0] == (
            'no job for shop.greet with {"name":"Ada"} in queue mail is enqueued; there is:'
        )
        assert told.splitlines()[1] == f'  job {id_}: shop.greet {{"name":"Bob"}} in queue mail, due'
        assert re.fullmatch(r"  job \d+: shop\.x \{\} in queue default, due in 3\d{3} s", told.splitlines()[2])
        at = datetime(2030, 1, 2, tzinfo=UTC)
        assert "at 2030-01-02T00:00:00+00:00" in await failure(queue.assert_enqueued("shop.greet", run_at=at))
        told = await failure(queue.refute_enqueued("shop.greet"))
        assert told == (
            f'a job for shop.greet is enqueued:\n  job {id_}: shop.greet {{"name":"Bob"}} in queue mail, due'
        )
        assert "a job of any kind is enqueued" in await failure(queue.refute_enqueued())


async def test_sealed_arguments_can_be_asserted_and_run_with_the_key(
    shop: Registry, dsn: str, sql: asyncpg.Connection
) -> None:
    async with jobs(dsn, registry=shop, encryption_keys=[KEY]) as queue:
        await queue.enqueue("shop.pay", card="4111")
        assert "4111" not in await sql.fetchval("select args::text from pipeline.job")
        assert (await queue.assert_enqueued("shop.pay", card="4111")).args == {"card": "4111"}
        assert await queue.drain() == {"finished": 1}
    assert shop.ran == ["4111"]  # type: ignore[attr-defined]
    assert "4111" not in await sql.fetchval("select args::text from pipeline.job_archive")


async def test_a_block_that_has_ended_says_so(shop: Registry, dsn: str) -> None:
    async with jobs(dsn, registry=shop) as queue:
        pass
    with pytest.raises(UsageError, match="has ended"):
        await queue.drain()


@pytest.mark.parametrize("given", [False, True], ids=["dsn", "conn"])
async def test_a_drained_jobs_own_transaction_keeps_or_takes_back_its_effects(
    dsn: str, sql: asyncpg.Connection, given: bool
) -> None:
    registry = Registry()
    await sql.execute("create table effect (attempt int)")

    async def pay(job: Job) -> None:
        async with job.transaction() as connection:
            await connection.execute("insert into effect values ($1)", job.attempt)
            if job.attempt == 1:
                raise OSError("no network")

    registry.add_task(pay, name="pay", backoff=lambda attempt, error: 0.0)
    async with jobs(None if given else dsn, conn=sql if given else None, registry=registry) as queue:
        await queue.enqueue("pay")
        drained = await queue.drain()
        assert drained["finished"] == 1
    assert [row["attempt"] for row in await sql.fetch("select attempt from effect")] == [2]
