"""Loads of the cache: one for many requests, and not too many at once while much has to be loaded.

Owns: waiting. A load runs in a task of its own, so that it outlives the request that began it when others
wait for it, and ends with the last of them; one that refreshes a value in the background waits for nobody.
It is not a loop, hence no Service. What may be shared, stored and handed out is decided in
pipeline/core/cache.py.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from handlers.cache_check import SelfCheck
from handlers.cache_scope import Scope, flat, scope_of_request
from handlers.cache_seams import Loader, SharedCache
from handlers.cache_second import SecondLevel, call
from pipeline.core.cache import CacheCore
from pipeline.core.cache_offer import Offer
from pipeline.core.cache_policy import Policy
from pipeline.core.cachekey import estimate_bytes
from pipeline.core.fill import Flight, Verdict
from pipeline.core.snapshot import Loose
from pipeline.errors import PgreflexError
from pipeline.runtime import describe

CLOSE_SECONDS = 2.0  # for a loader that does not end although it was cancelled
JOINS = 3  # loads of others that one request waits for before it loads for itself whatever happens

log = structlog.get_logger("pgreflex.cache")


class Load:
    """A flight with those who wait for it. background: it goes on when nobody does."""

    __slots__ = ("abandoned", "background", "flight", "task", "verdict", "waiters")

    def __init__(self, flight: Flight, *, background: bool = False) -> None:
        self.flight = flight
        self.background = background
        self.verdict = Verdict.FLUSHED
        self.waiters = 0
        self.abandoned = False
        self.task: asyncio.Task[Any]

    @property
    def ended(self) -> bool:
        return self.task.done()

    def pass_on(self, scope: Scope | None) -> None:
        """Tell whoever waited for this one what it depends on."""
        if scope is not None:
            flight = self.flight
            spoiled = flight.tainted or self.verdict not in (Verdict.STORED, Verdict.UNFIT)
            scope.used(flight.tags or frozenset(), flight.expires_at, tainted=spoiled, loose=flight.loose)


class Loads:
    """The loads in flight.

    max_direct: how many may run at once while nothing may be served, or after a flush.
    """

    def __init__(
        self, core: CacheCore, clock: Callable[[], float], max_direct: int, shared: SharedCache | None = None
    ) -> None:
        self.core = core
        self._clock = clock
        self._direct = asyncio.Semaphore(max_direct)
        self.second = SecondLevel(core, clock, shared)
        self._flying: dict[Hashable, Load] = {}
        self._aloft: dict[Hashable, list[Flight]] = {}  # also those that nobody joins any more
        self.check: SelfCheck | None = None  # is told of what is handed out here

    def __len__(self) -> int:
        return len(self._flying)

    async def get(self, key: Hashable, loader: Loader, tags: frozenset[str] | None, policy: Policy) -> Any:
        """What `key` stands for, loaded if it must be. Call it when nothing may be handed out as it is."""
        value = await self._get(key, loader, tags, policy, flat(scope_of_request.get()))
        return copy.deepcopy(value) if policy.copy == "deep" else value

    async def _get(
        self, key: Hashable, loader: Loader, tags: frozenset[str] | None, policy: Policy, scope: Scope | None
    ) -> Any:
        space = self.core.namespace(policy)
        if scope is not None and scope.reading is not None:
            return await scope.reading.get(key, loader, tags, policy, scope)
        if scope is not None and (scope.bypass or any(load.flight.key == key for load in scope.loads)):
            space.bypassed += not scope.checking
            return await self._alone(key, loader, tags, scope)
        asked = False
        for _attempt in range(JOINS):
            now = self._clock()
            offer = self.core.offer(key, now, policy)
            if offer is not None and not (offer.stale and scope is not None and scope.loads):
                if offer.refresh and key not in self._flying:
                    self._refresh(key, loader, tags, policy)
                if not asked:
                    self._count_offer(offer)
                if self.check is not None:
                    self.check.offered(offer, loader)
                return _hand_out(offer, scope)
            if not asked:
                asked = True
                proved = now <= self.core.freshness.valid_until
                space.misses += proved
                space.bypassed += not proved
            load, joined = self._flying.get(key), self.core.fence.number
            unproved_at = now if now > self.core.freshness.valid_until else None
            if load is None or load.abandoned or not self.core.may_join(load.flight, now):
                break
            value = await self._wait(load, key, policy, scope)
            if isinstance(value, Offer):
                return _hand_out(value, scope)
            if self.core.may_share(load.flight, load.verdict, joined, unproved_at):
                load.pass_on(scope)
                return value
        load = self._begin(Load(Flight(key, tags)), loader, policy, scope)
        value = await self._wait(load, key, policy, scope)
        if isinstance(value, Offer):
            return _hand_out(value, scope)
        load.pass_on(scope)
        return value

    def _count_offer(self, offer: Offer) -> None:
        space = offer.entry.namespace
        if offer.stale:
            space.stale += 1
        else:
            space.hit(offer.entry.key)

    def _begin(self, load: Load, loader: Loader, policy: Policy, scope: Scope | None) -> Load:
        self._flying[load.flight.key] = load  # whoever comes from now on joins this one, not a detached one
        self._aloft.setdefault(load.flight.key, []).append(load.flight)
        inner = scope.inside(load) if scope is not None else Scope(loads=(load,))
        load.task = asyncio.create_task(self._fly(load, loader, policy, inner), name="cache-load")
        load.task.add_done_callback(_retrieve)
        load.task.add_done_callback(lambda _task: self._land(load.flight))
        return load

    def _refresh(self, key: Hashable, loader: Loader, tags: frozenset[str] | None, policy: Policy) -> None:
        """Replace the value in the background; on failure leave it for a while."""
        load = self._begin(Load(Flight(key, tags), background=True), loader, policy, None)

        def ended(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.core.refresh_failed(key, self._clock())
                log.warning("a cached value could not be refreshed", error=describe(error))

        load.task.add_done_callback(ended)

    async def close(self) -> None:
        """Give up every load; whoever waits for one is told so."""
        tasks = [load.task for load in self._flying.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    async def _fly(self, load: Load, loader: Loader, policy: Policy, scope: Scope) -> Any:
        flight = load.flight
        scope_of_request.set(scope)
        try:
            async with self._turn(nested=len(scope.loads) > 1):
                self.core.begin(flight, self._clock())
                loaded = await self.second.load(flight, loader, policy)
            flight.loose = flight.loose or loaded.row is not None or isinstance(loaded.snapshot, Loose)
            load.verdict = self.core.finish(
                flight,
                loaded.value,
                snapshot=loaded.snapshot,
                tags=loaded.tags,
                policy=policy,
                ttl=loaded.ttl,
                size=estimate_bytes(loaded.value),
                current=loaded.current,
                now=self._clock(),
            )
            for older in self._aloft[flight.key]:
                if older is flight:
                    break
                older.overtaken = True
            await self.second.finished(flight, loaded, policy, load.verdict)
            return loaded.value
        finally:
            if self._flying.get(flight.key) is load:
                del self._flying[flight.key]

    def _land(self, flight: Flight) -> None:
        aloft = self._aloft[flight.key]
        aloft.remove(flight)
        if not aloft:
            del self._aloft[flight.key]

    async def _alone(self, key: Hashable, loader: Loader, tags: frozenset[str] | None, scope: Scope) -> Any:
        """Load for one request only; what it is part of still learns what it depends on."""
        flight = Flight(key, tags)
        self.core.begin(flight, self._clock())
        loaded = await call(loader)
        depends = (tags or frozenset()).union(loaded.tags)
        verdict = self.core.fence.judge(flight, depends, loaded.snapshot)
        loose = isinstance(loaded.snapshot, Loose)
        scope.used(depends, tainted=verdict is not Verdict.STORED, loose=loose)
        return loaded.value

    @asynccontextmanager
    async def _turn(self, *, nested: bool) -> AsyncIterator[None]:
        """Wait for a place while much has to be loaded; a load inside another has one already."""
        if nested or not self.core.crowded(self._clock()):
            yield
        else:
            async with self._direct:
                yield

    async def _wait(self, load: Load, key: Hashable, policy: Policy, scope: Scope | None) -> Any:
        """What the load returns or raises; the last one to give up waiting cancels it.

        An Offer in place of an error, where the key opted in.
        """
        load.waiters += 1
        try:
            await asyncio.wait((load.task,))
        finally:
            load.waiters -= 1
            if load.waiters == 0 and not load.task.done() and not load.background:
                load.abandoned = True
                load.task.cancel()
        if load.task.cancelled():
            raise PgreflexError("the load that this request waited for was cancelled", hint="Ask again.")
        error = load.task.exception()
        if isinstance(error, Exception) and not (scope is not None and scope.loads):
            offer = self.core.offer_after_error(key, self._clock(), policy)
            if offer is not None:
                self._count_offer(offer)
                return offer
        return load.task.result()


def _hand_out(offer: Offer, scope: Scope | None) -> Any:
    entry = offer.entry
    if scope is not None:
        loose = isinstance(entry.snapshot, Loose)
        scope.used(entry.tags, entry.expires_at, stale=offer.stale, loose=loose)
    return entry.value


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the error of a load that everybody gave up, so that the loop does not complain of it."""
    if not task.cancelled():
        task.exception()
