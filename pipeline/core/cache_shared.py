"""The cache's second level: which values of other processes this one may use, and what it may say of its own.

Owns: the decisions about rows that all processes share. Knows neither the table nor how values are written in it.

Theory of operation
    A row is a value, its tags, the epoch and a snapshot, and it says one thing: *every change of these tags that
    the snapshot sees is in this value*. Nothing else is asked of it, so nobody has to delete a row, a row that
    comes late harms nobody, and it does not matter who feeds the table or whether anybody does.

    Using a row. A process has proved, at the moment t of use, that the feed has delivered to it everything that
    committed before t - max_staleness (freshness.py), and its fence remembers of each tag what has been
    delivered (fill.py). It takes the row only if it may serve at all at t, the epoch is its own, the snapshot
    sees each of those changes, and the snapshot reaches the position from which on the process knows the feed
    (its floor; what came before that is not remembered, but all of it is below the floor). So a transaction T
    that committed before t - max_staleness and touches the tags is either below the floor, and the snapshot sees
    it, or was delivered, and the snapshot sees it. By what the row says, T is in the value. That is the promise,
    and it is what the fence asks of a load that has read under an old snapshot.

    Saying it of one's own. The snapshot is the feed's last position Q, and the value stands in the store when
    the row is made: by the theory of cache.py, the store holds only what reflects every change that was
    delivered, and everything that Q sees has been. So a value whose load knew no snapshot can be shared, too.
    The load's own snapshot would not do: it may see a change of what a tag means (DDL) that this process was not
    told of, and the tags would be those from before. A process that has other tags for a key than the row does
    not use it.

    Raising it. What may be said of an entry in the store may be said of the row that holds the same value, later
    too. So a process raises the snapshot of the row whose version its entry has, and of no other, to the feed's
    last position. That lets a process that has just begun, and whose floor is young, use rows that are old and
    still true.

    Never going back. What one process hands out for a key should not become older, although the promise would
    allow it: the value that it had may contain a change that the feed has not delivered yet, and another
    process's row may lack it. So a row is used only if it is the one that this process had (its version), or if
    its snapshot covers one that sees all that the value had contained: the row's own upper snapshot, taken when it
    was written, or an answer of the database to a question that was sent after the value was had.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import msgspec

from pipeline.core.cache import CacheCore
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Entry

MOST_SEEN = 50_000  # keys whose last version is remembered, about 10 MB; of others only when the last one was had
MOST_PROBES = 256
LEASE_FACTOR = 4.0  # a load may take this many times as long as the last one before others stop waiting for it
SHORTEST_LEASE, LONGEST_LEASE, FIRST_LEASE = 0.25, 5.0, 2.0  # seconds; the last where no load is known
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds without the table, after the first failure and after many


class SharedRow(msgspec.Struct, frozen=True):
    """A row of another process, or one of our own.

    snapshot: all that it sees of the tags is in the value. upper: nothing that it does not see is. version: which
    value it is. left: seconds until it expires.
    """

    value: bytes
    tags: frozenset[str]
    snapshot: Snapshot
    version: int
    upper: Snapshot
    left: float | None = None
    load_ms: float = 0.0


def may_use(core: CacheCore, tags: frozenset[str] | None, row: SharedRow, now: float) -> bool:
    """Whether a row of the core's epoch may be served and stored at `now`.

    tags: what the value depends on, as this process knows; None when only the row tells.
    """
    known = tags is None or tags <= row.tags
    return known and now <= core.freshness.valid_until and core.fence.admits(row.tags, row.snapshot)


def stands(core: CacheCore, entry: Entry) -> bool:
    """Whether the entry is in the core's store, and still good."""
    return core.store.entries.get(entry.key) is entry and entry.ended_at == math.inf


def provable(core: CacheCore, entry: Entry) -> Snapshot | None:
    """The snapshot that may be said of an entry now; None: none, or it stands no more."""
    return core.position if core.epoch is not None and stands(core, entry) else None


def lease_seconds(load_seconds: float | None) -> float:
    """How long others wait for the process that loads, if the last load took this long."""
    if load_seconds is None:
        return FIRST_LEASE
    return min(max(LEASE_FACTOR * load_seconds, SHORTEST_LEASE), LONGEST_LEASE)


class HandedOut:
    """What this process has handed out, so that it never goes back. Times are the cache's clock."""

    def __init__(self, most: int = MOST_SEEN) -> None:
        self._had: OrderedDict[Hashable, _Had] = OrderedDict()
        self._most = most
        self._others = _Had(-math.inf)  # when the last of those was had that are forgotten
        self._asked: list[float] = []  # ascending; when each of `_answers` was asked for
        self._answers: list[Snapshot] = []

    def had(self, key: Hashable, now: float, row: SharedRow | None = None) -> None:
        """A value of `key` was handed out; None: one that is in no row yet."""
        self._had[key] = _Had(now) if row is None else _Had(now, row.version, row.upper)
        self._had.move_to_end(key)
        if len(self._had) > self._most:
            _key, oldest = self._had.popitem(last=False)
            self._others = _Had(max(self._others.when, oldest.when))

    def when(self, key: Hashable) -> float:
        """When a value of `key` was last handed out."""
        return self._had.get(key, self._others).when

    def wrote(self, key: Hashable, when: float, version: int, upper: Snapshot) -> None:
        """What was handed out at `when` stands in the row of this version; it was written under `upper`."""
        if self._had.get(key) == _Had(when):
            self._had[key] = _Had(when, version, upper)

    def probed(self, asked: float, answer: Snapshot) -> None:
        """The database said where it stands, in an answer to a question sent at `asked`."""
        self._asked.append(asked)
        self._answers.append(answer)
        if len(self._asked) > MOST_PROBES:
            del self._asked[1 : MOST_PROBES // 2 : 2]  # the older, the sparser
            del self._answers[1 : MOST_PROBES // 2 : 2]

    def flush(self) -> None:
        """Another epoch may have begun, whose snapshots are not to be compared with those before."""
        self._asked.clear()
        self._answers.clear()
        for key, had in self._had.items():
            self._had[key] = had._replace(upper=None)

    def allows(self, key: Hashable, row: SharedRow) -> bool:
        """Whether the row is no older than what was handed out for `key`."""
        had = self._had.get(key, self._others)
        if had.version == row.version or had.when == -math.inf:
            return True
        if had.upper is not None:
            return row.snapshot.covers(had.upper)
        place = bisect_right(self._asked, had.when)
        return place < len(self._asked) and row.snapshot.covers(self._answers[place])


class _Had(NamedTuple):
    """A value that was handed out. version 0: it is in no row."""

    when: float
    version: int = 0
    upper: Snapshot | None = None


class Breaker:
    """Does without the table for a while after it has failed, the longer the more often."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self._until = float("-inf")

    def closed(self, now: float) -> bool:
        """Whether the table may be asked."""
        return now >= self._until

    def failed(self, now: float) -> None:
        if now >= self._until:  # those that were under way when the first one failed say nothing new
            self._until = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def worked(self) -> None:
        self._pause = FIRST_PAUSE
