"""Transactions whose writes every later read of this process reflects.

Owns: what is asked of a transaction before it commits, when the cache is told, and how requests inside it are
answered. What is held back until when is decided in pipeline/core/own_writes.py.

Inside such a block queries run on its connection, since only that sees what is not committed yet, and nothing is
served from the cache, shared or stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from handlers.cache_scope import Scope, scope_of_request
from pipeline.core.cache import CacheCore
from pipeline.core.freshness import Probe
from pipeline.core.snapshot import BEGINNING, Snapshot
from pipeline.db.transactions import Isolation, Open, Transactions, began, invalidate, own_changes, read
from pipeline.errors import QueryFailed, UsageError

UNKNOWN = ("", "40003")  # of an error that leaves open whether the transaction was committed


class OwnSource:
    """Queries on the connection of a transaction that writes, one at a time; a CacheSource."""

    def __init__(self, connection: Any, owner: object) -> None:
        self.connection = connection
        self.owner = owner
        self.ended = False
        self._one = asyncio.Lock()

    async def probe(self) -> Probe:
        raise UsageError("the cache is not probed inside a transaction")

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        """The rows, and no snapshot that would admit them anywhere: they may never be committed."""
        async with self._one:
            if self.ended:
                raise UsageError(
                    "this task still reads inside a transaction that has ended",
                    hint="Wait inside the block for the tasks that it starts.",
                )
            return await read(self.connection, query, args, timeout=timeout), BEGINNING

    async def invalidate(self, tags: Sequence[str] | None, prefix: str | None) -> int:
        """Say it when the transaction commits, and only then."""
        return await invalidate(self.connection, tags, prefix)


@asynccontextmanager
async def _inside(source: OwnSource) -> AsyncIterator[None]:
    outer = scope_of_request.get() or Scope()
    outer.used(frozenset(), tainted=True)  # a load that it is part of has seen what may never be committed
    token = scope_of_request.set(Scope(bypass=True, seen=outer.seen, source=source))
    try:
        yield
    finally:
        source.ended = True
        scope_of_request.reset(token)


@asynccontextmanager
async def transaction(
    core: CacheCore,
    clock: Callable[[], float],
    transactions: Transactions | None,
    isolation: Isolation | None,
) -> AsyncIterator[Any]:
    """See Cache.transaction."""
    if transactions is None:
        raise UsageError("this cache has no transactions", hint="Use the cache of a client: pipeline.connect().")
    scope = scope_of_request.get()
    outer = scope.source if scope is not None else None
    if isinstance(outer, OwnSource) and outer.owner is core and not outer.ended:
        async with outer.connection.transaction():
            yield outer.connection
        return
    async with transactions.begin(isolation=isolation) as made:
        async with _inside(OwnSource(made.connection, core)):
            yield made.connection
        await _commit(core, clock, made)


async def _commit(core: CacheCore, clock: Callable[[], float], made: Open) -> None:
    found = await made.own_changes()
    if found.xid is None:
        await made.commit()
        return
    hold = core.hold(found.xid, found.reported(), clock())
    try:
        await made.commit()
    except QueryFailed as error:
        if error.sqlstate not in UNKNOWN:  # the server said that it was rolled back
            core.fence.own.release(hold)
        raise
    core.committed(hold)


@asynccontextmanager
async def own_writes(core: CacheCore, clock: Callable[[], float], connection: object) -> AsyncIterator[None]:
    """See Cache.own_writes."""
    transaction_before = await began(connection)
    async with _inside(OwnSource(connection, None)):
        yield
    found = await own_changes(connection)
    if found.began != transaction_before:
        raise UsageError(
            "own_writes() was not inside one transaction",
            hint="Begin it first, and leave the block before the commit: "
            "async with conn.transaction(), cache.own_writes(conn): ...",
        )
    if found.xid is not None:
        core.hold(found.xid, found.reported(), clock())
