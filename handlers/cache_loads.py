"""Loads of the cache: one for many requests, and not too many at once while nothing may be served.

Owns: waiting. A load runs in a task of its own, so that it outlives the request that began it when others
wait for it, and ends with the last of them. It is not a loop, hence no Service. What may be shared and
stored is decided in pipeline/core/cache.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from handlers.cache_seams import CacheSource, Loaded, Loader, SharedCache, SharedEntry
from pipeline.core.cache import CacheCore
from pipeline.core.cache_policy import Policy
from pipeline.core.cachekey import estimate_bytes, stable_key
from pipeline.core.fill import Flight, Verdict
from pipeline.errors import PgreflexError

JOINS = 3  # loads of others that one request waits for before it loads for itself whatever happens


class _Load:
    """A flight with those who wait for it."""

    __slots__ = ("abandoned", "flight", "task", "verdict", "waiters")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.verdict = Verdict.FLUSHED
        self.waiters = 0
        self.abandoned = False
        self.task: asyncio.Task[Any]

    def pass_on(self, outer: tuple[_Load, ...]) -> None:
        """Tell the load that waited for this one what it depends on."""
        flight = self.flight
        spoiled = flight.tainted or self.verdict not in (Verdict.STORED, Verdict.UNFIT)
        _use(outer, flight.tags or frozenset(), flight.expires_at, tainted=spoiled)


class Scope:
    """Where a request comes from, when it is not plain: inside `bypass()`, or inside other loads.

    source: on what queries run there in place of the cache's own connections.
    """

    __slots__ = ("bypass", "loads", "source")

    def __init__(
        self, *, bypass: bool = False, loads: tuple[_Load, ...] = (), source: CacheSource | None = None
    ) -> None:
        self.bypass = bypass
        self.loads = loads  # the outermost first
        self.source = source


scope_of_request: ContextVar[Scope | None] = ContextVar("pgreflex_cache_scope", default=None)


class Loads:
    """The loads in flight, and the counters of requests.

    max_direct: how many loads may run at once while nothing may be served.
    """

    def __init__(
        self, core: CacheCore, clock: Callable[[], float], max_direct: int, shared: SharedCache | None = None
    ) -> None:
        self.core = core
        self.shared = shared
        self.hits = self.misses = self.bypassed = 0
        self._clock = clock
        self._direct = asyncio.Semaphore(max_direct)
        self._flying: dict[Hashable, _Load] = {}

    @property
    def asked(self) -> int:
        return self.hits + self.misses + self.bypassed

    def __len__(self) -> int:
        return len(self._flying)

    async def get(self, key: Hashable, loader: Loader, tags: frozenset[str] | None, policy: Policy) -> Any:
        """What `key` stands for, loaded if it must be. Call it when the cache has no entry that may be
        served.
        """
        scope = scope_of_request.get()
        # a task that a loader left behind keeps the scope of loads that have ended
        outer = tuple(load for load in scope.loads if not load.task.done()) if scope else ()
        if (scope and scope.bypass) or any(load.flight.key == key for load in outer):
            self.bypassed += 1
            return await self._alone(key, loader, tags, outer)
        asked = False
        for _attempt in range(JOINS):
            now = self._clock()
            entry = self.core.read(key, now)
            if entry is not None:
                self.hits += not asked
                _use(outer, entry.tags, entry.expires_at)
                return entry.value
            if not asked:
                asked = True
                self._count(now)
            load, joined = self._flying.get(key), self.core.fence.number
            if load is None or load.abandoned or not self.core.may_join(load.flight, now):
                break
            value = await _wait(load)
            if self.core.may_share(load.flight, load.verdict, joined):
                load.pass_on(outer)
                return value
        load = self._begin(key, loader, tags, policy, scope, outer)
        value = await _wait(load)
        load.pass_on(outer)
        return value

    def _count(self, now: float) -> None:
        if now <= self.core.freshness.valid_until:
            self.misses += 1
        else:
            self.bypassed += 1

    def _begin(
        self,
        key: Hashable,
        loader: Loader,
        tags: frozenset[str] | None,
        policy: Policy,
        scope: Scope | None,
        outer: tuple[_Load, ...],
    ) -> _Load:
        load = _Load(Flight(key, tags))
        self._flying[key] = load  # whoever comes from now on joins this one, not a detached one
        inner = Scope(loads=(*outer, load), source=scope.source if scope else None)
        load.task = asyncio.create_task(self._fly(load, loader, policy, inner), name="cache-load")
        load.task.add_done_callback(_retrieve)
        return load

    async def _fly(self, load: _Load, loader: Loader, policy: Policy, scope: Scope) -> Any:
        flight = load.flight
        scope_of_request.set(scope)
        try:
            async with self._turn(nested=len(scope.loads) > 1):
                self.core.begin(flight, self._clock())
                loaded = await self._load(flight, loader, policy)
            load.verdict = self.core.finish(
                flight,
                loaded.value,
                snapshot=loaded.snapshot,
                tags=loaded.tags,
                policy=policy,
                ttl=loaded.ttl,
                size=estimate_bytes(loaded.value),
                now=self._clock(),
            )
            if load.verdict is Verdict.STORED and not loaded.was_shared:
                await self._share(flight, loaded, policy)
            return loaded.value
        finally:
            if self._flying.get(flight.key) is load:
                del self._flying[flight.key]

    async def _load(self, flight: Flight, loader: Loader, policy: Policy) -> Loaded:
        """What the other processes share, or else what the loader returns."""
        shared = self.shared
        if shared is None or not policy.shared:
            return _unwrap(await loader())
        key = stable_key(policy.namespace or "", flight.key)
        found = await shared.get(key, flight.tags)
        if found is None and not await shared.lead(key):
            found = await shared.get(key, flight.tags)  # another process has loaded it meanwhile
        return found or _unwrap(await loader())

    async def _share(self, flight: Flight, loaded: Loaded, policy: Policy) -> None:
        shared, entry = self.shared, self.core.store.entries.get(flight.key)
        if shared is not None and policy.shared and entry is not None:
            key = stable_key(policy.namespace or "", flight.key)
            left = entry.expires_at - self._clock()
            await shared.put(
                SharedEntry(
                    key=key,
                    namespace=policy.namespace or "",
                    value=loaded.value,
                    tags=entry.tags,
                    snapshot=entry.snapshot,
                    ttl=None if math.isinf(left) else left,
                )
            )

    async def _alone(
        self, key: Hashable, loader: Loader, tags: frozenset[str] | None, outer: tuple[_Load, ...]
    ) -> Any:
        """Load for one request only; a load that it is part of still learns what it depends on."""
        flight = Flight(key, tags)
        self.core.begin(flight, self._clock())
        loaded = _unwrap(await loader())
        if outer:
            depends = (tags or frozenset()).union(loaded.tags)
            verdict = self.core.fence.judge(flight, depends, loaded.snapshot)
            _use(outer, depends, math.inf, tainted=verdict is not Verdict.STORED)
        return loaded.value

    @asynccontextmanager
    async def _turn(self, *, nested: bool) -> AsyncIterator[None]:
        """Wait for a place while nothing may be served; a load inside another has one already."""
        if nested or self._clock() <= self.core.freshness.valid_until:
            yield
        else:
            async with self._direct:
                yield


async def _wait(load: _Load) -> Any:
    """What the load returns or raises; the last one to give up waiting cancels it."""
    load.waiters += 1
    try:
        await asyncio.wait((load.task,))
    finally:
        load.waiters -= 1
        if load.waiters == 0 and not load.task.done():
            load.abandoned = True
            load.task.cancel()
    if load.task.cancelled():
        raise PgreflexError("the load that this request waited for was cancelled", hint="Ask again.")
    return load.task.result()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the error of a load that everybody gave up, so that the loop does not complain of it."""
    if not task.cancelled():
        task.exception()


def _use(outer: tuple[_Load, ...], tags: frozenset[str], expires_at: float, *, tainted: bool = False) -> None:
    """Tell the load that this request is a part of what the part depends on."""
    if outer:
        flight = outer[-1].flight
        flight.parts |= tags
        flight.parts_expire = min(flight.parts_expire, expires_at)
        flight.tainted = flight.tainted or tainted


def _unwrap(result: Any) -> Loaded:
    return result if isinstance(result, Loaded) else Loaded(result)
