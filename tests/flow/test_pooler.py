"""Through a transaction pooler: everything that needs no session works, and nothing is left in those lent."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from pipeline.db.connection import Database, connect, connect_session
from pipeline.db.export import ExportStore
from pipeline.db.heartbeat import Heartbeat
from pipeline.db.jobs import JOB_SETTINGS, JobStore, job_database
from pipeline.db.migrate import migrate, status
from pipeline.db.pooler import transacted
from pipeline.db.statements import statement
from pipeline.errors import Busy, DatabaseUnavailable, QueryFailed, TransactionPooler
from tests.conftest import eventually
from tests.jobs_kit import claim, finished
from tests.pooler_kit import IGNORED, left_behind, needs_pgbouncer, pgbouncer

pytestmark = needs_pgbouncer
SETTINGS = {"enable_seqscan": "off", "jit": "off"}


@pytest.fixture(params=["refusing", "ignoring"])
def pooled_dsn(request: pytest.FixtureRequest, dsn: str) -> Iterator[str]:
    """PgBouncer refuses a connection that asks for settings, or ignores them if told so."""
    told = f"ignore_startup_parameters = {IGNORED}" if request.param == "ignoring" else ""
    with pgbouncer(dsn, settings=told) as address:
        yield address


@pytest.fixture
async def database(pooled_dsn: str) -> AsyncIterator[Database]:
    async with Database(pooled_dsn, purpose="test", max_size=4, settings=SETTINGS) as opened:
        yield opened


async def test_the_pooler_is_noticed_and_the_server_is_not_taken_for_one(dsn: str, pooled_dsn: str) -> None:
    for address, pooled in ((pooled_dsn, True), (dsn, False)):
        connection = await connect(address, purpose="test", settings=SETTINGS)
        assert connection.pooled is pooled
        await connection.close()


async def test_a_statement_has_the_settings_of_its_pool_and_leaves_none(
    database: Database, pooled_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("jit", "enable_seqscan", "transaction_isolation")
    asked = "select array[" + ", ".join(f"current_setting('{name}')" for name in names) + "]"
    monkeypatch.setattr("pipeline.db.connection.statement", lambda _name: asked)
    wanted = ["off", "off", "read committed"]
    assert await asyncio.gather(*(database.fetchval("any") for _ in range(20))) == [wanted] * 20
    async with database.acquire() as connection, connection.transaction(isolation="read_committed"):
        assert await connection.fetchval(asked) == wanted
    async with database.transaction() as connection:
        assert await connection.fetchval(asked) == wanted
    assert await left_behind(pooled_dsn) == []


async def test_what_is_acquired_is_one_transaction(database: Database, sql: asyncpg.Connection) -> None:
    async def fail() -> None:
        async with database.acquire() as connection:
            await connection.execute("create table made (id int)")
            await connection.execute("select 1 / 0")

    with pytest.raises(QueryFailed, match="division"):
        await fail()
    assert await sql.fetchval("select to_regclass('made')") is None
    async with database.acquire() as connection:
        await connection.execute("create table made (id int)")
    assert await sql.fetchval("select to_regclass('made')") is not None


async def test_a_statement_that_takes_too_long_is_ended_and_the_pool_goes_on(database: Database) -> None:
    async def hang() -> None:
        async with database.acquire() as connection:
            await connection.execute("select pg_sleep(60)", timeout=0.2)

    with pytest.raises(DatabaseUnavailable, match="in time"):
        await hang()
    assert await database.fetchval("admin/backend")


async def test_statements_of_clients_that_share_server_sessions_do_not_meet(dsn: str) -> None:
    with pgbouncer(dsn, size=1) as address:
        async with (
            Database(address, purpose="one", max_size=4) as one,
            Database(address, purpose="two", max_size=4) as two,
        ):
            told = await asyncio.gather(
                *(
                    each.fetchval("admin/configure", ["a.b"], [str(n)], True)
                    for n in range(100)
                    for each in (one, two)
                )
            )
        assert told == [str(n) for n in range(100) for _each in "12"]
        assert await left_behind(address, most=1) == []


async def test_a_server_that_takes_the_poolers_place_is_noticed(dsn: str, pooled_dsn: str) -> None:
    async with Database(pooled_dsn, purpose="test", settings=SETTINGS) as database:
        async with database.acquire() as connection:
            assert connection.pooled
        database._pooler = True
        database.dsn = dsn
        connection = await database._connect(dsn)
        assert not connection.pooled
        assert await connection.fetchval("show jit") == "off"
        await connection.close()


async def test_the_schema_is_installed_through_the_pooler(empty_dsn: str) -> None:
    with pgbouncer(empty_dsn) as address:
        ran = await asyncio.gather(migrate(address), migrate(address))
        assert sorted(map(bool, ran)) == [False, True]
        assert (await status(address)).pending == ()
        assert await left_behind(address) == []


async def test_a_migration_waits_for_one_that_has_a_session(dsn: str, pooled_dsn: str) -> None:
    direct = await asyncpg.connect(dsn)
    assert await direct.fetchval(statement("admin/try_migration_lock"))
    with pytest.raises(Busy):
        await migrate(pooled_dsn, patience=0.2)
    await direct.close()
    await eventually(lambda: _migrated(pooled_dsn))


async def _migrated(dsn: str) -> bool:
    with contextlib.suppress(Busy):
        return await migrate(dsn, patience=0.1) == []
    return False


async def test_who_needs_a_session_is_refused_and_holds_nothing(pooled_dsn: str) -> None:
    with pytest.raises(TransactionPooler, match="transaction pooler") as told:
        await connect_session(pooled_dsn, purpose="test", settings={"lock_timeout": "0"})
    assert "listen_dsn" in told.value.hint
    assert await left_behind(pooled_dsn) == []


@pytest.mark.parametrize("busy", [False, True])
async def test_a_pooler_that_mixes_its_sessions_is_found_out(dsn: str, busy: bool) -> None:
    with pgbouncer(dsn, settings="server_round_robin = 1") as address:
        async with Database(address, purpose="test", max_size=3) as others:
            await asyncio.gather(*(others.fetchval("admin/backend") for _ in range(3)))
            stopped = asyncio.Event()

            async def keep_busy() -> None:
                while not stopped.is_set():
                    await others.fetchval("admin/backend")

            async with asyncio.TaskGroup() as group:
                for _ in range(3 * busy):
                    group.create_task(keep_busy())
                for _attempt in range(5):
                    with pytest.raises(TransactionPooler):
                        await connect_session(address, purpose="test")
                stopped.set()


async def test_a_pooler_in_session_mode_serves_who_needs_a_session(dsn: str) -> None:
    with pgbouncer(dsn, mode="session") as address:
        connection = await connect_session(address, purpose="test", settings={"idle_session_timeout": "7000"})
        assert not connection.pooled
        assert await connection.fetchval("show idle_session_timeout") == "7s"
        assert connection.process_id == await connection.fetchval("select pg_backend_pid()")
        heard = asyncio.Event()
        await connection.add_listener("a_channel", lambda *_: heard.set())
        async with Database(address, purpose="test") as database:
            await database.execute("admin/ring", "a_channel", "")
        await asyncio.wait_for(heard.wait(), 5)
        await connection.close()


async def test_a_heartbeat_goes_through_the_pooler(pooled_dsn: str, sql: asyncpg.Connection) -> None:
    async with job_database(pooled_dsn) as database:
        store = JobStore(database)
        worker = await store.register("w", ["default"])
        await sql.execute("update pipeline.worker set seen_at = 'epoch'")
        loop = asyncio.get_running_loop()
        heart = store.heartbeat(worker, "w", ["default"], loop.time)
        heart.start()
        await eventually(lambda: sql.fetchval("select seen_at > 'epoch' from pipeline.worker"))
        await heart.stop()
    assert await left_behind(pooled_dsn) == []


async def test_no_heartbeat_fails_where_others_use_the_same_session(dsn: str, sql: asyncpg.Connection) -> None:
    beats = "select xmin::text::int8 from pipeline.worker"
    with pgbouncer(dsn, size=1) as address:
        async with job_database(address) as database:
            worker = await JobStore(database).register("w", ["default"])
            now = asyncio.get_running_loop().time
            heart = Heartbeat(address, worker, "w", ["default"], now, every=0.001)
            first = await sql.fetchval(beats)
            heart.start()
            while await sql.fetchval(beats) < first + 300:  # transactions of both
                await asyncio.gather(*(database.fetchval("admin/backend") for _ in range(5)))
            await heart.stop()
            assert heart.steady_since == -math.inf


async def test_a_connection_of_its_own_takes_its_settings_for_one_transaction(pooled_dsn: str) -> None:
    connection = await connect(pooled_dsn, purpose="test")
    async with transacted(connection, JOB_SETTINGS):
        assert await connection.fetchval("show plan_cache_mode") == "force_generic_plan"
    async with transacted(connection):
        assert await connection.fetchval("show plan_cache_mode") == "auto"
    await connection.close()


async def test_every_step_of_a_job_goes_through_the_pooler(pooled_dsn: str, sql: asyncpg.Connection) -> None:
    async with job_database(pooled_dsn) as database:
        store = JobStore(database)
        worker = await store.register("w", ["default"])
        await store.enqueue_many("a", [{"n": n} for n in range(10)])
        jobs = await claim(store, worker)
        assert len(jobs) == 10
        assert (await store.write(worker, finished(jobs), {job.lease for job in jobs})).finished == 10
    assert await sql.fetchval("select count(*) from pipeline.job_archive") == 10
    assert await left_behind(pooled_dsn) == []


async def test_an_export_reads_through_the_pooler(pooled_dsn: str) -> None:
    async with ExportStore(pooled_dsn).open("select n, '{1}'::int[] as a from generate_series(1, 5) n") as source:
        assert [row["n"] for row in await source.fetch(3)] == [1, 2, 3]
        assert [row["n"] for row in await source.fetch(3)] == [4, 5]
    assert await left_behind(pooled_dsn) == []
