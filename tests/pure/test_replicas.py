"""What a standby has replayed, told as a snapshot of the primary; and what cannot be told."""

from __future__ import annotations

import pytest

from pipeline.core.cache import CacheCore
from pipeline.core.events import Batch, Event, decode, encode
from pipeline.core.fill import Flight, Verdict
from pipeline.core.replicas import MARKS_KEPT, Marks
from pipeline.core.snapshot import BEGINNING, Loose, Position, Snapshot


def position(xmax: int, wal: int | None, epoch: str = "e", xip: tuple[int, ...] = ()) -> Position:
    return Position(min([xmax, *xip]), xmax, frozenset(xip), wal, epoch)


def test_whoever_has_replayed_to_a_place_sees_what_the_last_position_before_it_sees() -> None:
    marks = Marks()
    assert marks.newest is None
    for xmax, wal in ((10, 100), (12, 200), (13, 300)):
        marks.on_position(position(xmax, wal, xip=(5,)))
    assert marks.newest == 300
    assert marks.at("e", 99) is None
    assert [str(marks.at("e", wal)) for wal in (100, 199, 200, 9_999)] == ["5:10:5", "5:10:5", "5:12:5", "5:13:5"]


def test_places_of_another_history_tell_nothing() -> None:
    marks = Marks()
    marks.on_position(position(10, 100))
    assert marks.at("f", 500) is None
    assert marks.at(None, 500) is None
    marks.on_position(position(8, 90, "f"))
    assert marks.at("e", 500) is None
    assert str(marks.at("f", 95)) == "8:8:"
    marks.on_flush()
    assert marks.at("f", 95) is None


def test_a_position_at_the_same_place_replaces_the_one_before_it() -> None:
    marks = Marks()
    marks.on_position(position(10, 100))
    marks.on_position(position(11, 100))
    marks.on_position(position(12, None))  # an older pump does not tell the place
    marks.on_position(Snapshot(13, 13))
    assert str(marks.at("e", 100)) == "11:11:"


def test_old_places_are_forgotten_sparsely_which_only_tells_less() -> None:
    marks = Marks()
    for number in range(5 * MARKS_KEPT):
        marks.on_position(position(10 + number, 100 * number))
    assert len(marks._places) <= MARKS_KEPT
    for wal in range(0, 500 * MARKS_KEPT, 12_345):
        found = marks.at("e", wal)
        assert found is None or found.xmax <= 10 + wal // 100
    assert marks.at("e", 500 * MARKS_KEPT) == Snapshot(9 + 5 * MARKS_KEPT, 9 + 5 * MARKS_KEPT)


def test_a_value_of_a_standby_is_held_to_every_change_that_was_delivered() -> None:
    """With transaction 5 open all the while, which a standby cannot tell from any other above it."""
    core = CacheCore(max_bytes=1 << 20, max_entries=9, max_staleness=1.0)
    marks = Marks()

    def told(at: Position) -> None:
        core.on_position(at, 0.0)
        marks.on_position(at)

    def load(wal: int) -> Verdict:
        flight = Flight("k", frozenset({"t:1"}))
        core.begin(flight, 0.0)
        return core.finish(flight, 0, snapshot=marks.at("e", wal) or BEGINNING, now=0.0)

    told(position(10, 100, xip=(5,)))
    core.on_batch(Batch("e", 1, 0, None, (Event(11, "t", "u", ("1",)),)), 0.0)
    told(position(12, 200, xip=(5,)))
    assert [load(99), load(100), load(199)] == [Verdict.OLD] * 3
    assert load(200) is Verdict.STORED
    core.on_batch(Batch("e", 2, 1, None, (Event(11, "t", "u", ("1",)),)), 0.0)  # again: it contains it
    assert core.store.entries.keys() == {"k"}


def test_a_batch_without_a_place_is_understood_and_one_with_it_is_by_older_followers() -> None:
    assert decode('{"e":"e","s":1,"p":0,"at":"1:1:"}').wal is None
    sent = encode(Batch("e", 1, 0, "1:1:", wal=24_190_976))
    assert sent == '{"e":"e","s":1,"p":0,"at":"1:1:","w":24190976}'
    assert decode(sent).wal == 24_190_976


def test_a_loose_snapshot_sees_what_it_is_made_of() -> None:
    assert Loose.of(Snapshot(5, 9, frozenset({5}))).sees(8)
    assert not Loose.of(None).sees(1)
    with pytest.raises(ValueError, match="unpack"):
        Position.at("1:2", None, "e")
