"""The world of the cache with what one process does in blocks: transactions of its own, and reads of one state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.core.cache import CacheCore
from pipeline.core.events import Event
from pipeline.core.fill import Fence, Flight
from pipeline.core.own_writes import Hold, OwnWrites
from pipeline.core.placed import Between, Place
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import Entry
from tests.pure.cache_world import DEPENDS, View, World, event, touches


@dataclass
class Own:
    """A transaction of this process that has told what it wrote."""

    xid: int
    changes: list[Any]
    hold: Hold


@dataclass
class Block:
    place: Place
    view: View | None = None


class BlocksWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.mine: list[Own] = []
        self.blocks: list[Block] = []
        self.placed = 0

    def others(self) -> list[int]:
        mine = [own.xid for own in self.mine]
        return [xid for xid in self.open if xid not in mine]

    def tell(self, changes: list[Any], *, named: bool) -> None:
        """A transaction of this process has written, and is about to commit."""
        xid = self.begin()
        events = [event(xid, name, keys) for name, keys in changes]
        self.mine.append(Own(xid, changes, self.core.hold(xid, events if named else None, self.now)))

    def commit_mine(self, own: Own, *, acknowledged: bool) -> None:
        self.mine.remove(own)
        self.commit(own.xid, own.changes)
        self.own.add(own.xid)
        if acknowledged:
            self.core.committed(own.hold)

    def abort_mine(self, own: Own, *, acknowledged: bool) -> None:
        self.mine.remove(own)
        self.abort(own.xid)
        if acknowledged:
            self.core.fence.own.release(own.hold)

    def open_block(self) -> None:
        block = Block(Place(self.core.freshness.position))
        self.core.places.append(block.place)
        self.blocks.append(block)

    def place_block(self, block: Block) -> None:
        """Its snapshot is taken, and with it the database tells what lies between."""
        if block.view is not None:
            return
        block.view, since = self.look(), block.place.since
        between = [
            event(xid, name, keys)
            for xid in block.view.seen
            if since is None or not since.sees(xid)
            for name, keys in self.committed[xid][1]
        ]
        block.place.settle(Between(block.view.snapshot, str(self.epoch), since is None, between))

    def close_block(self, block: Block) -> None:
        self.blocks.remove(block)
        self.core.places.remove(block.place)

    def read_in(self, block: Block, key: str) -> None:
        self.place_block(block)
        view = block.view
        assert view is not None
        entry = self.core.read(key, self.now)
        if entry is None or not block.place.has(key, entry):
            flight = Flight(key, None)
            self.core.begin(flight, self.now)
            self.core.finish(flight, view.seen, snapshot=view.snapshot, tags=DEPENDS[key], now=self.now)
            return
        self.placed += 1
        for xid in entry.value ^ view.seen:
            if touches(self.committed[xid][1], DEPENDS[key]):
                raise AssertionError(f"a block misses transaction {xid}, or has it too early, for {key!r}")


def forgotten_holds(patch: pytest.MonkeyPatch) -> None:
    """Entries go before the commit, and nothing is remembered."""
    patch.setattr(OwnWrites, "lacks", lambda *_: False)
    patch.setattr(OwnWrites, "parts", lambda *_: False)


def released_at_commit(patch: pytest.MonkeyPatch) -> None:
    """Loads that had read before the commit are stored after it."""
    patch.setattr(CacheCore, "committed", lambda self, hold: self.fence.own.release(hold))


def joined_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Who comes after the commit waits for a load that may have read before it, and gets what it brings."""
    patch.setattr(OwnWrites, "parts", lambda *_: False)


def late_tags_joined(patch: pytest.MonkeyPatch) -> None:
    """As before, where the load turns out only at its end to depend on what was written."""
    original = Fence.begin

    def begin(self: Fence, flight: Flight, now: float) -> None:
        original(self, flight, now)
        flight.unsure = False

    patch.setattr(Fence, "begin", begin)


def old_sessions_stored(patch: pytest.MonkeyPatch) -> None:
    """A load that begins after the commit is taken to contain it, under whatever snapshot it reads."""
    patch.setattr(OwnWrites, "lacks", lambda self, tags, start, _snapshot: self.parts(tags, start))


def kept_at_own_write(patch: pytest.MonkeyPatch) -> None:
    """What is in the store stays there until the feed tells."""
    patch.setattr(CacheCore, "hold", lambda self, xid, events, now: self.fence.own.hold(xid, _tags(events)))


def _tags(events: Iterable[Event] | None) -> frozenset[str] | None:
    return None if events is None else frozenset(tag for event in events for tag in event.changed())


def noted_as_by_the_feed(patch: pytest.MonkeyPatch) -> None:
    """The change is put into the fence, which takes for granted that the next position sees it."""

    def hold(self: CacheCore, xid: int, events: Iterable[Event] | None, now: float) -> Hold:
        for tag in _tags(events) or ():
            self.change(tag, xid, now)
        return Hold((xid,), frozenset())

    patch.setattr(CacheCore, "hold", hold)


def released_by_any_position(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OwnWrites, "on_position", lambda self, _position: self._holds.clear())


def _has(patch: pytest.MonkeyPatch, has: Callable[[Any, Any, Entry], bool]) -> None:
    patch.setattr(Place, "has", has)


def newer_entries_placed(patch: pytest.MonkeyPatch) -> None:
    original = Place.has

    def has(self: Place, key: Any, entry: Entry) -> bool:
        self.newer.clear()
        return original(self, key, entry)

    _has(patch, has)


def placed_by_snapshots(patch: pytest.MonkeyPatch) -> None:
    """An entry counts when its snapshot is not later than the block's; but its reading may have been."""
    original = Place.has

    def has(self: Place, key: Any, entry: Entry) -> bool:
        if entry.snapshot is not None and self.seen is not None and self.seen.covers(entry.snapshot):
            self.newer.clear()
        return original(self, key, entry)

    _has(patch, has)


def changes_between_ignored(patch: pytest.MonkeyPatch) -> None:
    original = Place.settle

    def settle(self: Place, between: Between) -> None:
        original(self, Between(between.seen, between.epoch, between.lost))

    patch.setattr(Place, "settle", settle)


def every_entry_placed(patch: pytest.MonkeyPatch) -> None:
    _has(patch, lambda _self, _key, _entry: True)


def between_by_xmax(patch: pytest.MonkeyPatch) -> None:
    """What was in progress at the position is not asked for again."""
    original = Place.settle

    def settle(self: Place, between: Between) -> None:
        since = self.since or Snapshot(1, 1)
        events = [event for event in between.events if event.xid >= since.xmax]
        original(self, Between(between.seen, between.epoch, between.lost, events))

    patch.setattr(Place, "settle", settle)


BUGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    forgotten_holds,
    released_at_commit,
    joined_before_commit,
    late_tags_joined,
    old_sessions_stored,
    kept_at_own_write,
    noted_as_by_the_feed,
    released_by_any_position,
    newer_entries_placed,
    placed_by_snapshots,
    changes_between_ignored,
    every_entry_placed,
    between_by_xmax,
]
