"""The cache checks itself: a sample of its hits is loaded again, off the request's path.

Owns: which hits are sampled, how they are read again, and who is told. The verdict is that of
pipeline/core/cache_check.py.

The path of a hit knows nothing of it. Once a second one of the keys that are hit is armed: its entry is no longer
"handed out without another thought" (`plain_until`), so its next hit takes the way of loads, which has the loader
at hand, is served the same value there, and is the sample. The key is that of a hit chosen by chance, among hits
and not among keys; only the first hit after each load is never chosen. A check costs one load; checks together
take at most a hundredth of one connection's time.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, NamedTuple

import structlog

from handlers.cache_scope import Scope, scope_of_request
from handlers.cache_seams import CacheSource, Loaded, Loader
from handlers.cache_second import call
from pipeline.core.cache import CacheCore
from pipeline.core.cache_check import (
    INTERVAL_SECONDS,
    UNCHECKABLE_SECONDS,
    Judge,
    Outcome,
    Served,
    Tally,
    Violation,
    fit,
    pause_after,
)
from pipeline.core.cache_namespace import Namespace, shown
from pipeline.core.cache_offer import Offer
from pipeline.core.cachekey import stable_key
from pipeline.core.freshness import Probe
from pipeline.core.sameness import same
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Entry
from pipeline.errors import PgreflexError, UsageError
from pipeline.runtime import Health, describe, wait_for

INTERRUPTED = "interrupted"
MOST_ARMED = 8
PROOF_SECONDS = 10.0  # the feed has not delivered by then what was read: nothing can be said
READ_SECONDS = 5.0
LOOK_SECONDS = 0.02
TELL_SECONDS = 60.0  # between two alarms for one namespace

log = structlog.get_logger("pgreflex.cache")

Alarm = Callable[[Violation], Awaitable[None]]
Retract = Callable[[list[str]], Awaitable[None]]


class Sample(NamedTuple):
    """A hit, and what it takes to load it again as its own request would have."""

    entry: Entry
    value: Any
    loader: Loader
    context: Context
    served: Served


class Reading(NamedTuple):
    """What was read again. ended: seconds on the cache's clock. told: the snapshots that are known."""

    value: Any
    ended: float
    told: tuple[Snapshot, ...]


class Uncheckable(Exception):
    """Nothing can be said of a sample, for this reason."""


class SelfCheck:
    """A Service. retract: drops tags in every process. alarm: told of violations, at most once a minute for each
    namespace.
    """

    name = "cache check"

    def __init__(
        self,
        core: CacheCore,
        source: CacheSource,
        clock: Callable[[], float],
        *,
        retract: Retract,
        alarm: Alarm | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.tally = Tally()
        self.alarm = alarm
        self._core = core
        self._source = source
        self._clock = clock
        self._retract = retract
        self._rng = rng
        self._judge = Judge(core.fence)
        self._armed: dict[Entry, float] = {}  # with what its plain_until was
        self._hits: dict[str, int] = {}  # of each namespace, when a key was last armed
        self._left_alone: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._sample: Sample | None = None
        self._stopping = False
        self._wake = asyncio.Event()

    async def start(self) -> None:
        self._stopping = False

    async def run(self) -> None:
        """Arm a key a second, and check what is sampled, until `stop`."""
        while not self._stopping:
            self.arm()
            await self._rest(INTERVAL_SECONDS)
            sample, self._sample = self._sample, None
            if sample is not None:
                began = self._clock()
                took = await self.check(sample)
                await self._rest(pause_after(took) - (self._clock() - began))
        self.disarm()

    async def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def healthy(self) -> Health:
        return Health(True)

    def arm(self) -> None:
        """Let the next hit on the key of a hit that is chosen by chance be a sample."""
        entry = self._choose()
        if entry is None or entry in self._armed or self._stopping:
            return
        while len(self._armed) >= MOST_ARMED:
            self._disarm(next(iter(self._armed)))
        self._armed[entry] = entry.plain_until
        entry.plain_until = -math.inf

    def disarm(self) -> None:
        """Let all hits be plain again."""
        for entry in list(self._armed):
            self._disarm(entry)

    def offered(self, offer: Offer, loader: Loader) -> None:
        """A request that did not take the plain way is given this. Never raises, never waits."""
        entry = offer.entry
        if entry not in self._armed:
            return
        self._disarm(entry)
        age = self._core.freshness.age(self._clock())
        if self._sample is not None or offer.stale or age is None:
            return
        mark = self._core.fence.mark(self._core.freshness.position)
        served = Served(entry.tags, mark, age)
        self._sample = Sample(entry, entry.value, loader, copy_context(), served)
        self._wake.set()

    async def check(self, sample: Sample) -> float:
        """Judge one sample and count it; returns for how many seconds was read."""
        began = ended = self._clock()
        try:
            try:
                again = await self._read(sample)
            finally:
                ended = self._clock()
            outcome = await self._verdict(sample, again)
        except Uncheckable as error:
            self.tally.uncheckable[str(error)] += 1
            if str(error) != INTERRUPTED:
                self._left_alone[sample.entry.namespace.name] = self._clock() + UNCHECKABLE_SECONDS
        else:
            self.tally.add(outcome, sample.served.age)
            if outcome is Outcome.VIOLATION:
                await self._found(sample)
        return ended - began

    async def _verdict(self, sample: Sample, again: Reading) -> Outcome:
        equal = same(sample.value, again.value)
        if equal is None:
            raise Uncheckable("incomparable")
        if equal:
            return Outcome.FRESH
        if await self._explained(sample, again.ended):
            return Outcome.EXPLAINED
        once_more = await self._read(sample)
        if not same(again.value, once_more.value):
            raise Uncheckable("unsteady")
        if self._judge.explained(sample.served):
            return Outcome.EXPLAINED
        return Outcome.VIOLATION

    async def _explained(self, sample: Sample, ended: float) -> bool:
        """Wait until all that had committed when the reading ended has been delivered; look for a change."""
        give_up = self._clock() + PROOF_SECONDS
        while not self._judge.interrupted(sample.served):
            if self._judge.explained(sample.served):
                return True
            if self._core.freshness.proved_at > ended:
                return False
            if self._clock() >= give_up or self._stopping:
                break
            await asyncio.sleep(LOOK_SECONDS)
        raise Uncheckable(INTERRUPTED)

    async def _read(self, sample: Sample) -> Reading:
        """Call the loader again as the request did, but past the cache."""
        witness = Witness(self._source)
        scope = Scope(bypass=True, source=witness, checking=True)
        task = asyncio.create_task(_load(sample.loader, scope), context=sample.context, name="cache-check")
        try:
            await asyncio.wait((task,), timeout=READ_SECONDS)
        finally:
            ended = task.done()
            task.cancel()
        if not ended:
            raise Uncheckable("slow")
        if task.cancelled() or task.exception() is not None:
            raise Uncheckable("failed")
        loaded = task.result()
        told = (*witness.told, *((loaded.snapshot,) if loaded.snapshot is not None else ()))
        position = sample.served.mark.position
        if not told and not sample.entry.policy.check:
            raise Uncheckable("no snapshot")
        if position is not None and not all(snapshot.covers(position) for snapshot in told):
            raise Uncheckable("older state")
        return Reading(loaded.value, self._clock(), told)

    async def _found(self, sample: Sample) -> None:
        entry, space = sample.entry, sample.entry.namespace.name
        violation = Violation(
            space,
            shown(entry.key),
            _hash(entry),
            tuple(sorted(entry.tags)),
            sample.served.age,
            time.time(),
        )
        self.tally.latest.append(violation)
        log.error(
            "the cache has served a wrong value, which no change explains; its tags are dropped everywhere",
            namespace=space,
            key=violation.key_hash,
            tags=violation.tags,
            age_seconds=round(violation.age_seconds, 3),
            hint="A table that is not watched, a trigger that was off, or a shared object that was changed?",
        )
        try:
            await self._retract(list(violation.tags))
            now = self._clock()
            if self.alarm is not None and now >= self._told.get(space, now):
                self._told[space] = now + TELL_SECONDS
                await self.alarm(violation)
        except PgreflexError as error:
            log.warning("a wrong value of the cache could not be reported", error=describe(error))

    def _choose(self) -> Entry | None:
        """The entry of a hit since the last choice, if it may be read again."""
        spaces: list[Namespace] = []
        weights: list[int] = []
        for name, space in self._core.namespaces.items():
            since = space.hits - self._hits.get(name, 0)
            self._hits[name] = space.hits
            if since > 0 and space.sketch.last is not None and self._left_alone.get(name, 0.0) <= self._clock():
                spaces.append(space)
                weights.append(since + (weights[-1] if weights else 0))
        if not spaces:
            return None
        point = self._rng() * weights[-1]
        key = spaces[bisect_right(weights, point)].sketch.last
        entry = self._core.store.entries.get(key)
        return entry if entry is not None and fit(entry) else None

    def _disarm(self, entry: Entry) -> None:
        plain_until = self._armed.pop(entry)
        if entry.ended_at == math.inf:  # else it has ended meanwhile, and must not be plain again
            entry.plain_until = plain_until

    async def _rest(self, seconds: float) -> None:
        """Until so many seconds have passed, something was sampled, or `stop`."""
        if seconds <= 0 or self._stopping or self._sample is not None:
            return
        self._wake.clear()
        await wait_for(self._wake, seconds)


class Witness:
    """A CacheSource that notes the snapshots of what is read through it."""

    def __init__(self, source: CacheSource) -> None:
        self._source = source
        self.told: list[Snapshot] = []

    async def probe(self) -> Probe:
        return await self._source.probe()

    async def read(
        self, query: str, args: Sequence[Any], *, timeout: float | None = None
    ) -> tuple[list[dict[str, Any]], Snapshot]:
        rows, snapshot = await self._source.read(query, args, timeout=timeout)
        self.told.append(snapshot)
        return rows, snapshot

    async def invalidate(self, tags: Sequence[str] | None, prefix: str | None) -> int:
        return await self._source.invalidate(tags, prefix)


async def _load(loader: Loader, scope: Scope) -> Loaded:
    scope_of_request.set(scope)
    return await call(loader)


def _hash(entry: Entry) -> str:
    """Tells keys apart in a log, where argument values must not go."""
    try:
        return stable_key(entry.namespace.name, entry.key).hex()[:16]
    except UsageError:  # an object as a key of get_or_load
        return ""
