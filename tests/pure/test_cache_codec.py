"""Values that are shared between processes come back equal and of the same types, or are refused."""

from __future__ import annotations

import contextlib
import pickle
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Network
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from asyncpg.pgproto.pgproto import UUID as DriverUUID
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.cache_codec import Foreign, Unshareable, decode, encode, same

zones = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=5, minutes=30)),
        timezone(timedelta(hours=1), "CET"),
        ZoneInfo("Europe/Kyiv"),
    ]
)
hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(timezones=st.just(UTC)),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
)
values = st.recursive(
    hashables | st.just(float("nan")),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.sets(hashables),
        st.frozensets(hashables),
        st.dictionaries(st.text(), inner),
        st.dictionaries(hashables, inner),
        st.dictionaries(st.tuples(hashables, hashables), inner),
    ),
    max_leaves=12,
)


@given(values)
def test_what_is_encoded_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert same(value, decode(encode(value)))


class Colour(Enum):
    RED = 1


class Text(str):
    __slots__ = ()


class Point(msgspec.Struct):
    x: int
    at: datetime
    parts: tuple[Decimal, ...] = ()


@dataclass
class Order:
    id: int
    lines: list[Point]
    extra: Any = None


class Opaque:
    pass


@pytest.mark.parametrize(
    "value",
    [Colour.RED, Text("a"), Point(1, datetime(2020, 1, 1)), Opaque(), [Opaque()], "\ud800", 1j, bytearray(b"a")],
)
def test_a_value_that_would_come_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(Unshareable):
        encode(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Unshareable):
        encode(loop)


def test_an_object_travels_where_the_function_says_what_it_returns() -> None:
    point = Point(1, datetime(2020, 1, 1, tzinfo=UTC), (Decimal("1.10"),))
    order = Order(7, [point, point])
    for value, returns in [(point, Point), (order, Order), ([order], list[Order]), (None, Order | None)]:
        assert same(value, decode(encode(value, returns), returns))


@pytest.mark.parametrize("extra", [Decimal("1.5"), {1, 2}, (1, 2), date(2020, 1, 1), Opaque()])
def test_an_object_whose_annotation_says_too_little_is_refused(extra: Any) -> None:
    with pytest.raises(Unshareable):
        encode(Order(7, [], extra), Order)


def test_an_object_is_unreadable_for_a_program_that_does_not_know_its_type() -> None:
    data = encode(Point(1, datetime(2020, 1, 1)), Point)
    for returns in (None, int, Order):
        with pytest.raises(Foreign):
            decode(data, returns)


def test_the_drivers_own_kind_of_uuid_comes_back_as_the_standard_one() -> None:
    back = decode(encode([DriverUUID("00000000-0000-0000-0000-00000000002a")]))
    assert back == [uuid.UUID(int=42)]
    assert type(back[0]) is uuid.UUID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x03\xc0",
        pickle.dumps({"a": 1}),
        b"\x01\xc7\x01\x63x",
        b"\x01\xd4\x02x",
        b"\x01\xc1",
        b"\x01" + b"\x91" * 100_000 + b"\xc0",
        b"\x01" + encode({1: 2})[1:-1],
        b"\x01\xd4\x09\x91",
    ],
)
def test_foreign_bytes_are_told_as_such_and_never_run(data: bytes) -> None:
    with pytest.raises(Foreign):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_foreign(data: bytes) -> None:
    for head in (b"\x01", b"\x02", b""):
        with contextlib.suppress(Foreign):
            decode(head + data, Order)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ([1], (1,)),
        ({1}, {1.0}),
        ({"a": 1}, {"a": True}),
        (Decimal("1.0"), Decimal("1.00")),
        (IPv4Address("1.2.3.4"), "1.2.3.4"),
        (IPv6Network("::/8"), IPv6Network("::/9")),
        (time(1), time(1, tzinfo=UTC)),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_values_that_a_reader_can_tell_apart_are_not_the_same(one: Any, other: Any) -> None:
    assert not same(one, other)
