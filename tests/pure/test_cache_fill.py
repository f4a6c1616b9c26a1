"""The fill rule, case by case."""

from __future__ import annotations

import pytest

from pipeline.core.cache import CacheCore
from pipeline.core.events import Batch, Event
from pipeline.core.fill import PREFIXES_KEPT, ROUNDS_KEPT, XIDS_KEPT, Fence, Flight, Verdict
from pipeline.core.snapshot import Snapshot

NEW = Snapshot(1_000_000, 1_000_000)
TAGS = frozenset({"t:1"})


def fence(floor: int = 1) -> Fence:
    """One that has heard the feed's first position."""
    made = Fence()
    made.on_position(Snapshot(floor, floor))
    return made


def flight(at: Fence, tags: frozenset[str] | None = TAGS) -> Flight:
    made = Flight("k", tags)
    at.begin(made, 0.0)
    return made


@pytest.mark.parametrize(
    ("changed", "snapshot", "verdict"),
    [
        ("t:1", None, Verdict.CHANGED),
        ("t", None, Verdict.CHANGED),
        ("t:2", None, Verdict.STORED),
        ("t:1", Snapshot(50, 50), Verdict.STORED),  # it contains the change
        ("t:1", Snapshot(40, 50, frozenset({40})), Verdict.CHANGED),  # the writer was in progress
        ("t:1", Snapshot(30, 30), Verdict.CHANGED),
        ("t:2", Snapshot(30, 30), Verdict.STORED),
    ],
)
def test_a_change_during_the_load_counts_unless_the_snapshot_sees_it(
    changed: str, snapshot: Snapshot | None, verdict: Verdict
) -> None:
    past = fence()
    load = flight(past)
    past.note(changed, 40)
    assert past.judge(load, TAGS, snapshot) is verdict
    assert past.detached(load) is (changed != "t:2")


def test_a_change_before_the_load_counts_only_for_a_snapshot_that_does_not_see_it() -> None:
    past = fence()
    past.note("t:1", 40)
    load = flight(past)
    assert past.judge(load, TAGS, Snapshot(30, 30)) is Verdict.OLD
    assert past.judge(load, TAGS, Snapshot(41, 41)) is Verdict.STORED
    assert past.judge(load, TAGS, None) is Verdict.STORED
    assert not past.detached(load)


def test_of_two_changes_the_one_with_the_smaller_xid_may_be_the_one_that_is_missing() -> None:
    past = fence()
    past.note("t:1", 40)
    past.note("t:1", 45)
    assert past.judge(flight(past), TAGS, Snapshot(40, 46, frozenset({40}))) is Verdict.OLD


def test_a_change_that_somebody_reports_counts_for_loads_in_flight_only() -> None:
    past = fence()
    load = flight(past)
    past.note("t:1", None)
    assert past.judge(load, TAGS, NEW) is Verdict.CHANGED
    assert past.judge(flight(past), TAGS, NEW) is Verdict.STORED


def test_more_changes_than_a_slot_keeps_ask_for_a_snapshot_past_their_round() -> None:
    past = fence()
    for xid in range(10, 10 + XIDS_KEPT + 2):
        past.note("t:1", xid)
    assert past.judge(flight(past), TAGS, NEW) is Verdict.OLD  # the round has not ended
    past.on_position(Snapshot(100, 120, frozenset({100})))
    assert past.judge(flight(past), TAGS, Snapshot(90, 90)) is Verdict.OLD
    assert past.judge(flight(past), TAGS, Snapshot(100, 120, frozenset({100}))) is Verdict.STORED
    assert past.judge(flight(past), frozenset({"t:2"}), Snapshot(90, 90)) is Verdict.STORED


def test_a_long_query_is_stored_however_many_rounds_pass_meanwhile() -> None:
    past = fence()
    load = flight(past)
    snapshot = Snapshot(10, 10)
    for round_ in range(20 * ROUNDS_KEPT):
        past.note("other", 10 + round_)
        past.on_position(Snapshot(11 + round_, 11 + round_))
    assert past.judge(load, TAGS, snapshot) is Verdict.STORED
    assert len(past._rounds) == len(past._positions) <= ROUNDS_KEPT + 1
    assert past._rounds == sorted(past._rounds)


def test_before_the_first_position_no_snapshot_is_known_to_be_new_enough() -> None:
    past = Fence()
    assert past.judge(flight(past), TAGS, NEW) is Verdict.OLD
    assert past.judge(flight(past), TAGS, None) is Verdict.STORED
    past.on_position(Snapshot(50, 50))
    assert past.judge(flight(past), TAGS, Snapshot(49, 49)) is Verdict.OLD
    assert past.judge(flight(past), TAGS, Snapshot(50, 50)) is Verdict.STORED


def test_a_flush_parts_every_load_in_flight_and_asks_for_a_newer_snapshot() -> None:
    past = fence()
    load = flight(past)
    past.flush()
    assert past.detached(load)
    assert past.judge(load, TAGS, None) is Verdict.FLUSHED
    assert past.judge(load, TAGS, NEW) is Verdict.OLD
    past.on_position(Snapshot(50, 50))
    assert past.judge(flight(past), TAGS, Snapshot(40, 40)) is Verdict.OLD


def core() -> CacheCore:
    made = CacheCore(max_bytes=1 << 20, max_entries=10, max_staleness=1.0)
    made.on_batch(Batch("e", 1, 0), 0.0)
    made.on_position(Snapshot(1, 1), 0.0)
    return made


def loading(cache: CacheCore, key: str = "k", tags: frozenset[str] | None = TAGS, now: float = 0.0) -> Flight:
    made = Flight(key, tags)
    cache.begin(made, now)
    return made


def test_a_value_made_of_cached_parts_goes_when_one_of_them_changes() -> None:
    cache = core()
    outer = loading(cache, tags=frozenset({"a"}))
    outer.parts = frozenset({"t:1"})
    assert cache.finish(outer, 1, snapshot=NEW, now=0.0) is Verdict.STORED
    cache.on_batch(Batch("e", 2, 1, None, (Event(7, "t", "u", ("1",)),)), 0.0)
    assert not cache.store.entries  # although NEW sees transaction 7: the part was read under another snapshot


def test_a_value_made_of_a_refused_part_is_not_stored() -> None:
    cache = core()
    outer = loading(cache)
    outer.tainted = True
    assert cache.finish(outer, 1, snapshot=None, now=0.0) is Verdict.UNFIT
    assert not cache.store.entries


def test_a_load_that_ends_after_a_later_one_does_not_replace_its_value() -> None:
    cache = core()
    first, second = loading(cache, now=1.0), loading(cache, now=2.0)
    cache.finish(second, "new", snapshot=None, now=3.0)
    assert cache.finish(first, "old", snapshot=None, now=4.0) is Verdict.UNFIT
    assert cache.store.entries["k"].value == "new"


def test_a_time_to_live_counts_from_the_beginning_of_the_load() -> None:
    cache = core()
    cache.freshness.valid_until = 1e9
    assert cache.finish(loading(cache, now=1.0), 1, snapshot=None, ttl=5.0, now=3.0) is Verdict.STORED
    assert cache.read("k", 5.9) is not None
    assert cache.read("k", 6.0) is None
    assert cache.finish(loading(cache, now=1.0), 1, snapshot=None, ttl=0.0, now=1.0) is Verdict.UNFIT


def test_a_new_epoch_empties_the_cache_once() -> None:
    cache = core()
    cache.finish(loading(cache), 1, snapshot=None, now=0.0)
    flushes = cache.flushes
    cache.on_batch(Batch("f", 1, 0), 0.0)
    assert (len(cache.store.entries), cache.flushes) == (0, flushes + 1)
    cache.on_flush(0.0)
    cache.on_batch(Batch("g", 1, 0), 0.0)
    assert cache.flushes == flushes + 2


def test_what_was_stored_before_the_feed_spoke_first_is_forgotten() -> None:
    cache = CacheCore(max_bytes=1 << 20, max_entries=10, max_staleness=1.0)
    cache.finish(loading(cache), 1, snapshot=None, now=0.0)
    assert cache.store.entries
    cache.on_position(NEW, 0.0)
    assert not cache.store.entries


def test_prefixes_count_for_every_tag_that_begins_so_and_for_what_is_above_it() -> None:
    past = fence()
    begun = flight(past)
    past.note_prefix("t:1", 7)
    for tag, verdict in {
        "t:1": Verdict.CHANGED,
        "t:12": Verdict.CHANGED,
        "t": Verdict.CHANGED,
        "t:2": Verdict.STORED,
        "u": Verdict.STORED,
    }.items():
        assert past.judge(begun, [tag], None) is verdict, tag
    past.note_prefix("", 8)
    assert past.judge(begun, ["u"], None) is past.judge(begun, [], None) is Verdict.CHANGED
    past.flush()
    past.on_position(Snapshot(9, 9))
    past.begin(begun, 0.0)
    assert past.judge(begun, ["t:1"], NEW) is Verdict.STORED


def test_of_very_many_prefixes_none_is_forgotten() -> None:
    past = fence()
    tags = frozenset({"p0:1"})
    begun = flight(past, tags)
    for n in range(3 * PREFIXES_KEPT):
        past.note_prefix(f"p{n}:", 100 + n)
    assert len(past._prefixes) <= PREFIXES_KEPT + 1
    past.on_position(Snapshot(1_000, 1_000))
    assert past.judge(begun, tags, None) is Verdict.CHANGED
    later = flight(past, tags)
    assert past.judge(later, tags, Snapshot(100, 100)) is Verdict.OLD
    assert past.judge(later, tags, Snapshot(1_000, 1_000)) is Verdict.STORED
