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
    index = TagIndex()
    for tag in FILED:
        index.add(tag, [tag])
    assert index.touched(changed) == touched


def test_an_index_whose_keys_are_all_removed_is_empty() -> None:
    index = TagIndex()
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


def test_what_was_read_survives_and_what_was_not_goes_first() -> None:
    kept = store()
    for key in "abc":
        kept.put(key, key)
    kept.entries["a"].marked = True
    kept.put("d", "d")
    assert set(kept.entries) == {"a", "c", "d"}
    kept.put("e", "e")  # the hand goes on behind b; a was spared once and is behind the hand
    assert set(kept.entries) == {"a", "d", "e"}
    assert kept.evictions == 2


def test_when_everything_was_read_the_oldest_goes() -> None:
    kept = store()
    for key in "abc":
        kept.put(key, key)
        kept.entries[key].marked = True
    kept.put("d", "d")
    assert set(kept.entries) == {"b", "c", "d"}


def test_an_entry_out_of_time_goes_before_others_although_it_was_read() -> None:
    kept = store()
    kept.put("a", 1, expires_at=5.0)
    kept.put("b", 1)
    kept.put("c", 1)
    kept.entries["a"].marked = True
    kept.put("d", 1, since=6.0)
    assert set(kept.entries) == {"b", "c", "d"}


def test_bytes_never_pass_the_bound_and_are_given_back() -> None:
    kept = store(entries=1_000, size=20 * ENTRY_BYTES)
    for key in range(200):
        assert kept.put(key, key, size=key % 7 * 100, tags=frozenset({f"t:{key % 3}"}))
        assert kept.bytes == sum(entry.size for entry in kept.entries.values()) <= kept.max_bytes
    for tag in ("t:0", "t:1", "t:2"):
        kept.end_changed(tag, None, 0.0, 0.0)
    assert (kept.bytes, len(kept.entries)) == (0, 0)


def test_a_value_larger_than_a_quarter_of_the_bound_is_not_stored_and_pushes_nothing_out() -> None:
    kept = store(size=8 * ENTRY_BYTES)
    kept.put("small", 1)
    kept.put("large", "old")
    assert not kept.put("large", "new", size=2 * ENTRY_BYTES)
    assert set(kept.entries) == {"small"}


def test_entries_may_be_dropped_anywhere_while_the_hand_walks() -> None:
    kept = store(entries=4)
    for round_ in range(300):
        kept.put(round_, round_)
        if round_ % 3 == 0:
            kept.drop(round_ - 2, "changed")
        if round_ % 5 == 0 and kept.entries:
            next(iter(kept.entries.values())).marked = True
        chain, entry = [], kept._oldest
        while entry is not None:
            chain.append(entry.key)
            entry = entry.newer
        assert chain == sorted(kept.entries)
        assert kept._hand is None or kept._hand.key in kept.entries


def test_an_entry_that_contains_a_change_already_stays() -> None:
    kept = store()
    kept.put("new", 1, tags=frozenset({"t:1"}), snapshot=Snapshot(10, 10))
    kept.put("old", 1, tags=frozenset({"t:1"}), snapshot=Snapshot(5, 10, frozenset({7})))
    kept.put("unknown", 1, tags=frozenset({"t:1"}))
    assert kept.end_changed("t:1", 7, 0.0, 0.0) == 2
    assert set(kept.entries) == {"new"}
    assert kept.end_changed("t", None, 0.0, 0.0) == 1
