"""Templates of keys, rates and uniqueness."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any

import pytest

from pipeline.core.batch import batch_wait
from pipeline.core.keys import names_in, render_key, rule_of
from pipeline.core.limits import Rate, Unique
from pipeline.errors import TaskError


class Kind(enum.StrEnum):
    NEW = "new"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"), ("a:{b}", "a:{b}"), ("é\"", "é\""), (7, "7"), (-(10**30), "-1" + "0" * 30), (True, "true"),
        (False, "false"), (None, ""), (1.5, "1.5"), (1.0, "1.0"), (1e20, "1" + "0" * 20), (1e-7, "0.0000001"),
        (-0.0, "0.0"), (float("nan"), ""), (Kind.NEW, "new"), (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"), (dt.date(2026, 1, 2), "2026-01-02"),
    ],
)  # fmt: skip
def test_a_value_is_part_of_the_key_as_json_would_have_it(value: Any, text: str) -> None:
    assert render_key("x:{v}!", {"v": value}) == f"x:{text}!"


def test_arguments_that_are_not_given_leave_their_place_empty() -> None:
    assert render_key("x:{a}/{b}/{a}", {"a": 1}) == "x:1//1"
    assert render_key("x", {"a": 1}) == "x"


@pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}, (1,), {1}, object()])
def test_a_value_with_parts_is_refused(value: Any) -> None:
    with pytest.raises(TaskError, match="the argument v cannot be part of the key x:{v}"):
        render_key("x:{v}", {"v": value})


def test_the_rule_of_a_key_is_what_stands_before_its_first_colon() -> None:
    assert [rule_of(key) for key in ("customer:7", "customer", "a:b:c")] == ["customer", "customer", "a"]


def test_a_template_names_its_arguments_once_for_each_place() -> None:
    assert names_in("{a}:{b}-{a}") == ("a", "b", "a")
    for wrong in ("{", "}", "{{a}}", "{a", "{a.b}", "{a[0]}", "{ a }", "{1}", ""):
        with pytest.raises(ValueError, match="template|argument"):
            names_in(wrong)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/min", Rate(10, 60)), ("5/s", Rate(5, 1)), ("100/hour", Rate(100, 3600)),
        ("1000/day", Rate(1000, 86400)), ("1/d", Rate(1, 86400)), ("3/2h", Rate(3, 7200)),
        ("20/90s", Rate(20, 90)), (" 2 / 1.5 minutes ", Rate(2, 90)),
    ],
)  # fmt: skip
def test_a_rate_is_read(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "/s", "10/week", "ten/s", "1.5/s", "-1/s", "0/s", "1/0s", "1/s/s", "1/999d"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        Rate.parse(text)


def test_unique_refuses_what_cannot_be_meant() -> None:
    for wrong in (
        {"by": "{a"}, {"window": 0}, {"window": float("nan")}, {"on_clash": "fail"}, {"states": ()},
        {"states": ("waiting",)}, {"states": "ready"}, {"states": ("failed",)},
        {"states": ("ready",), "window": 60},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="template|Unique"):
            Unique(**wrong)  # type: ignore[arg-type]


def test_a_batch_runs_when_it_is_full_or_has_waited() -> None:
    assert batch_wait(10, 10, 0, 5) == 0
    assert batch_wait(3, 10, 2, 5) == 3
    assert batch_wait(3, 10, 6, 5) == 0
    assert batch_wait(1, 10, 0, 0) == 0
    assert batch_wait(0, 10, 0, 5) == 5
