"""Every query of an engine is reported once, by its driver where that is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pipeline.db.instrument_sqlalchemy import instrument, uninstrument
from tests.instrument_kit import Listener, Raising, Tally, agree, group

ITEM = Table("item", MetaData(), Column("id", Integer, primary_key=True), Column("note", Text))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def database(new_database: Callable[[str], Awaitable[str]]) -> str:
    dsn = await new_database("template1")
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table item (id int primary key, note text)")
    await connection.close()
    return dsn


def use(connection: Any) -> list[Any]:
    """A bit of everything; what was seen of it."""
    connection.execute(insert(ITEM), [{"id": n, "note": "x"} for n in range(5)])
    connection.execute(text("insert into item values (:id, 'y')"), [{"id": 10}, {"id": 11}])
    seen = connection.execute(select(ITEM).where(ITEM.c.id > 2)).fetchall()
    with pytest.raises(IntegrityError), connection.begin_nested():
        connection.execute(insert(ITEM).values(id=1))
    streamed = connection.execution_options(stream_results=True).execute(select(ITEM.c.id)).fetchall()
    return [seen, len(streamed)]


USED = [[(3, "x"), (4, "x"), (10, "y"), (11, "y")], 7]


async def run(driver: str, database: str, listener: Listener) -> None:
    address = database.replace("postgresql://", f"postgresql+{driver}://")
    if driver == "asyncpg":
        engine = create_async_engine(address)
        assert instrument(engine, listener)
        assert instrument(engine, listener)
        async with engine.connect() as connection, connection.begin():
            assert await connection.run_sync(use) == USED
        uninstrument(engine)
        async with engine.connect() as connection:
            await connection.execute(text("select 'after'"))
        await engine.dispose()
    elif driver == "psycopg_async":
        aengine = create_async_engine(address)
        assert instrument(aengine, listener)
        async with aengine.connect() as connection, connection.begin():
            assert await connection.run_sync(use) == USED
        uninstrument(aengine)
        async with aengine.connect() as connection:
            await connection.execute(text("select 'after'"))
        await aengine.dispose()
    else:
        sync = create_engine(address)
        with sync.connect() as other:  # opened before, and watched when it is lent again
            other.execute(text("select 'before'"))
        assert instrument(sync, listener)
        with sync.connect() as connection, connection.begin():
            assert use(connection) == USED
        uninstrument(sync)
        with sync.connect() as connection:
            connection.execute(text("select 'after'"))
        sync.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "psycopg_async"])
async def test_an_engine_is_watched_and_agrees_with_the_server(
    driver: str, database: str, listener: Listener
) -> None:
    async def once() -> Tally:
        connection = await asyncpg.connect(database)
        await connection.execute("truncate item")
        await connection.close()
        listener.forget()
        await run(driver, database, listener)
        return Tally()

    # SQLAlchemy reads a stream through a statement of its own kind, where psycopg runs it
    heard = await agree(database, listener, once, only="from item where")
    texts = " ".join(heard).lower()
    assert "before" not in texts
    assert "after" not in texts
    assert {one.error for one in listener.heard} == {None, "23505"}
    assert listener.transactions == [None]
    assert sum(total.rows for text, total in heard.items() if text.startswith("insert")) == 7
    assert heard["select item.id from item"] == (1, 7)
    assert [text for text in heard if text.startswith("savepoint")]
    assert listener.faults == []


def test_another_driver_is_watched_by_the_engines_events(
    database: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    monkeypatch.setattr(engine.dialect, "driver", "another")
    assert instrument(engine, listener)
    with engine.connect() as connection:
        assert connection.execute(text("select * from generate_series(1, :n)"), {"n": 3}).fetchall()
        with pytest.raises(DBAPIError):
            connection.execute(text("select 1 / 0"))
    assert [(group(one.text), one.rows, one.error) for one in listener.heard[-2:]] == [
        (group("select * from generate_series(1, $1)"), 3, None),
        (group("select 1 / 0"), None, "22012"),
    ]
    uninstrument(engine)
    listener.forget()
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    assert listener.heard == []
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "another"])
def test_an_observer_that_raises_is_noticed_by_nobody(
    database: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    monkeypatch.setattr(engine.dialect, "driver", driver)
    observer = Raising()
    assert instrument(engine, observer)
    with engine.connect() as connection, connection.begin():
        assert use(connection) == USED
    assert observer.faults


def test_what_is_no_engine_is_refused(listener: Listener) -> None:
    assert not instrument(object(), listener)
    uninstrument(object())
    assert [reason.split(": ")[1] for reason in listener.refusals] == ["a object is no engine"]
