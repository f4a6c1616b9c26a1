"""The pool on a real server: fair, exhausted, leaked, cut off, and closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import time
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

import pipeline
from pipeline.app.board import PoolBoard
from pipeline.app.timing import recorder
from pipeline.db.instrument_asyncpg import instrument
from pipeline.db.pool import Pool
from pipeline.errors import (
    LoginFailed,
    PgreflexError,
    PoolClosed,
    PoolExhausted,
    PoolTooLarge,
    PoolUnreachable,
    ServerNotSuitable,
)
from tests.conftest import eventually
from tests.pool_kit import network, pool_of
from tests.pooler_kit import needs_pgbouncer, pgbouncer

LOCKS = """
    select count(*) from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
"""


async def test_whatever_takes_a_pool_of_asyncpg_takes_it(dsn: str) -> None:
    async with pool_of(dsn, min_size=2, max_size=3) as pool:
        assert isinstance(pool, asyncpg.Pool)
        assert await pool.fetchval("select $1::int", 7) == 7
        assert [row["n"] for row in await pool.fetch("select n from generate_series(1, 3) n")] == [1, 2, 3]
        await pool.execute("create table item (id int)")
        await pool.copy_records_to_table("item", records=[(1,), (2,)])
        await pool.executemany("insert into item values ($1)", [(3,), (4,)])
        assert (await pool.fetchrow("select count(*) as n from item"))["n"] == 4
        connection = await pool.acquire()
        assert isinstance(connection, asyncpg.Connection)
        async with connection.transaction():
            assert [row["id"] async for row in connection.cursor("select id from item order by id")] == [
                1,
                2,
                3,
                4,
            ]
        statement = await connection.prepare("select 1")
        assert await statement.fetchval() == 1
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetchval(query="select * from nowhere")
        assert (pool.get_size(), pool.get_idle_size(), pool.get_min_size(), pool.get_max_size()) == (2, 1, 2, 3)
        await pool.release(connection)
        await pool.release(connection)
        with pytest.raises(asyncpg.InterfaceError, match="released back"):
            await connection.fetchval("select 1")
        async with pool_of(dsn) as other:
            with pytest.raises(asyncpg.InterfaceError, match="not a member"):
                await other.release(connection)
        acquiring = pool.acquire()
        async with acquiring:
            with pytest.raises(asyncpg.InterfaceError, match="already acquired"):
                await acquiring.__aenter__()
        async with pipeline.connect(dsn) as client, pool.acquire() as connection, connection.transaction():
            await client.enqueue("shop.pay", conn=connection)


class Seen:
    """Notes the queries that are reported."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    def query(self, text: str, seconds: float, *, rows: int | None, error: str | None) -> None:
        self.queries.append(text)

    def transaction(self, seconds: float, *, error: str | None) -> None:
        self.queries.append("a transaction")

    def refused(self, what: str, reason: str) -> None:
        raise AssertionError(f"{what}: {reason}")

    def failed(self, fault: Exception) -> None:
        raise AssertionError from fault


async def test_the_queries_of_an_instrumented_pool_are_reported_and_its_resets_are_not(dsn: str) -> None:
    seen = Seen()
    async with pool_of(dsn, min_size=1, max_size=2) as pool:
        assert instrument(pool, seen)
        async with pool.acquire() as one, pool.acquire() as two:  # open already, and opened later
            await one.fetchval("select 1")
            async with two.transaction():
                await two.fetchval("select 2")
            await two.execute("begin")
        assert seen.queries == ["select 1", "BEGIN;", "select 2", "COMMIT;", "a transaction", "begin", "ROLLBACK",
                                "a transaction"]  # fmt: skip
        assert await pool.fetchval("select pg_is_in_recovery()") is False


async def test_what_a_borrower_leaves_behind_is_gone_for_the_next_one(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:
        heard: list[Any] = []
        one = await pool.acquire()
        await one.execute("create table item (id int)")
        await one.add_listener("bell", lambda *told: heard.append(told))
        await one.execute("set application_name = 'changed'; select pg_advisory_lock(42); notify bell, 'x'")
        await eventually(lambda: heard)
        assert heard[0][0] is one
        await one.execute("begin")
        await one.execute("insert into item values (1)")
        noise: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda *told: noise.append(told))
        with capture_logs() as logs, pytest.warns(asyncpg.InterfaceWarning, match="active notification listener"):
            await pool.release(one)
        assert noise == [], "asyncpg has nothing to complain of"
        async with pool.acquire() as two:
            assert two.get_server_pid() == heard[0][1]
            assert await two.fetchval("select count(*) from item") == 0
            assert await two.fetchval("show application_name") == pool.application_name
            assert await two.fetchval(LOCKS) == 0
            assert await two.fetchval("select count(*) from pg_listening_channels()") == 0
            assert not two.is_in_transaction()
        [told] = [line for line in logs if "inside a transaction" in line["event"]]
        assert "test_pool.py:" in told["place"]
        assert told["query"] == "insert into item values ($1)"
        assert pool.stats().rolled_back_total == 1
        assert pool.stats().opened_total == 1


async def test_a_connection_is_reset_if_and_only_if_something_was_asked_of_it(dsn: str) -> None:
    async with pool_of(dsn) as pool:
        counted = []
        for asks in (False, True, False):
            async with pool.acquire() as connection:
                if asks:
                    await connection.prepare("select set_config('application_name', 'changed', false)")
            counted.append(pool.slots()[0]._con._protocol.queries_count)
        assert counted == [counted[0], counted[0] + 1, counted[0] + 1]


async def test_the_exhausted_are_told_in_time_who_holds_what_and_the_others_are_served_in_turn(dsn: str) -> None:
    async with pool_of(dsn, max_size=10, acquire_timeout=0.5) as pool:
        served: list[int] = []
        loop = asyncio.get_running_loop()
        waits: list[float] = []
        errors: list[PoolExhausted] = []

        async def client(number: int) -> None:
            began = loop.time()
            try:
                async with pool.acquire() as connection:
                    served.append(number)
                    if number < 9:  # never give back in time
                        await connection.execute("begin")
                        await connection.fetchval("select 'secret', pg_sleep(1.2)")
                        await connection.execute("commit")
                    else:
                        await asyncio.sleep(0.1)
            except PoolExhausted as error:
                waits.append(loop.time() - began)
                errors.append(error)

        tasks = []
        with pipeline.labels(route="/pay"):
            for number in range(100):
                tasks.append(asyncio.create_task(client(number), name=f"client-{number}"))
        await asyncio.gather(*tasks)
        assert served == sorted(served)
        assert 10 <= len(served) < 100
        assert len(errors) == 100 - len(served)
        assert min(waits) >= 0.49
        error = errors[0]
        assert isinstance(error, TimeoutError)
        assert len(error.holders) == 10
        held = error.holders[0]
        assert (held.state, held.task, held.labels) == ("running", "client-0", {"route": "/pay"})
        assert held.seconds >= 0.4
        assert re.search(r"flow/test_pool.py:\d+ in .*client", held.place)
        assert held.query == "select $1, pg_sleep($2)"
        assert "secret" not in str(error)
        assert "10 connections came free within 0.5 s" in str(error)
        stats = pool.stats()
        assert (stats.active, stats.idle, stats.waiting, stats.total) == (0, 10, 0, 10)
        assert stats.timeouts_total == len(errors)
        assert stats.acquired_total == len(served)
        assert stats.wait.count == 100
        assert stats.held.count == len(served)
        assert await pool.fetchval("select 1") == 1


async def test_waits_and_holds_are_series_of_the_process(dsn: str) -> None:
    async with pool_of(dsn, name="told", max_size=1) as pool:
        async with pool.acquire():
            with pytest.raises(PoolExhausted):
                await pool.acquire(timeout=0.01)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.acquire(), 0.01)  # one's own patience may be shorter
            assert pool.stats().waiting == 0
        found = {part.series.text: part for part in recorder.parts() if part.series.source == "pool"}
        assert found['pool.wait{pool="told"}'].digest.count == 3
        assert found['pool.wait{pool="told"}'].errors == 2
        assert found['pool.held{pool="told"}'].digest.count == 1


async def test_a_connection_that_is_handed_to_a_cancelled_client_goes_to_the_next(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:
        got: list[str] = []

        async def client(name: str) -> None:
            async with pool.acquire():
                got.append(name)

        holder = await pool.acquire()
        first, second, third = (asyncio.create_task(client(name)) for name in ("first", "second", "third"))
        await eventually(lambda: pool.stats().waiting == 3)
        second.cancel()
        await asyncio.sleep(0)
        assert pool.stats().waiting == 2
        await pool.release(holder)
        first.cancel()  # it was handed the connection in this very step, and has not looked yet
        await third
        assert got == ["third"]
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        assert pool.stats().idle == 1


async def test_timeouts_and_cancellations_in_any_mixture_lose_no_connection(dsn: str) -> None:
    async with pool_of(dsn, max_size=3) as pool:

        async def client(number: int) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(number % 7 / 300), pool.acquire(timeout=number % 5 / 200) as connection:
                    if number % 3:
                        await connection.fetchval("select pg_sleep($1)", number % 4 / 300)

        for _ in range(3):
            tasks = [asyncio.create_task(client(number)) for number in range(60)]
            await asyncio.sleep(0.02)
            for task in tasks[::4]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await eventually(lambda: pool.stats().idle == pool.stats().total > 0)
        stats = pool.stats()
        assert (stats.waiting, stats.active, stats.opening) == (0, 0, 0)
        assert len(await asyncio.gather(*(pool.fetchval("select 1") for _ in range(9)))) == 9


async def test_a_return_that_is_cancelled_is_finished_by_the_pool(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:
        connection = await pool.acquire()
        await connection.execute("set application_name = 'changed'")
        returning = asyncio.create_task(pool.release(connection))
        await asyncio.sleep(0)
        returning.cancel()
        await asyncio.gather(returning, return_exceptions=True)
        assert returning.cancelled()
        assert await pool.fetchval("show application_name") == pool.application_name
        assert pool.stats().opened_total == 1


async def test_a_client_that_is_cancelled_in_the_middle_of_a_transaction_costs_no_connection(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:

        async def client() -> None:
            async with pool.acquire() as connection:
                await connection.execute("begin; select pg_sleep(30)")

        task = asyncio.create_task(client())
        await eventually(lambda: any(held.state == "running" for held in pool.holders()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await pool.fetchval("select 1") == 1
        assert pool.stats().opened_total == 1


async def test_a_connection_that_cannot_be_reset_in_time_is_closed(dsn: str) -> None:
    stuck = asyncio.Event()

    async def reset(_connection: object) -> None:
        await stuck.wait()

    async with pool_of(dsn, max_size=1, reset=reset, reset_timeout=0.05) as pool:
        with capture_logs() as logs:
            pid = await pool.fetchval("select pg_backend_pid()")
        assert [line["why"] for line in logs if line["event"] == "a connection was closed"] == [
            "it could not be reset"
        ]
        stuck.set()
        assert await pool.fetchval("select pg_backend_pid()") != pid
        assert pool.stats().discarded_total == 1


async def test_hooks_of_the_application_run_and_one_that_fails_costs_a_connection_only(dsn: str) -> None:
    seen: list[str] = []

    async def init(connection: Any) -> None:
        seen.append("init")

    async def setup(connection: Any) -> None:
        seen.append("setup")
        if seen.count("setup") == 2:
            raise ValueError("no")

    async def reset(connection: Any) -> None:
        seen.append("reset")

    async with pool_of(dsn, max_size=1, init=init, setup=setup, reset=reset) as pool:
        assert await pool.fetchval("select 1") == 1
        assert seen == ["init", "setup", "reset"]
        with pytest.raises(ValueError, match="no"):
            await pool.fetchval("select 1")
        assert await pool.fetchval("select 1") == 1
        assert seen == ["init", "setup", "reset", "setup", "init", "setup", "reset"]


async def test_a_connection_that_went_silent_while_it_lay_idle_is_replaced_before_it_is_used(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.db.pool_opener.CHECK_SECONDS", 0.1)
    async with network(dsn) as net, pool_of(net.dsn, min_size=2, max_size=2, check_after=0) as pool:
        await pool.fetchval("select 1")
        net.silence()
        with capture_logs() as logs:
            assert await asyncio.gather(*(pool.fetchval("select 1") for _ in range(4))) == [1] * 4
        assert {line.get("why") for line in logs} == {"it lay idle and does not answer"}
        assert pool.stats().discarded_total == 2


async def test_a_server_that_has_become_a_standby_is_left_where_a_primary_is_wanted(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await asyncpg.connect(empty_dsn)
    await admin.execute(
        "create schema fake; create table fake.standby (); create function fake.pg_is_in_recovery() returns bool"
        " language sql as 'select exists (select from fake.standby)'"
    )
    settings = {"search_path": "fake, pg_catalog"}
    for wish, discarded in (("any", 0), ("read-write", 1)):
        async with pool_of(
            empty_dsn, min_size=1, check_after=0, server_settings=settings, target_session_attrs=wish
        ) as pool:
            await admin.execute("insert into fake.standby default values")
            assert await pool.fetchval("select 1") == 1
            assert pool.stats().discarded_total == discarded
            await admin.execute("delete from fake.standby")
    await admin.close()


async def test_one_used_a_moment_ago_is_not_asked_whether_it_lives(dsn: str, sql: asyncpg.Connection) -> None:
    async with pool_of(dsn, min_size=1, max_size=1, check_after=30) as pool:
        async with pool.acquire() as connection:
            pid = connection.get_server_pid()
        async with pool.acquire():
            query = await sql.fetchval("select query from pg_stat_activity where pid = $1", pid)
        assert "pg_is_in_recovery" not in query


async def test_connections_that_the_server_ended_are_replaced_idle_or_lent(
    dsn: str, sql: asyncpg.Connection
) -> None:
    async with pool_of(dsn, min_size=3, max_size=3) as pool:
        end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1"
        await sql.execute(end, pool.application_name)
        await eventually(lambda: pool.stats().opened_total == 6)
        assert await asyncio.gather(*(pool.fetchval("select 1") for _ in range(6))) == [1] * 6
        lent = await pool.acquire()
        await sql.execute(end, pool.application_name)
        await eventually(lambda: not pool.slots() or all(slot.lent is None for slot in pool.slots()))
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await lent.fetchval("select 1")
        await pool.release(lent)
        await eventually(lambda: pool.stats().idle == 3)
        pool.line.idle[-1]._con.terminate()  # and nobody has heard of it yet
        assert await pool.fetchval("select 1") == 1


async def test_a_server_that_goes_away_in_the_middle_of_traffic_costs_no_client_in_line_its_turn(dsn: str) -> None:
    async with network(dsn) as net, pool_of(net.dsn, min_size=2, max_size=4) as pool:
        served = 0

        async def client() -> None:
            nonlocal served
            for _ in range(10):
                while True:
                    async with pool.acquire() as connection:
                        try:
                            await connection.fetchval("select pg_sleep(0.005)")
                        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                            continue  # it was cut in the middle: the next one is to be had
                        served += 1
                        break

        clients = [asyncio.create_task(client()) for _ in range(20)]
        await eventually(lambda: served > 30)
        before = net.connected
        await net.down()
        with capture_logs() as logs:
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in clients)
            await net.up()
            await asyncio.gather(*clients)
        assert served == 200
        told = [line["event"] for line in logs]
        assert told.count("a connection could not be opened; it is tried again") == 1
        assert told.count("connections can be opened again") == 1
        assert 2 <= pool.stats().failed_total <= 12, "attempts are paced"
        assert net.connected - before <= 8


async def test_who_waits_for_a_server_that_is_away_is_told_so(dsn: str) -> None:
    async with network(dsn) as net, pool_of(net.dsn, max_size=8) as pool:
        await net.down()
        await eventually(lambda: pool.stats().total == 0)
        others = [asyncio.ensure_future(pool.acquire()) for _ in range(6)]
        await eventually(lambda: pool.opener.failures > 6)
        assert pool.stats().opening == 1, "one finds out for all"
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        with pytest.raises(PoolUnreachable, match=r"could not open a connection within 0\.2 s.*refused") as caught:
            await pool.acquire(timeout=0.2)
        assert caught.value.code == "database-unavailable"
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value.__cause__, OSError)
        pool.terminate()
        await asyncio.sleep(0.01)
        assert not pool.tasks, "nobody tries any longer"


async def test_a_host_that_is_dead_or_does_not_take_writes_is_passed_over(dsn: str) -> None:
    async with network(dsn) as dead, network(dsn) as alive:
        await dead.down()
        both = alive.dsn.replace("@", f"@127.0.0.1:{dead.port},") + "&target_session_attrs=read-write"
        async with pool_of(both) as pool:
            assert await pool.fetchval("select 1") == 1
            assert pool.slots()[0].wants_primary()


async def test_a_host_that_is_silent_does_not_keep_the_next_one_from_being_asked(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.core.pool_hosts.FIRST_SECONDS", 0.2)
    async with network(dsn) as silent, network(dsn) as alive:
        both = alive.dsn.replace("@127.0.0.1", f"@127.0.0.1:{silent.port},127.0.0.1")
        async with pool_of(both, max_size=2) as pool:
            assert (silent.connected, alive.connected) == (1, 0)
            silent.silence()
            silent.mute = True
            await pool.expire_connections()
            assert await asyncio.gather(*(pool.fetchval("select 1") for _ in range(3))) == [1, 1, 1]
            assert alive.connected >= 1
        async with pool_of(both) as pool:
            assert await pool.fetchval("select 1") == 1


async def test_a_refused_login_is_told_at_once(dsn: str, sql: asyncpg.Connection) -> None:
    with pytest.raises(LoginFailed):
        async with pool_of(f"{dsn}&dbname=nowhere_{id(sql)}" if "?" in dsn else dsn, database="nowhere"):
            pass
    role = f"r{id(sql)}"
    await sql.execute(f"create role {role} login")
    try:
        async with pool_of(dsn, user=role, min_size=0, max_size=1, idle_timeout=0.01) as pool:
            await eventually(lambda: pool.stats().total == 0)
            await sql.execute(f"alter role {role} nologin")
            with pytest.raises(LoginFailed, match="not permitted"):
                await pool.acquire(timeout=5)
    finally:
        await sql.execute(f"drop role {role}")


async def test_a_connection_that_nobody_has_any_more_comes_back(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:

        async def forgets() -> None:
            connection = await pool.acquire()
            await connection.fetchval("select 1")

        with capture_logs() as logs:
            await asyncio.create_task(forgets(), name="forgetful")
            assert await pool.fetchval("select 2") == 2
        [told] = [line for line in logs if "never given back" in line["event"]]
        assert told["task"] == "forgetful"
        assert "in test_a_connection_that_nobody_has" in told["place"]
        assert pool.stats().reclaimed_total == 1
        assert pool.stats().opened_total == 1


async def test_what_still_uses_a_connection_that_was_dropped_keeps_it(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:

        async def prepares() -> Any:
            connection = await pool.acquire()
            return await connection.prepare("select 3")

        async def transacts() -> Any:
            connection = await pool.acquire()
            transaction = connection.transaction()
            await transaction.start()
            return transaction

        assert await (await pool.acquire()).fetchval("select 1 from pg_sleep(0.1)") == 1
        prepared = await prepares()  # once the query has ended, its connection comes back
        await asyncio.sleep(0.1)
        assert pool.stats().reclaimed_total == 1
        assert await prepared.fetchval() == 3
        del prepared
        transaction = await transacts()
        await asyncio.sleep(0.1)
        await transaction.commit()
        del transaction
        assert await pool.fetchval("select 4") == 4
        stats = pool.stats()
        assert (stats.reclaimed_total, stats.rolled_back_total, stats.opened_total) == (3, 0, 1)


async def test_nothing_of_a_borrower_reaches_the_next_one(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:
        connection = await pool.acquire()
        transaction = connection.transaction()
        await pool.release(connection)  # nothing was asked, so nothing is reset
        async with pool.acquire() as next_one:
            with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                await transaction.start()
            assert not next_one.is_in_transaction()


async def test_a_connection_that_only_a_traceback_keeps_comes_back(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:

        async def fails() -> None:
            connection = await pool.acquire()
            await connection.fetchval("select 1/0")

        task = asyncio.create_task(fails())
        with capture_logs() as logs:
            await asyncio.wait([task])
            assert await pool.fetchval("select 2") == 2
        assert isinstance(task.exception(), asyncpg.DivisionByZeroError)
        assert ["traceback" in line["why"] for line in logs if "never given back" in line["event"]] == [True]


async def test_a_connection_that_was_handed_on_stays_with_whoever_has_it(dsn: str) -> None:
    async with pool_of(dsn, max_size=1, leak_after=0.2) as pool:

        async def takes() -> Any:
            return await pool.acquire()

        with capture_logs() as logs:
            connection = await asyncio.create_task(takes(), name="taker")
            gc.collect()
            await eventually(lambda: pool.stats().leaked_total == 1)
            await asyncio.sleep(0.1)
        assert await connection.fetchval("select 1") == 1
        [told] = [line for line in logs if "held for long" in line["event"]]
        assert (told["task"], told["task_ended"], told["state"]) == ("taker", True, "idle")
        assert pool.stats().reclaimed_total == 0
        await pool.release(connection)
        async with pool.acquire() as next_one:
            await pool.release(connection)
            assert await next_one.fetchval("select 1") == 1, "a second return takes it from nobody"

        def has_it() -> bool:
            lent = pool.desk.at_once(None)  # in a variable of a running function, which no collector sees
            return pool.slots()[0].is_forsaken() or lent is None

        assert not has_it()


async def test_idle_connections_go_down_to_the_least(dsn: str) -> None:
    async with pool_of(dsn, min_size=1, max_size=5, idle_timeout=0.3) as pool:
        await asyncio.gather(*(pool.fetchval("select pg_sleep(0.05)") for _ in range(5)))
        assert pool.stats().total > 1
        await eventually(lambda: pool.stats().total == 1)
        await asyncio.sleep(0.1)
        assert pool.stats().total == 1


async def test_all_connections_are_replaced_on_request_and_after_many_queries(dsn: str) -> None:
    async with pool_of(dsn, min_size=1, max_size=1, max_queries=4) as pool:
        lent = await pool.acquire()
        await pool.expire_connections()
        pid = lent.get_server_pid()
        await pool.release(lent)
        pids = [await pool.fetchval("select pg_backend_pid()") for _ in range(4)]
        assert pid not in pids
        assert 2 <= len(set(pids)) <= 3
        await eventually(lambda: pool.stats().idle == 1)
        idle = pool.slots()[0]._con.get_server_pid()
        await pool.expire_connections()
        assert await pool.fetchval("select pg_backend_pid()") != idle


async def test_timeouts_of_the_server_are_set_and_survive_a_reset(dsn: str) -> None:
    options = {"statement_timeout": "50ms", "lock_timeout": 7, "idle_in_transaction_timeout": "1m"}
    async with pool_of(dsn, **options) as pool:
        for _ in range(2):
            with pytest.raises(asyncpg.QueryCanceledError):
                await pool.execute("select pg_sleep(5)")
        assert await pool.fetchval("show lock_timeout") == "7s"
        assert await pool.fetchval("show idle_in_transaction_session_timeout") == "1min"
    async with pool_of(dsn, server_settings={"work_mem": "5MB"}) as pool:
        assert await pool.fetchval("show work_mem") == "5MB"
        assert await pool.fetchval("show statement_timeout") == "0"


async def test_a_pool_that_cannot_fit_is_refused_and_one_that_may_not_is_warned_of(
    dsn: str, sql: asyncpg.Connection
) -> None:
    with pytest.raises(PoolTooLarge, match="may open 5000 connections, more than the server has for it"):
        async with pool_of(dsn, max_size=5000):
            pass
    most = int(await sql.fetchval("show max_connections"))
    async with pool_of(dsn, name="one", max_size=most - 10):
        with capture_logs() as logs:
            async with pool_of(dsn, name="two", max_size=50):
                pass
        [told] = [found for line in logs if (found := re.search(r"may together open (\d+)", line["event"]))]
        assert int(told[1]) >= most + 40, "other tests have pools, too"
    role = f"few{id(sql)}"
    await sql.execute(f"create role {role} login connection limit 3")
    try:
        with pytest.raises(PoolTooLarge, match="the connection limit of the role 3"):
            async with pool_of(dsn, user=role, max_size=5):
                pass
    finally:
        await sql.execute(f"drop role {role}")


async def test_closing_waits_for_those_who_are_inside_and_refuses_newcomers(dsn: str) -> None:
    async with pool_of(dsn, max_size=1) as pool:
        order: list[str] = []

        async def client(name: str) -> None:
            async with pool.acquire() as connection:
                await connection.fetchval("select pg_sleep(0.1)")
                order.append(name)

        clients = [asyncio.create_task(client(name)) for name in ("inside", "in line")]
        await eventually(lambda: pool.stats().waiting == 1)
        closing, too = (asyncio.create_task(pool.close(timeout=5)) for _ in range(2))
        await asyncio.sleep(0)
        for error in (PoolClosed, asyncpg.InterfaceError):
            with pytest.raises(error, match="about to close"):
                await pool.acquire()
        assert (await closing, await too) == ((), ())
        assert order == ["inside", "in line"]
        await asyncio.gather(*clients)
        with pytest.raises(PoolClosed, match="is closed"):
            await pool.fetchval("select 1")
        assert await pool.close() == ()


async def test_whoever_stays_after_the_end_is_cut_off_and_named(dsn: str) -> None:
    async with pool_of(dsn, max_size=2) as pool:

        async def stays() -> None:
            async with pool.acquire() as connection:
                await connection.execute("select pg_sleep(30)")

        async def waits() -> None:
            await pool.acquire(timeout=None)

        busy = [asyncio.create_task(stays(), name=f"stays-{n}") for n in range(2)]
        await eventually(lambda: pool.stats().active == 2)
        late = asyncio.create_task(waits())
        await asyncio.sleep(0)
        with capture_logs() as logs:
            cut = await pool.close(timeout=0.1)
        assert {held.task for held in cut} == {"stays-0", "stays-1"}
        assert {held.state for held in cut} == {"running"}
        assert "stays-0" in logs[-1]["holders"]
        ends = await asyncio.gather(*busy, late, return_exceptions=True)
        assert isinstance(ends[-1], PoolClosed)
        assert all(isinstance(end, asyncpg.InterfaceError | asyncpg.PostgresError) for end in ends[:2]), ends


async def test_a_pool_is_opened_once_and_not_used_before(dsn: str) -> None:
    pool = pipeline.create_pool(dsn)
    assert pool.options.name == "main"
    with pytest.raises(PoolClosed, match="not open yet"):
        await pool.fetchval("select 1")
    opening = asyncio.create_task(pool._async__init__())
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed, match="being opened by another task"):
        await pool
    await opening
    async with pool:
        assert await pool is pool
        assert pipeline.create_pool(dsn).options.name == "main-2"
        assert await pool.fetchval("select 1") == 1
    with pytest.raises(PgreflexError, match="closed"):
        await pool
    assert isinstance(pool, Pool)
    ended = pipeline.create_pool(dsn)
    opening = asyncio.create_task(ended._async__init__())
    await eventually(lambda: ended.opener.opened_total > 0)
    await ended.close()
    with contextlib.suppress(PoolClosed, asyncio.CancelledError):
        await opening
    assert ended.is_closed()
    async with pool_of(dsn + ("&" if "?" in dsn else "?") + "application_name=shop") as named:
        assert await named.fetchval("show application_name") == "shop"


async def test_the_pools_of_a_process_are_reported_on_the_feed_while_a_client_is_open(dsn: str) -> None:
    board = PoolBoard()
    async with (
        pool_of(dsn, name="shop", max_size=3) as pool,
        pipeline.connect(dsn, sinks=(board,)),
        pool.acquire(),
    ):
        now = time.monotonic
        await eventually(lambda: board.status(now()))
        [told] = board.status(now())
        assert (told.name, told.active, told.max_size) == ("shop", 1, 3)
        assert str(os.getpid()) in told.process


@needs_pgbouncer
async def test_a_pool_works_through_a_pooler_and_what_the_pooler_does_not_take_is_told(dsn: str) -> None:
    with pgbouncer(dsn) as address:
        async with pool_of(address, max_size=500, statement_cache_size=0, check_after=0) as pool:
            assert await asyncio.gather(*(pool.fetchval("select $1::int", n) for n in range(20))) == list(
                range(20)
            )
        with pytest.raises(ServerNotSuitable, match="statement_timeout"):
            async with pool_of(address, statement_timeout=5):
                pass
