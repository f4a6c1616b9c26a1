"""Rules on measurements: due windows, verdicts, instances, texts."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alert import NEVER, Policy, State
from pipeline.core.alert_metric import METRICS, Reading, Timing, per_minute, reading_of
from pipeline.core.alert_rule import Alert, Judged, Look, Rule, clash, due_windows, judge_window, outdated, render

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


def measure(series: str, p95: float | None, count: int = 10, **labels: str) -> Reading:
    return Reading(series, p95, labels, count)


def judge(
    rule: Rule,
    alerts: dict[str, Alert],
    readings: list[Reading],
    start: int = 0,
    *,
    partial: bool = False,
    late: bool = False,
) -> tuple[list[Judged], str]:
    return judge_window(rule, alerts, Look(start, readings, partial, late))


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
    judged, _ = judge(rule, {}, [measure("a", value)])
    assert [one.change for one in judged] == ["firing"] * bad


def test_each_series_is_an_instance_of_its_own_and_a_good_one_leaves_nothing() -> None:
    judged, problem = judge(RULE, {}, [measure("b", 500), measure("a", 1), measure("c", 501)], 60)
    assert [(one.alert.instance, one.alert.life.state) for one in judged] == [("b", "firing"), ("c", "firing")]
    assert (judged[0].alert.life.fired_at, judged[0].alert.life.episode, problem) == (120.0, 120, "")


@pytest.mark.parametrize("reading", [measure("a", 500, 4), measure("a", None), measure("a", math.nan)])
def test_too_few_samples_and_no_number_are_no_data(reading: Reading) -> None:
    assert judge(RULE, {}, [reading]) == ([], "")
    [fired], _ = judge(RULE, {}, [measure("a", 500)])
    [judged], _ = judge(RULE, {"a": fired.alert}, [reading], 60)
    assert (judged.alert.life.state, judged.alert.life.silent) == (State.FIRING, 1)


def test_an_instance_that_is_silent_is_judged_as_without_data() -> None:
    [fired], _ = judge(RULE, {}, [measure("a", 500)])
    [judged], _ = judge(RULE, {"a": fired.alert}, [], 60)
    assert (judged.alert.life.state, judged.alert.life.silent, judged.alert.value) == (State.FIRING, 1, 500)


def test_an_instance_that_a_query_does_not_return_any_more_is_good() -> None:
    rule = msgspec.structs.replace(RULE, metric="sql", threshold=None, query="select 1", min_samples=1)
    [fired], _ = judge(rule, {}, [measure("a", None)])
    assert (fired.change, fired.reason) == ("firing", "the query returned it")
    [judged], _ = judge(rule, {"a": fired.alert}, [], 60)
    assert (judged.change, judged.reason) == ("resolved", "it is gone")


def test_what_is_silent_in_a_late_window_counts_neither_for_nor_against() -> None:
    [fired], _ = judge(RULE, {}, [measure("a", 500)])
    for readings in ([], [measure("a", 1, count=1)]):
        [judged], _ = judge(RULE, {"a": fired.alert}, readings, 60, late=True)
        assert judged.alert.life == fired.alert.life
    [judged], _ = judge(RULE, {"a": fired.alert}, [measure("a", 1)], 60, late=True)
    assert judged.change == "resolved"


def test_a_firing_alert_clears_only_beyond_the_clear_threshold() -> None:
    rule = msgspec.structs.replace(RULE, clear_threshold=80.0, policy=Policy(need=2, keep_firing=1))
    [pending], _ = judge(rule, {}, [measure("a", 101)])
    [calm], _ = judge(rule, {"a": pending.alert}, [measure("a", 90)], 60)
    assert calm.alert.life == NEVER, "one that does not fire is judged by the threshold"
    [fired], _ = judge(rule, {"a": pending.alert}, [measure("a", 101)], 60)
    [still], _ = judge(rule, {"a": fired.alert}, [measure("a", 90)], 120)
    [over], _ = judge(rule, {"a": still.alert}, [measure("a", 80)], 180)
    assert [one.alert.life.state for one in (fired, still, over)] == ["firing", "firing", "resolved"]


def test_a_resolved_alert_says_what_it_said_when_it_ended() -> None:
    [fired], _ = judge(RULE, {}, [measure("a", 500)])
    [ended], _ = judge(RULE, {"a": fired.alert}, [measure("a", 7)], 60)
    assert (ended.change, ended.alert.message) == ("resolved", fired.alert.message)
    assert judge(RULE, {"a": ended.alert}, [measure("a", 9)], 120) == ([], "")
    [again], _ = judge(RULE, {"a": ended.alert}, [measure("a", 900)], 180)
    assert (again.change, again.alert.life.episode) == ("firing", 240)


def test_a_rule_that_matches_too_much_is_judged_in_part_and_says_so() -> None:
    rule = msgspec.structs.replace(RULE, max_instances=3)
    judged, problem = judge(rule, {}, [measure(f"s{i}", 1) for i in range(9)])
    assert (judged, problem) == ([], ""), "what is good takes no place"
    judged, problem = judge(rule, {}, [measure(f"s{i}", 500) for i in range(5)])
    assert [one.alert.instance for one in judged] == ["s0", "s1", "s2"]
    assert problem.startswith("too many instances: 5 are bad; only 3")
    alerts = {one.alert.instance: one.alert for one in judged}
    judged, problem = judge(rule, alerts, [measure(f"t{i}", 500) for i in range(9)], 60, partial=True)
    assert [one.alert.life for one in judged] == [alert.life for alert in alerts.values()], "those known stay"
    assert "more than 9" in problem


def test_two_readings_of_one_instance_are_told() -> None:
    assert clash([measure("a", 1), measure("b", 1), measure("a", 2)]) == "a"
    assert clash([measure("a", 1), measure("b", 1)]) is None


def test_instances_of_another_wording_of_the_rule_are_resolved() -> None:
    [fired], _ = judge(RULE, {}, [measure("a", 500)])
    changed = msgspec.structs.replace(RULE, revision="2")
    assert outdated(RULE, {"a": fired.alert}, 60.0) == []
    [judged] = outdated(changed, {"a": fired.alert}, 60.0)
    assert (judged.change, judged.alert.revision, judged.reason) == ("resolved", "2", "rule_changed")


def test_a_message_fills_in_what_it_knows_and_interprets_nothing() -> None:
    assert render(RULE, measure("{value}", 123.456)) == ("{value}: 123.5 ms, more than 100 {nobody}", None)
    assert render(RULE, measure("a", None))[0].startswith("a: unknown ms")
    rule = msgspec.structs.replace(RULE, message="{label.queue} {value} {detail}")
    assert render(rule, Reading("", 1.5e10, {"queue": "{rule}"}, detail="x")) == ("{rule} 15,000,000,000 x", None)


def test_a_message_that_cannot_be_filled_in_loses_no_alert_and_is_told() -> None:
    rule = msgspec.structs.replace(RULE, message="{label.queue} {value}")
    [fired], problem = judge(rule, {}, [measure("a", 500)])
    assert (fired.change, fired.alert.message) == ("firing", "<error expanding template: no label queue> 500")
    assert "cannot be filled in: there is no label queue" in problem


def test_the_figures_of_a_series() -> None:
    timing = Timing("a", 10, 1, mean=1, p50=2, p95=7, p99=4, max=5)
    assert timing.reading("latency.error_rate") == Reading("a", 0.1, {}, 10)
    assert timing.reading("latency.p95").value == 7


def test_a_row_of_a_query_is_an_instance_named_by_its_other_columns() -> None:
    row = {"value": 3, "detail": "d", "b": True, "a": None, "c": 1.5, "d": {"x": 1}}
    assert reading_of(row) == Reading(
        '{a="",b="true",c="1.5",d="{"x":1}"}', 3.0, {"a": "", "b": "true", "c": "1.5", "d": '{"x":1}'}, detail="d"
    )
    assert reading_of({}) == Reading("", None)
    for bad in ({"value": "3"}, {"value": True}, {"a": "x" * 1_000}):
        with pytest.raises(ValueError, match="no number|longer than"):
            reading_of(bad)


def test_a_counter_is_told_by_its_growth_in_a_minute() -> None:
    now = [Reading("a", 13.0), Reading("b", 5.0), Reading("c", 2.0), Reading("d", None)]
    told = per_minute(now, {"a": 3.0, "b": 7.0, "d": 1.0}, 30.0)
    assert [one.value for one in told] == [20.0, None, None, None]
    assert [one.value for one in per_minute(now, {"a": 3.0}, None)] == [None] * 4


def test_what_has_ended_well_or_badly_is_told_for_each_metric() -> None:
    assert {name for name, metric in METRICS.items() if metric.kind == "timing" and metric.gone_is_good} == set()
    assert METRICS["sql"].gone_is_good


def test_an_alert_without_a_past_is_inactive() -> None:
    assert Alert("raised", "a", "", NEVER, "info", "").life.state is State.INACTIVE
