"""The fill rule: whether a value that was loaded may be stored, and who may share its load.

Owns: what the process remembers of past changes, and the verdict on each load. Knows neither values nor
loaders.

Theory of operation
    The race: a load reads row 42, a transaction changes row 42 and commits, its change is delivered and
    finds nothing to drop, then the load stores what it read. Without a guard the stale value stays until
    its TTL ends. A second form is less known: the change was delivered BEFORE the load began, but the
    load reads under an older snapshot (a REPEATABLE READ transaction that has been open for a while, a
    standby that lags).

    So a load is judged against every change ever delivered for its tags. If the load tells its snapshot,
    all of them must be visible in it, whether they came before or during the load. If it tells none,
    there must have been none since it began (its reading must not begin before it is called; that much is
    asked of it).

    Every change ever delivered cannot be kept by tag, so the fence is an array of SLOTS, found by hashing
    the tag. A slot keeps the last XIDS_KEPT transactions exactly. Of older ones it keeps only the round
    of the feed in which the newest of them came: a snapshot that covers the feed's position at the end of
    that round sees all of them. A slot that several tags share, a round that has not ended, or a position
    that is no longer kept can only refuse a fill, never admit one. Memory is bounded whatever the feed
    carries: there is no log that could overflow during a long load.

    After a flush, and at the start, changes may have been missed that nobody can name. All of them had
    committed before the feed resumed, so they are treated as one change of everything in the round of the
    flush: a snapshot must cover the first position after it.

    A process need not begin without a past: the feed keeps its last minute, numbered and with positions. A fence
    that is told all of it (`recall`) is one that was flushed before the oldest position of it, and a snapshot
    must cover that one only.
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import NamedTuple

from pipeline.core.own_writes import OwnWrites
from pipeline.core.snapshot import Snapshot
from pipeline.core.tags import above

SLOTS = 1 << 14  # 128 KiB when empty; 16,384 tags that changed at all, before two of them share a slot
XIDS_KEPT = 4
PREFIXES_KEPT = 64  # beyond that they become one prefix that every tag has, until the next flush
ROUNDS_KEPT = 1_024  # the newest half, 2.5 s of rounds of 5 ms, without gaps; older ones ever more sparsely


class Verdict(enum.Enum):
    """What became of a load."""

    STORED = "stored"
    CHANGED = "changed"  # a change came while it was loading, and it may not contain it
    OLD = "old"  # it read a state older than a change that had been delivered before it began
    FLUSHED = "flushed"  # everything was forgotten while it was loading
    UNFIT = "unfit"  # admitted but too large, out of time, overtaken by a later load, or made of refused parts


class Mark(NamedTuple):
    """What had been delivered at one moment: the number of the last change, the round, and the feed's position."""

    number: int
    round: int
    generation: int
    position: Snapshot | None


class Flight:
    """One load. tags: None when they are known only after it. loose: see Loose; it, or a part of it, is.

    start: the number of the last change delivered before it began to read. began: when that was; None while
    it waits for its turn.
    """

    __slots__ = (
        "began",
        "expires_at",
        "floor",
        "generation",
        "key",
        "late",
        "loose",
        "overtaken",
        "parts",
        "parts_expire",
        "snapshot",
        "start",
        "tags",
        "tainted",
        "unsure",
    )

    def __init__(self, key: Hashable, tags: frozenset[str] | None) -> None:
        self.key = key
        self.tags = tags
        self.start = 0
        self.generation = 0
        self.floor: tuple[float, Snapshot] | None = None  # what was known of the database when it began
        self.snapshot: Snapshot | None = None  # of what it read, if that may be older than its beginning
        self.began: float | None = None
        self.overtaken = False  # what a later load of the key read has been handed out
        self.late = False  # it turned out to depend on tags that it had not named
        self.expires_at = math.inf
        self.parts: frozenset[str] = frozenset()  # tags of cached values that it was made of
        self.parts_expire = math.inf
        self.loose = False
        self.unsure = False  # a transaction of this process may have committed while it was reading
        self.tainted = False  # it was made of a part that may not be stored


class _Slot:
    __slots__ = ("folded", "last", "unseen", "xids")

    def __init__(self) -> None:
        self.last = 0  # number of the last change
        self.unseen = 0  # number of the last change that no snapshot contains
        self.xids: list[tuple[int, int, int]] = []  # (xid, number of its first change, round), newest last
        self.folded = -1  # the newest round of those that are no longer in `xids`

    def add(self, xid: int | None, number: int, round_: int) -> None:
        self.last = number
        if xid is None:
            self.unseen = number
        elif all(known[0] != xid for known in self.xids):
            self.xids.append((xid, number, round_))
            if len(self.xids) > XIDS_KEPT:
                self.folded = max(self.folded, self.xids.pop(0)[2])

    def absorb(self, other: _Slot) -> None:
        """Remember what the other slot remembers, too; never less."""
        self.last = max(self.last, other.last)
        self.unseen = max(self.unseen, other.unseen)
        self.folded = max([self.folded, other.folded, *(round_ for _xid, _number, round_ in other.xids)])


class Fence:
    """What is remembered of past changes. Changes are numbered, rounds end with each position of the feed."""

    def __init__(self) -> None:
        self.number = 0
        self.generation = 0
        self.own = OwnWrites()
        self._slots: list[_Slot | None] = [None] * SLOTS
        self._prefixes: dict[str, _Slot] = {}
        self._round = 0
        self._floor = 0
        self._dirty = False
        self._rounds: list[int] = []  # ascending; `_positions` holds the position at the end of each
        self._positions: list[Snapshot] = []

    def note(self, tag: str, xid: int | None) -> None:
        """Transaction `xid` changed `tag`; None: something changed that no snapshot tells of."""
        self.number += 1
        self._dirty = True
        for name in (tag, tag + ":*", *above(tag)):
            index = hash(name) % SLOTS
            slot = self._slots[index]
            if slot is None:
                slot = self._slots[index] = _Slot()
            slot.add(xid, self.number, self._round)

    def note_prefix(self, prefix: str, xid: int | None) -> None:
        """The same, of every tag that begins with `prefix`."""
        self.number += 1
        self._dirty = True
        if prefix not in self._prefixes and len(self._prefixes) >= PREFIXES_KEPT:
            everything = self._prefixes.get("") or _Slot()
            for slot in self._prefixes.values():
                everything.absorb(slot)
            self._prefixes = {"": everything}
        self._prefixes.setdefault(prefix, _Slot()).add(xid, self.number, self._round)

    def on_position(self, position: Snapshot) -> None:
        """End the round: `position` sees every transaction noted so far."""
        self.own.on_position(position)
        if not self._dirty and self._floor != self._round:
            return
        self._rounds.append(self._round)
        self._positions.append(position)
        self._round += 1
        self._dirty = False
        if len(self._rounds) > ROUNDS_KEPT:  # the first one stays: it is what every fill must reach
            del self._rounds[1 : ROUNDS_KEPT // 2 : 2]
            del self._positions[1 : ROUNDS_KEPT // 2 : 2]

    def flush(self) -> None:
        """Changes may have been missed: whatever is loading is not to be stored."""
        self.generation += 1
        self._slots = [None] * SLOTS
        self._prefixes.clear()
        self._rounds.clear()
        self._positions.clear()
        self._floor = self._round
        self._dirty = False

    def begin(self, flight: Flight, now: float) -> None:
        """The flight begins to read now."""
        flight.start = self.number
        flight.unsure = self.own.open
        flight.generation = self.generation
        flight.began = now

    def detached(self, flight: Flight) -> bool:
        """Whether a change or a flush came that parts the flight from requests that come later."""
        if flight.generation != self.generation:
            return True
        if self.own and self.own.parts(flight.tags or (), flight.start):
            return True
        return any(slot.last > flight.start for slot in self._remembered(flight.tags or ()))

    def mark(self, position: Snapshot | None) -> Mark:
        """This moment, for `changed_since`. position: the feed's; None while it has none."""
        return Mark(self.number, self._round, self.generation, position)

    def changed_since(self, mark: Mark, tags: Iterable[str]) -> bool:
        """Whether `tags` were changed after the mark, by a transaction that its position does not see.

        True as well where so much came since that it is no longer remembered, and for a change of the mark's own
        round. A change that is told a second time is none. Of the same generation only.
        """
        seen = mark.position
        for slot in self._remembered(tags):
            if slot.unseen > mark.number or slot.folded >= mark.round:
                return True
            if any(round_ >= mark.round and not (seen and seen.sees(xid)) for xid, _, round_ in slot.xids):
                return True
        return False

    def judge(self, flight: Flight, tags: Collection[str], snapshot: Snapshot | None) -> Verdict:
        """Whether what the flight read, under `snapshot`, may be stored under `tags`."""
        if flight.generation != self.generation:
            # the changes before it began are forgotten: a snapshot that may be old can no longer be held to them
            return Verdict.FLUSHED if snapshot is None else Verdict.OLD
        if self.own and self.own.lacks(tags, flight.start, snapshot):
            return Verdict.CHANGED if snapshot is None else Verdict.OLD
        verdict, folded = Verdict.STORED, self._floor
        for slot in self._remembered(tags):
            if snapshot is None:
                if slot.last > flight.start:
                    return Verdict.CHANGED
                continue
            if slot.unseen > flight.start:
                verdict = Verdict.CHANGED
            folded = max(folded, slot.folded)
            for xid, number, _round in slot.xids:
                if not snapshot.sees(xid):
                    if number <= flight.start:
                        return Verdict.OLD
                    verdict = Verdict.CHANGED
        if snapshot is not None and not self._reaches(snapshot, folded):
            return Verdict.OLD
        return verdict

    def admits(self, tags: Collection[str], snapshot: Snapshot) -> bool:
        """Whether a value that was loaded elsewhere, some time ago, contains every change delivered here.

        Also refused is what somebody here said has changed, until the feed tells of a later change, and what lacks
        this process's own writes.
        """
        if self.own and self.own.lacks(tags, -1, snapshot):
            return False
        folded = self._floor
        for slot in self._remembered(tags):
            if slot.unseen == slot.last or not all(snapshot.sees(xid) for xid, _number, _round in slot.xids):
                return False
            folded = max(folded, slot.folded)
        return self._reaches(snapshot, folded)

    def _remembered(self, tags: Iterable[str]) -> Iterator[_Slot]:
        """The slots of changes that touch `tags`: of the tag, of what is below it, of what is above it."""
        if "" in self._prefixes:  # of everything, tagged or not
            yield self._prefixes[""]
        for tag in tags:
            for name in (tag, *(upper + ":*" for upper in above(tag))):
                slot = self._slots[hash(name) % SLOTS]
                if slot is not None:
                    yield slot
            for prefix, slot in self._prefixes.items():
                if prefix and (tag.startswith(prefix) or prefix.startswith(tag + ":")):
                    yield slot

    def _reaches(self, snapshot: Snapshot, round_: int) -> bool:
        """Whether `snapshot` sees everything that was delivered up to the end of that round."""
        place = bisect_left(self._rounds, round_)  # the end of that round, or of the next one that is kept
        return place < len(self._positions) and snapshot.covers(self._positions[place])
