"""Adding jobs from SQL: by a call, and by a trigger."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from pipeline.db.jobs import JobStore
from pipeline.errors import TaskError, UsageError
from pipeline.registry import Registry, filling, task
from tests.jobs_kit import asleep, claim, job_store


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with job_store(dsn) as store:
        yield store


@pytest.fixture
async def role(sql: asyncpg.Connection) -> AsyncIterator[str]:
    """An application role that may use the schema, and nothing else."""
    name = f"app_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {name}; grant usage on schema pipeline to {name}")
    yield name
    await sql.execute(f"reset role; drop owned by {name}; drop role {name}")


async def bells(sql: asyncpg.Connection) -> list[str]:
    """The queues whose workers were told."""
    rows = await sql.fetch(
        """
        select payload from pipeline.outbox_0 where name = 'pipeline.jobs'
        union all select payload from pipeline.outbox_1 where name = 'pipeline.jobs' order by 1
        """
    )
    return [row["payload"] for row in rows]


async def test_the_clock_that_a_role_sets_for_itself_does_not_date_its_jobs(
    sql: asyncpg.Connection, role: str
) -> None:
    await sql.execute(f"set session authorization {role}; set pipeline.fake_now = '2100-01-01'")
    await sql.fetchval("select pipeline.enqueue('t')")
    await sql.execute("reset session authorization")
    assert await sql.fetchval("select count(*) from pipeline.job where run_at < '2100-01-01'") == 1
    await sql.fetchval("select pipeline.enqueue('t')")
    assert await sql.fetchval("select count(*) from pipeline.job where run_at = '2100-01-01'") == 1


async def test_a_role_that_may_only_use_the_schema_can_enqueue(
    sql: asyncpg.Connection, store: JobStore, role: str
) -> None:
    await sql.execute(f"set role {role}")
    id_ = await sql.fetchval("""select pipeline.enqueue('t', '{"n": 1}')""")
    later = await sql.fetchval("select pipeline.enqueue('t', run_at => now() + interval '1 h')")
    for forbidden in (
        "select from pipeline.job",
        "insert into pipeline.lane_request values ('x', 0)",
        "select pipeline.request_lane('x', 0)",
        "select pipeline.wake_workers('x')",
        "select pipeline.maintain_archive()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.execute(forbidden)
    await sql.execute("reset role")
    worker = await store.register("w", ["default"])
    assert [(job.id, job.args) for job in await claim(store, worker)] == [(id_, {"n": 1})]
    assert later > id_


async def test_a_job_that_is_rolled_back_never_was(sql: asyncpg.Connection, store: JobStore) -> None:
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("select pipeline.enqueue('t')")
    await transaction.rollback()
    worker = await store.register("w", ["default"])
    assert await claim(store, worker) == []
    assert await bells(sql) == []


async def test_many_calls_in_one_transaction_wake_each_queue_once(sql: asyncpg.Connection) -> None:
    async with sql.transaction():
        for queue in ("a", "a", "a", "b", "b"):
            await sql.execute("select pipeline.enqueue('t', queue => $1)", queue)
        await sql.execute("select pipeline.enqueue('t', queue => 'c', run_at => now() + interval '1 h')")
    assert await bells(sql) == ["a", "b"]
    await sql.execute("select pipeline.enqueue('t', queue => 'a')")
    assert await bells(sql) == ["a", "a", "b"]


async def test_a_wake_that_a_savepoint_took_back_is_given_again(sql: asyncpg.Connection) -> None:
    async with sql.transaction():
        savepoint = sql.transaction()
        await savepoint.start()
        await sql.execute("select pipeline.enqueue('t')")
        await savepoint.rollback()
        await sql.execute("select pipeline.enqueue('t')")
    assert await bells(sql) == ["default"]


async def test_nobody_is_woken_while_no_worker_sleeps(dsn: str, sql: asyncpg.Connection, store: JobStore) -> None:
    await store.enqueue("t")
    await store.adopt()
    told = await bells(sql)
    await store.enqueue("t")
    await store.enqueue_many("t", [{}, {}])
    await store.enqueue("t", run_at=datetime.now(UTC) + timedelta(hours=1))
    assert await bells(sql) == told
    async with asleep(dsn):
        await store.enqueue("t")
    assert await bells(sql) == [*told, "default"]


async def test_many_jobs_in_one_statement_wake_the_workers_once(
    dsn: str, sql: asyncpg.Connection, store: JobStore
) -> None:
    async with asleep(dsn):
        made = await store.enqueue_many("t", [{"n": n} for n in range(100)])
    assert await bells(sql) == ["default"]
    worker = await store.register("w", ["default"])
    jobs = await claim(store, worker)
    assert [(job.id, job.args["n"]) for job in jobs] == list(zip(made, range(100), strict=True))
    assert await store.enqueue_many("t", []) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("''", "needs the name of its task"),
        ("null", "needs the name of its task"),
        ("'t', '[]'", "must be a JSON object"),
        ("'t', null", "must be a JSON object"),
        ("'t', queue => ''", "needs a queue"),
        ("'t', priority => 40000", "priority 40000 is out of range"),
        ("'t', max_attempts => 0", "max_attempts must be at least 1"),
    ],
)
async def test_a_call_that_cannot_be_meant_says_why(sql: asyncpg.Connection, call: str, message: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match=message):
        await sql.execute(f"select pipeline.enqueue({call})")


async def test_enqueueing_works_in_a_serializable_transaction(sql: asyncpg.Connection, store: JobStore) -> None:
    worker = await store.register("w", ["default"])
    async with sql.transaction(isolation="serializable"):
        await sql.execute("select 1")
        await store.enqueue("t")
        assert len(await claim(store, worker)) == 1  # the lane exists now, but not for this snapshot
        await sql.execute("select pipeline.enqueue('t')")
    assert len(await claim(store, worker)) == 1


async def test_the_client_checks_arguments_where_it_knows_the_task(dsn: str) -> None:
    registry = Registry()
    with filling(registry):

        @task("mail.send", queue="mail", max_attempts=2)
        async def send(job: object, order_id: int) -> None: ...

    async with job_store(dsn, registry) as store:
        worker = await store.register("w", ["mail"])
        for call in ("mail.send", send, registry.tasks["mail.send"]):
            await store.enqueue(call, {"order_id": 7})
        jobs = await claim(store, worker, queue="mail")
        assert [(j.task, j.args, j.max_attempts) for j in jobs] == [("mail.send", {"order_id": 7}, 2)] * 3
        with pytest.raises(TaskError, match="missing a required argument"):
            await store.enqueue(send)
        with pytest.raises(TaskError, match="are not JSON"):
            await store.enqueue("unknown.here", {"x": object()})
        with pytest.raises(TaskError, match="is not a task"):
            await store.enqueue(print)
        with pytest.raises(UsageError, match="no time zone"):
            await store.enqueue("t", run_at=datetime(2030, 1, 1))
        assert await store.enqueue("unknown.here", {"x": 1}) > 0


@pytest.fixture
async def orders(sql: asyncpg.Connection) -> str:
    await sql.execute("create table orders (id int primary key, note text)")
    return "orders"


async def test_each_row_of_a_statement_becomes_a_job(
    dsn: str, sql: asyncpg.Connection, store: JobStore, orders: str
) -> None:
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen')")
    async with asleep(dsn):
        await sql.execute("insert into orders select n, 'x' from generate_series(1, 3) n")
    worker = await store.register("w", ["default"])
    jobs = await claim(store, worker)
    assert [(job.task, job.args) for job in jobs] == [("seen", {"id": n, "note": "x"}) for n in (1, 2, 3)]
    assert await bells(sql) == ["default"]
    await sql.execute("insert into orders select 9, 'x' where false")
    assert await bells(sql) == ["default"]


async def test_updates_carry_the_new_row_and_deletes_the_old_one(
    sql: asyncpg.Connection, store: JobStore, orders: str
) -> None:
    await sql.execute("insert into orders values (1, 'old')")
    await sql.execute("select pipeline.enqueue_on('orders', 'update', 'changed', 'q')")
    await sql.execute("select pipeline.enqueue_on('orders', 'delete', 'gone', 'q')")
    await sql.execute("update orders set note = 'new'")
    await sql.execute("delete from orders")
    worker = await store.register("w", ["q"])
    jobs = await claim(store, worker, queue="q")
    assert [(job.task, job.args["note"]) for job in jobs] == [("changed", "new"), ("gone", "new")]


async def test_asking_again_replaces_the_trigger(sql: asyncpg.Connection, store: JobStore, orders: str) -> None:
    first = await sql.fetchval("select pipeline.enqueue_on('orders', 'insert', 'seen', 'a')")
    assert await sql.fetchval("select pipeline.enqueue_on('orders', 'insert', 'seen', 'b')") == first
    await sql.execute("insert into orders values (1)")
    assert [r["queue"] for r in await sql.fetch("select queue from pipeline.job")] == ["b"]
    long = await sql.fetchval("select pipeline.enqueue_on('orders', 'insert', repeat('long', 30))")
    assert len(long) <= 63
    await sql.execute(f'drop trigger "{first}" on orders; drop trigger "{long}" on orders')
    await sql.execute("insert into orders values (2)")
    assert await sql.fetchval("select count(*) from pipeline.job") == 1


async def test_a_share_enqueues_about_that_part(sql: asyncpg.Connection, orders: str) -> None:
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen', share => 0.1)")
    await sql.execute("insert into orders select n from generate_series(1, 5000) n")
    assert 350 < await sql.fetchval("select count(*) from pipeline.job") < 650


async def test_a_role_without_rights_on_our_tables_can_write_to_a_table_that_enqueues(
    sql: asyncpg.Connection, orders: str, role: str
) -> None:
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen')")
    await sql.execute(f"revoke usage on schema pipeline from {role}; grant insert on orders to {role}")
    await sql.execute(f"set role {role}; insert into orders values (1)")
    await sql.execute("reset role")
    assert await sql.fetchval("select count(*) from pipeline.job") == 1


async def test_only_who_may_add_triggers_to_a_table_can_make_it_enqueue(
    sql: asyncpg.Connection, orders: str, role: str
) -> None:
    await sql.execute(f"set role {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql.execute("select pipeline.enqueue_on('public.orders', 'insert', 'seen')")
    await sql.execute("create temp table own (id int)")
    await sql.execute("select pipeline.enqueue_on('own', 'insert', 'seen')")
    await sql.execute("insert into own values (1)")


async def test_writers_of_rows_that_make_jobs_of_one_unique_key_do_not_wait_for_each_other(
    dsn: str, sql: asyncpg.Connection, orders: str
) -> None:
    await sql.execute("insert into pipeline.task (name, unique_by) values ('seen', '{note}')")
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen')")
    other = await asyncpg.connect(dsn)
    try:
        async with sql.transaction(), other.transaction():
            for id_, note in ((1, "a"), (2, "b")):  # each in its own order: if they waited they would deadlock
                await sql.execute("insert into orders values ($1, $2)", id_, note, timeout=5)
                await other.execute("insert into orders values ($1, $2)", 9 - id_, "ba"[id_ - 1], timeout=5)
    finally:
        await other.close()
    notes = await sql.fetch("select args ->> 'note' from pipeline.job order by 1")
    assert [row[0] for row in notes] == ["a", "a", "b", "b"]


async def test_a_key_that_is_too_long_for_a_row_is_shortened_and_stays_that_of_its_text(
    sql: asyncpg.Connection, orders: str
) -> None:
    await sql.execute("insert into pipeline.task (name, key) values ('seen', 'note:{note}')")
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen')")
    long = "x" * 300
    await sql.execute(
        "insert into orders select n, v from unnest($1::text[]) with ordinality u (v, n)",
        [long + "a", long + "b", long + "a", "y" * 195],
    )
    first, second, third, whole = [row[0] for row in await sql.fetch("select key from pipeline.job order by id")]
    assert first == third != second
    assert {len(first), len(second)} == {200}
    assert first[:168] == second[:168] == "note:" + long[:163]  # so the key's rule holds for both
    assert whole == "note:" + "y" * 195


async def test_a_row_that_is_too_large_is_skipped_and_the_write_succeeds(
    sql: asyncpg.Connection, orders: str
) -> None:
    warnings: list[str] = []
    sql.add_log_listener(lambda _connection, message: warnings.append(message.message))
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen')")
    await sql.execute("insert into orders values (1, repeat('x', 1100000)), (2, 'small')")
    assert await sql.fetchval("select count(*) from orders") == 2
    assert await sql.fetchval("select count(*) from pipeline.job") == 1
    await asyncio.sleep(0)
    assert any("1 rows of public.orders" in w and "above 1 MB" in w for w in warnings)


async def test_a_broken_queue_does_not_break_the_write(sql: asyncpg.Connection, orders: str) -> None:
    await sql.execute("select pipeline.enqueue_on('orders', 'insert', 'seen')")
    await sql.execute("alter table pipeline.job add constraint broken check (task <> 'seen')")
    await sql.execute("insert into orders values (1)")
    assert await sql.fetchval("select count(*) from orders") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'orders', 'truncate', 't'", "op must be insert, update or delete"),
        ("'orders', 'insert', 't', share => 0", "share must be above 0"),
        ("'orders', 'insert', 't', share => 1.5", "share must be above 0"),
        ("'orders', 'insert', 't', share => null", "share must be above 0"),
        ("'orders', 'insert', ''", "needs a task"),
        ("'pg_catalog.pg_tables', 'insert', 't'", "is not a table"),
    ],
)
async def test_a_trigger_that_cannot_be_meant_is_refused(
    sql: asyncpg.Connection, orders: str, call: str, message: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=message):
        await sql.execute(f"select pipeline.enqueue_on({call})")


async def test_waiting_for_the_table_lets_writers_pass(sql: asyncpg.Connection, dsn: str, orders: str) -> None:
    holder, writer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        held = holder.transaction()
        await held.start()
        await holder.execute("insert into orders values (1)")
        asked = asyncio.ensure_future(sql.fetchval("select pipeline.enqueue_on('orders', 'insert', 'seen')"))
        for n in range(2, 20):
            # a queued lock request would make this wait for the holder
            await writer.execute("insert into orders values ($1)", n, timeout=5)
        assert not asked.done()
        await held.commit()
        assert await asyncio.wait_for(asked, 10) == "pipeline_enqueue_insert_seen"
    finally:
        await holder.close()
        await writer.close()


async def test_jobs_are_copied_in_with_their_keys_and_all_or_none(dsn: str, sql: asyncpg.Connection) -> None:
    registry = Registry()

    async def send(job: object, customer: int) -> None: ...

    registry.add_task(send, name="send", queue="mail", priority=3, concurrency_key="customer:{customer}")
    async with job_store(dsn, registry) as store:
        assert await store.copy("send", ({"customer": n % 2} for n in range(1_000)), timeout=5) == 1_000
        rows = await sql.fetch(
            "select queue, priority, key, count(*) from pipeline.job group by 1, 2, 3 order by 3"
        )
        assert [tuple(row) for row in rows] == [("mail", 3, "customer:0", 500), ("mail", 3, "customer:1", 500)]
        worker = await store.register("w", ["mail"])
        jobs = await claim(store, worker, 1_000, "mail")
        assert {job.key for job in jobs} == {"customer:0", "customer:1"}
        with pytest.raises(TaskError, match="missing a required argument"):
            await store.copy("send", [{"customer": 1}, {"wrong": 1}])
        assert await sql.fetchval("select count(*) from pipeline.job") == 1_000
