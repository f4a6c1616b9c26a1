"""The in-process cache: values that changes in the database drop.

Owns: the API and the probes. Waiting is in cache_loads.py. What is served, stored and dropped is decided
in pipeline/core/cache.py; how the feed travels is none of its concern.

A hit is one look-up and a few comparisons: no lock, no task, no turn of the loop. A value is handed out
as it was stored, the same object to everybody: treat it as read-only, and copy it before changing it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, TypeVar, Unpack

import structlog

from handlers.cache_check import Alarm, SelfCheck
from handlers.cache_figures import Figures
from handlers.cache_functions import cached_by
from handlers.cache_keys import Tags, tag_set
from handlers.cache_loads import Loads
from handlers.cache_scope import Seen, bypass, reads, scope_of_request
from handlers.cache_seams import Analyst, CacheSource, Loaded, Loader, Lookups, SharedCache
from handlers.cache_snapshot import MOST_SECONDS, snapshot
from handlers.cache_writes import own_writes, transaction
from pipeline.core.cache import CacheCore
from pipeline.core.cache_check import Violation
from pipeline.core.cache_policy import Options, Policy, QueryTags
from pipeline.core.cachekey import freeze
from pipeline.core.events import Batch
from pipeline.core.snapshot import Loose, Snapshot
from pipeline.core.status import CacheStatus, HotKey, NamespaceStatus
from pipeline.db.transactions import Isolation, Transactions
from pipeline.errors import PgreflexError, UsageError
from pipeline.runtime import Health, describe, wait_for

log = structlog.get_logger("pgreflex.cache")

T = TypeVar("T")
P = ParamSpec("P")
SWEPT_AT_ONCE = 500  # entries; 1.5 ms


class Cache:
    """A cache in this process; a FeedSink, and a Service that keeps the proof of freshness going.

    prober: the database that is asked for its position. max_bytes, max_entries: bounds; bytes are estimates.
    max_staleness: seconds; a read served from the cache reflects every transaction that committed longer ago.
    max_direct_loads: how many loads may run at once while nothing may be served. shared: a second level that all
    processes share. analyst: finds the tags of queries. alarm: told of violations. transactions: for `snapshot`
    and `transaction`. clock: monotonic seconds.
    """

    name = "cache"

    def __init__(
        self,
        *,
        prober: CacheSource,
        max_bytes: int = 64 * 1024 * 1024,
        max_entries: int = 100_000,
        max_staleness: float = 1.0,
        max_direct_loads: int = 32,
        shared: SharedCache | None = None,
        analyst: Analyst | None = None,
        lookups: Lookups | None = None,
        alarm: Alarm | None = None,
        transactions: Transactions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_staleness <= 0:
            raise UsageError("max_staleness must be more than zero seconds")
        self.core = CacheCore(
            max_bytes=max_bytes, max_entries=max_entries, max_staleness=max_staleness, rng=random.random
        )
        self.source = prober
        self.lookups = lookups
        self._transactions = transactions
        self._clock = clock
        self._analyst = analyst
        self._loads = Loads(self.core, clock, max_direct_loads, shared)
        self.self_check = SelfCheck(self.core, prober, clock, retract=self.invalidate, alarm=alarm)
        self._loads.check = self.self_check
        self._stopping = asyncio.Event()
        self._failure = ""
        self.definitions = 0  # grows whenever what a table looks like may have changed
        self._figures = Figures(self.core, self.self_check.tally, clock)

    async def get_or_load(self, key: Hashable, loader: Loader, *, tags: Tags, **options: Unpack[Options]) -> Any:
        """The value of `key`, from the cache or else from `loader`; requests at the same time share one load.

        loader: returns the value or a Loaded. Its reading must begin after it is called; one that reads
        inside an older transaction must return the snapshot, too. What it raises, all who wait get, and
        nothing is stored. Values of this cache that it uses pass on their tags and their time to live.
        tags: what the value depends on; None when only the loader can tell. options: see Options.
        None is a value like any other.
        """
        if "namespace" in options:
            key = ("namespace", options["namespace"], key)
        if scope_of_request.get() is None:
            try:
                entry = self.core.read(key, self._clock())
            except TypeError as error:
                raise UsageError(
                    f"this key cannot be used: {error}", hint="Give text, numbers or tuples."
                ) from error
            if entry is not None:
                return entry.value
        return await self._loads.get(key, loader, tag_set(tags), Policy.of(options, "values"))

    async def query(
        self, sql: str, *args: Any, tags: Tags = None, **options: Unpack[Options]
    ) -> list[dict[str, Any]]:
        """The rows of a query that only reads, each a dict. Raises our errors only.

        tags: what the rows depend on, and you vouch for it; None: they are found by looking at the query, and
        UsageError says why where they cannot be. options: see Options.
        """
        depends, settings = tag_set(tags), None
        if depends is None:
            found = await self.depends_on(sql, *args)
            depends, settings = found.tags, found.key

        async def load() -> Loaded:
            scope = scope_of_request.get()
            # between the look at the query and this load a definition may have changed
            newer = await self._analyst.tags(sql, args) if self._analyst and tags is None else None
            source = scope and scope.source
            rows, snapshot = await (source or self.source).read(sql, args)
            current = source is None and not isinstance(snapshot, Loose)
            return Loaded(rows, snapshot, tuple(newer.tags) if newer else (), current=current)

        # whoever vouches for other tags must not be given a value that only the first ones end
        key = ("sql", sql, freeze(args), depends if settings is None else settings)
        if scope_of_request.get() is None:
            entry = self.core.read(key, self._clock())
            if entry is not None:
                return entry.value  # type: ignore[no-any-return]
        rows: list[dict[str, Any]] = await self._loads.get(key, load, depends, Policy.of(options, "query"))
        return rows

    async def depends_on(self, sql: str, *args: Any) -> QueryTags:
        """The tags of a query, found by looking at it. Raises UsageError with the reason where they cannot be."""
        if self._analyst is None:
            raise UsageError("this cache cannot find the tags of a query", hint="Give tags=...")
        return await self._analyst.tags(sql, args)

    def cached(
        self, *, tags: Tags, key: Callable[..., Hashable] | None = None, **options: Unpack[Options]
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
        """Cache what an async function returns, by its arguments.

        tags: templates over the arguments, `"orders:{order_id}"`; None when only the result tells, a Loaded. key:
        makes the key from the arguments, for those that have no plain value. options: see Options. Raises
        UsageError at once where a template names no argument.
        """
        return cached_by(lambda: self, tags=tags, key=key, options=options)

    def bypass(self) -> AbstractAsyncContextManager[None]:
        """`async with`: inside, every request of this task loads for itself; nothing is served or stored."""
        return bypass()

    def snapshot(self, *, max_seconds: float = MOST_SECONDS) -> AbstractAsyncContextManager[Snapshot]:
        """`async with`: whatever this task reads inside through the cache is of one single database state.

        Values that have changed since, or may have, are read from the database as of that state, in a transaction
        that stays open for the block and no longer than `max_seconds`. Raises UsageError for a loader that reads
        by itself, on another connection, and inside a transaction. Gives the state's snapshot.
        """
        return snapshot(self.core, self._clock, self._transactions, max_seconds=max_seconds)

    def transaction(self, *, isolation: Isolation | None = None) -> AbstractAsyncContextManager[Any]:
        """`async with ... as conn`: a transaction on an asyncpg connection of the client.

        Once it has committed, every read of this process through the cache reflects it, also before the feed has
        delivered it. Inside, queries of the cache run on `conn` and see what is not committed yet; nothing is
        served from the cache or stored. A block inside another one is a savepoint. isolation: "read_committed",
        "repeatable_read" or "serializable"; None: the database's default. Raises our errors from beginning and
        committing, and whatever the block raises as it is.
        """
        return transaction(self.core, self._clock, self._transactions, isolation)

    def own_writes(self, conn: object) -> AbstractAsyncContextManager[None]:
        """`async with`: the same for a transaction of your own, which has begun and commits after the block.

        conn: a connection or session of asyncpg, psycopg 3 or SQLAlchemy. What it writes behind the block is not
        known before the feed tells. Raises UsageError when the block was not inside one transaction.
        """
        return own_writes(self.core, self._clock, conn)

    def reads(self) -> AbstractAsyncContextManager[Seen]:
        """`async with ... as seen`: what this task reads inside, and whether any of it was stale. See Seen."""
        return reads()

    async def invalidate(self, tags: Tags = None, *, prefix: str | None = None) -> None:
        """Drop what depends on `tags`, or on any tag that begins with `prefix`, as if they had changed.

        Here at once, in every other process through the feed; no load in flight that it touches is stored. What
        opted in may still be served stale. Raises our errors when the others cannot be told.
        """
        named = tag_set(tags)
        if named is None and prefix is None:
            raise UsageError("nothing is named that is to be invalidated", hint="Give tags=[...] or prefix=...")
        now = self._clock()
        for tag in named or ():
            self.core.change(tag, None, now)
        if prefix is not None:
            self.core.change_prefix(prefix, None, now)
        if named or prefix is not None:
            scope = scope_of_request.get()
            source = (scope and scope.source) or self.source
            xid = await source.invalidate(sorted(named) if named else None, prefix)
            if source is self.source:  # in a transaction of its own, which has committed
                self.core.said(xid, named or frozenset(), prefix, self._clock())

    async def clear(self) -> None:
        """Drop everything, here at once and in every other process; loads in flight are not stored."""
        await self.invalidate(prefix="")

    def on_batch(self, batch: Batch) -> None:
        unreadable, flushes = self.core.unreadable, self.core.flushes
        self.core.on_batch(batch, self._clock())
        if self.core.unreadable > unreadable:
            log.warning("an invalidation could not be read and was ignored", count=self.core.unreadable)
        if self.core.flushes != flushes:
            self._forget_definitions()
        for event in batch.events:
            if event.op == "w":
                self._forget_definitions(event.name)

    def on_position(self, position: Snapshot) -> None:
        self.core.on_position(position, self._clock())

    def on_flush(self, reason: str) -> None:
        self.core.on_flush(self._clock())
        self._forget_definitions()
        log.info("cache emptied", reason=reason)

    def _forget_definitions(self, tag: str | None = None) -> None:
        self.definitions += 1
        if self._analyst is not None:
            self._analyst.forget(tag)

    def on_recall(self, epoch: str, batches: Sequence[Batch]) -> None:
        self.core.on_recall(epoch, batches, self._clock())

    def on_down(self, reason: str) -> None:
        self.core.on_down()
        log.info("feed is down; reads go to the database once the last proof runs out", reason=reason)

    async def start(self) -> None:
        self._stopping.clear()

    async def run(self) -> None:
        """Ask for the database's position four times in each max_staleness, until `stop`."""
        while not self._stopping.is_set():
            await self.probe()
            self._figures.sample()
            more = True
            while more:
                more = self.core.store.sweep(SWEPT_AT_ONCE)
                await asyncio.sleep(0)
            await wait_for(self._stopping, self.core.freshness.max_staleness / 4)

    async def probe(self) -> None:
        """Ask once. A failure is told by `healthy`; the cache then stops serving by itself."""
        before = self._clock()
        try:
            answer = await self.source.probe()
        except PgreflexError as error:
            if not self._failure:
                log.warning("cannot ask for the database's position", error=describe(error))
            self._failure = describe(error)
        else:
            self._failure = ""
            self.core.freshness.answered(before, answer)
            self._loads.second.probed(before, answer.snapshot)

    async def stop(self) -> None:
        self._stopping.set()
        await self._loads.close()

    def healthy(self) -> Health:
        if self.core.freshness.age(self._clock()) is not None:
            return Health(True)
        return Health(False, self._failure or "serving nothing: the feed is behind or down")

    def status(self) -> CacheStatus:
        """Figures of this process. hit_ratio is None until something was asked for."""
        return self._figures.status()

    def namespaces(self) -> tuple[NamespaceStatus, ...]:
        """Figures of each cached function and namespace, those with the most hits first."""
        return self._figures.namespaces()

    def hottest(self, count: int = 10) -> tuple[HotKey, ...]:
        """The keys that are asked for most in this process, from a sample of one hit in 61."""
        return self._figures.hottest(count)

    def violations(self) -> tuple[Violation, ...]:
        """The latest values that were served although they were wrong, of this process, the newest last."""
        return tuple(self.self_check.tally.latest)
