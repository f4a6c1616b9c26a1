"""Rules on measurements: due windows, verdicts, instances, texts."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alert import NEVER, Policy, State
from pipeline.core.alert_notice import pause
from pipeline.core.alert_rule import Alert, Measure, Rule, due_windows, judge_window, outdated, render

RULE = Rule(
    id=1,
    name="slow",
    metric="latency.p95",
    series="orders.%",
    seconds=60,
    comparison=">",
    threshold=100.0,
    min_samples=5,
    severity="warning",
    message="{series}: {value} ms, more than {threshold} {nobody}",
    revision="1",
    policy=Policy(need=1, keep_firing=1),
)


def measure(series: str, p95: float, count: int = 10) -> Measure:
    return Measure(series, count, 1, mean=1, p50=2, p95=p95, p99=4, max=5)


def test_a_window_is_due_once_its_grace_is_over() -> None:
    due = {now: due_windows(120, now, seconds=60, grace=2, keep=3_600) for now in (179, 181.9, 182, 242)}
    assert due == {179: [], 181.9: [], 182: [120], 242: [120, 180]}


def test_a_rule_made_in_the_middle_of_a_window_begins_with_the_next() -> None:
    assert due_windows(130, 250, seconds=60, grace=0, keep=3_600) == [180]


def test_an_outage_counts_neither_for_nor_against() -> None:
    assert due_windows(0, 1_000_000, seconds=5, grace=0, keep=20) == [999_980, 999_985, 999_990, 999_995]
    assert len(due_windows(0, 1_000_000, seconds=5, grace=0, keep=1e9)) == 60


@settings(deadline=None)
@given(st.lists(st.floats(0, 500), max_size=30), st.sampled_from([5, 10, 60]))
def test_every_window_is_due_exactly_once_whenever_one_looks(pauses: list[float], seconds: int) -> None:
    judged_until, now, seen = 1_000.0, 1_000.0, []
    for wait in pauses:
        now += min(wait, seconds * 50)
        windows = due_windows(judged_until, now, seconds=seconds, grace=2, keep=1e6)
        if windows:
            judged_until = windows[-1] + seconds
        seen += windows
    first = math.ceil(1_000 / seconds) * seconds
    assert seen == [first + i * seconds for i in range(len(seen))]


@pytest.mark.parametrize(
    ("comparison", "value", "bad"),
    [
        (">", 100, False),
        (">", 101, True),
        (">=", 100, True),
        ("<", 100, False),
        ("<", 99, True),
        ("<=", 100, True),
    ],
)
def test_the_comparison_decides(comparison: str, value: float, bad: bool) -> None:
    rule = msgspec.structs.replace(RULE, comparison=comparison)
    [judged], _ = judge_window(rule, {}, [measure("a", value)], 0)
    assert (judged.change == "firing") == bad


def test_each_series_is_an_instance_of_its_own() -> None:
    judged, problem = judge_window(RULE, {}, [measure("b", 500), measure("a", 1)], 60)
    assert [(one.alert.instance, one.alert.life.state) for one in judged] == [
        ("a", "inactive"),
        ("b", "firing"),
    ]
    assert (judged[1].alert.life.fired_at, judged[1].alert.life.episode, problem) == (120.0, 120, "")


def test_too_few_samples_are_no_data() -> None:
    [judged], _ = judge_window(RULE, {}, [measure("a", 500, count=4)], 0)
    assert judged.alert.life == NEVER


def test_an_instance_that_is_silent_is_judged_as_without_data() -> None:
    [fired], _ = judge_window(RULE, {}, [measure("a", 500)], 0)
    [judged], _ = judge_window(RULE, {"a": fired.alert}, [], 60)
    assert (judged.alert.life.state, judged.alert.life.silent, judged.alert.value) == (State.FIRING, 1, 500)


def test_a_resolved_alert_says_what_it_said_when_it_ended() -> None:
    [fired], _ = judge_window(RULE, {}, [measure("a", 500)], 0)
    [ended], _ = judge_window(RULE, {"a": fired.alert}, [measure("a", 7)], 60)
    [later], _ = judge_window(RULE, {"a": ended.alert}, [measure("a", 9)], 120)
    assert ended.change == "resolved"
    assert later.alert == ended.alert


def test_a_pattern_that_matches_too_much_is_judged_in_part_and_says_so() -> None:
    judged, problem = judge_window(RULE, {}, [measure(f"s{i}", 1) for i in range(501)], 0)
    assert len(judged) == 500
    assert "501 series match orders.%" in problem


def test_instances_of_another_wording_of_the_rule_are_resolved() -> None:
    [fired], _ = judge_window(RULE, {}, [measure("a", 500)], 0)
    changed = msgspec.structs.replace(RULE, revision="2")
    assert outdated(RULE, {"a": fired.alert}, 60.0) == []
    [judged] = outdated(changed, {"a": fired.alert}, 60.0)
    assert (judged.change, judged.alert.revision, judged.reason) == ("resolved", "2", "rule changed")


def test_a_message_fills_in_what_it_knows_and_interprets_nothing() -> None:
    assert render(RULE, "{value}", 123.456) == "{value}: 123.5 ms, more than 100 {nobody}"
    assert render(RULE, "a", None).startswith("a: unknown ms")


def test_the_error_rate_is_errors_by_count() -> None:
    assert measure("a", 1).value("latency.error_rate") == 0.1
    assert measure("a", 7).value("latency.p95") == 7


def test_pauses_between_attempts_grow_to_five_minutes() -> None:
    assert [pause(attempts, 1.0) for attempts in (1, 2, 3, 9, 50)] == [1, 2, 4, 256, 300]
    assert pause(1, 0.0) == 0.5


def test_an_alert_without_a_past_is_inactive() -> None:
    assert Alert("raised", "a", "", NEVER, "info", "").life.state is State.INACTIVE
