"""Connections as applications have them: one face for every library, so that a test can be run on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import psycopg
from psycopg.rows import dict_row
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker


class Caller:
    """conn: what is handed to enqueue. synchronous: whether `pipeline.enqueue_in` takes it."""

    synchronous = False

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    async def begin(self) -> None:
        """Most begin by themselves."""

    async def run(self, sql: str) -> None:
        await self.conn.execute(sql)

    async def commit(self) -> None:
        await self.conn.commit()

    async def rollback(self) -> None:
        await self.conn.rollback()


class Asyncpg(Caller):
    async def begin(self) -> None:
        await self.run("begin")

    async def commit(self) -> None:
        await self.run("commit")

    async def rollback(self) -> None:
        await self.run("rollback")


class Psycopg(Caller):
    """A connection, or a cursor of one."""

    synchronous = True

    async def run(self, sql: str) -> None:
        self._connection().execute(sql)

    async def commit(self) -> None:
        self._connection().commit()

    async def rollback(self) -> None:
        self._connection().rollback()

    def _connection(self) -> psycopg.Connection:
        return self.conn if isinstance(self.conn, psycopg.Connection) else self.conn.connection


class AsyncPsycopgCursor(Caller):
    async def run(self, sql: str) -> None:
        await self.conn.connection.execute(sql)

    async def commit(self) -> None:
        await self.conn.connection.commit()

    async def rollback(self) -> None:
        await self.conn.connection.rollback()


class Alchemy(Caller):
    synchronous = True

    async def run(self, sql: str) -> None:
        self.conn.execute(text(sql))

    async def commit(self) -> None:
        self.conn.commit()

    async def rollback(self) -> None:
        self.conn.rollback()


class AsyncAlchemy(Caller):
    async def run(self, sql: str) -> None:
        await self.conn.execute(text(sql))


def on(dsn: str, driver: str) -> str:
    """The address as SQLAlchemy takes it."""
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def _asyncpg(dsn: str) -> AsyncIterator[Caller]:
    connection = await asyncpg.connect(dsn)
    yield Asyncpg(connection)
    await connection.close()


@asynccontextmanager
async def _asyncpg_pool(dsn: str) -> AsyncIterator[Caller]:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        yield Asyncpg(connection)


@asynccontextmanager
async def _psycopg(dsn: str) -> AsyncIterator[Caller]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        yield Psycopg(connection)
        connection.rollback()


@asynccontextmanager
async def _psycopg_cursor(dsn: str) -> AsyncIterator[Caller]:
    with psycopg.connect(dsn) as connection:
        yield Psycopg(connection.cursor(row_factory=dict_row))
        connection.rollback()


@asynccontextmanager
async def _psycopg_async(dsn: str) -> AsyncIterator[Caller]:
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        yield Caller(connection)
        await connection.rollback()


@asynccontextmanager
async def _psycopg_async_cursor(dsn: str) -> AsyncIterator[Caller]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield AsyncPsycopgCursor(connection.cursor())
        await connection.rollback()


def _alchemy(kind: str) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    @asynccontextmanager
    async def caller(dsn: str) -> AsyncIterator[Caller]:
        engine = create_engine(on(dsn, "psycopg"))
        made: Any = {
            "connection": engine.connect,
            "session": sessionmaker(engine),
            "scoped": lambda: scoped_session(sessionmaker(engine)),
        }[kind]()
        yield Alchemy(made)
        made.close()
        engine.dispose()

    return caller


def _async_alchemy(kind: str, driver: str) -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    @asynccontextmanager
    async def caller(dsn: str) -> AsyncIterator[Caller]:
        engine = create_async_engine(on(dsn, driver))
        made: Any
        if kind == "connection":
            made = await engine.connect()
        elif kind == "scoped":
            made = async_scoped_session(async_sessionmaker(engine), asyncio.get_running_loop)
        else:
            made = async_sessionmaker(engine)()
        yield AsyncAlchemy(made)
        await made.close()
        await engine.dispose()

    return caller


CALLERS: dict[str, Callable[[str], AbstractAsyncContextManager[Caller]]] = {
    "asyncpg": _asyncpg,
    "asyncpg pool": _asyncpg_pool,
    "psycopg": _psycopg,
    "psycopg cursor": _psycopg_cursor,
    "psycopg async": _psycopg_async,
    "psycopg async cursor": _psycopg_async_cursor,
    "sqlalchemy connection": _alchemy("connection"),
    "sqlalchemy session": _alchemy("session"),
    "sqlalchemy scoped session": _alchemy("scoped"),
    "sqlalchemy async connection, asyncpg": _async_alchemy("connection", "asyncpg"),
    "sqlalchemy async session, asyncpg": _async_alchemy("session", "asyncpg"),
    "sqlalchemy async session, psycopg": _async_alchemy("session", "psycopg"),
    "sqlalchemy async scoped session": _async_alchemy("scoped", "asyncpg"),
}
SYNCHRONOUS = [
    "psycopg",
    "psycopg cursor",
    "sqlalchemy connection",
    "sqlalchemy session",
    "sqlalchemy scoped session",
]
