"""Keys, times to live and sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from itertools import combinations
from typing import Any

import msgspec
import pytest

from pipeline.core.cachekey import estimate_bytes, freeze, key_bytes, seconds, stable_key
from pipeline.errors import UsageError


class Colour(Enum):
    RED = 1


class Point(msgspec.Struct):
    x: int


@dataclass
class Spot:
    x: list[int]


DIFFERENT: list[Any] = [
    1, "1", 1.0, True, None, "None", b"1", (1,), [1], {1}, {1: 1}, {"1": 1}, "", (), [],
    Decimal(1), Decimal("1.0"), Colour.RED, Point(1), Spot([1]), Spot([2]), ("bool", True), timedelta(seconds=1),
    datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1))),
    datetime(2026, 1, 1, 12), 0.0, -0.0, float("nan"),
]  # fmt: skip


def test_arguments_that_may_give_different_results_have_different_keys() -> None:
    for one, other in combinations(DIFFERENT, 2):
        assert freeze(one) != freeze(other), (one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({"x", "y", 3}, {3, "y", "x"}),
        (frozenset({1}), {1}),
        ([{"a": {1, 2}}], [{"a": {2, 1}}]),
        (Point(1), Point(1)),
        (Spot([1]), Spot([1])),
        (Decimal("1.0"), Decimal("1.0")),
        (float("nan"), float("nan")),
    ],
)
def test_equal_arguments_have_equal_keys_in_whatever_order_they_are_written(one: Any, other: Any) -> None:
    assert freeze(one) == freeze(other)
    assert hash(freeze(one)) == hash(freeze(other))


def test_a_stable_key_is_the_same_in_every_run_whatever_the_order_of_sets_and_dicts() -> None:
    code = (
        "from pipeline.core.cachekey import freeze, stable_key\n"
        "value = {'b': {'x', 'y', 'z'}, 'a': [1, None, 2.5, b'q', True]}\n"
        "print(stable_key('n', (stable_key, freeze(value))).hex())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    value = {"a": [1, None, 2.5, b"q", True], "b": {"z", "y", "x"}}
    assert told == {f"{stable_key('n', (stable_key, freeze(value))).hex()}\n".encode()}


def test_different_keys_have_different_stable_keys() -> None:
    values: list[Any] = [
        1, "1", 1.0, True, None, "", b"", b"1", "None", (), ((),), [], {}, set(), (1, 2), (12,), ("1", "2"),
        ("12",), ("a", ("b",)), (("a",), "b"), {"a": 1}, {("a", 1)}, [("a", 1)], "é", "e\u0301", "\ud800",
        date(2026, 1, 1), "2026-01-01", Decimal("1"), Decimal("1.0"), Colour.RED, "RED",
        Spot([1]), stable_key, freeze,
    ]  # fmt: skip
    keys = {stable_key("n", value if callable(value) else freeze(value)) for value in values}
    assert len(keys) == len(values)
    assert stable_key("n", 1) != stable_key("m", 1)
    assert stable_key("a", ("b", 1)) != stable_key("ab", (1,))
    assert stable_key("n", (Colour.RED,)) == stable_key("n", (freeze(Colour.RED),))


def test_an_object_without_a_plain_value_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="object cannot be part of a cache key") as caught:
        freeze({"a": [object()]})
    assert "key=" in caught.value.hint


@pytest.mark.parametrize(
    ("ttl", "value"),
    [(None, None), (0, 0.0), (1.5, 1.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1.5 h", 5400), ("1d", 86400),
     (timedelta(minutes=2), 120)],
)  # fmt: skip
def test_a_time_to_live_may_be_written_in_several_ways(ttl: Any, value: float | None) -> None:
    assert seconds(ttl) == value


@pytest.mark.parametrize("ttl", ["", "5", "5 minutes", "-5m", -1, float("nan"), timedelta(seconds=-1)])
def test_a_time_to_live_that_cannot_be_meant_is_refused(ttl: Any) -> None:
    with pytest.raises(UsageError):
        seconds(ttl)


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": 1_000 + n, "name": f"customer {n}", "tags": ["a"] * (n % 5), "gone": None} for n in range(count)
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: rows(40),
        lambda n: json.loads(json.dumps(rows(3))),
        lambda n: {f"key {n} {i}": f"value {i}" for i in range(6)},
        lambda n: Point(10_000 + n),
        lambda n: Spot([1_000 + n, 2_000 + n]),
        lambda n: (Decimal(n) / 7, n / 7, 10**6 + n, f"{n}" * 9, True, {n, n + 1_000}),
    ],
)
def test_the_size_of_values_is_estimated_within_a_tenth(make: Callable[[int], Any]) -> None:
    make(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        values = [make(1_000 + n) for n in range(200)]
        taken = tracemalloc.get_traced_memory()[0] - before - sys.getsizeof(values)
    finally:
        tracemalloc.stop()
    assert sum(map(estimate_bytes, values)) == pytest.approx(taken, rel=0.1)


def test_of_a_long_list_few_elements_stand_for_all() -> None:
    assert estimate_bytes(rows(10_000)) == pytest.approx(estimate_bytes(rows(31)) * 10_000 / 31, rel=0.1)


def test_a_constant_that_very_many_refer_to_costs_nothing() -> None:
    state = "-".join(["waiting", "for payment"])
    assert estimate_bytes([state]) > 100
    held = [state] * 200
    assert estimate_bytes([held[0]]) < 100


def test_a_key_counts_what_is_its_own_and_not_the_program() -> None:
    text = "select " + "x" * 1_000
    held = [(rows, text, n) for n in range(100)]
    assert key_bytes(held[0]) < 200 < key_bytes((rows, "y" * 990 + str(len(held)), 1_000))


def test_nested_and_opaque_values_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert estimate_bytes(loop) < 2_000
    assert estimate_bytes(object()) > 0
    assert estimate_bytes(Spot(["x" * 10_000])) > 10_000  # type: ignore[list-item]
    assert estimate_bytes({"k": ["x" * 10_000]}) > 10_000
