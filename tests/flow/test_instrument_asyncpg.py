"""Every query of asyncpg is reported once, and nothing else about asyncpg changes."""

from __future__ import annotations

import asyncio
import inspect
import io
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any

import asyncpg
import pytest

from pipeline.db import watched_asyncpg
from pipeline.db.instrument_asyncpg import instrument, uninstrument
from tests.conftest import eventually
from tests.instrument_kit import Listener, Raising, Tally, agree, normal

TABLES = """
create table item (id bigint primary key, note text);
create type mood as enum ('fine', 'sad');
create type spot as (x int, y int);
"""


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def database(new_database: Callable[[str], Awaitable[str]]) -> str:
    dsn = await new_database("template1")
    connection = await asyncpg.connect(dsn)
    await connection.execute(TABLES)
    await connection.close()
    return dsn


@pytest.fixture
async def watched(database: str, listener: Listener) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    assert instrument(connection, listener)
    yield connection
    if not connection.is_closed():
        await connection.close()
    assert listener.faults == []


async def test_calls_with_and_without_arguments_tell_their_rows(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    await watched.execute("insert into item values (1, 'a'), (2, 'b')")
    await watched.execute("insert into item values ($1, $2), (4, $2)", 3, "c")
    await watched.fetch("select * from item")
    await watched.fetchrow("select * from item where id = $1", 1)
    await watched.fetchval("select count(*) from item")
    await watched.fetch("select * from item where false")
    await watched.fetch("update item set note = $1", "d")
    await watched.fetch("delete from item where id > $1 returning id", 3)
    await watched.execute("create table other (id int); insert into other values (1), (2), (3)")
    assert listener.take() == [
        ("insert into item values (1, 'a'), (2, 'b')", 2, None),
        ("insert into item values ($1, $2), (4, $2)", 2, None),
        ("select * from item", 4, None),
        ("select * from item where id = $1", 1, None),
        ("select count(*) from item", 1, None),
        ("select * from item where false", 0, None),
        ("update item set note = $1", 4, None),
        ("delete from item where id > $1 returning id", 1, None),
        ("create table other (id int); insert into other values (1), (2), (3)", 3, None),
    ]


async def test_what_asyncpgs_own_logger_misses_is_reported(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    statement = await watched.prepare("select g from generate_series(1, $1::int) g")
    assert listener.take() == []  # parsed, not run
    await statement.fetch(3)
    await statement.fetchval(2)
    await statement.executemany([(1,), (2,)])
    await statement.fetchmany([(1,), (2,)])
    text = statement.get_query()
    assert listener.take() == [(text, 3, None), (text, 1, None), (text, 2, None), (text, 3, None)]
    await watched.executemany("insert into item values ($1, 'x')", ((n,) for n in range(7)))
    await watched.fetchmany("insert into item values ($1, 'x') returning id", [(8,), (9,)])
    await watched.copy_records_to_table("item", records=[(n, "y") for n in range(10, 15)])
    await watched.copy_to_table("item", source=io.BytesIO(b"20\tz\n21\tz\n"))
    await watched.copy_from_table("item", output=io.BytesIO())
    await watched.copy_from_query("select * from item where id >= 20", output=io.BytesIO())
    assert [rows for _, rows, _ in listener.take()] == [7, 2, 5, 2, 16, 2]


async def test_a_cursor_is_one_query_with_the_rows_of_all_its_fetches(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    text = "select g from generate_series(1, 25) g"
    async with watched.transaction():
        assert [row[0] async for row in watched.cursor(text, prefetch=10)] == list(range(1, 26))
        assert listener.take()[1:] == [(text, 25, None)]
        async for row in watched.cursor(text, prefetch=10):
            if row[0] == 3:
                break  # the portal stays open until the transaction ends
        cursor = await watched.cursor(text)
        await cursor.fetch(5)
        assert await cursor.forward(5) == 5
        assert (await cursor.fetchrow())[0] == 11
        assert listener.take() == []
    assert listener.take() == [("COMMIT;", 0, None), (text, 10, None), (text, 11, None)]

    async def broken() -> None:
        async with watched.transaction():
            async for _ in watched.cursor("select 1 / (3 - g) from generate_series(1, 5) g", prefetch=1):
                pass

    with pytest.raises(asyncpg.DivisionByZeroError):
        await broken()
    failed = [one for one in listener.take() if one[2]]
    assert failed == [("select 1 / (3 - g) from generate_series(1, 5) g", 2, "22012")]


async def test_transactions_are_reported_as_statements_and_as_a_whole(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    async with watched.transaction():
        for _ in range(2):
            async with watched.transaction():
                await watched.execute("insert into item values (1, 'a') on conflict do nothing")
    texts = [text for text, _, _ in listener.take()]
    assert texts[0] == "BEGIN;"
    assert texts[-1] == "COMMIT;"
    assert Counter(texts)["SAVEPOINT given;"] == Counter(texts)["RELEASE SAVEPOINT given;"] == 2
    assert listener.transactions == [None]
    with pytest.raises(asyncpg.UniqueViolationError):
        async with watched.transaction():
            await watched.execute("insert into item values (1, 'a')")
    transaction = watched.transaction()
    await transaction.start()
    await transaction.rollback()  # on purpose
    assert listener.transactions == [None, "23505", None]
    await watched.execute("begin")
    with pytest.raises(asyncpg.UndefinedTableError):
        await watched.fetch("select * from nothing")
    await watched.execute("commit")  # which the server answers with ROLLBACK
    assert listener.transactions[3:] == ["42P01"]


async def test_errors_are_told_by_sqlstate_and_timeouts_and_cancellation_apart(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await watched.fetch("selec 1")
    with pytest.raises(TimeoutError):
        await watched.fetch("select pg_sleep(10)", timeout=0.05)
    await watched.execute("set statement_timeout = '20ms'")
    with pytest.raises(asyncpg.QueryCanceledError):
        await watched.fetch("select pg_sleep($1)", 10)
    await watched.execute("reset statement_timeout")
    task = asyncio.ensure_future(watched.execute("select pg_sleep(11)"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(asyncpg.DataError):
        await watched.fetch("select $1::int", "a secret")
    with pytest.raises(TypeError):
        await watched.executemany("insert into item values ($1)", 7)
    with pytest.raises(TypeError):
        await watched.execute(7)  # type: ignore[arg-type]  # which ends the connection
    errors = [(text, error) for text, _, error in listener.take() if error]
    assert errors == [
        ("selec 1", "42601"),
        ("select pg_sleep(10)", "TimeoutError"),
        ("select pg_sleep($1)", "57014"),
        ("select pg_sleep(11)", "CancelledError"),
        ("select $1::int", "22000"),  # the driver refused the argument
        ("insert into item values ($1)", "TypeError"),
        ("<unparsable query>", "TypeError"),
    ]


async def test_a_transaction_ends_with_its_connection(watched: asyncpg.Connection, listener: Listener) -> None:
    await watched.execute("begin")
    cursor = await watched.cursor("select 1")
    watched.terminate()
    assert listener.transactions == ["ConnectionClosed"]
    assert listener.take()[1:] == [("select 1", 0, "ConnectionClosed")]
    del cursor


async def test_the_time_of_parsing_is_part_of_the_first_execution(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    statement = await watched.prepare("select " + " + ".join(["1"] * 2_000))
    for first in (True, False):
        began = perf_counter()
        await statement.fetch()
        assert (listener.heard[-1].seconds > perf_counter() - began) is first
    for n in range(100):
        await watched.prepare(f"select {n}")  # and never run
    assert len(watched._protocol._pgreflex.parsed) <= watched_asyncpg.MOST_PARSED


@pytest.mark.parametrize("opened", [False, True])
async def test_a_pool_is_watched_whether_it_is_open_or_not_and_left_as_it_was(
    database: str, listener: Listener, opened: bool
) -> None:
    pool = asyncpg.create_pool(database, min_size=2, max_size=3)
    connect = pool._connect
    if opened:
        await pool
    for _ in range(2):
        assert instrument(pool, listener)
    await pool
    try:
        listener.forget()
        lent = [await pool.acquire() for _ in range(3)]
        for connection in lent:
            await connection.fetchval("select 1")
        assert Counter(text for text, _, _ in listener.take()) == {"select 1": 3}
        for connection in lent:
            await pool.release(connection)
        assert listener.take() == []  # nobody asked for the resets
        await pool.expire_connections()
        assert await pool.fetchval("select 2") == 2  # on a new connection
        assert listener.take()[-1][0] == "select 2"
        uninstrument(pool)
        assert pool._connect is connect
        await pool.fetchval("select 3")
        await pool.expire_connections()
        await pool.fetchval("select 3")
        assert listener.take() == []
    finally:
        await pool.close()


async def test_the_newest_observer_hears_and_a_query_that_runs_while_it_ends_is_still_told(
    watched: asyncpg.Connection, listener: Listener
) -> None:
    other = Listener()
    assert instrument(watched, other)
    await watched.fetchval("select 1")
    assert (len(listener.heard), len(other.heard)) == (0, 1)
    running = asyncio.ensure_future(watched.fetchval("select pg_sleep(0.1)"))
    await asyncio.sleep(0.02)
    uninstrument(watched)
    await running
    await watched.fetchval("select 2")
    assert [text for text, _, _ in other.take()] == ["select 1", "select pg_sleep(0.1)"]


async def test_a_driver_that_is_not_as_expected_is_left_alone(
    database: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(watched_asyncpg.SEAMS, "query", ["self", "query", "timeout", "more"])
    connection = await asyncpg.connect(database)
    assert not instrument(connection, listener)
    assert await connection.fetchval("select 1") == 1
    assert type(connection._protocol) is watched_asyncpg.Base
    await connection.close()
    assert listener.refusals == [f"asyncpg {asyncpg.__version__}: its protocol's query takes other arguments"]
    assert not instrument(object(), listener)


async def test_an_observer_that_raises_is_noticed_by_nobody(database: str) -> None:
    observer = Raising()
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    assert instrument(pool, observer)
    seen = await behaviours(pool, database)
    await pool.close()
    assert seen == await plainly(database)
    assert observer.faults


async def test_everything_behaves_as_it_does_without(database: str, listener: Listener) -> None:
    expected = await plainly(database)
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    assert instrument(pool, listener)
    assert await behaviours(pool, database) == expected
    await pool.close()
    assert listener.faults == []
    assert len(expected) > 30


async def plainly(database: str) -> list[str]:
    pool = await asyncpg.create_pool(database, min_size=1, max_size=2)
    seen = await behaviours(pool, database)
    await pool.close()
    return seen


async def behaviours(pool: asyncpg.Pool[Any], database: str) -> list[str]:
    """What asyncpg says and does, step by step."""
    seen: list[str] = []
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(normal(context["message"])))

    async def say(doing: Callable[[], Any]) -> Any:
        try:
            result = doing()
            if inspect.isawaitable(result):
                result = await result
        except (Exception, asyncio.CancelledError) as error:
            seen.append(f"{type(error).__name__} {normal(str(error))} {getattr(error, 'query', '')}")
            return None
        seen.append(normal(result))
        return result

    async with pool.acquire() as one:
        await one.execute("drop table if exists changing; delete from item")
        notes: list[Any] = []

        def heard(connection: Any, _pid: int, channel: str, payload: str) -> None:
            notes.append((connection is one, channel, payload))

        await one.add_listener("news", heard)
        await say(lambda: one.execute("notify news, 'hello'"))
        await eventually(lambda: notes)
        seen.append(normal(notes))
        await one.remove_listener("news", heard)
        logs: list[Any] = []
        one.add_log_listener(lambda connection, message: logs.append((connection is one, message.message)))
        await say(lambda: one.execute("do $$ begin raise notice 'look'; end $$"))
        await eventually(lambda: logs)
        seen.append(normal(logs))
        one._con._log_listeners.clear()
        logged: list[Any] = []
        with one.query_logger(lambda record: logged.append((record.query, record.args))):
            await one.fetchval("select $1::int", 5)
            await asyncio.sleep(0)
        seen.append(normal(logged))
        await one.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=lambda text: ("json", text))
        await say(lambda: one.fetchval("""select '{"a": 1}'::json"""))
        await one.reset_type_codec("json", schema="pg_catalog")
        await say(lambda: one.fetch("select 'fine'::mood, '(1,2)'::spot"))
        for kind in ("text", "int"):
            await say(lambda: one.execute(f"alter type spot alter attribute y type {kind}"))  # noqa: B023
            await say(lambda: one.fetch("select 'fine'::mood, '(1,2)'::spot"))
            await say(lambda: one.fetch("select 'fine'::mood, '(1,2)'::spot"))
        await say(lambda: one.execute("create table changing (a int)"))
        await say(lambda: one.fetch("select * from changing"))
        await say(lambda: one.execute("alter table changing add b int"))
        await say(lambda: one.fetch("select * from changing"))
        statement = await one.prepare("select $1::int + 1")
        await say(lambda: statement.fetchval(2))
        await say(statement.get_statusmsg)
        await say(statement.get_parameters)
        await say(lambda: statement.fetchval("no number"))
        await say(lambda: statement.explain(1))
        await say(lambda: one.executemany("insert into item values ($1, 'a')", 7))
        await say(lambda: one.executemany("insert into item values ($1, 'a')", iter([(1,), ("x",)])))
        await say(lambda: one.executemany("insert into item values ($1, 'a')", [(1,), (1,)]))

        def failing() -> Any:
            yield (5,)
            raise LookupError("the rows are gone")

        await say(lambda: one.executemany("insert into item values ($1, 'a')", failing()))
        await say(one.is_closed)

    await say(lambda: statement.fetchval(2))  # the connection was released
    async with pool.acquire() as one:

        async def source() -> AsyncIterator[bytes]:
            yield b"1\ta\n"
            raise LookupError("the bytes are gone")

        await say(lambda: one.copy_to_table("item", source=source()))
        await say(lambda: one.copy_records_to_table("item", records=[("x", "y")]))
        await say(lambda: one.fetchval("select count(*) from item"))

        await say(lambda: one.cursor("select 1"))
        await say(lambda: one.execute("select 1; select 1 / 0"))
        await say(lambda: one.fetch("select 1; select 2"))
        await say(lambda: one.fetch("select pg_sleep(5)", timeout=0.05))
        await say(lambda: one.fetchval("select 'usable'"))
        both = await asyncio.gather(
            one.fetch("select pg_sleep(0.05)"), one.fetch("select 1"), return_exceptions=True
        )
        seen.append(normal(both))
        await say(lambda: one.fetch("select 1", timeout=-1))
        await say(lambda: one.fetch("select 1", timeout="soon"))
        task = asyncio.ensure_future(one.fetch("select pg_sleep(5)"))
        await asyncio.sleep(0.02)
        task.cancel()
        await say(lambda: task)
        await say(lambda: one.fetchval("select 'usable again'"))

        async def nested() -> str:
            async with one.transaction(isolation="serializable"):
                try:
                    async with one.transaction():
                        await one.execute("select 1 / 0")
                except asyncpg.DivisionByZeroError:
                    pass
                return await one.fetchval("show transaction_isolation")

        await say(nested)
        await say(one.is_in_transaction)
        await one.execute("begin")  # and released with it
    await say(lambda: complaints)
    one = await pool.acquire()
    await say(lambda: one.fetchval("select pg_terminate_backend(pg_backend_pid())"))
    await say(one.is_closed)
    await pool.release(one)
    await say(lambda: pool.fetchval("select 'a new one'"))
    lent = await pool.acquire()
    ended: list[bool] = []
    lent.add_termination_listener(lambda connection: ended.append(connection is lent))
    lent.terminate()
    await eventually(lambda: ended)
    await say(lambda: lent.fetch("select 1"))
    await pool.release(lent)
    await say(pool.get_size)
    loop.set_exception_handler(None)
    return seen


async def test_any_run_of_calls_agrees_with_a_plain_count_and_with_the_server(
    database: str, listener: Listener
) -> None:
    watched = await asyncpg.connect(database)
    assert instrument(watched, listener)

    async def run() -> Tally:
        tally, rng = Tally(), random.Random(20)
        await watched.execute("truncate item")
        for _ in range(150):
            tally.add(*await some_call(rng, watched))
        return tally

    await agree(database, listener, run)
    assert {one.error for one in listener.heard} == {None, "23505", "22012"}
    await watched.close()


async def some_call(rng: random.Random, connection: asyncpg.Connection) -> tuple[str, int | None, int]:
    """Does something; returns its text, its rows (None: it failed), and how many more calls the server saw."""
    number = rng.randrange(1, 60)
    match rng.randrange(9):
        case 0:
            await connection.fetch("select g from generate_series(1, $1::int) g", number)
            return "select g from generate_series(1, $1::int) g", number, 0
        case 1:
            await connection.fetchval("select g from generate_series(1, $1::bigint) g limit 1", number)
            return "select g from generate_series(1, $1::bigint) g limit 1", 1, 0
        case 2:
            text = "insert into item select g, $2 from generate_series($1::bigint, $1::bigint + 2) g"
            try:
                await connection.execute(text, number * 3, "x")
            except asyncpg.UniqueViolationError:
                return text, None, 0
            return text, 3, 0
        case 3:
            done = await connection.execute("delete from item where id < $1", number)
            return "delete from item where id < $1", int(done.split()[-1]), 0
        case 4:
            text = "insert into item values ($1, $2) on conflict do nothing"
            await connection.executemany(text, [(-number * 100 - n, "m") for n in range(number)])
            return text, number, number - 1
        case 5:
            text = "select g from generate_series(1, $1::smallint) g"
            async with connection.transaction():
                taken = [row async for row in connection.cursor(text, number, prefetch=7)]
            return text, len(taken), 0
        case 6:
            statement = await connection.prepare("select id from item where id > $1")
            return "select id from item where id > $1", len(await statement.fetch(number)), 0
        case 7:
            await connection.copy_from_query("select * from item", output=io.BytesIO())
            copied = await connection.fetchval("select count(*) from item")
            return "COPY (select * from item) TO STDOUT", copied, 0
        case _:
            with pytest.raises(asyncpg.DivisionByZeroError):
                await connection.fetch("select 1 / ($1 - $1::int)", number)
            return "select 1 / ($1 - $1::int)", None, 0
