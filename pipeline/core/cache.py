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
    the end.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

from pipeline.core.cache_policy import PLAIN, Policy
from pipeline.core.events import Batch, Event
from pipeline.core.fill import Fence, Flight, Verdict
from pipeline.core.freshness import Freshness
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Entry, Store

NEVER_HEARD = None  # what was stored or begun before the feed spoke first may miss what it said before
ANY_EPOCH = ""  # just flushed: the next batch may be of any epoch


class CacheCore:
    """One process's cache without its waiting. Every `now` is seconds on one monotonic clock.

    Implements the decisions behind FeedSink: call on_batch, on_position, on_flush and on_down as the feed
    does.
    """

    def __init__(self, *, max_bytes: int, max_entries: int, max_staleness: float) -> None:
        self.store = Store(max_bytes=max_bytes, max_entries=max_entries)
        self.fence = Fence()
        self.freshness = Freshness(max_staleness)
        self.dropped = 0
        self.refused = 0
        self.flushes = 0
        self._epoch: str | None = NEVER_HEARD

    def read(self, key: Hashable, now: float) -> Entry | None:
        """The entry that may be served now, or None."""
        if now > self.freshness.valid_until:
            return None
        entry = self.store.entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self.store.drop(key)
            return None
        entry.marked = True
        return entry

    def begin(self, flight: Flight, now: float) -> None:
        """The flight begins to read; whatever is delivered from here on may be missing from what it reads."""
        self.fence.begin(flight, now)

    def may_join(self, flight: Flight, now: float) -> bool:
        """Whether a request that comes now may wait for this load instead of beginning its own."""
        if flight.began is None:
            return True
        if self.fence.detached(flight):
            return False
        stale = self.freshness.max_staleness
        return now <= self.freshness.valid_until or flight.began >= now - stale

    def may_share(self, flight: Flight, verdict: Verdict, joined: int) -> bool:
        """Whether a request that joined after change number `joined` may have what the flight loaded."""
        if verdict is Verdict.OLD or flight.tainted:
            return False
        admitted = verdict in (Verdict.STORED, Verdict.UNFIT)
        return admitted or not flight.late or joined <= flight.start

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
        now: float,
    ) -> Verdict:
        """The flight has loaded `value`: store it if the fill rule admits it.

        tags: those known only now, besides the announced ones. ttl: seconds from the beginning of the load, if
        less than the policy's.
        """
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
            return verdict
        if flight.tainted:
            return Verdict.UNFIT
        began = now if flight.began is None else flight.began
        spans = [span for span in (ttl, policy.ttl) if span is not None]
        flight.expires_at = min(flight.parts_expire, began + min(spans, default=math.inf))
        present = self.store.entries.get(flight.key)
        if flight.expires_at <= now or (present is not None and present.since > began):
            return Verdict.UNFIT  # a detached load may end after a later one: what is served never goes back
        kept = self.store.put(
            flight.key,
            value,
            tags=whole,
            snapshot=snapshot,
            since=began,
            expires_at=flight.expires_at,
            size=size,
        )
        return Verdict.STORED if kept else Verdict.UNFIT

    def change(self, tag: str, xid: int | None) -> None:
        """Transaction `xid` changed `tag`; None: somebody says so, and no snapshot is known to contain it."""
        self.fence.note(tag, xid)
        self.dropped += self.store.drop_changed(tag, xid)

    def clear(self) -> None:
        """Forget every entry; no load in flight may be stored."""
        self.store.clear()
        self.fence.generation += 1

    def on_batch(self, batch: Batch) -> None:
        if batch.flush or self._epoch not in (ANY_EPOCH, batch.epoch):
            self.on_flush()
        self._epoch = batch.epoch
        for event in batch.events:
            self.on_event(event)

    def on_event(self, event: Event) -> None:
        for tag in event.changed():
            self.change(tag, event.xid)

    def on_position(self, position: Snapshot) -> None:
        if self._epoch is NEVER_HEARD:
            self.on_flush()
        self.fence.on_position(position)
        self.freshness.on_position(position)

    def on_flush(self) -> None:
        self._epoch = ANY_EPOCH
        self.flushes += 1
        self.store.clear()
        self.fence.flush()
        self.freshness.on_flush()

    def on_down(self) -> None:
        self.freshness.on_down()
