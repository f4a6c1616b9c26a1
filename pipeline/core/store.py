"""The entries of the cache, within their bounds.

Owns: what is stored, under which tags, how large it is, and what is given up first. Knows nothing of who may
store what, nor of the feed: see fill.py and cache.py.

Bounds are a count and a number of bytes; eviction.py says what goes first.

A change that ends very many entries at once makes them unreachable at once, 0.5 microseconds each, and takes
them apart later, since that costs five times as much and whoever waits for the loop would wait for it: a few with
each new value, the rest by `sweep`. Until then they count as bytes, which they still are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable
from typing import Any

from pipeline.core.cache_namespace import Cause, Namespace
from pipeline.core.cache_policy import PLAIN, Policy
from pipeline.core.cachekey import key_bytes
from pipeline.core.eviction import Eviction
from pipeline.core.snapshot import Snapshot
from pipeline.core.tags import TagIndex

ENTRY_BYTES = 370  # an Entry with its four times, its size and its place: measured 364
SNAPSHOT_BYTES = 150  # with its two ends; those in progress between them are few
AT_ONCE = 64  # entries that one change takes apart itself
SWEPT_BY_PUT = 8
NEVER = -math.inf
LARGEST_SHARE = 4  # a value larger than a quarter of the bound would push out too much for one


class Entry:
    """One value. Times are on the caller's clock: since, when its load began to read; expires_at,
    math.inf where only a change ends it; ended_at, when a change did, math.inf until then; plain_until, until when
    it is handed out without another thought; load_seconds, how long loading it took. hits, used, and whatever is
    below them: see eviction.py; passed, its hits when its namespace passed it over; doomed, no
    longer among the entries and not yet taken apart.
    """

    __slots__ = (
        "counted",
        "doomed",
        "ended_at",
        "epoch",
        "expires_at",
        "fresh",
        "hits",
        "key",
        "load_seconds",
        "namespace",
        "passed",
        "place",
        "plain_until",
        "policy",
        "retry_at",
        "shared",
        "since",
        "size",
        "snapshot",
        "tags",
        "used",
        "value",
        "weight",
    )

    def __init__(
        self,
        key: Hashable,
        value: Any,
        *,
        tags: frozenset[str],
        snapshot: Snapshot | None,
        since: float,
        expires_at: float,
        size: int,
        policy: Policy,
        namespace: Namespace,
    ) -> None:
        self.key = key
        self.value = value
        self.tags = tags
        self.snapshot = snapshot
        self.since = since
        self.expires_at = expires_at
        self.size = size
        self.policy = policy
        self.namespace = namespace
        self.plain_until = expires_at
        self.ended_at = math.inf
        self.load_seconds = 0.0
        self.retry_at = NEVER  # no refresh before that: the last one failed
        self.hits = self.passed = self.counted = self.weight = self.epoch = 0
        self.used = since
        self.fresh = True
        self.doomed = False
        self.place = -1
        self.shared = 0  # the version of the row that holds this value for all processes; 0: none


class Store:
    """Entries by key, dropped by tag. max_bytes counts estimates, of the bookkeeping too."""

    def __init__(self, *, max_bytes: int, max_entries: int) -> None:
        self.entries: dict[Hashable, Entry] = {}
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.evictions = 0
        self._held = 0
        self._doomed: list[Entry] = []
        self._plain = Namespace()
        self._index: TagIndex[Entry] = TagIndex()
        self._eviction: Eviction[Entry] = Eviction()

    @property
    def bytes(self) -> int:
        """What everything in here takes, the tables by their true size and the values as estimated."""
        return self._held + self._index.bytes + self._eviction.bytes + sys.getsizeof(self.entries)

    def put(
        self,
        key: Hashable,
        value: Any,
        *,
        tags: frozenset[str] = frozenset(),
        snapshot: Snapshot | None = None,
        since: float = 0.0,
        expires_at: float = math.inf,
        size: int = 0,
        policy: Policy = PLAIN,
        namespace: Namespace | None = None,
    ) -> Entry | None:
        """Store a value in place of what stood there. None: it is too large, nothing stands there now."""
        self.drop(key, "replaced")
        space = namespace or self._plain
        size += ENTRY_BYTES + key_bytes(key) + sys.getsizeof(tags) + sum(map(sys.getsizeof, tags))
        size += 0 if snapshot is None else SNAPSHOT_BYTES
        if size > self.max_bytes / LARGEST_SHARE or self.max_entries < 1:
            return None
        if size > (space.max_bytes or math.inf) or space.max_entries == 0:
            return None
        if self._doomed:
            self.sweep(SWEPT_BY_PUT)
        while cause := space.crowded(size):
            self._evict_of(space, cause, since)
        while cause := self._crowded(size):
            self._evict(since, cause)
        entry = Entry(
            key,
            value,
            tags=tags,
            snapshot=snapshot,
            since=since,
            expires_at=expires_at,
            size=size,
            policy=policy,
            namespace=space,
        )
        self.entries[key] = entry
        self._index.add(entry, tags)
        self._held += size
        space.enter(key, size)
        self._eviction.add(entry)
        while self.bytes > self.max_bytes and len(self.entries) > 1:  # a table has just doubled
            self._evict(since, "size")
        return entry

    def drop(self, key: Hashable, cause: Cause) -> bool:
        """Forget one entry. False: there was none."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        entry.namespace.leave(key, entry.size, cause)
        self._take_apart(entry)
        return True

    def sweep(self, most: int) -> bool:
        """Take apart up to so many entries that a change has ended. False: none is left."""
        doomed = self._doomed
        for _ in range(min(most, len(doomed))):
            self._take_apart(doomed.pop())
        return bool(doomed)

    def _take_apart(self, entry: Entry) -> None:
        if entry.ended_at == math.inf:
            self._index.remove(entry, entry.tags)
        self._held -= entry.size
        self._eviction.remove(entry)

    def end(self, entry: Entry, at: float, now: float, cause: Cause) -> None:
        """It is no longer good since `at`: forget it, unless it is of use for some time after that.

        No change touches it any more; what stands in for it later is stored in its place.
        """
        if now >= at + entry.policy.outlives:
            self.drop(entry.key, cause)
        elif entry.ended_at == math.inf:
            self._index.remove(entry, entry.tags)
            _end(entry, at)

    def end_changed(self, tag: str, xid: int | None, at: float, now: float) -> int:
        """End what a change of `tag` by transaction `xid` touches; returns how many entries that were.

        An entry whose snapshot sees the transaction contains the change already and stays. xid None: no
        snapshot is known to contain it.
        """
        return self._end_all(self._index.touched(tag), xid, at, now, "changed")

    def end_prefixed(self, prefix: str, xid: int | None, at: float, now: float) -> int:
        """The same, as if every tag that begins with `prefix` had changed."""
        return self._end_all(self._index.starting(prefix), xid, at, now, "cleared")

    def _end_all(self, entries: set[Entry], xid: int | None, at: float, now: float, cause: Cause) -> int:
        ended, at_once = 0, len(entries) <= AT_ONCE
        for entry in entries:
            if entry.doomed or (xid is not None and entry.snapshot is not None and entry.snapshot.sees(xid)):
                continue
            ended += 1
            if at_once or entry.policy.outlives:
                self.end(entry, at, now, cause)
            else:
                del self.entries[entry.key]
                entry.namespace.leave(entry.key, entry.size, cause)
                entry.doomed = True
                self._doomed.append(entry)
        return ended

    def end_every(self, at: float, now: float, cause: Cause) -> int:
        """End whatever is stored; returns how many entries that were. A tenth of ending them singly."""
        entries, keep = self.entries, []
        for entry in entries.values():
            if entry.policy.outlives and now < at + entry.policy.outlives:
                keep.append(entry)
            else:
                entry.namespace.leave(entry.key, entry.size, cause)
        self.entries = {}
        self._doomed = []
        self._index.clear()
        self._held = 0
        self._eviction.clear()
        for entry in keep:
            _end(entry, at)
            self.entries[entry.key] = entry
            self._held += entry.size
            self._eviction.add(entry)
        return len(entries)

    def bound(self, space: Namespace, max_bytes: int | None, max_entries: int | None) -> None:
        """Bound a namespace from the next value on."""
        space.max_bytes, space.max_entries = max_bytes, max_entries
        if space.order is None:
            space.order = {key: None for key, entry in self.entries.items() if entry.namespace is space}

    def _crowded(self, size: int) -> Cause | None:
        while self._doomed and self.bytes + size > self.max_bytes:
            self.sweep(SWEPT_BY_PUT)
        if self.entries and self.bytes + size > self.max_bytes:
            return "size"
        return "count" if self.entries and len(self.entries) >= self.max_entries else None

    def _evict_of(self, space: Namespace, cause: Cause, now: float) -> None:
        """Give up the oldest of one namespace that was not read since it was passed over."""
        while space.order:
            entry = self.entries[next(iter(space.order))]
            if entry.hits == entry.passed or entry.expires_at <= now:
                self.drop(entry.key, "expired" if entry.expires_at <= now else cause)
                self.evictions += 1
                return
            entry.passed = entry.hits
            space.order[entry.key] = space.order.pop(entry.key)

    def _evict(self, now: float, cause: Cause) -> None:
        self.sweep(len(self._doomed))  # or one of them could be chosen
        entry = self._eviction.victim(now)
        self.drop(entry.key, "expired" if entry.expires_at <= now else cause)
        self.evictions += 1


def _end(entry: Entry, at: float) -> None:
    entry.ended_at = min(entry.ended_at, at)
    entry.plain_until = NEVER
