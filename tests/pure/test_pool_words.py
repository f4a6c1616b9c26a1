"""What a pool says: who holds what, and whether it fits its server."""

from __future__ import annotations

import pytest

from pipeline.core.pool_fit import Room, fit, mark, size_of
from pipeline.core.pool_hosts import Dial
from pipeline.core.pool_options import PoolOptions
from pipeline.core.pool_report import Held, exhausted, shown, told
from pipeline.errors import UsageError


def test_the_longest_holders_are_named_first_and_the_rest_is_counted() -> None:
    held = [Held(seconds=float(n), task=f"t{n}", place=f"shop.py:{n} in pay", query="select $1") for n in range(8)]
    text = exhausted("main", 5.0, 8, 3, held)
    assert text.startswith(
        'pool "main" is exhausted: none of its 8 connections came free within 5.0 s, 3 others wait'
    )
    assert "[1] 7.0 s, t7, at shop.py:7 in pay, idle, last query: select $1;" in text
    assert "t3" in text
    assert "t2" not in text
    assert text.endswith("and 3 more")
    assert told([]) == "nobody"


def test_labels_a_running_query_and_a_task_that_ended_are_told() -> None:
    one = Held(
        2.0, "pay-1", "a.py:1 in b", state="running", query="select 1", labels={"route": "/pay"}, ended=True
    )
    assert str(one) == "2.0 s, pay-1 (ended), at a.py:1 in b, route=/pay, running, query: select 1"


@pytest.mark.parametrize("query", ["select * from card where no = '4111'", "update t set a = $$4111$$ -- 4111"])
def test_no_value_of_a_query_is_shown(query: str) -> None:
    assert "4111" not in shown(query)


def test_the_beginning_of_a_long_query_is_all_that_is_read() -> None:
    assert shown("select '4111" + "x" * 4_000 + "', a") == "select ..."


def test_a_long_query_is_cut() -> None:
    assert len(shown("select " + ", ".join(f"column_{n}" for n in range(100)) + " from t")) == 120


ROOM = Room(limit=100, reserved=3, taken=20)


@pytest.mark.parametrize(
    ("most", "room", "problem", "fatal"),
    [
        (10, ROOM, None, False),
        (77, ROOM, None, False),
        (78, ROOM, "others hold 20 of the 97 that the server has", False),
        (97, Room(100, 3, 0), None, False),
        (98, Room(100, 3, 0), "for it: 97 (max_connections 100, of which 3 are reserved)", True),
        (5, Room(3, 0, 0, whose="the limit of the role"), "3 (the limit of the role 3", True),
        (50, Room(100, 3, 2, (mark("b", 30, "00000001"), mark("b", 20, "00000002"))), "together open 100", False),
        (50, Room(100, 3, 2, (mark("b", 30, "00000001"), "psql (pool of)", "x")), None, False),
    ],
)  # fmt: skip
def test_a_pool_that_does_not_fit_is_told_with_the_figures(
    most: int, room: Room, problem: str | None, fatal: bool
) -> None:
    found = fit("main", most, room)
    assert (found.problem is None) == (problem is None)
    assert problem is None or problem in str(found.problem)
    assert found.fatal == fatal


@pytest.mark.parametrize("name", ["main", "ä" * 60, "(pool of 7, 12345678)"])
def test_the_size_of_a_pool_is_read_from_its_name(name: str) -> None:
    marked = mark(name, 40, "0a1b2c3d")
    assert len(marked.encode()) <= 63
    assert size_of(marked) == 40


@pytest.mark.parametrize(
    "options",
    [
        {"min_size": 3, "max_size": 2}, {"max_size": 0, "min_size": 0}, {"min_size": -1}, {"max_queries": 0},
        {"name": ""}, {"name": "a\nb"}, {"connect_timeout": 0}, {"reset_timeout": 0},
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PoolOptions(**options)  # type: ignore[arg-type]


TWO = "postgresql://me:p%2Cw@a:1,[::1]:2/db?sslmode=disable"


@pytest.mark.parametrize(
    ("dsn", "driver", "turned"),
    [
        (TWO, {}, ("postgresql://me:p%2Cw@[::1]:2,a:1/db?sslmode=disable", {})),
        ("postgresql://a,b,c/db", {}, ("postgresql://b,c,a/db", {})),
        ("postgresql:///db?host=/a,/b&port=1,2", {}, ("postgresql:///db?host=/b,/a&port=2,1", {})),
        (None, {"host": ["a", "b"], "port": [1, 2]}, (None, {"host": ["b", "a"], "port": [2, 1]})),
        (None, {"host": ["a", "b"], "port": 5}, (None, {"host": ["b", "a"]})),
        ("postgresql://a/db", {"host": "b"}, ("postgresql://a/db", {})),
        (None, {}, (None, {})),
        ("postgresql://me@/db?host=%2Frun", {}, ("postgresql://me@/db?host=%2Frun", {})),
    ],
)
def test_the_hosts_of_an_address_take_turns(
    dsn: str | None, driver: dict[str, object], turned: tuple[str | None, dict[str, object]]
) -> None:
    dial = Dial(dsn, driver)
    assert dial.turned(1) == turned
    assert dial.turned(dial.hosts) == dial.turned(0)


def test_attempts_at_several_hosts_are_short_first() -> None:
    assert [Dial(TWO, {}).seconds(failures, 30.0) for failures in (0, 1, 2, 4, 9, 99)] == [2, 2, 4, 8, 30, 30]
    assert Dial("postgresql://a/db", {}).seconds(0, 30.0) == 30
