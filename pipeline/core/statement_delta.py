"""What was executed between two looks at pg_stat_statements.

Owns: when a difference of two counters is a count of executions, and when it is not; which statements are kept by
name. Knows no SQL, no clock and no table.

pg_stat_statements counts since an entry was made and forgets entries when it is full. A look sees every entry
that has been executed, so one that was not there at the last look counts from zero, and one that is there counts
from what it had. That holds as long as both looks were of the same counters (`Store`) and saw all of them. Where
it does not hold nothing is counted and the time between is a gap. What is counted is never more than what
happened; what may be missing is told (`Delta.lost`), but for an entry that was made and reset alone between two
looks, and before Postgres 17 for one that was reset alone and has passed what it had.

Minima, maxima, means and deviations cannot be subtracted. A maximum is known only where it must have happened in
between: the entry began then, its maximum grew, or it was executed once. So each window has a lower and an upper
bound of its maximum, both of which can be merged, and the maximum is told where they meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Literal, TypeAlias

import msgspec

# The order in which counters stand in Entry.counters, in Counts.counters and in pipeline.statement_counters().
COUNTERS = (
    "calls",
    "total_ms",
    "rows",
    "shared_hit",
    "shared_read",
    "shared_dirtied",
    "shared_written",
    "temp_read",
    "temp_written",
    "read_ms",
    "write_ms",
    "wal_bytes",
    "plans",
    "plan_ms",
)
CALLS, TOTAL_MS = 0, 1
KEEP = 200  # statements kept by name in one window: with all levels at most 1.2 million rows, 310 MB
LEVELS = {60: 48 * 3_600, 300: 7 * 86_400, 3_600: 30 * 86_400, 86_400: 400 * 86_400}  # windows, and how long kept

Key: TypeAlias = tuple[int, int, bool]  # userid, queryid, toplevel; of one database
OTHER: Key = (0, 0, True)  # the statements of a window that are not kept by name

Gap = Literal["", "first", "reset", "other", "baseline"]


class Entry(msgspec.Struct, frozen=True):
    """One statement's counters at one look.

    since, max_since: when the entry and its maximum began to count, in Unix seconds; None before Postgres 17.
    """

    counters: tuple[float, ...]
    max_ms: float
    since: float | None = None
    max_since: float | None = None


class Store(msgspec.Struct, frozen=True):
    """Which counters a look saw. name: server, timeline, database and whose statements the role may see.

    reset_at: when all counters began, which a crash or pg_stat_statements_reset() sets anew. read_at: the server's
    clock before the look. deallocs: how often entries were evicted.
    """

    name: str
    reset_at: float
    read_at: float
    deallocs: int


class Counts(msgspec.Struct, frozen=True):
    """What one statement did in a window. low_max, high_max: the longest call took between these, in ms."""

    counters: tuple[float, ...]
    low_max: float
    high_max: float

    def __add__(self, more: Counts) -> Counts:
        added = tuple(a + b for a, b in zip(self.counters, more.counters, strict=True))
        return Counts(added, max(self.low_max, more.low_max), max(self.high_max, more.high_max))


class Delta(msgspec.Struct, frozen=True):
    """What happened between two looks.

    gap: why the time before this look, or a part of it, is unknown: "first" look, a "reset" of all counters,
    "other" counters than at the last look, the "baseline" is lost. "": it is known. vanished: entries that were
    evicted or reset since. rebased: entries whose counters went back, of which nothing is counted. deallocs: how
    often entries were evicted.
    """

    counts: Mapping[Key, Counts]
    gap: Gap = ""
    vanished: int = 0
    rebased: int = 0
    deallocs: int = 0

    @property
    def lost(self) -> bool:
        """Whether more may have happened than is counted."""
        return bool(self.gap or self.vanished or self.rebased or self.deallocs)


def collect(rows: Iterable[tuple[Key, Entry]]) -> dict[Key, Entry]:
    """The entries of one look by key. Several of one key are summed up, and can then no longer be told apart."""
    found: dict[Key, Entry] = {}
    for key, entry in rows:
        held = found.get(key)
        found[key] = entry if held is None else _merged(held, entry)
    return found


def compare(
    before: tuple[Store, Mapping[Key, Entry] | None] | None, store: Store, seen: Mapping[Key, Entry]
) -> Delta:
    """What happened between the last look and this one.

    before: the last look; None: there was none. Its entries are None where they are lost.
    """
    if before is None:
        return Delta({}, "first")
    last, entries = before
    if last.name != store.name:
        return Delta({}, "other")
    if last.reset_at != store.reset_at:
        if store.reset_at <= last.read_at:  # counters that began earlier, and that we had not seen
            return Delta({}, "other")
        return Delta({key: _from_zero(entry) for key, entry in seen.items()}, "reset", deallocs=store.deallocs)
    if entries is None:
        return Delta({}, "baseline")
    return _subtract(entries, seen, store.deallocs - last.deallocs)


def keep(counts: Mapping[Key, Counts], limit: int = KEEP) -> dict[Key, Counts]:
    """The `limit` statements that took the most time, and all others summed up as OTHER."""
    if len(counts) <= limit:
        return dict(counts)
    order = sorted(counts, key=lambda key: (-counts[key].counters[TOTAL_MS], key))
    kept = {key: counts[key] for key in order[:limit]}
    rest = counts[order[limit]]
    for key in order[limit + 1 :]:
        rest += counts[key]
    kept[OTHER] = rest
    return kept


def _merged(one: Entry, other: Entry) -> Entry:
    counters = tuple(a + b for a, b in zip(one.counters, other.counters, strict=True))
    return Entry(counters, max(one.max_ms, other.max_ms))


def _subtract(before: Mapping[Key, Entry], seen: Mapping[Key, Entry], deallocs: int) -> Delta:
    counts: dict[Key, Counts] = {}
    vanished = sum(key not in seen for key in before)
    rebased = 0
    for key, entry in seen.items():
        held = before.get(key)
        if held is entry:
            continue
        if held is None:
            counts[key] = _from_zero(entry)
        elif held.since is not None and entry.since is not None and held.since != entry.since:
            vanished += 1
            counts[key] = _from_zero(entry)
        else:
            change = tuple(now - then for now, then in zip(entry.counters, held.counters, strict=True))
            if min(change) < 0:
                rebased += 1
            elif any(change):
                counts[key] = Counts(change, *_maximum(held, entry, change))
    return Delta(counts, "", vanished, rebased, deallocs)


def _from_zero(entry: Entry) -> Counts:
    whole = entry.max_since == entry.since
    return Counts(entry.counters, entry.max_ms, entry.max_ms if whole else inf)


def _maximum(before: Entry, now: Entry, change: tuple[float, ...]) -> tuple[float, float]:
    """Bounds of the longest call in between."""
    if change[CALLS] == 0:
        return 0.0, 0.0
    if change[CALLS] == 1:
        return change[TOTAL_MS], change[TOTAL_MS]
    if before.max_since != now.max_since:
        return now.max_ms, inf
    return (now.max_ms if now.max_ms > before.max_ms else 0.0), now.max_ms
