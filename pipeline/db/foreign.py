"""Our statements on a connection that the caller has, inside the caller's own transaction.

Owns: which connections are accepted, how a statement and its arguments are handed to each, and whose errors
become which of ours. Knows no statement, opens no connection, begins and ends no transaction.

Accepted are connections of asyncpg, of psycopg 3 (or a cursor of one), and connections and sessions of
SQLAlchemy on either of the two. None of these libraries but asyncpg is imported: an object can only be theirs
if somebody else has imported them.

What the caller set up for itself must not change what we send or get. So no argument is sent as jsonb, for
which many register a codec that would encode it twice; rows come as tuples; and psycopg is told not to
prepare anything, since the connection may lead to a transaction pooler.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from pipeline.db.connection import translate
from pipeline.errors import DatabaseUnavailable, PgreflexError, QueryFailed, UsageError

ACCEPTED = "asyncpg, psycopg 3, or SQLAlchemy on one of these"
ABORTED = "25P02"

_PARAMETER = re.compile(r"\$(\d+)")
_JSON_PARAMETER = re.compile(r"\$(\d+)::(jsonb?)\b")


class Blocking:
    """A connection that is to be used at once, by `fetchval_now`, although `fetchval` is called."""

    def __init__(self, connection: object) -> None:
        self.connection = connection


async def fetchval(connection: object, sql: str, args: Sequence[Any]) -> Any:
    """The first value of the first row of a statement with parameters $1, $2, ...; None without a row.

    A synchronous connection is used in a thread, so that the loop turns meanwhile. Raises UsageError for an
    object that is no connection, and else what our own connections raise. What the statement did, or the
    state in which its failure left the transaction, is the caller's to commit or to roll back.
    """
    if isinstance(connection, Blocking):
        return fetchval_now(connection.connection, sql, args)
    connection, sql = _itself(connection), _plain(sql)
    session: Any = connection
    with _explained():
        if isinstance(connection, (asyncpg.Connection, PoolConnectionProxy)):
            return await connection.fetchval(sql, *args)
        if _is(connection, "psycopg", "AsyncConnection"):
            async with _tuple_cursor(connection, "AsyncCursor") as cursor:
                await cursor.execute(*_pyformat(sql, args), prepare=False)
                return _first(await cursor.fetchone())
        if _is(connection, "sqlalchemy.ext.asyncio", "AsyncSession"):
            session = await session.connection()
        if _is(session, "sqlalchemy.ext.asyncio", "AsyncConnection"):
            result = await session.exec_driver_sql(*_for_dialect(session, sql, args))
            return result.scalar()
    if _is_synchronous(connection):
        return await asyncio.to_thread(fetchval_now, connection, sql, args)
    raise _not_accepted(connection)


def fetchval_now(connection: object, sql: str, args: Sequence[Any]) -> Any:
    """As `fetchval`, for synchronous connections, without a loop."""
    connection, sql = _itself(connection), _plain(sql)
    session: Any = connection
    with _explained():
        if _is(connection, "psycopg", "Connection"):
            with _tuple_cursor(connection, "Cursor") as cursor:
                cursor.execute(*_pyformat(sql, args), prepare=False)
                return _first(cursor.fetchone())
        if _is(connection, "sqlalchemy.orm", "Session"):
            session = session.connection()
        if _is(session, "sqlalchemy.engine", "Connection"):
            return session.exec_driver_sql(*_for_dialect(session, sql, args)).scalar()
    raise _not_accepted(connection)


def _itself(connection: Any) -> object:
    """The connection of a cursor, and the session behind a registry of sessions."""
    if _is(connection, "psycopg", "Cursor", "AsyncCursor"):
        return connection.connection
    if _is(connection, "sqlalchemy.orm", "scoped_session") or _is(
        connection, "sqlalchemy.ext.asyncio", "async_scoped_session"
    ):
        return connection()
    return connection


def _is(thing: object, module: str, *names: str) -> bool:
    loaded = sys.modules.get(module)
    return isinstance(thing, tuple(kind for name in names if (kind := getattr(loaded, name, None))))


def _is_synchronous(connection: object) -> bool:
    return (
        _is(connection, "psycopg", "Connection")
        or _is(connection, "sqlalchemy.orm", "Session")
        or _is(connection, "sqlalchemy.engine", "Connection")
    )


def _is_asynchronous(connection: object) -> bool:
    return (
        isinstance(connection, (asyncpg.Connection, PoolConnectionProxy))
        or _is(connection, "psycopg", "AsyncConnection")
        or _is(connection, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession")
    )


def _not_accepted(connection: object) -> UsageError:
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if _is_asynchronous(connection):
        return UsageError(
            f"{kind} is asynchronous, and this call is not",
            hint="Use `await client.enqueue(..., conn=...)`.",
        )
    return UsageError(
        f"{kind} is no connection of {ACCEPTED}",
        hint="Pass the connection or session itself, not its pool, engine or factory. "
        "With another driver, call `select pipeline.enqueue(...)` on it.",
    )


@cache
def _plain(sql: str) -> str:
    """Without the comments, and with text for each parameter that is cast to JSON."""
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return _JSON_PARAMETER.sub(r"$\1::text::\2", "\n".join(lines))


def _pyformat(sql: str, args: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    named = _PARAMETER.sub(r"%(p\1)s", sql.replace("%", "%%"))
    return named, {f"p{number}": value for number, value in enumerate(args, 1)}


def _for_dialect(connection: Any, sql: str, args: Sequence[Any]) -> tuple[str, Any]:
    driver = connection.dialect.driver
    if driver.startswith("psycopg") and driver != "psycopg2":
        return _pyformat(sql, args)
    if driver == "asyncpg":
        return sql, tuple(args)
    raise UsageError(
        f"this connection of SQLAlchemy uses the driver {driver}, and jobs are enqueued on {ACCEPTED}",
        hint="Call `select pipeline.enqueue(...)` on it instead.",
    )


def _tuple_cursor(connection: Any, kind: str) -> Any:
    """A cursor of its own: whatever the caller's cursors and connection make of rows, this one makes tuples."""
    psycopg = sys.modules["psycopg"]
    return getattr(psycopg, kind)(connection, row_factory=psycopg.rows.tuple_row)


def _first(row: tuple[Any, ...] | None) -> Any:
    return None if row is None else row[0]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of all these libraries into ours; SQLAlchemy's own text would quote the arguments."""
    try:
        yield
    except PgreflexError:
        raise
    except Exception as error:
        driver = getattr(error, "orig", None) or error
        ours = _translate(error, driver)
        if ours is None:
            raise
        raise ours from driver


def _translate(error: Exception, driver: BaseException) -> PgreflexError | None:
    told = driver.__cause__ if isinstance(driver.__cause__, asyncpg.PostgresError) else driver
    if not isinstance(told, asyncpg.PostgresError) and (sqlstate := getattr(told, "sqlstate", None)):
        diag = getattr(told, "diag", None)
        told = asyncpg.PostgresError.new(
            {
                "C": sqlstate,
                "M": getattr(diag, "message_primary", None) or str(told),
                "H": getattr(diag, "message_hint", None) or "",
            }
        )
    if isinstance(told, asyncpg.PostgresError) and told.sqlstate == ABORTED:
        return _aborted(ABORTED)
    if isinstance(told, (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)):
        return translate(told)
    if _is(error, "sqlalchemy.exc", "PendingRollbackError"):
        return _aborted("")
    if _is(error, "sqlalchemy.exc", "ResourceClosedError") or _is(told, "psycopg", "OperationalError"):
        return DatabaseUnavailable(f"the connection cannot be used: {told}")
    if _is(error, "sqlalchemy.exc", "SQLAlchemyError") or _is(told, "psycopg", "Error"):
        return QueryFailed(str(told.args[0]) if told.args else type(told).__name__)
    return None


def _aborted(sqlstate: str) -> QueryFailed:
    return QueryFailed(
        "the transaction of this connection has failed, and takes no more statements",
        sqlstate=sqlstate,
        hint="An earlier statement failed. Roll back, or back to a savepoint, and then enqueue.",
    )
