"""Every query of psycopg is reported once, on blocking and on asyncio connections, and nothing else changes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from pipeline.db import instrument_psycopg
from pipeline.db.instrument_psycopg import instrument, uninstrument
from tests.instrument_kit import Listener, Raising, Tally, agree, normal

Heard = list[tuple[str, int | None, str | None]]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def database(new_database: Callable[[str], Awaitable[str]]) -> str:
    dsn = await new_database("template1")
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table item (id bigint primary key, note text)")
    await connection.close()
    return dsn


@pytest.fixture
def watched(database: str, listener: Listener) -> Iterator[psycopg.Connection[Any]]:
    connection = psycopg.connect(database)
    assert instrument(connection, listener)
    yield connection
    connection.close()
    assert listener.faults == []


def test_each_kind_of_call_is_one_query_with_its_rows(
    watched: psycopg.Connection[Any], listener: Listener
) -> None:
    watched.execute("insert into item values (1, 'a'), (2, 'b')")
    watched.execute("select * from item where id = %s", (1,), prepare=True)
    cursor = watched.cursor()
    cursor.executemany("insert into item values (%s, 'x')", ((n,) for n in range(10, 17)))
    cursor.executemany("insert into item values (%s, 'y') returning id", [(20,), (21,)], returning=True)
    assert [cursor.fetchone()] == [(20,)]
    assert len(list(cursor.stream("select * from item"))) == 11
    with cursor.copy("copy item from stdin") as copy:
        copy.write_row((30, "z"))
    with cursor.copy("copy (select * from item where id > %s) to stdout", (20,)) as copy:
        assert len(list(copy.rows())) == 2
    watched.execute("select 1; select 2 union select 3")
    watched.execute(sql.SQL("select {}").format(sql.Literal("secret")))
    psycopg.ClientCursor(watched).execute("select %s", ("not watched",))
    watched.commit()
    assert listener.take() == [
        ("BEGIN", 0, None),
        ("insert into item values (1, 'a'), (2, 'b')", 2, None),
        ("select * from item where id = $1", 1, None),
        ("insert into item values ($1, 'x')", 7, None),
        ("insert into item values ($1, 'y') returning id", 2, None),
        ("select * from item", 11, None),
        ("copy item from stdin", 1, None),
        ("copy (select * from item where id > 20) to stdout", 2, None),
        ("select 1; select 2 union select 3", 3, None),
        ("select 'secret'", 1, None),
        ("COMMIT", 0, None),
    ]
    assert listener.transactions == [None]


def test_arguments_that_are_bound_by_the_client_are_not_told(database: str, listener: Listener) -> None:
    with psycopg.connect(database, cursor_factory=psycopg.ClientCursor, autocommit=True) as connection:
        assert instrument(connection, listener)
        assert connection.execute("select %s", ("secret",)).fetchone() == ("secret",)
        assert type(connection.cursor()).__name__ == "ClientCursor"
    assert listener.take() == [("select %s", 1, None)]


def test_a_server_side_cursor_is_one_query(watched: psycopg.Connection[Any], listener: Listener) -> None:
    with watched.cursor("named", scrollable=True) as cursor:
        cursor.execute("select g from generate_series(1, %s) g", (25,))
        cursor.itersize = 10
        assert len(list(cursor)) == 25
        cursor.scroll(0, mode="absolute")
        assert len(cursor.fetchmany(3)) == 3
    assert listener.take() == [("BEGIN", 0, None), ("select g from generate_series(1, $1) g", 28, None)]
    with pytest.raises(psycopg.errors.DivisionByZero), watched.cursor("other") as cursor:
        cursor.execute("select 1 / (3 - g) from generate_series(1, 5) g").fetchall()
    with pytest.raises(psycopg.errors.InFailedSqlTransaction), watched.cursor("third") as cursor:
        cursor.execute("select 1")
    watched.rollback()
    assert listener.take() == [
        ("select 1 / (3 - g) from generate_series(1, 5) g", 0, "22012"),
        ("select 1", None, "25P02"),
        ("ROLLBACK", 0, None),
    ]
    assert listener.transactions == ["25P02"]


def test_in_a_pipeline_each_query_is_told_when_its_result_was_read(
    watched: psycopg.Connection[Any], listener: Listener
) -> None:
    watched.autocommit = True

    def broken() -> None:
        with watched.pipeline() as pipeline:
            cursor = watched.cursor()
            cursor.execute("insert into item values (%s, 'a')", (1,))
            cursor.executemany("insert into item values (%s, 'b')", [(2,), (3,), (4,)])
            watched.execute("select * from item")
            pipeline.sync()
            assert len(listener.heard) == 3
            watched.execute("select 1 / %s::int", (0,))
            cursor.execute("select 2")

    with pytest.raises(psycopg.errors.DivisionByZero):
        broken()
    assert sorted(listener.take()) == [
        ("insert into item values ($1, 'a')", 1, None),
        ("insert into item values ($1, 'b')", 3, None),
        ("select * from item", 4, None),
        ("select 1 / $1::int", None, "22012"),
        ("select 2", None, "PipelineAborted"),
    ]


def test_transactions_and_errors(watched: psycopg.Connection[Any], listener: Listener) -> None:
    with watched.transaction():
        watched.execute("select 1")
        with pytest.raises(psycopg.errors.SyntaxError), watched.transaction():
            watched.execute("selec 1")
    assert [text for text, _, _ in listener.take()] == [
        "BEGIN", "select 1", 'SAVEPOINT "_pg3_2"', "selec 1", 'ROLLBACK TO "_pg3_2"', 'RELEASE "_pg3_2"', "COMMIT",
    ]  # fmt: skip
    watched.execute("set statement_timeout = '20ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        watched.execute("select pg_sleep(10)")
    watched.rollback()
    with pytest.raises(psycopg.ProgrammingError):
        watched.execute("select %s", ())
    errors = [(text, error) for text, _, error in listener.take() if error]
    assert errors == [("select pg_sleep(10)", "57014"), ("select %s", "ProgrammingError")]
    watched.execute("select 1")
    watched.close()
    assert listener.transactions == [None, "57014", "ConnectionClosed"]


async def test_on_asyncio_too_and_a_cancelled_task_is_told_from_a_timeout(
    database: str, listener: Listener
) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        assert instrument(connection, listener)
        cursor = await connection.execute("insert into item values (1, 'a'), (2, 'b')")
        await cursor.executemany("insert into item values (%s, 'x')", [(3,), (4,)])
        async with cursor.copy("copy item to stdout") as copy:
            assert len([row async for row in copy.rows()]) == 4
        assert len([row async for row in cursor.stream("select * from item")]) == 4
        async with connection.transaction(), connection.cursor("named") as named:
            await named.execute("select * from item")
            assert len(await named.fetchall()) == 4
        task = asyncio.ensure_future(connection.execute("select pg_sleep(10)"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connection.execute("set statement_timeout = '20ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute("select pg_sleep(11)")
    assert [one for one in listener.take() if not one[0].startswith("set")] == [
        ("insert into item values (1, 'a'), (2, 'b')", 2, None),
        ("insert into item values ($1, 'x')", 2, None),
        ("copy item to stdout", 4, None),
        ("select * from item", 4, None),
        ("BEGIN", 0, None),
        ("select * from item", 4, None),
        ("COMMIT", 0, None),
        ("select pg_sleep(10)", None, "CancelledError"),
        ("select pg_sleep(11)", None, "57014"),
    ]


def test_a_pool_is_watched_from_now_on_and_left_as_it_was(database: str, listener: Listener) -> None:
    with ConnectionPool(database, min_size=1, max_size=2, open=False) as pool:
        for _ in range(2):
            assert instrument(pool, listener)
        with pool.connection() as one, pool.connection() as other:
            one.execute("select 1")
            other.execute("select 1")
        heard = Counter(text for text, _, _ in listener.take())
        assert heard == {"BEGIN": 2, "select 1": 2, "COMMIT": 2}
        uninstrument(pool)
        with pool.connection() as one:
            one.execute("select 1")
            assert type(one) is psycopg.Connection
        assert "getconn" not in vars(pool)
        assert listener.take() == []


async def test_a_pool_on_asyncio_is_watched(database: str, listener: Listener) -> None:
    async with AsyncConnectionPool(database, min_size=1, max_size=2, open=False) as pool:
        assert instrument(pool, listener)
        async with pool.connection() as connection:
            await connection.execute("select 1")
    assert listener.take() == [("BEGIN", 0, None), ("select 1", 1, None), ("COMMIT", 0, None)]


def test_a_driver_that_is_not_as_expected_is_left_alone(
    database: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(instrument_psycopg.SEAMS[psycopg.Cursor], "_close", ["self", "more"])
    with psycopg.connect(database) as connection:
        assert not instrument(connection, listener)
        assert type(connection) is psycopg.Connection
    assert listener.refusals == [f"psycopg {psycopg.__version__}: Cursor._close takes other arguments"]
    assert not instrument(object(), listener)


@pytest.mark.parametrize("observer", [Listener, Raising])
def test_everything_behaves_as_it_does_without(database: str, observer: type[Listener]) -> None:
    with psycopg.connect(database) as connection:
        expected = behaviours(connection)
    with psycopg.connect(database) as connection:
        heard = observer()
        assert instrument(connection, heard)
        assert behaviours(connection) == expected
    assert bool(heard.faults) == (observer is Raising)
    assert len(expected) > 20


def behaviours(connection: psycopg.Connection[Any]) -> list[str]:
    """What psycopg says and does, step by step."""
    seen: list[str] = []

    def say(doing: Callable[[], Any]) -> Any:
        try:
            result = doing()
        except Exception as error:
            seen.append(f"{type(error).__name__} {normal(str(error))}")
            connection.rollback()
            return None
        seen.append(normal(result))
        return result

    class Mine(psycopg.Cursor[Any]):
        def twice(self) -> int:
            return 2

    cursor = connection.cursor()
    say(lambda: cursor.execute("select 1 as a, %s as b", ("x",)).fetchall())
    say(lambda: (cursor.description, cursor.rowcount, cursor.statusmessage, cursor._query))
    say(lambda: cursor.execute("select 1; select 2"))
    say(lambda: (cursor.fetchone(), cursor.nextset(), cursor.fetchone()))
    say(lambda: cursor.execute("select 1 / 0"))
    say(lambda: cursor.executemany("insert into item values (%s, %s)", 7))
    say(lambda: cursor.executemany("insert into item values (%s, %s)", [(1, "a"), (1, "b")]))
    say(lambda: cursor.executemany("insert into item values (%s, %s)", iter([(1, "a"), (2, "b")])))
    say(lambda: cursor.rowcount)
    say(lambda: cursor.executemany("select %s::int", [(1,), (2,)], returning=True))
    say(lambda: [one.fetchall() for one in cursor.results()])
    say(lambda: next(cursor.stream("select generate_series(1, 100000)")))  # and given up
    say(lambda: cursor.execute("select 'usable'").fetchall())

    def copied(text: str, *rows: Any) -> Any:
        with cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)
        return cursor.rowcount, cursor.statusmessage

    say(lambda: copied("copy item from stdin", (5, "x"), (6, "y")))
    say(lambda: copied("copy item from stdin", ("x", "x")))
    say(lambda: copied("select 1"))

    def named() -> Any:
        with connection.cursor("mine") as one:
            one.execute("select * from generate_series(1, 10) g")
            found = [one.fetchone(), one.fetchmany(2), one.rownumber, one.description, one.name]
            one.scroll(-1)
            return found

    say(named)

    def unopened() -> Any:
        with connection.cursor("unopened", scrollable=False) as one:
            return one.fetchall()

    say(unopened)
    connection.cursor_factory = Mine
    say(lambda: connection.cursor(row_factory=dict_row).execute("select 1 as a").fetchall())
    say(lambda: connection.cursor().twice())
    say(lambda: isinstance(connection.cursor(), Mine))
    say(lambda: repr(type(connection.cursor())))
    connection.cursor_factory = psycopg.Cursor

    def piped() -> Any:
        with connection.pipeline():
            one, two = connection.execute("select 1"), connection.execute("select 2")
        return one.fetchall(), two.fetchall()

    say(piped)

    def nested() -> Any:
        with connection.transaction() as outer, connection.transaction():
            connection.execute("select 1")
            raise psycopg.Rollback(outer)
        return connection.info.transaction_status

    say(nested)
    notes: list[Any] = []
    connection.add_notice_handler(lambda notice: notes.append(notice.message_primary))
    say(lambda: connection.execute("do $$ begin raise notice 'look'; end $$") and notes)
    say(connection.commit)
    say(lambda: (connection.closed, connection.broken, connection.autocommit))
    say(lambda: connection.execute(7))
    say(lambda: connection.execute("select 1", prepare=True) and connection.execute("select 1", prepare=True))
    say(lambda: connection.execute("truncate item").statusmessage)
    connection.commit()
    return seen


async def test_any_run_of_calls_agrees_with_a_plain_count_and_with_the_server(
    database: str, listener: Listener
) -> None:
    with psycopg.connect(database, autocommit=True) as watched:
        assert instrument(watched, listener)

        async def run() -> Tally:
            tally, rng = Tally(), random.Random(3)
            watched.execute("truncate item")
            for _ in range(120):
                tally.add(*some_call(rng, watched))
            return tally

        await agree(database, listener, run)
    assert {one.error for one in listener.heard} == {None, "23505", "22012"}


def some_call(rng: random.Random, connection: psycopg.Connection[Any]) -> tuple[str, int | None, int]:
    """Does something; returns its text, its rows (None: it failed), and how many more calls the server saw."""
    number = rng.randrange(1, 60)
    match rng.randrange(7):
        case 0:
            connection.execute("select g from generate_series(1, %s) g", (number,), prepare=rng.random() < 0.5)
            return "select g from generate_series(1, $1) g", number, 0
        case 1:
            text = "insert into item select g, 'x' from generate_series({0}, {0} + 2) g"
            try:
                connection.execute(text.format(number * 3))
            except psycopg.errors.UniqueViolation:
                return text.format(1), None, 0
            return text.format(1), 3, 0
        case 2:
            done = connection.execute("delete from item where id < %s", (number,))
            return "delete from item where id < $1", done.rowcount, 0
        case 3:
            text = "insert into item values (%s, %s) on conflict do nothing"
            with connection.cursor() as cursor:
                cursor.executemany(text, [(-number * 100 - n, "m") for n in range(number)])
                return text.replace("%s", "$1"), cursor.rowcount, number - 1
        case 4:
            with connection.transaction(), connection.cursor() as cursor:
                rows = len(list(cursor.stream("select g, 1 from generate_series(1, %s) g", (number,))))
            return "select g, 1 from generate_series(1, $1) g", rows, 0
        case 5:
            with connection.cursor() as cursor, cursor.copy("copy item to stdout") as copy:
                return "copy item to stdout", len(list(copy.rows())), 0
        case _:
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("select 1 / (%s - %s::int)", (number, number))
            return "select 1 / ($1 - $2::int)", None, 0
