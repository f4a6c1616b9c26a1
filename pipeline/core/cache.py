"""The cache's decisions: what is served, what is stored, what goes.

Owns: how the store, the fence and the proof of freshness act together. Knows no clock, no loop and no
database.

Theory of operation
    The promise: a cached read reflects every transaction that committed more than `max_staleness` before
    it, or it is not served from the cache.

    Suppose a read is served at time t. Then t <= valid_until = t0 + max_staleness for a probe sent at t0,
    and the feed has delivered everything that the probe's snapshot sees (freshness.py). A transaction T
    that committed more than max_staleness before t had committed before t0, so its changes have been
    delivered. When they came,
      - the entry was in the store: it was dropped, unless its snapshot sees T;
      - the entry was being loaded, or its load had not begun: the fence remembers T, and the fill rule
        let the entry in only if its snapshot sees T, or if its reading began after T had been delivered
        (fill.py);
      - nobody heard them because the feed had a gap: then the gap flushed the store, the loads in flight and
        the proof of freshness.
    In each case the entry reflects T.

    When the proof has run out, entries stay but are not served: every read loads. What it loads is stored
    under the same rules, so that the cache is warm when the feed catches up; a gap would flush it.

    Sharing a load is serving, too. A request may join a load in flight only if no change of the tags it
    was announced with has come since its reading began (else it is detached), and, while nothing is
    proved, only if its reading began at most `max_staleness` ago. A load that turns out to depend on more
    than it announced, or to have read an old state, cannot be judged at joining: `may_share` judges it at
    the end. While nothing is proved the fence knows too little for that: what a long transaction read is
    then shared only if it is no older than what the database last answered before the load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from msgspec import structs

from pipeline.core import invalidation
from pipeline.core.cache_namespace import SAMPLED, Namespace
from pipeline.core.cache_offer import RETRY_SECONDS, Offer, is_of_use, judge, lifetime, settle
from pipeline.core.cache_policy import PLAIN, Policy
from pipeline.core.events import Batch, Event
from pipeline.core.fill import Fence, Flight, Verdict
from pipeline.core.freshness import Freshness
from pipeline.core.own_writes import Hold, told
from pipeline.core.placed import Place
from pipeline.core.snapshot import Loose, Snapshot
from pipeline.core.store import Entry, Store
from pipeline.errors import UsageError

NEVER_HEARD = None  # what was stored or begun before the feed spoke first may miss what it said before
ANY_EPOCH = ""  # just flushed: the next batch may be of any epoch
REFILL_SECONDS = 60.0
MOST_NAMESPACES = 1_000


class CacheCore:
    """One process's cache without its waiting. Every `now` is seconds on one monotonic clock.

    Implements the decisions behind FeedSink: call on_batch, on_position, on_flush and on_down as the feed
    does. rng: numbers in [0, 1) for jitter and early refreshes.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_entries: int,
        max_staleness: float,
        rng: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.store = Store(max_bytes=max_bytes, max_entries=max_entries)
        self.fence = Fence()
        self.freshness = Freshness(max_staleness)
        self.namespaces: dict[str, Namespace] = {}
        self.dropped = 0
        self.refused = 0
        self.flushes = 0
        self.unreadable = 0
        self.places: list[Place] = []
        self._rng = rng
        self.position: Snapshot | None = None  # all that it sees has been delivered since the last flush
        self._epoch: str | None = NEVER_HEARD
        self._refills = 0
        self._refill_until = -math.inf

    def namespace(self, policy: Policy) -> Namespace:
        """The counters of a policy's namespace; bounds that it names hold from now on. Raises UsageError."""
        name = policy.namespace or ""
        space = self.namespaces.get(name)
        if space is None:
            if len(self.namespaces) >= MOST_NAMESPACES:
                raise UsageError(
                    f"there are {MOST_NAMESPACES} namespaces in the cache already",
                    hint="A namespace is a kind of values; what tells values apart belongs into the key.",
                )
            space = self.namespaces[name] = Namespace(name)
        bounds = policy.max_bytes, policy.max_entries
        if bounds not in ((None, None), (space.max_bytes, space.max_entries)):
            self.store.bound(space, *bounds)
        return space

    @property
    def epoch(self) -> str | None:
        """The feed's, where it is known."""
        return self._epoch or None

    def read(self, key: Hashable, now: float) -> Entry | None:
        """The entry that may be handed out as it is, counted as a hit, or None: then see `offer`."""
        entry = self.store.entries.get(key)
        if entry is None or now >= entry.plain_until or now > self.freshness.valid_until:
            return None
        entry.hits += 1
        entry.used = now
        space = entry.namespace
        space.hits = hits = space.hits + 1  # as Namespace.hit, without the call
        if not hits % SAMPLED:
            space.sketch.add(key)
        return entry

    def offer(self, key: Hashable, now: float, policy: Policy = PLAIN) -> Offer | None:
        """What may be handed out to a request with this policy; None: it must load."""
        entry = self.store.entries.get(key)
        if entry is None:
            return None
        if not is_of_use(entry, now):
            self.store.drop(key, "expired" if entry.ended_at == math.inf else "changed")
            return None
        offer = judge(entry, now, self.freshness.valid_until, policy, self._rng)
        if offer is not None:
            entry.hits += 1
            entry.used = now
        return offer

    def offer_after_error(self, key: Hashable, now: float, policy: Policy) -> Offer | None:
        """What may be handed out instead of the error of a load."""
        if not policy.stale_if_error:
            return None
        return self.offer(key, now, structs.replace(policy, stale_while_revalidate=policy.outlives))

    def refresh_failed(self, key: Hashable, now: float) -> None:
        """Leave the entry in peace for a while."""
        entry = self.store.entries.get(key)
        if entry is not None:
            entry.retry_at = now + RETRY_SECONDS

    def crowded(self, now: float) -> bool:
        """Whether so much has to be loaded that loads must take turns: nothing is proved, or a flush left much.

        As many loads as the flush forgot entries take turns, for a minute at most.
        """
        return now > self.freshness.valid_until or (self._refills > 0 and now < self._refill_until)

    def begin(self, flight: Flight, now: float) -> None:
        """The flight begins to read; whatever is delivered from here on may be missing from what it reads."""
        self.fence.begin(flight, now)
        flight.floor = self.freshness.newest
        self._refills -= self._refills > 0

    def may_join(self, flight: Flight, now: float) -> bool:
        """Whether a request that comes now may wait for this load instead of beginning its own."""
        if flight.began is None:
            return True
        if self.fence.detached(flight):
            return False
        stale = self.freshness.max_staleness
        return now <= self.freshness.valid_until or flight.began >= now - stale

    def may_share(self, flight: Flight, verdict: Verdict, joined: int, unproved_at: float | None = None) -> bool:
        """Whether a request that joined after change number `joined` may have what the flight loaded.

        unproved_at: when it joined, if nothing was proved then.
        """
        if verdict is Verdict.OLD or flight.tainted:
            return False
        if unproved_at is not None and flight.snapshot is not None:
            asked, known = flight.floor or (-math.inf, flight.snapshot)
            if asked < unproved_at - self.freshness.max_staleness or not flight.snapshot.covers(known):
                return False
        admitted = verdict in (Verdict.STORED, Verdict.UNFIT)
        return admitted or not flight.late or (joined <= flight.start and not flight.unsure)

    def finish(
        self,
        flight: Flight,
        value: Any,
        *,
        snapshot: Snapshot | None,
        tags: Iterable[str] = (),
        policy: Policy = PLAIN,
        ttl: float | None = None,
        size: int = 0,
        current: bool = False,
        now: float,
    ) -> Verdict:
        """The flight has loaded `value`: store it if the fill rule admits it.

        tags: those known only now, besides the announced ones. ttl: seconds from the beginning of the load, if
        less than the policy's. current: the snapshot was taken after the load had begun.
        """
        if snapshot is not None:
            self.freshness.read(snapshot)
            flight.snapshot = None if current else snapshot
        announced = flight.tags or frozenset()
        own = announced.union(tags)
        whole = own | flight.parts
        flight.late = whole != announced
        flight.tags = whole
        verdict = self.fence.judge(flight, own, snapshot)
        if verdict is Verdict.STORED and flight.parts:
            snapshot = None  # the parts were read under other snapshots, each at or before this load's end
            verdict = self.fence.judge(flight, whole, None)
        if verdict is not Verdict.STORED:
            self.refused += 1
        elif (
            flight.tainted
            or flight.overtaken
            or not self._store(flight, value, whole, snapshot, policy, ttl, size, now)
        ):
            verdict = Verdict.UNFIT
        space = self.namespace(policy)
        if verdict is not Verdict.STORED:
            space.refused[verdict.value] += 1
            self._forget_older(flight)
        space.loads += 1
        space.load_seconds += 0.0 if flight.began is None else now - flight.began
        return verdict

    def _forget_older(self, flight: Flight) -> None:
        """Who was given what could not be stored is not to be served an older value next."""
        present = self.store.entries.get(flight.key)
        if present is not None and present.ended_at == math.inf and present.since <= (flight.began or -math.inf):
            self.store.drop(flight.key, "replaced")

    def _store(
        self,
        flight: Flight,
        value: Any,
        tags: frozenset[str],
        snapshot: Snapshot | None,
        policy: Policy,
        ttl: float | None,
        size: int,
        now: float,
    ) -> bool:
        began = now if flight.began is None else flight.began
        flight.expires_at = min(flight.parts_expire, began + lifetime(value, policy, ttl, self._rng))
        present = self.store.entries.get(flight.key)
        if flight.expires_at <= now or (present is not None and present.since > began):
            return False  # a detached load may end after a later one: what is served never goes back
        for place in self.places:
            place.newer.add(flight.key)
        entry = self.store.put(
            flight.key,
            value,
            tags=tags,
            snapshot=Loose.of(snapshot) if flight.loose else snapshot,
            since=began,
            expires_at=flight.expires_at,
            size=size,
            policy=policy,
            namespace=self.namespace(policy),
        )
        if entry is not None:
            settle(entry, policy, now)
        return entry is not None

    def change(self, tag: str, xid: int | None, now: float, *, forget: bool = False) -> None:
        """Transaction `xid` changed `tag`; None: somebody says so, and no snapshot is known to contain it.

        forget: also what is kept for those who take it stale.
        """
        self.fence.note(tag, xid)
        at = -math.inf if forget else min(now, self.freshness.valid_until)
        self.dropped += self.store.end_changed(tag, xid, at, now)

    def change_prefix(self, prefix: str, xid: int | None, now: float) -> None:
        """The same, of every tag that begins with `prefix`; the empty one is everything, tagged or not."""
        self.fence.note_prefix(prefix, xid)
        if prefix:
            at = min(now, self.freshness.valid_until)
            self.dropped += self.store.end_prefixed(prefix, xid, at, now)
        else:
            self.clear(now)

    def hold(self, xid: int, events: Iterable[Event] | None, now: float) -> Hold:
        """A transaction of this process, still open, has reported `events`; None: nobody knows what it wrote.

        What does not contain it goes, also what is kept for those who take it stale.
        """
        tags = None if events is None else told(events)
        for tag in tags or ():
            self.dropped += self.store.end_changed(tag, xid, -math.inf, now)
        if tags is None:
            self.clear(now)
        self.fence.number += 1  # who comes from now on did not come before it
        return self.fence.own.hold(xid, tags)

    def committed(self, hold: Hold) -> None:
        """Its commit has been acknowledged: whatever begins to read from now on contains it."""
        self.fence.number += 1
        hold.since = self.fence.number

    def said(self, xid: int, tags: frozenset[str], prefix: str | None, now: float) -> None:
        """This process has said, in a transaction that has committed, that these changed.

        What was read before that, in an older transaction for instance, goes and is not stored.
        """
        at = min(now, self.freshness.valid_until)
        for tag in tags:
            self.dropped += self.store.end_changed(tag, xid, at, now)
        if prefix:
            self.dropped += self.store.end_prefixed(prefix, xid, at, now)
        elif prefix is not None:
            self.clear(now)
        self.committed(self.fence.own.hold(xid, tags, prefix))

    def clear(self, now: float) -> None:
        """Forget every entry, also what is kept for those who take it stale; no load in flight may be stored."""
        self._refills = self.store.end_every(-math.inf, now, "cleared")
        self._refill_until = now + REFILL_SECONDS
        self.fence.generation += 1

    def on_batch(self, batch: Batch, now: float) -> None:
        if batch.flush or self._epoch not in (ANY_EPOCH, batch.epoch):
            self.on_flush(now)
        self._epoch = batch.epoch
        for event in batch.events:
            self.on_event(event, now)

    def on_event(self, event: Event, now: float) -> None:
        # what a table's tag stands for may have changed: what was tagged before this was known may be tagged
        # wrongly, though it was read after the change
        xid = None if event.op == "w" else event.xid
        for tag in event.changed():
            self.change(tag, xid, now)
            if xid is None:
                self.fence.note(tag, event.xid)  # a row of another process that contains it is tagged rightly
        if event.op == "e" and event.name == invalidation.CHANNEL:
            said = invalidation.parse(event.payload)
            if said is None:
                self.unreadable += 1
                return
            for tag in said.tags:
                self.change(tag, event.xid, now)
            if said.prefix is not None:
                self.change_prefix(said.prefix, event.xid, now)

    def on_position(self, position: Snapshot, now: float) -> None:
        if self._epoch is NEVER_HEARD:
            self.on_flush(now)
        self.position = position
        self.fence.on_position(position)
        self.freshness.on_position(position)

    def on_recall(self, epoch: str, batches: Sequence[Batch], now: float) -> None:
        """Just after a flush: what came before it, as far as the feed remembers."""
        self._epoch = epoch
        for batch in batches:
            if batch.flush:
                self.fence.flush()
            for event in batch.events:
                self.on_event(event, now)
            if batch.position is not None:
                self.fence.on_position(Snapshot.parse(batch.position))

    def on_flush(self, now: float) -> None:
        self._epoch = ANY_EPOCH
        self.position = None
        self.flushes += 1
        self._refills = self.store.end_every(min(now, self.freshness.valid_until), now, "flushed")
        self._refill_until = now + REFILL_SECONDS
        self.fence.flush()
        self.freshness.on_flush()

    def on_down(self) -> None:
        self.freshness.on_down()
