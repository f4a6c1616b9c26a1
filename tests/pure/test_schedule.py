"""The policies for missed runs, and schedules as code defines them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.cron import parse
from pipeline.core.job import Job
from pipeline.core.schedule import MISSED, Missed, decide
from pipeline.errors import TaskError
from pipeline.registry import Registry, filling, task
from pipeline.schedules import cron, declared

T0 = 1_774_600_000  # two days before Berlin's clocks change
CRONS = [
    "* * * * *",
    "*/7 1-3 * * *",
    "30 2 * * *",
    "0 */5 * * 1,2",
    "0,30 2,3 28-30 * *",
    "every 90s",
    "every 7h",
]
moments = st.floats(0, 600_000, allow_nan=False)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(CRONS), st.sampled_from(["UTC", "Europe/Berlin"]), st.lists(moments, max_size=12))
def test_with_all_the_runs_are_the_crons_times_however_the_clock_moves(
    text: str, zone: str, ticks: list[float]
) -> None:
    times = parse(text, zone)
    mark: float = T0
    made: list[int] = []
    for tick in ticks:  # in any order: the clock jumps
        todo = decide(times, "all", mark, T0 + tick, 100_000)
        made += todo.runs
        mark = max(mark, T0 + tick)
        assert todo.next == times.next(mark)
    assert made == list(times.between(T0, mark))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(CRONS), st.sampled_from(MISSED), st.lists(moments, max_size=12), st.integers(1, 5))
def test_whatever_the_policy_each_time_is_made_once_or_counted(
    text: str, missed: Missed, ticks: list[float], most: int
) -> None:
    times, mark = parse(text), float(T0)
    made: list[int] = []
    skipped = 0
    for tick in sorted(ticks):
        todo = decide(times, missed, mark, T0 + tick, most)
        assert len(todo.runs) <= (most if missed == "all" else 1)
        made += todo.runs
        skipped += todo.skipped
        mark = T0 + tick
    assert made == sorted(set(made))
    assert set(made) <= set(times.between(T0, mark))
    assert len(made) + skipped == len(list(times.between(T0, mark)))


def define(registry: Registry, **options: Any) -> Any:
    """A task with a schedule; the decorators stand in this module, as a user's do in theirs."""
    with filling(registry):

        @cron("0 3 * * *", **options)
        @task(name="clean")
        async def clean(job: Job, shop: int = 1) -> None:
            """Nothing."""

    return clean


def test_the_two_decorators_stand_in_either_order() -> None:
    registry = Registry()
    define(registry, timezone="Europe/Berlin", missed="skip", args={"shop": 7})
    with filling(registry):

        @task(name="other")
        @cron("@hourly", name="each hour", queue="mail", priority=-2)
        def other(job: Job, scheduled_for: str, n: int = 0) -> None:
            """Nothing."""

    first, second = declared(registry)
    assert (first.name, first.task, first.args, first.missed) == ("clean", "clean", {"shop": 7}, "skip")
    assert (second.name, second.task, second.args) == ("each hour", "other", {"scheduled_for": None})
    assert (second.queue, second.priority, second.timezone) == ("mail", -2, "UTC")


def test_a_module_that_is_read_twice_has_its_schedules_once() -> None:
    registry = Registry()
    define(registry)
    define(registry, missed="all")
    assert [schedule.missed for schedule in declared(registry)] == ["all"]


@pytest.mark.parametrize(
    ("expression", "options", "words"),
    [
        ("0 0 30 2 *", {}, "day-of-month"),
        ("* * *", {}, "not a cron expression"),
        ("@daily", {"timezone": "Mars/Olympus"}, "no time zone"),
        ("@daily", {"missed": "never"}, "option that cannot be meant"),
        ("@daily", {"max_missed": 0}, "option that cannot be meant"),
        ("@daily", {"name": ""}, "option that cannot be meant"),
        ("@daily", {"queue": ""}, "option that cannot be meant"),
        ("@daily", {"priority": 99_999}, "option that cannot be meant"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_written(expression: str, options: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words) as caught:
        cron(expression, **options)(define)
    assert "test_schedule.py" in str(caught.value)
    assert caught.value.hint


def test_what_does_not_fit_the_task_is_refused_when_all_is_known() -> None:
    for options, words in [
        ({"args": {"nonsense": 1}}, "does not take"),
        ({"args": {"shop": object()}}, "not JSON"),
    ]:
        registry = Registry()
        define(registry, **options)
        with pytest.raises(TaskError, match=words):
            declared(registry)


def test_a_schedule_without_a_task_and_two_of_one_name_are_refused() -> None:
    registry = Registry()
    with filling(registry):
        cron("@daily")(lambda job: None)
    with pytest.raises(TaskError, match="is not a task"):
        declared(registry)
    registry = Registry()
    clean = define(registry)
    with filling(registry):
        cron("@hourly", name="clean")(clean)
    with pytest.raises(TaskError, match="two schedules are named clean"):
        declared(registry)


def test_arguments_that_a_task_encrypts_are_not_stored_in_the_open() -> None:
    registry = Registry()
    with filling(registry):

        @cron("@daily", args={"card": "4111"})
        @task(name="pay", encrypt=True)
        async def pay(job: Job, card: str) -> None:
            """Nothing."""

    with pytest.raises(TaskError, match="encrypts its own") as caught:
        declared(registry)
    assert "4111" not in str(caught.value)
