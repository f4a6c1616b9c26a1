"""Keys and sizes of cached values.

Owns: how arguments become a key, how a time to live is written, and how large a value is taken to be.
Knows nothing of the cache itself.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import re
import sys
import uuid
from collections.abc import Hashable
from itertools import islice
from typing import Any

import msgspec

from pipeline.errors import UsageError

_AS_TEXT = (
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    uuid.UUID,
    complex,
    range,
)

AS_IS = frozenset({str, int, type(None)})  # exactly these kinds, of which none equals one of another


def freeze(value: Any) -> Hashable:
    """A hashable stand-in that is equal for equal arguments only: 1, "1", 1.0 and True all differ.

    Sets and dicts do not depend on their order. Times and decimals count as they are written, since 1.0
    and 1.00, or one moment in two time zones, need not give the same result. Raises UsageError for an
    object whose value cannot be known.
    """
    kind = type(value)
    if kind in AS_IS:
        return value  # type: ignore[no-any-return]
    if kind is bool or kind is bytes:
        return (kind, value)
    if kind is float:
        return (kind, repr(value))  # 0.0 and -0.0 are equal, and one nan is not equal to another
    if isinstance(value, enum.Enum):
        return (kind, value.name)
    if isinstance(value, (list, tuple)):
        return (kind, tuple(map(freeze, value)))
    if isinstance(value, (set, frozenset)):
        return (set, frozenset(map(freeze, value)))
    if isinstance(value, dict):
        return (dict, frozenset((freeze(key), freeze(item)) for key, item in value.items()))
    if isinstance(value, _AS_TEXT):
        return (kind, repr(value))
    if isinstance(value, msgspec.Struct):
        return (kind, tuple(freeze(getattr(value, name)) for name in value.__struct_fields__))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (kind, tuple(freeze(getattr(value, field.name)) for field in dataclasses.fields(value)))
    raise UsageError(
        f"an argument of type {kind.__qualname__} cannot be part of a cache key",
        hint="Pass plain values (numbers, text, dates, lists, dicts, dataclasses), or give key=...",
    )


def stable_key(namespace: str, frozen: Hashable) -> bytes:
    """32 bytes that stand for a key in every process and every run; different keys have different ones.

    frozen: what `freeze` returned, or a tuple of such; functions and types in it count by their names.
    """
    return hashlib.blake2b(_canonical((namespace, frozen)), digest_size=32).digest()


def _canonical(frozen: Any) -> bytes:
    """Unambiguous: the kind, then what it holds with its lengths."""
    kind = type(frozen)
    if kind is str:
        parts = [frozen.encode("utf-8", "surrogatepass")]
    elif kind is bytes:
        parts = [frozen]
    elif kind in _SCALARS:
        parts = [repr(frozen).encode()]
    elif kind is tuple:
        parts = [_canonical(part) for part in frozen]
    elif kind is frozenset:
        parts = sorted(map(_canonical, frozen))
    elif (name := getattr(frozen, "__qualname__", None)) is not None:
        kind, parts = type, [f"{frozen.__module__}.{name}".encode()]
    else:
        return _canonical(freeze(frozen))
    return b"%b%d[%b]" % (kind.__name__.encode(), len(parts), b"".join(b"%d:%b" % (len(p), p) for p in parts))


_SCALARS = frozenset({int, float, bool, type(None)})

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


def seconds(ttl: float | str | datetime.timedelta | None) -> float | None:
    """A time to live in seconds, from a number of seconds, "500ms", "30s", "5m", "1h", "1d" or a timedelta.

    None stays None: only a change ends the entry. Raises UsageError for anything else and for negative times.
    """
    if ttl is None:
        return None
    if isinstance(ttl, str):
        match = _DURATION.fullmatch(ttl)
        if match is None:
            raise UsageError(
                f"{ttl!r} is no time to live", hint='Write it like "500ms", "30s", "5m", "1h" or "1d".'
            )
        return float(match[1]) * _UNITS[match[2]]
    value = ttl.total_seconds() if isinstance(ttl, datetime.timedelta) else float(ttl)
    if not value >= 0:
        raise UsageError(f"a time to live of {value} s cannot be meant", hint="Give seconds, zero or more.")
    return value


SAMPLE = 32  # elements of a longer container that are looked at; the rest is taken to be alike
DEPTH = 8
COMMON = 100  # references; a text with more is a constant of the program


def estimate_bytes(value: Any, depth: int = DEPTH) -> int:
    """About how much memory a value holds, in bytes.

    Containers, dataclasses and Structs are followed, eight levels deep; of a container of more than 32
    elements, 32 spread evenly stand for all, so that the cost is bounded (a list of 1,000 rows of ten
    columns: 0.3 ms). None, booleans, small numbers and single characters cost nothing, since there is one of
    each, nor do short texts that very many refer to. The text of a dict's keys is shared among all that refer to
    it, as the columns of many rows do. Any other object that is referred to twice counts twice. Anything opaque
    counts as what Python says of it alone.
    """
    kind = type(value)
    if kind in _SINGLE or (kind is int and -5 <= value <= 256):
        return 0
    if kind is str and (len(value) < 2 or (len(value) < 200 and sys.getrefcount(value) > COMMON)):
        return 0
    size = sys.getsizeof(value, 64)
    if kind in _LEAVES or depth == 0:
        return size
    if isinstance(value, dict):
        keys = [_share(key, 3) if type(key) is str else estimate_bytes(key, depth - 1) for key in _spread(value)]
        return size + _scaled(keys, len(value)) + _of_many(value.values(), depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return size + _of_many(value, depth)
    if isinstance(value, msgspec.Struct):
        return size + _of_many([getattr(value, name) for name in value.__struct_fields__], depth)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        inline = 0 if hasattr(kind, "__slots__") else _INLINE + _INLINE_EACH * len(names)
        return size + inline + _of_many([getattr(value, name) for name in names], depth)
    inside = getattr(value, "__dict__", None)
    if type(inside) is dict:
        return size + estimate_bytes(inside, depth - 1)
    return size


def key_bytes(key: Hashable) -> int:
    """The same of a key, whose functions and types belong to the program, and whose text may be in it, too."""
    kind = type(key)
    if kind is str:
        return _share(key, 4)
    if isinstance(key, (tuple, frozenset)):
        return sys.getsizeof(key) + sum(map(key_bytes, key))
    return estimate_bytes(key) if kind in _LEAVES else 0


_SINGLE = frozenset({type(None), bool})
_LEAVES = frozenset({str, int, float, bytes, uuid.UUID, decimal.Decimal, datetime.datetime, datetime.date})
_INLINE, _INLINE_EACH = 24, 8  # the values of an object whose class has no slots, before and for each of them


def _share(text: Any, ours: int) -> int:
    """Its part of a text that others refer to as well. ours: the references of whoever is asking."""
    return sys.getsizeof(text) // max(1, sys.getrefcount(text) - ours)


def _of_many(values: Any, depth: int) -> int:
    return _scaled([estimate_bytes(value, depth - 1) for value in _spread(values)], len(values))


def _spread(values: Any) -> Any:
    """All of them, or 32 spread evenly."""
    count = len(values)
    return values if count <= SAMPLE else islice(values, 0, count // SAMPLE * SAMPLE, count // SAMPLE)


def _scaled(sizes: list[int], count: int) -> int:
    return sum(sizes) * count // len(sizes) if sizes else 0
