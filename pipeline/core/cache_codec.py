"""Values of the cache as bytes that every process can read.

Owns: which values can be shared, and their form. Knows nothing of tables.

Whoever may write where the bytes are kept must not be able to run code here, so nothing is pickled: the form is
msgpack, with extensions for what rows hold and msgpack lacks. A value comes back equal and of the same types, or
it is refused when it is encoded. Only exact types are taken, since a subclass would come back as its base. One
exception: the driver's own kind of UUID comes back as `uuid.UUID`.

An object whose type only the program knows (a Struct, a dataclass) travels as its fields. It can be shared where
the function that returns it says so in its annotation, and is compared with what comes back before it is taken.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

PLAIN, TYPED = b"\x01", b"\x02"  # the first byte: which of the two forms follows
BIG_INT, DECIMAL, DATETIME, DATE, TIME, TIMEDELTA, UUID, TUPLE, SET, FROZENSET, DICT, ADDRESS = range(1, 13)
BELOW, ABOVE = -(1 << 63), 1 << 64  # the integers that msgpack has

Ext = msgspec.msgpack.Ext
_NOT_OURS = (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError)


class Unshareable(Exception):
    """This value cannot be shared. The text says why."""


class Foreign(Exception):
    """These bytes are not what `encode` makes for this type."""


def encode(value: Any, returns: Any = None, *, at_most: int | None = None) -> bytes:
    """The bytes of a value. returns: what the function that made it says that it returns; None: it says nothing.

    Raises Unshareable, also for more than `at_most` bytes.
    """
    data = _encoded(value, returns)
    if at_most is not None and len(data) > at_most:
        raise Unshareable(f"it has {len(data)} bytes, and {at_most} can be shared")
    return data


def _encoded(value: Any, returns: Any) -> bytes:
    try:
        return PLAIN + _encoder.encode(_packed(value))
    except Unshareable:
        if returns is None or returns is Any:
            raise
    except _NOT_OURS as error:
        raise Unshareable(f"{type(error).__name__}: {error}") from None
    try:
        payload = _encoder.encode(value)
        back = msgspec.msgpack.decode(payload, type=returns)
    except _NOT_OURS as error:
        raise Unshareable(f"{type(error).__name__}: {error}") from None
    if not same(value, back):
        raise Unshareable(f"a {type(value).__qualname__} does not come back as it was")
    return TYPED + payload


def decode(data: bytes, returns: Any = None) -> Any:
    """The value. returns: as for `encode`. Raises Foreign."""
    kind, payload = data[:1], memoryview(data)[1:]
    try:
        if kind == PLAIN:
            return _decoder.decode(payload)
        if kind == TYPED and returns is not None:
            return msgspec.msgpack.decode(payload, type=returns)
    except _NOT_OURS as error:
        raise Foreign(f"{type(error).__name__}: {error}") from None
    raise Foreign(f"a form of the number {kind.hex() or 'none'}")


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, with the same types all the way down."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is list or kind is tuple:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict:
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if kind is set or kind is frozenset:
        return one == other and {(type(item), item) for item in one} == {(type(item), item) for item in other}
    if isinstance(one, msgspec.Struct):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if kind in (Decimal, datetime, time):
        return repr(one) == repr(other)  # 1.0 and 1.00 are equal, and so is one moment in two zones
    return bool(one == other) or (kind is float and math.isnan(one) and math.isnan(other))


_encoder = msgspec.msgpack.Encoder()


def _packed(value: Any) -> Any:
    """The value in what msgpack has. Raises Unshareable."""
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is float or kind is bytes:
        return value
    if kind is int:
        return value if BELOW <= value < ABOVE else Ext(BIG_INT, str(value).encode())
    if kind is list:
        return [_packed(item) for item in value]
    if kind is dict:
        if all(type(name) is str for name in value):
            return {name: _packed(item) for name, item in value.items()}
        return _nested(DICT, [[_packed(name), _packed(item)] for name, item in value.items()])
    pack = _PACKERS.get(kind)
    if pack is not None:
        return pack(value)
    if isinstance(value, uuid.UUID):
        return Ext(UUID, value.bytes)
    raise Unshareable(f"a {kind.__module__}.{kind.__qualname__} has no form that every process can read")


def _nested(code: int, items: list[Any]) -> Ext:
    return Ext(code, _encoder.encode(items))


def _zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [offset.days, offset.seconds, offset.microseconds, *name]
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    raise Unshareable(f"the time zone {zone!r} has no form that every process can read")


def _with_zone(code: int, value: datetime | time) -> Ext:
    return _nested(code, [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)])


_PACKERS: dict[type, Callable[[Any], Ext]] = {
    Decimal: lambda v: Ext(DECIMAL, str(v).encode()),
    datetime: lambda v: _with_zone(DATETIME, v),
    date: lambda v: Ext(DATE, v.isoformat().encode()),
    time: lambda v: _with_zone(TIME, v),
    timedelta: lambda v: _nested(TIMEDELTA, [v.days, v.seconds, v.microseconds]),
    tuple: lambda v: _nested(TUPLE, [_packed(item) for item in v]),
    set: lambda v: _nested(SET, [_packed(item) for item in v]),
    frozenset: lambda v: _nested(FROZENSET, [_packed(item) for item in v]),
}
_ADDRESSES = {
    kind.__name__: kind
    for kind in (
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
    )
}
for _kind in _ADDRESSES.values():
    _PACKERS[_kind] = lambda v: _nested(ADDRESS, [type(v).__name__, str(v)])


def _read(code: int, data: memoryview) -> Any:
    return _READERS[code](data.tobytes())


_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_read)


def _unzoned(zone: Any) -> tzinfo | None:
    if zone is None or isinstance(zone, str):
        return None if zone is None else ZoneInfo(zone)
    days, seconds, microseconds, *name = zone
    offset = timedelta(days, seconds, microseconds)
    return timezone(offset, *name) if name or offset else UTC


def _datetime(data: bytes) -> datetime:
    text, fold, zone = _decoder.decode(data)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_unzoned(zone))


def _time(data: bytes) -> time:
    text, fold, zone = _decoder.decode(data)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_unzoned(zone))


def _address(data: bytes) -> Any:
    name, text = _decoder.decode(data)
    return _ADDRESSES[name](text)


_READERS: dict[int, Callable[[bytes], Any]] = {
    BIG_INT: int,
    DECIMAL: lambda data: Decimal(data.decode()),
    DATETIME: _datetime,
    DATE: lambda data: date.fromisoformat(data.decode()),
    TIME: _time,
    TIMEDELTA: lambda data: timedelta(*_decoder.decode(data)),
    UUID: lambda data: uuid.UUID(bytes=data),
    TUPLE: lambda data: tuple(_decoder.decode(data)),
    SET: lambda data: set(_decoder.decode(data)),
    FROZENSET: lambda data: frozenset(_decoder.decode(data)),
    DICT: lambda data: dict(_decoder.decode(data)),
    ADDRESS: _address,
}
