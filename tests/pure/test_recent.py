"""The sliding windows behind the status page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.recent import MOST_SAMPLES, Rate, Recent
from pipeline.core.status import Quantiles

STEPS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 1000)), max_size=60
)  # (seconds since the last, value)


def test_a_window_in_which_nothing_happened_has_no_percentiles() -> None:
    assert Recent(60).quantiles(0.0) == Quantiles(window_seconds=60.0)
    old = Recent(60)
    old.add(5.0, now=100.0)
    assert old.quantiles(160.0).count == 1
    assert old.quantiles(160.1) == Quantiles(window_seconds=60.0)


def test_the_percentiles_of_one_sample_are_that_sample() -> None:
    recent = Recent()
    recent.add(7.0, now=1.0)
    assert recent.quantiles(1.0) == Quantiles(p50=7.0, p95=7.0, p99=7.0, count=1, window_seconds=60.0)


def test_a_full_memory_names_the_time_that_its_samples_span() -> None:
    recent = Recent(60)
    for n in range(MOST_SAMPLES + 1000):
        recent.add(1.0, now=n / 100)
    newest = (MOST_SAMPLES + 999) / 100
    found = recent.quantiles(newest)
    assert found.count == MOST_SAMPLES
    assert found.window_seconds == pytest.approx((MOST_SAMPLES - 1) / 100)


def test_percentiles_are_samples_and_do_not_depend_on_the_order() -> None:
    upwards, downwards = Recent(), Recent()
    for ms in range(1, 1001):
        upwards.add(float(ms), now=1.0)
        downwards.add(float(1001 - ms), now=1.0)
    assert upwards.quantiles(1.0) == downwards.quantiles(1.0)
    found = upwards.quantiles(1.0)
    assert found.p50 == pytest.approx(500, abs=1)
    assert found.p95 == pytest.approx(950, abs=1)
    assert found.p99 == pytest.approx(990, abs=1)


@given(STEPS, st.integers(0, 90))
def test_percentiles_are_those_of_the_samples_in_the_window(steps: list[tuple[int, int]], rest: int) -> None:
    recent, now, kept = Recent(60), 0, []
    for gap, ms in steps:
        now += gap
        recent.add(float(ms), now=float(now))
        kept.append((now, float(ms)))
    now += rest
    values = sorted(ms for at, ms in kept if at >= now - 60)
    found = recent.quantiles(float(now))
    assert found.count == len(values)
    for q, value in ((0.50, found.p50), (0.95, found.p95), (0.99, found.p99)):
        if not values:
            assert value is None
            continue
        assert value in values
        assert sum(v <= value for v in values) >= q * len(values)
        assert sum(v < value for v in values) <= q * len(values)


def test_looking_changes_nothing() -> None:
    recent = Recent()
    recent.add(1.0, now=1.0)
    assert recent.quantiles(2.0) == recent.quantiles(2.0)


def test_of_very_many_samples_the_newest_are_kept() -> None:
    recent = Recent()
    for _ in range(MOST_SAMPLES):
        recent.add(1.0, now=1.0)
    for _ in range(MOST_SAMPLES):
        recent.add(9.0, now=2.0)
    assert recent.quantiles(2.0).count == MOST_SAMPLES
    assert recent.quantiles(2.0).p50 == 9.0


def test_a_rate_is_unknown_before_anything_was_counted() -> None:
    assert Rate().per_second(5.0) is None


def test_a_rate_that_was_told_of_nothing_is_zero() -> None:
    rate = Rate()
    rate.add(0, now=1.0)
    assert rate.per_second(5.0) == 0.0


def test_a_steady_rate_is_told_from_the_beginning() -> None:
    rate = Rate(window=10)
    for second in range(40):
        rate.add(20, now=float(second))
        if second >= 2:
            assert rate.per_second(float(second)) == pytest.approx(20, rel=0.55)
    assert rate.per_second(39.0) == pytest.approx(20, rel=0.15)


def test_a_first_burst_is_not_told_as_an_enormous_rate() -> None:
    rate = Rate(window=10)
    rate.add(500, now=1.0)
    assert rate.per_second(1.0) == 500.0
    assert rate.per_second(1.001) == 500.0


def test_a_rate_falls_to_zero_once_its_window_has_passed() -> None:
    rate = Rate(window=10)
    rate.add(100, now=0.0)
    assert rate.per_second(10.0) == 10.0
    assert rate.per_second(10.1) == 0.0


@given(STEPS, st.integers(0, 20))
def test_a_rate_counts_what_lies_in_its_window(steps: list[tuple[int, int]], rest: int) -> None:
    rate, now, counted = Rate(window=10), 0, []
    for gap, count in steps:
        now += gap
        rate.add(count, now=float(now))
        counted.append((now, count))
    now += rest
    if not counted:
        assert rate.per_second(float(now)) is None
        return
    seconds = max(min(10, now - counted[0][0]), 1)
    expected = sum(count for at, count in counted if at >= now - 10) / seconds
    assert rate.per_second(float(now)) == pytest.approx(expected)
