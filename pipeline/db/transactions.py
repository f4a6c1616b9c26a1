"""Transactions that an application makes on our pool, and what they tell the cache.

Owns: how one is begun and ended, the question what it has written, and the transaction of a block of reads. Knows
nothing of entries, and of what is done with the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from pipeline.core.events import Event, Op
from pipeline.core.placed import Between
from pipeline.core.snapshot import Snapshot
from pipeline.db.connection import Connection, Database, translated
from pipeline.db.foreign import fetchval
from pipeline.db.statements import statement
from pipeline.errors import QueryFailed, UsageError

if TYPE_CHECKING:
    from asyncpg.transaction import Transaction

Isolation = Literal["read_committed", "repeatable_read", "serializable"]
ROLLBACK_SECONDS = 5.0


class OwnChanges(msgspec.Struct, frozen=True):
    """What a transaction has reported so far; see pipeline.own_changes. xid: None when it has written nothing."""

    began: str
    xid: int | None
    lost: bool
    deferred: bool
    events: tuple[tuple[str, Op, tuple[str, ...] | None, str | None], ...]

    def reported(self) -> list[Event] | None:
        """None: not everything is told."""
        if self.lost or self.deferred:
            return None
        return [Event(self.xid or 0, name, op, keys, payload=said) for name, op, keys, said in self.events]


class _Found(msgspec.Struct, frozen=True):
    epoch: str | None
    seen: str
    lost: bool
    events: tuple[tuple[int, str, Op, tuple[str, ...] | None, str | None], ...]

    def between(self) -> Between:
        events = [Event(xid, name, op, keys, payload=said) for xid, name, op, keys, said in self.events]
        return Between(Snapshot.parse(self.seen), self.epoch or "", self.lost or self.epoch is None, events)


_changes = msgspec.json.Decoder(OwnChanges)
_found = msgspec.json.Decoder(_Found)


async def own_changes(connection: object) -> OwnChanges:
    """What the transaction of this connection has reported; see pipeline.db.foreign for which are accepted."""
    return _changes.decode(await fetchval(connection, statement("cache/own_changes"), ()))


async def began(connection: object) -> str:
    """What tells the transaction of this connection apart."""
    text: str = await fetchval(connection, statement("cache/began"), ())
    return text


async def read(
    connection: object, query: str, args: Sequence[Any], *, timeout: float | None = None
) -> list[dict[str, Any]]:
    """The rows of a query on a connection of asyncpg. Raises UsageError for one of another library."""
    if not isinstance(connection, (asyncpg.Connection, PoolConnectionProxy)):
        raise UsageError(
            "a query of the cache cannot run on a connection that is not asyncpg's",
            hint="Inside the block read on your own connection; after it, through the cache.",
        )
    with translated():
        return [dict(row) for row in await connection.fetch(query, *args, timeout=timeout)]


async def invalidate(connection: object, tags: Sequence[str] | None, prefix: str | None) -> int:
    """Say to every cache that tags have changed, when the transaction of this connection commits; returns it."""
    return int(await fetchval(connection, statement("cache/invalidate"), (tags, prefix)))


class Open:
    """A transaction in progress."""

    def __init__(self, connection: Connection, transaction: Transaction) -> None:
        self.connection = connection
        self._transaction = transaction
        self.ended = False

    async def own_changes(self) -> OwnChanges:
        """What it has written, once whatever was deferred to the commit has been done. Raises what that raises."""
        with translated():
            found = _changes.decode(await self.connection.fetchval(statement("cache/own_changes")))
            if found.deferred:
                await self.connection.execute(statement("cache/immediate"))
                found = _changes.decode(await self.connection.fetchval(statement("cache/own_changes")))
        return msgspec.structs.replace(found, deferred=False)

    async def commit(self) -> None:
        """Raises QueryFailed when it was rolled back instead; after any other error nobody knows."""
        self.ended = True
        try:
            with translated():
                await self._transaction.commit()
        except QueryFailed:
            raise
        except BaseException:
            _end(self.connection)
            raise

    async def rollback(self) -> None:
        """Give up; a connection on which that is not possible now is closed, so that nobody gets it like that."""
        self.ended = True
        try:
            async with asyncio.timeout(ROLLBACK_SECONDS):
                await self._transaction.rollback()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            _end(self.connection)
        except BaseException:
            _end(self.connection)
            raise


def _end(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool has it back already, and let go of it
        connection.terminate()


class Transactions:
    """Transactions on one pool, which leads to the primary."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @asynccontextmanager
    async def begin(self, *, isolation: Isolation | None = None, readonly: bool = False) -> AsyncIterator[Open]:
        """A transaction; rolled back at the end unless it was committed. What the block raises stays as it is."""
        async with self._db.lent() as connection:
            transaction = connection.transaction(isolation=isolation, readonly=readonly)
            with translated():
                await transaction.start()
            made = Open(connection, transaction)
            try:
                yield made
            finally:
                if not made.ended:
                    await made.rollback()

    @asynccontextmanager
    async def at_one_state(
        self, since: Snapshot | None, idle_seconds: float
    ) -> AsyncIterator[tuple[Connection, Between]]:
        """A transaction that sees one state, and what that is beyond the feed's position `since`.

        The server ends it when it idles for `idle_seconds`, for example since this process was frozen.
        """
        async with self.begin(isolation="repeatable_read", readonly=True) as made:
            connection = made.connection
            with translated():
                await connection.execute(statement("cache/hold_turn"))
                row = await connection.fetchrow(
                    statement("cache/changes_since"),
                    None if since is None else str(since),
                    str(max(1, round(idle_seconds * 1000))),
                )
            if row is None:
                raise UsageError("the database did not tell its state")
            yield connection, _found.decode(row["found"]).between()
