"""Connections to Postgres, and the mapping of the driver's errors to ours.

Owns: how a connection is named, set up and limited in time, to a server or through a pooler; how a driver error
becomes one of ours. Knows no statement and no table.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from pipeline.db.pooler import OwnConnection as OwnConnection  # noqa: PLC0414 - for all who connect
from pipeline.db.pooler import configure, is_pooled, open_connection, shares_sessions, transacted
from pipeline.db.statements import statement
from pipeline.errors import (
    Busy,
    DatabaseUnavailable,
    LoginFailed,
    NotInstalled,
    PermissionMissing,
    PgreflexError,
    QueryFailed,
    TransactionPooler,
)

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "OwnConnection | PoolConnectionProxy[asyncpg.Record]"
Record = asyncpg.Record


async def _no_reset(_connection: object) -> None:
    """Our own statements leave no session state behind, so a reset would only cost a round trip."""


async def connect(dsn: str | None, *, purpose: str, settings: dict[str, str] | None = None) -> OwnConnection:
    """Open a connection of its own to a server that accepts writes.

    dsn: a libpq address; None takes the PG* variables. purpose: shows in pg_stat_activity as
    `pgreflex <purpose>`. settings: server settings for the session. When the result is `pooled`, it has no
    session, and each use is wrapped in `transacted`, with the settings. Raises LoginFailed, DatabaseUnavailable.
    """
    with translated():
        return await open_connection(
            dsn,
            {**_named(purpose), **(settings or {})},
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
        )


async def connect_session(
    dsn: str | None, *, purpose: str, settings: dict[str, str] | None = None
) -> OwnConnection:
    """As `connect`, for those who need a session that stays: for LISTEN, for its locks, for its settings.

    A pooler in session mode will do. Raises TransactionPooler for one in transaction mode.
    """
    connection = await connect(dsn, purpose=purpose, settings=settings)
    if connection.pooled:
        try:
            with translated():
                await _keep_session(connection, dsn, {**_named(purpose), **(settings or {})})
        except BaseException:
            connection.terminate()
            raise
    return connection


async def _keep_session(connection: OwnConnection, dsn: str | None, settings: dict[str, str]) -> None:
    other = await connect(dsn, purpose="probe")
    try:
        shared = await shares_sessions(connection, other)
    finally:
        other.terminate()
    if shared:
        raise TransactionPooler("the address is a transaction pooler, which keeps no session")
    await configure(connection, settings, local=False)
    connection.process_id = await connection.fetchval(statement("admin/backend"))
    connection.pooled = False


def _named(purpose: str) -> dict[str, str]:
    """Whose session it is; and each statement sees what has been committed, whatever the database's default."""
    return {"application_name": f"pgreflex {purpose}"[:63], "default_transaction_isolation": "read committed"}


class Database:
    """A small pool for our own statements, each named by its file below sql/.

    It works through a transaction pooler as well, at the price of a transaction around each statement, and
    notices by itself when there is one.
    """

    def __init__(
        self,
        dsn: str | None,
        *,
        purpose: str = "pool",
        max_size: int = 5,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.dsn = dsn
        self._settings = settings or {}
        self._purpose = purpose
        self._max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._pooler = False  # answered last
        # looks at each new connection to a server; True: those before it are replaced at their next use
        self.greet: Callable[[OwnConnection], Awaitable[bool]] | None = None

    async def open(self) -> Database:
        """Open the pool. Raises LoginFailed, DatabaseUnavailable."""
        connect: Any = self._connect  # the stubs know asyncpg's own function only
        with translated():
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=0,
                max_size=self._max_size,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                reset=_no_reset,
                connect=connect,
                connection_class=OwnConnection,
            )
        return self

    async def _connect(self, dsn: str | None, **driver: Any) -> OwnConnection:
        settings = {**_named(self._purpose), **self._settings}
        driver.pop("connection_class", None)
        connection = await open_connection(dsn, settings, expect_pooler=self._pooler, **driver)
        self._pooler = connection.pooled
        if self.greet is not None and not connection.pooled:
            try:
                if await self.greet(connection) and self._pool is not None:
                    await self._pool.expire_connections()
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def close(self) -> None:
        """Close the pool; what is still running gets five seconds."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def __aenter__(self) -> Database:
        return await self.open()

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def fetch(self, name: str, *args: Any, timeout: float | None = None) -> list[Record]:
        """All rows of statement `name`. Timeouts are seconds. Raises our errors only."""
        rows: list[Record] = await self._run("fetch", name, args, timeout)
        return rows

    async def fetchrow(self, name: str, *args: Any, timeout: float | None = None) -> Record | None:
        """The first row of statement `name`, or None."""
        row: Record | None = await self._run("fetchrow", name, args, timeout)
        return row

    async def fetchval(self, name: str, *args: Any, timeout: float | None = None) -> Any:
        """The first value of the first row of statement `name`, or None."""
        return await self._run("fetchval", name, args, timeout)

    async def execute(self, name: str, *args: Any, timeout: float | None = None) -> str:
        """Run statement `name`; returns the command tag."""
        tag: str = await self._run("execute", name, args, timeout)
        return tag

    async def _run(self, method: str, name: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        with translated():
            async with self._open_pool().acquire() as connection:
                call = getattr(connection, method)
                if not is_pooled(connection):
                    return await call(statement(name), *args, timeout=timeout)
                async with transacted(connection, self._settings):
                    return await call(statement(name), *args, timeout=timeout)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool, for statements that belong together; through a pooler all of them are one
        transaction.
        """
        with translated():
            pool = self._open_pool()
            async with (
                pool.acquire(timeout=CONNECT_SECONDS) as connection,
                transacted(connection, self._settings),
            ):
                yield connection

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Connection]:
        """A connection of the pool for whoever begins a transaction on it first of all and ends it last; what is
        raised in the block is not translated.
        """
        pool = self._open_pool()
        with translated():
            connection = await pool.acquire(timeout=CONNECT_SECONDS)
        try:
            yield connection
        finally:
            with translated():
                await pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection of the pool inside a transaction."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    def _open_pool(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            raise DatabaseUnavailable("the connection pool is closed")
        return self._pool


async def describe_server(database: Database) -> str:
    """The database's name and the server's version, for a person."""
    row = await database.fetchrow("admin/server")
    return "unknown" if row is None else f"{row['database']} on Postgres {row['version']}"


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except (*_DRIVER, OSError, TimeoutError) as error:
        raise translate(error) from error


# The last comes when a connection breaks while the driver looks up types: it stumbles over its own state.
_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_NO_LOGIN = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_MISSING = (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError)


def translate(error: BaseException) -> PgreflexError:
    """Our error for one of the driver's: the server's own words, but not its detail, which quotes rows."""
    text = str(getattr(error, "message", None) or error).strip() or type(error).__name__
    if isinstance(error, PgreflexError):
        return error
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return LoginFailed(f"Postgres refused the login: {text}", hint="Create it, or name another database.")
    if isinstance(error, _NO_LOGIN):
        return LoginFailed(f"Postgres refused the login: {text}")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return PermissionMissing(f"Postgres refused: {text}", hint=getattr(error, "hint", None))
    if isinstance(error, asyncpg.LockNotAvailableError):
        return Busy(f"a lock could not be had in time: {text}", hint=getattr(error, "hint", None) or "")
    if isinstance(error, TimeoutError):  # which is an OSError, too
        return DatabaseUnavailable("Postgres did not answer in time")
    if isinstance(error, asyncpg.InterfaceError) and text.startswith("the server expects"):
        return QueryFailed(text, hint="Pass one argument for each of $1, $2, ... in the query.")
    if isinstance(error, _GONE):
        return DatabaseUnavailable(f"no connection to Postgres: {text}")
    if isinstance(error, _MISSING) and "pipeline" in text:
        return NotInstalled(f"pgreflex is not installed in this database: {text}")
    if isinstance(error, asyncpg.PostgresError):
        return QueryFailed(text, sqlstate=error.sqlstate or "", hint=getattr(error, "hint", None) or "")
    return QueryFailed(text)
