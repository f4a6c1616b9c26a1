"""The wire form of events: read back as it was written, dense, and short enough for NOTIFY."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.core.events import OP_NAMES, PAYLOAD_BYTES, Batch, Event, Line, Parcel, decode, encode, pack

NASTY = ["", '"', "\\", '\\"', "\x00", "\x1f", "\u2028", "€", "😀", "a,b", "{}", "null", "'", "\n", "\ud7ff"]
TEXTS = st.one_of(st.sampled_from(NASTY), st.text(max_size=20), st.text('😀\x01"é', max_size=300))
XIDS = st.integers(3, 2**63 - 1)
EVENTS = st.builds(
    Event,
    xid=XIDS,
    name=st.one_of(st.sampled_from(["orders", "public.a b", '"Über"']), TEXTS),
    op=st.sampled_from(sorted(OP_NAMES)),
    keys=st.none() | st.lists(TEXTS, max_size=8).map(tuple),
    rows=st.integers(0, 2**31 - 1),
    ms=st.none() | st.integers(0, 10**9).map(lambda n: n / 1000),
    payload=st.none() | TEXTS | st.integers(0, 9_000).map(lambda n: "x" * n),
)
POSITIONS = st.none() | st.sampled_from(
    ["3:3:", "740:742:740,741", "1:" + "9" * 19 + ":" + ",".join(["9" * 19] * 20)]
)


def line(event: Event) -> Line:
    """An event as Postgres hands it out: what is missing at the end has its default."""
    row = [event.op, event.keys, event.rows, event.ms, event.payload]
    for default in (None, None, 1, None):
        if row[-1] != default or isinstance(row[-1], bool):
            break
        row.pop()
    return Line(event.xid, event.name, json.dumps(row, ensure_ascii=False)[1:])


def packed(events: list[Event], position: str | None = None, after: int = 41) -> list[Parcel]:
    return pack([line(event) for event in events], epoch="5f3a90c1d2e4", after=after, position=position)


@given(st.lists(EVENTS, max_size=12), POSITIONS, st.integers(0, 2**63 - 2))
def test_what_is_packed_is_read_back_in_order(events: list[Event], position: str | None, after: int) -> None:
    parcels = packed(events, position, after)
    batches = [decode(parcel.payload) for parcel in parcels]
    assert [event for batch in batches for event in batch.events] == events
    assert [parcel.events for parcel in parcels] == [len(batch.events) for batch in batches]
    assert [batch.seq for batch in batches] == list(range(after + 1, after + 1 + len(batches)))
    assert [batch.seq for batch in batches] == [parcel.seq for parcel in parcels]
    assert all(batch.previous == batch.seq - 1 for batch in batches)
    assert all(batch.epoch == "5f3a90c1d2e4" and not batch.flush and not batch.in_ring for batch in batches)
    assert [batch.position for batch in batches[:-1]] == [None] * (len(batches) - 1 if batches else 0)
    assert not batches or batches[-1].position == position


@given(st.lists(EVENTS, max_size=12), POSITIONS)
def test_every_notice_fits_and_says_the_same_or_where_to_find_it(
    events: list[Event], position: str | None
) -> None:
    for parcel in packed(events, position):
        assert len(parcel.notice.encode()) < 8_000
        if parcel.notice != parcel.payload:
            assert len(parcel.payload.encode()) > PAYLOAD_BYTES
            whole, told = decode(parcel.payload), decode(parcel.notice)
            assert told == Batch(whole.epoch, whole.seq, whole.previous, whole.position, in_ring=True)
            assert parcel.events == 1 or max(event.xid for event in events) > 10**15


@given(st.lists(EVENTS, max_size=6), st.booleans(), st.booleans(), POSITIONS)
@example([], True, False, None)
def test_what_is_encoded_is_decoded(events: list[Event], flush: bool, in_ring: bool, position: str | None) -> None:
    batch = Batch("e", 7, 6, position, tuple(events), flush, in_ring)
    assert decode(encode(batch)) == batch


@given(st.lists(st.sampled_from(["orders", "lines", "users"]), min_size=1, max_size=200))
def test_a_batch_names_each_table_once(names: list[str]) -> None:
    parcels = packed([Event(5, name, "u", ("7",)) for name in names])
    for parcel in parcels:
        wire = json.loads(parcel.payload)
        assert len(wire["n"]) == len(set(wire["n"]))
        assert {wire["n"][row[1]] for row in wire["v"]} == set(wire["n"])


def test_no_events_make_no_batch() -> None:
    assert pack([], epoch="e", after=1, position="3:3:") == []


def test_a_batch_is_filled_before_the_next_begins() -> None:
    events = [Event(10**9 + n, "orders", "u", (str(n),)) for n in range(5_000)]
    parcels = packed(events, "3:3:")
    sizes = [len(parcel.notice.encode()) for parcel in parcels]
    assert all(size > 0.6 * PAYLOAD_BYTES for size in sizes[:-1])
    assert all(parcel.notice == parcel.payload for parcel in parcels)


def test_of_many_batches_only_the_last_tells_the_position() -> None:
    batches = [decode(parcel.payload) for parcel in packed([Event(5, "t", "u", ("x" * 3_000,))] * 9, "3:3:")]
    assert len(batches) > 3
    assert [batch.position for batch in batches] == [None] * (len(batches) - 1) + ["3:3:"]


def test_names_count_too_and_each_batch_has_its_own() -> None:
    events = [Event(5, f"{n:03}{'é' * 200}", "i") for n in range(100)]
    parcels = packed(events, "3:3:")
    assert all(parcel.notice == parcel.payload for parcel in parcels)
    for parcel in parcels:
        assert len(json.loads(parcel.payload)["n"]) == parcel.events


def test_an_event_that_is_too_long_is_a_batch_of_its_own_and_delays_no_other() -> None:
    events = [Event(5, "a", "i"), Event(5, "a", "e", payload="x" * 20_000), Event(5, "b", "i")]
    first, long, last = packed(events, "3:3:")
    assert [decode(parcel.payload).events for parcel in (first, long, last)] == [(event,) for event in events]
    assert (first.notice, last.notice) == (first.payload, last.payload)
    assert decode(long.notice).in_ring
    assert decode(long.payload).events == (events[1],)


def test_lengths_are_counted_in_bytes() -> None:
    for parcel in packed([Event(5, "t", "u", ("😀" * 400,)) for _ in range(20)]):
        assert parcel.notice == parcel.payload
        assert len(parcel.notice.encode()) < 8_000


def test_the_wire_form_is_readable_json() -> None:
    [parcel] = packed([Event(741, "orders", "u", ("7",), 1, 0.8)], "740:742:")
    assert parcel.payload == (
        '{"e":"5f3a90c1d2e4","s":42,"p":41,"at":"740:742:","x":741,"n":["orders"],"v":[[0,0,"u", ["7"], 1, 0.8]]}'
    )
    assert encode(Batch("5f3a90c1d2e4", 42, 41)) == '{"e":"5f3a90c1d2e4","s":42,"p":41}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "hello",
        '{"e":"x","s":"1","p":0}',
        '{"e":"x","s":1}',
        '{"e":"x","s":1,"p":0,"v":[1]}',
    ],
)
def test_anything_else_on_the_channel_is_a_decode_error(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"e":"x","s":1,"p":0,"v":[[]]}',
        '{"e":"x","s":1,"p":0,"v":[[5,0,"u"]]}',
        '{"e":"x","s":1,"p":0,"n":["t"],"v":[[5,7,"u"]]}',
        '{"e":"x","s":1,"p":0,"n":["t"],"v":[[5,"0","u"]]}',
        '{"e":"x","s":1,"p":0,"n":["t"],"v":[[5,0,"u",null,1,null,null,1]]}',
        '{"e":"x","s":1,"p":0,"n":["t"],"v":[[5,0,"u",7]]}',
    ],
)
def test_a_batch_with_events_that_make_no_sense_is_a_decode_error(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(text)


def test_an_event_makes_the_tags_of_its_keys_and_its_table_stale() -> None:
    assert list(Event(5, "orders", "u", ("7", "8")).tags()) == ["orders:7", "orders:8", "orders"]
    assert list(Event(5, "orders", "t").tags()) == ["orders"]
    assert list(Event(5, "mail.sent", "e", payload="x").tags()) == []


def test_what_changed_is_the_keys_or_the_table_where_they_are_unknown() -> None:
    assert list(Event(5, "orders", "u", ("7", "8")).changed()) == ["orders:7", "orders:8"]
    assert list(Event(5, "orders", "u", None).changed()) == ["orders"]
    assert list(Event(5, "orders", "u", ()).changed()) == ["orders"]
    assert list(Event(5, "mail.sent", "e", payload="x").changed()) == []
