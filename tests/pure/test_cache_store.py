"""Tags, bounds and eviction."""

from __future__ import annotations

import pytest

from pipeline.core.events import Event
from pipeline.core.snapshot import Snapshot
from pipeline.core.store import ENTRY_BYTES, Store
from pipeline.core.tags import TagIndex, above

FILED = ["orders", "orders:42", "orders:42:items", "orders:421", "ordersx", "users:42", "a:b", "a:b:7"]


@pytest.mark.parametrize(
    ("changed", "touched"),
    [
        ("orders", {"orders", "orders:42", "orders:42:items", "orders:421"}),
        ("orders:42", {"orders", "orders:42", "orders:42:items"}),
        ("orders:42:items", {"orders", "orders:42", "orders:42:items"}),
        ("orders:43", {"orders"}),
        ("users", {"users:42"}),
        ("a:b", {"a:b", "a:b:7"}),
        ("nobody", set()),
    ],
)
def test_a_change_touches_the_tag_and_what_is_above_and_below_it(changed: str, touched: set[str]) -> None:
    index: TagIndex[str] = TagIndex()
    for tag in FILED:
        index.add(tag, [tag])
    assert index.touched(changed) == touched


def test_a_tag_of_several_entries_keeps_those_that_are_left() -> None:
    index: TagIndex[str] = TagIndex()
    for key in "abc":
        index.add(key, ["t:1"])
    index.remove("b", ["t:1"])
    assert index.touched("t:1") == index.touched("t") == index.starting("t:") == {"a", "c"}
    index.remove("a", ["t:1"])
    index.remove("c", ["t:1"])
    assert len(index) == 0


def test_an_index_whose_keys_are_all_removed_is_empty() -> None:
    index: TagIndex[str] = TagIndex()
    index.add("k", ["a:b", "a:c", "a"])
    assert len(index) == 3
    index.remove("k", ["a:b", "a:c", "a"])
    assert len(index) == 0


def test_the_tags_above_come_widest_first() -> None:
    assert above("a:b:c") == ("a", "a:b")
    assert above("a") == ()


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        (Event(7, "orders", "u", ("1", "2")), ["orders:1", "orders:2"]),
        (Event(7, "orders", "t", None), ["orders"]),
        (Event(7, "orders", "u", ()), ["orders"]),
        (Event(7, "news", "e", payload="x"), []),
    ],
)
def test_an_event_names_the_narrowest_tags_that_changed(event: Event, changed: list[str]) -> None:
    assert list(event.changed()) == changed


def store(entries: int = 3, size: int = 0) -> Store:
    return Store(max_bytes=size or 1 << 20, max_entries=entries)


def test_bytes_never_pass_the_bound_and_are_given_back() -> None:
    kept = store(entries=1_000, size=60 * ENTRY_BYTES)
    for key in range(200):
        assert kept.put(key, key, size=key % 7 * 100, tags=frozenset({f"t:{key % 3}"}))
        assert sum(entry.size for entry in kept.entries.values()) < kept.bytes <= kept.max_bytes
    for tag in ("t:0", "t:1", "t:2"):
        kept.end_changed(tag, None, 0.0, 0.0)
    assert (kept._held, len(kept.entries)) == (0, 0)


def test_a_value_larger_than_a_quarter_of_the_bound_is_not_stored_and_pushes_nothing_out() -> None:
    kept = store(size=8 * ENTRY_BYTES)
    kept.put("small", 1)
    kept.put("large", "old")
    assert not kept.put("large", "new", size=2 * ENTRY_BYTES)
    assert set(kept.entries) == {"small"}


def test_an_entry_that_contains_a_change_already_stays() -> None:
    kept = store()
    kept.put("new", 1, tags=frozenset({"t:1"}), snapshot=Snapshot(10, 10))
    kept.put("old", 1, tags=frozenset({"t:1"}), snapshot=Snapshot(5, 10, frozenset({7})))
    kept.put("unknown", 1, tags=frozenset({"t:1"}))
    assert kept.end_changed("t:1", 7, 0.0, 0.0) == 2
    assert set(kept.entries) == {"new"}
    assert kept.end_changed("t", None, 0.0, 0.0) == 1


def test_a_change_of_very_many_makes_them_unreachable_at_once_and_takes_them_apart_later() -> None:
    kept = store(entries=10_000, size=1 << 24)
    for key in range(1_000):
        kept.put(key, key, tags=frozenset({f"t:{key}"}))
    held = kept.bytes
    assert kept.end_changed("t", None, 0.0, 0.0) == 1_000
    assert (len(kept.entries), kept.bytes) == (0, held)
    assert kept.end_changed("t", None, 0.0, 0.0) == kept.end_changed("t:7", None, 0.0, 0.0) == 0
    kept.put(7, "new", tags=frozenset({"t:7"}))
    while kept.sweep(100):
        pass
    assert list(kept.entries) == [7]
    assert kept._held == kept.entries[7].size == kept.entries[7].namespace.bytes
    assert kept.end_changed("t", None, 0.0, 0.0) == 1
    assert (kept._held, kept._index._held, len(kept._index), len(kept._eviction._ring)) == (0, 0, 0, 0)


def test_what_a_change_of_very_many_ended_makes_room_before_anything_else_does() -> None:
    kept = store(size=1_000 * ENTRY_BYTES, entries=10_000)
    kept.put("other", 1)
    for key in range(150):
        kept.put(key, key, tags=frozenset({"t"}))
    kept.end_changed("t", None, 0.0, 0.0)
    for key in range(200):
        kept.put(key, key)
        assert kept.bytes <= kept.max_bytes
    assert kept.evictions == 0
    assert "other" in kept.entries
