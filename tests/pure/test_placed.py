"""Which entries have the value that they have at one state, in the cases that the random world does not make."""

from __future__ import annotations

from pipeline.core.cache import CacheCore
from pipeline.core.events import Event
from pipeline.core.fill import Flight
from pipeline.core.placed import Between, Place
from pipeline.core.snapshot import Loose, Position, Snapshot
from pipeline.core.store import Entry

SINCE = Position(10, 10, frozenset(), None, "e")
SEEN = Snapshot(20, 20)


def entry(*tags: str, snapshot: Snapshot | None = None) -> Entry:
    core = CacheCore(max_bytes=1 << 20, max_entries=9, max_staleness=1.0)
    flight = Flight("k", frozenset(tags))
    core.begin(flight, 0.0)
    kept = core.store.put("k", 0, tags=frozenset(tags), snapshot=snapshot)
    assert kept is not None
    return kept


def place(*events: Event, epoch: str = "e", lost: bool = False, since: Snapshot | None = SINCE) -> Place:
    made = Place(since)
    made.settle(Between(SEEN, epoch, lost, events))
    return made


def test_an_entry_that_no_change_in_between_touches_is_of_the_state() -> None:
    assert place(Event(15, "t", "u", ("2",))).has("k", entry("t:1"))
    assert not place(Event(15, "t", "u", ("1",))).has("k", entry("t:1"))
    assert not place(Event(15, "t", "u", None)).has("k", entry("t:1"))
    assert not place(Event(15, "t", "u", ("2",))).has("k", entry("t"))


def test_an_entry_that_contains_the_change_in_between_is_of_the_state() -> None:
    assert place(Event(15, "t", "u", ("1",))).has("k", entry("t:1", snapshot=Snapshot(16, 16)))
    assert not place(Event(15, "t", "u", ("1",))).has("k", entry("t:1", snapshot=Snapshot(15, 15)))


def test_after_a_change_of_what_a_tag_stands_for_no_entry_with_it_is() -> None:
    assert not place(Event(15, "t", "w", None)).has("k", entry("t:1", snapshot=Snapshot(16, 16)))


def test_an_invalidation_in_between_counts_and_one_by_prefix_for_everything() -> None:
    said = Event(15, "pipeline.invalidate", "e", payload='{"tags": ["t:1"]}')
    assert not place(said).has("k", entry("t:1"))
    assert place(said).has("k", entry("t:2"))
    assert not place(Event(15, "pipeline.invalidate", "e", payload='{"prefix": "x"}')).has("k", entry("t:2"))


def test_nothing_is_when_too_little_is_known() -> None:
    assert not place(lost=True).has("k", entry("t:1"))
    assert not place(epoch="f").has("k", entry("t:1"))
    assert not place(since=None).has("k", entry("t:1"))
    assert not place(since=Snapshot(10, 10)).has("k", entry("t:1"))  # of which history it is, nobody told
    assert not Place(SINCE).has("k", entry("t:1"))  # the state is not known yet
    assert not place().has("k", entry("t:1", snapshot=Loose(5, 5)))
    newer = place()
    newer.newer.add("k")
    assert not newer.has("k", entry("t:1"))
