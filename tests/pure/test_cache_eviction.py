"""What goes first when the cache is full."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable

import pytest

from pipeline.core import eviction
from pipeline.core.store import Store


def store(entries: int) -> Store:
    return Store(max_bytes=1 << 30, max_entries=entries)


def ask(kept: Store, key: int | str, at: float) -> bool:
    """As the cache does: a hit counts and notes its time, a miss is stored. Returns whether it was a hit."""
    entry = kept.entries.get(key)
    if entry is None:
        kept.put(key, key, since=at)
        return False
    entry.hits += 1
    entry.used = at
    return True


def hits(kept: Store, trace: Iterable[int]) -> int:
    return sum(ask(kept, key, at) for at, key in enumerate(trace))


def hits_of_lru(size: int, trace: Iterable[int]) -> int:
    kept: OrderedDict[int, None] = OrderedDict()
    found = 0
    for key in trace:
        if key in kept:
            kept.move_to_end(key)
            found += 1
            continue
        kept[key] = None
        if len(kept) > size:
            kept.popitem(last=False)
    return found


def test_what_was_read_survives_and_what_was_not_goes_first() -> None:
    kept = store(3)
    for at, key in enumerate("abcaaca"):
        ask(kept, key, at)
    ask(kept, "d", 10)
    assert set(kept.entries) == {"a", "c", "d"}
    assert kept.evictions == 1


def test_what_changes_and_is_loaded_again_very_often_is_counted_up_to_a_bound() -> None:
    kept = store(100)
    for at in range(1_000):
        kept.put("k", at, since=at)
    assert kept.entries["k"].weight == eviction.MOST


def test_a_scan_pushes_out_itself_and_not_what_is_read_again_and_again() -> None:
    kept = store(100)
    for at in range(1_000):
        ask(kept, at % 50, at)
    for key in range(1_000, 1_500):
        ask(kept, key, key)
    assert len(set(range(50)) & kept.entries.keys()) > 35  # one in EXPLORE evictions is LRU's


def test_a_loop_longer_than_the_cache_keeps_a_part_of_itself() -> None:
    trace = [n % 150 for n in range(15_000)]
    assert hits_of_lru(100, trace) == 0
    assert hits(store(100), trace) > 0.5 * len(trace)


def test_where_the_newest_is_read_most_it_does_as_lru_does() -> None:
    rng = random.Random(1)
    trace = [n // 4 - int(400 * rng.random() ** 3) for n in range(30_000)]
    assert hits(store(200), trace) > hits_of_lru(200, trace) - 0.02 * len(trace)


def test_what_was_read_often_is_taken_back_before_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reads are remembered when it comes back after a change."""
    monkeypatch.setattr(eviction, "EXPLORE", 1_000)
    kept = store(10)
    for at in range(100):
        ask(kept, at % 10, at)
    kept.drop(3, "changed")
    ask(kept, 3, 100)
    for key in range(100, 130):
        ask(kept, key, key)
    assert 3 in kept.entries


def test_old_fame_fades() -> None:
    kept = store(50)
    for at in range(2_000):
        ask(kept, at % 25, at)
    for at in range(2_000, 40_000):  # others are read now, and many only once
        ask(kept, 1_000 + at % 25 if at % 2 else at, at)
    assert not kept.entries.keys() & set(range(25))
    assert set(range(1_001, 1_025, 2)) <= kept.entries.keys()


def test_an_entry_out_of_time_goes_before_others_although_it_was_read() -> None:
    kept = store(3)
    kept.put("a", 1, expires_at=5.0)
    kept.put("b", 1)
    kept.put("c", 1)
    kept.entries["a"].hits = 7
    kept.put("d", 1, since=6.0)
    assert set(kept.entries) == {"b", "c", "d"}
    assert kept.entries["d"].namespace.gone == {"expired": 1}


def test_entries_may_be_dropped_at_any_time() -> None:
    kept, rng = store(60), random.Random(2)
    for at in range(5_000):
        ask(kept, int(100 * rng.random() ** 2), at)
        if at % 3 == 0 and kept.entries:
            kept.drop(rng.choice(list(kept.entries)), "changed")
        if at % 999 == 0:
            kept.end_every(at, at, "flushed")
        ring = kept._eviction._ring
        assert set(ring) == set(kept.entries.values())
        assert all(ring[entry.place] is entry for entry in ring)
    assert kept.evictions > 40


def test_the_same_calls_give_the_same_victims_and_memory_of_keys_grows_with_the_cache() -> None:
    one, other = store(3_000), store(3_000)
    for kept in (one, other):
        rng = random.Random(3)
        for at in range(20_000):
            ask(kept, int(20_000 * rng.random() ** 3), at)
    assert one.entries.keys() == other.entries.keys()
    counters, prints = one._eviction._counters, one._eviction._prints
    assert len(counters) >= eviction.COUNTERS_EACH * 3_000 > len(counters) / 2
    assert len(prints) >= eviction.PRINTS_EACH * 3_000 > len(prints) / 2
