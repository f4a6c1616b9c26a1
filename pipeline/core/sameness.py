"""Whether two values that were loaded apart are the same.

Owns: the comparison. Knows nothing of where the values come from.

Rows without ORDER BY come in any order, so lists that hold the same items in another order count as the same. What
only a comparison of identities could tell apart cannot be compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec


def same(one: Any, other: Any) -> bool | None:
    """None: it cannot be told. Never raises, whatever the values' own comparison does."""
    try:
        return _same(one, other)
    except Exception:  # RecursionError of what holds itself, and whatever __eq__ of a user's class raises
        return None


def _same(one: Any, other: Any) -> bool | None:
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        return _all((_same(one[key], other[key]) for key in one), one.keys() == other.keys())
    if kind is list or kind is tuple:
        return _same_items(one, other)
    if kind is float:
        return bool(one == other) or (math.isnan(one) and math.isnan(other))
    names = _fields(one)
    if names:
        return _all((_same(getattr(one, name), getattr(other, name)) for name in names), True)
    if _own(kind, object):
        return None
    equal = one == other
    return equal if isinstance(equal, bool) else None


def _same_items(one: Any, other: Any) -> bool | None:
    if len(one) != len(other):
        return False
    in_order = _all(map(_same, one, other), True)
    if in_order is False and sorted(map(repr, one)) == sorted(map(repr, other)):
        return True
    return in_order


def _fields(value: Any) -> tuple[str, ...]:
    """The names of what it holds, where its class does not compare in a way of its own."""
    kind = type(value)
    if isinstance(value, msgspec.Struct) and _own(kind, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(kind) and _generated(kind.__eq__):
        return tuple(field.name for field in dataclasses.fields(kind) if field.compare)
    return ()


def _own(kind: type, base: type) -> bool:
    """Whether a class compares as `base` does."""
    return getattr(kind, "__eq__") is getattr(base, "__eq__")  # noqa: B009 - mypy takes the two for different


def _generated(method: Callable[..., Any]) -> bool:
    """Whether `dataclass` wrote it, which leaves no file behind."""
    return getattr(getattr(method, "__code__", None), "co_filename", "") == "<string>"


def _all(answers: Iterable[bool | None], begin: bool) -> bool | None:
    """False where one is, else None where one is."""
    if not begin:
        return False
    known: bool | None = True
    for answer in answers:
        if answer is False:
            return False
        known = known and answer
    return known
