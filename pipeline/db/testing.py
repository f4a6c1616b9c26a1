"""The queue on one connection, so that a test can keep it inside a transaction which is rolled back.

Owns: the statements that only tests need, and the clock of the test's session. Knows nothing of assertions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from pipeline.db.connection import Connection, Database, Record, connect, translated
from pipeline.db.jobs import JOB_SETTINGS
from pipeline.db.statements import statement
from pipeline.errors import PgreflexError, UsageError


class OneConnection(Database):
    """What a Database does, on one connection and one statement at a time.

    dsn: to open a connection of our own. given: the caller's asyncpg connection, which stays open; what
    it is in the middle of stays so. Raises UsageError for a connection that cannot serve.
    """

    def __init__(self, dsn: str | None, given: Any = None) -> None:
        super().__init__(dsn, purpose="test")
        self._given = given
        self._connection: Connection | None = None
        self._ahead: float | None = None

    async def open(self) -> OneConnection:
        """Connect, or look at the connection that was given. Raises LoginFailed, DatabaseUnavailable."""
        if self._given is None:
            self._connection = await connect(self.dsn, purpose="test", settings=JOB_SETTINGS)
            return self
        if not all(hasattr(self._given, name) for name in ("fetchrow", "transaction", "is_in_transaction")):
            raise UsageError(
                f"conn is a {type(self._given).__name__}, not a connection of asyncpg",
                hint="Give the connection that asyncpg.connect or a pool's acquire returns.",
            )
        self._connection = self._given
        if not isinstance(await self.fetchval("testing/probe"), str):
            raise UsageError(
                "conn has a codec of its own for jsonb",
                hint="Give a connection without one, or the address of the database.",
            )
        return self

    async def close(self) -> None:
        """Close the connection if it is ours; leave one that was given with its own clock."""
        connection, given = self._connection, self._given
        try:
            if self._ahead is not None:
                await self._set_ahead(None)
        except PgreflexError:
            pass  # the transaction was aborted, and its end resets the clock
        self._connection = None
        if connection is not None and given is None:
            await connection.close()

    async def fetch(self, name: str, *args: Any, timeout: float | None = None) -> list[Record]:
        with translated():
            return await self._open().fetch(statement(name), *args, timeout=timeout)

    async def fetchrow(self, name: str, *args: Any, timeout: float | None = None) -> Record | None:
        with translated():
            return await self._open().fetchrow(statement(name), *args, timeout=timeout)

    async def fetchval(self, name: str, *args: Any, timeout: float | None = None) -> Any:
        with translated():
            return await self._open().fetchval(statement(name), *args, timeout=timeout)

    async def execute(self, name: str, *args: Any, timeout: float | None = None) -> str:
        with translated():
            return await self._open().execute(statement(name), *args, timeout=timeout)

    @property
    def connection(self) -> Connection:
        """The one connection."""
        return self._open()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        with translated():
            yield self._open()

    async def advance(self, seconds: float) -> None:
        """Put the clock of this session forward."""
        self._ahead = (self._ahead or 0.0) + seconds
        await self.keep_time()

    async def keep_time(self) -> None:
        """Let a clock that was put forward catch up with the time that has passed since."""
        if self._ahead is not None:
            await self._set_ahead(self._ahead)

    @asynccontextmanager
    async def sheltered(self) -> AsyncIterator[None]:
        """Inside a transaction: undo the block's statements where one of them has aborted the transaction."""
        connection = self._open()
        if not connection.is_in_transaction():
            yield
            return
        savepoint = connection.transaction()
        await savepoint.start()
        try:
            yield
        finally:
            try:
                await connection.execute(statement("testing/probe"))
            except asyncpg.InFailedSQLTransactionError:
                await savepoint.rollback()
            else:
                await savepoint.commit()

    async def _set_ahead(self, seconds: float | None) -> None:
        await self.execute("testing/set_ahead", seconds)

    def _open(self) -> Connection:
        if self._connection is None:
            raise UsageError("the block of pipeline.testing.jobs has ended", hint="Use it inside `async with`.")
        return self._connection
