"""Blocks in which all reads through the cache are of one single database state.

Owns: what a request inside `snapshot()` is answered with, from the cache or by its loader on the block's own
connection. Which entries have the value of that state is decided in pipeline/core/placed.py.

A block opens a read-only REPEATABLE READ transaction, so it is for few reads and ends soon: as long as it is open,
vacuum keeps what it might see, and the outbox is not turned. Loads inside it are its own: they join no others,
and none joins them, since others may want a newer state.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from handlers.cache_scope import Scope, scope_of_request
from handlers.cache_seams import Loader
from handlers.cache_second import call
from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import Policy
from pipeline.core.cachekey import estimate_bytes
from pipeline.core.fill import Flight
from pipeline.core.freshness import Probe
from pipeline.core.placed import Place
from pipeline.core.snapshot import Snapshot
from pipeline.db.transactions import Transactions, read
from pipeline.errors import DatabaseUnavailable, UsageError

MOST_SECONDS = 30.0


class StateSource:
    """Queries on the block's connection, one at a time; a CacheSource."""

    def __init__(self, connection: Any, seen: Snapshot) -> None:
        self.connection = connection
        self.seen = seen
        self.ended = False
        self._one = asyncio.Lock()

    async def probe(self) -> Probe:
        raise UsageError("the cache is not probed inside snapshot()")

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        async with self._one:
            self.check()
            rows = await read(self.connection, query, args, timeout=timeout)
        return rows, self.seen

    async def invalidate(self, tags: Sequence[str] | None, prefix: str | None) -> int:
        raise UsageError(
            "nothing can be invalidated inside snapshot()", hint="It only reads; do it after the block."
        )

    def check(self) -> None:
        if self.ended:
            raise UsageError(
                "this task still reads inside a snapshot() that has ended",
                hint="Wait inside the block for the tasks that it starts.",
            )


class Reading:
    """What answers inside a block; or, inside one of its loads, that load. used: it read through the cache."""

    def __init__(self, core: CacheCore, clock: Callable[[], float], place: Place, source: StateSource) -> None:
        self._core = core
        self._clock = clock
        self._place = place
        self._source = source
        self._kept: dict[Hashable, tuple[Any, frozenset[str], float]] = {}
        self.used = False
        self.tags: frozenset[str] = frozenset()
        self.expires_at = math.inf

    async def get(
        self, key: Hashable, loader: Loader, tags: frozenset[str] | None, policy: Policy, scope: Scope
    ) -> Any:
        """The value of `key` at the block's state. Raises UsageError when its loader reads elsewhere."""
        self._source.check()
        space = self._core.namespace(policy)
        found = None if scope.bypass else self._find(key)
        if found is None:
            space.misses += not scope.bypass
            space.bypassed += scope.bypass
            found = await self._load(key, loader, tags, policy, scope)
        value, depends, expires_at = found
        self.used = True
        self.tags |= depends
        self.expires_at = min(self.expires_at, expires_at)
        scope.used(depends, expires_at)
        return value

    def _find(self, key: Hashable) -> tuple[Any, frozenset[str], float] | None:
        offer = self._core.offer(key, self._clock())
        if offer is not None and not offer.stale and self._place.has(key, offer.entry):
            offer.entry.namespace.hit(key)
            return offer.entry.value, offer.entry.tags, offer.entry.expires_at
        return self._kept.get(key)

    async def _load(
        self, key: Hashable, loader: Loader, tags: frozenset[str] | None, policy: Policy, scope: Scope
    ) -> tuple[Any, frozenset[str], float]:
        inner = Reading(self._core, self._clock, self._place, self._source)
        inner._kept = self._kept
        flight = Flight(key, None)
        self._core.begin(flight, self._clock())
        source = _Noted(self._source, inner)
        token = scope_of_request.set(Scope(bypass=scope.bypass, source=source, reading=inner))
        try:
            loaded = await call(loader)
        finally:
            scope_of_request.reset(token)
        if not inner.used or loaded.snapshot not in (None, self._source.seen):
            raise UsageError(
                "a loader that reads by itself cannot be asked for the state of snapshot()",
                hint="Let it read by cache.query or other cached functions, or call it outside of the block.",
            )
        depends = (tags or frozenset()).union(loaded.tags, inner.tags)
        flight.parts_expire = inner.expires_at
        if scope.bypass:
            return loaded.value, depends, inner.expires_at
        kept = self._kept[key] = loaded.value, depends, inner.expires_at
        if key in self._place.newer:  # somebody has read a newer state: later reads must not go back
            return kept
        flight.began = self._place.began
        self._core.finish(
            flight,
            loaded.value,
            snapshot=self._source.seen,
            tags=depends,
            policy=policy,
            ttl=loaded.ttl,
            size=estimate_bytes(loaded.value),
            now=self._clock(),
        )
        return kept


class _Noted:
    """The block's source, as the loads of one value use it."""

    def __init__(self, source: StateSource, reading: Reading) -> None:
        self._source = source
        self._reading = reading

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        self._reading.used = True
        return await self._source.read(query, args, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@asynccontextmanager
async def snapshot(
    core: CacheCore,
    clock: Callable[[], float],
    transactions: Transactions | None,
    *,
    max_seconds: float,
) -> AsyncIterator[Snapshot]:
    """See Cache.snapshot."""
    outer = scope_of_request.get() or Scope()
    if transactions is None:
        raise UsageError("this cache has no transactions", hint="Use the cache of a client: pipeline.connect().")
    if outer.source is not None:
        raise UsageError(
            "snapshot() cannot begin inside another transaction() or snapshot()",
            hint='For one state in a transaction that writes, use transaction(isolation="repeatable_read").',
        )
    place = Place(core.freshness.position, clock())
    core.places.append(place)  # before the snapshot is asked for
    try:
        async with asyncio.timeout(max_seconds) as limit:
            async with transactions.at_one_state(place.since, max_seconds) as (connection, between):
                place.settle(between)
                source = StateSource(connection, between.seen)
                reading = Reading(core, clock, place, source)
                inside = Scope(
                    bypass=outer.bypass, loads=outer.loads, seen=outer.seen, source=source, reading=reading
                )
                token = scope_of_request.set(inside)
                try:
                    yield between.seen
                finally:
                    source.ended = True
                    scope_of_request.reset(token)
    except (TimeoutError, DatabaseUnavailable) as error:  # the driver may make the second of the first
        if limit.expired():
            raise UsageError(
                f"a snapshot() was open for more than {max_seconds:g} s",
                hint="It keeps vacuum from working: read less in it, or give max_seconds=...",
            ) from error
        raise
    finally:
        core.places.remove(place)
