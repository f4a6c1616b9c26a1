"""The entries of the cache, within their bounds.

Owns: what is stored, under which tags, how large it is, and what is given up first. Knows nothing of who may
store what, nor of the feed: see fill.py and cache.py.

Bounds are a count and a number of bytes. What goes first is decided by SIEVE (Zhang et al., NSDI 2024): a
hit only sets a mark, so it needs no reordering and no lock; the hand walks from the oldest entry to the
newest, spares each marked entry once and takes the first that is unmarked or out of time. New entries
that are read only once leave soon, without pushing out what is read again and again.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

from pipeline.core.snapshot import Snapshot
from pipeline.core.tags import TagIndex

ENTRY_BYTES = 650  # an Entry, a key of one argument, its snapshot, its place in the table: measured 645
TAG_BYTES = 400  # a tag in the index, where no other entry has it: measured 400, and 200 where fifty share it
LARGEST_SHARE = 4  # a value larger than a quarter of the bound would push out too much for one


class Entry:
    """One value. Times are on the caller's clock: since, when its load began to read; expires_at,
    math.inf where only a change ends it.
    """

    __slots__ = (
        "expires_at",
        "key",
        "marked",
        "newer",
        "older",
        "since",
        "size",
        "snapshot",
        "tags",
        "value",
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
    ) -> None:
        self.key = key
        self.value = value
        self.tags = tags
        self.snapshot = snapshot
        self.since = since
        self.expires_at = expires_at
        self.size = size
        self.marked = False
        self.newer: Entry | None = None
        self.older: Entry | None = None


class Store:
    """Entries by key, dropped by tag. max_bytes counts estimates, of the bookkeeping too."""

    def __init__(self, *, max_bytes: int, max_entries: int) -> None:
        self.entries: dict[Hashable, Entry] = {}
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.bytes = 0
        self.evictions = 0
        self._index = TagIndex()
        self._newest: Entry | None = None
        self._oldest: Entry | None = None
        self._hand: Entry | None = None

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
    ) -> bool:
        """Store a value in place of what stood there. False: it is too large, nothing stands there now."""
        self.drop(key)
        size += ENTRY_BYTES + TAG_BYTES * len(tags)
        if size > self.max_bytes / LARGEST_SHARE or self.max_entries < 1:
            return False
        while self.entries and (self.bytes + size > self.max_bytes or len(self.entries) >= self.max_entries):
            self._evict(since)
        entry = Entry(key, value, tags=tags, snapshot=snapshot, since=since, expires_at=expires_at, size=size)
        self.entries[key] = entry
        self._index.add(key, tags)
        self.bytes += size
        self._link(entry)
        return True

    def drop(self, key: Hashable) -> bool:
        """Forget one entry. False: there was none."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        self._index.remove(key, entry.tags)
        self.bytes -= entry.size
        self._unlink(entry)
        return True

    def drop_changed(self, tag: str, xid: int | None) -> int:
        """Forget what a change of `tag` by transaction `xid` touches; returns how many entries that were.

        An entry whose snapshot sees the transaction contains the change already and stays. xid None: no
        snapshot is known to contain it.
        """
        dropped = 0
        for key in self._index.touched(tag):
            snapshot = self.entries[key].snapshot
            if xid is None or snapshot is None or not snapshot.sees(xid):
                dropped += self.drop(key)
        return dropped

    def clear(self) -> None:
        self.entries.clear()
        self._index.clear()
        self.bytes = 0
        self._newest = self._oldest = self._hand = None

    def _evict(self, now: float) -> None:
        entry = self._hand or self._oldest
        while entry is not None and entry.marked and entry.expires_at > now:
            entry.marked = False
            entry = entry.newer or self._oldest
        if entry is not None:  # always so: the store is not empty, and one round clears every mark
            self._hand = entry  # `drop` moves the hand on to the next newer one
            self.drop(entry.key)
            self.evictions += 1

    def _link(self, entry: Entry) -> None:
        entry.older, self._newest = self._newest, entry
        if entry.older is None:
            self._oldest = entry
        else:
            entry.older.newer = entry

    def _unlink(self, entry: Entry) -> None:
        if self._hand is entry:
            self._hand = entry.newer  # None: begin again at the oldest
        if entry.newer is None:
            self._newest = entry.older
        else:
            entry.newer.older = entry.older
        if entry.older is None:
            self._oldest = entry.newer
        else:
            entry.older.newer = entry.newer
        entry.newer = entry.older = None
