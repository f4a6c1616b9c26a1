"""Windows of timings in memory: which window, what is rejected, the bound on series."""

from __future__ import annotations

import math

import pytest

from pipeline.core.window import OTHER, Part, Windows, roll_up, series_name, window_start


def counts(parts: list[Part]) -> dict[tuple[str, int], int]:
    return {(part.series, part.start): part.digest.count for part in parts}


def test_a_window_is_taken_once_it_has_closed_and_only_once() -> None:
    windows = Windows()
    windows.add("a", 1, at=100, now=100)
    windows.add("a", 2, at=104.9, now=104.9)
    windows.add("a", 3, at=105, now=105)
    assert windows.take(104.99) == []
    assert counts(windows.take(105)) == {("a", 100): 2}
    assert windows.take(105) == []
    assert counts(windows.take(None)) == {("a", 105): 1}


def test_late_data_goes_to_its_own_window() -> None:
    windows = Windows()
    windows.add("a", 1, at=100, now=100)
    windows.take(200)
    windows.add("a", 2, at=101, now=200)
    assert counts(windows.take(200)) == {("a", 100): 1}


def test_a_clock_that_runs_ahead_opens_no_window_of_the_far_future() -> None:
    windows = Windows()
    windows.add("a", 1, at=1e9, now=100)
    assert counts(windows.take(None)) == {("a", 105): 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.001])
def test_a_value_that_is_no_duration_is_counted_as_rejected_and_never_stored(bad: float) -> None:
    windows = Windows()
    assert not windows.add("a", bad, at=100, now=100)
    assert (windows.rejected_total, windows.added_total, windows.take(None)) == (1, 0, [])


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_that_cannot_be_used_is_rejected(name: str) -> None:
    assert not Windows().add(name, 1, at=1, now=1)


def test_errors_and_slow_ones_are_counted_beside_the_digest() -> None:
    windows = Windows(slow_ms=10)
    windows.add("a", 10, at=1, now=1)
    windows.add("a", 11, at=1, now=1, error=True)
    [part] = windows.take(None)
    assert (part.digest.count, part.errors, part.over, part.digest.total) == (2, 1, 1, 21)


def test_series_beyond_the_bound_go_to_other_and_say_so() -> None:
    windows = Windows(max_series=2)
    for name in ("a", "b", "c", "d", "a"):
        windows.add(name, 1, at=1, now=1)
    assert counts(windows.take(None)) == {("a", 0): 2, ("b", 0): 1, (OTHER, 0): 2}
    assert (windows.overflowed_total, windows.live_series()) == (2, 2)


def test_a_series_that_fell_silent_makes_room() -> None:
    windows = Windows(max_series=2, forget_seconds=60)
    windows.add("a", 1, at=0, now=0)
    windows.add("b", 1, at=50, now=50)
    windows.add("c", 1, at=100, now=100)
    assert {series for series, _ in counts(windows.take(None))} == {"a", "b", "c"}
    assert windows.live_series() == 2


def test_parts_that_could_not_be_written_come_back() -> None:
    windows = Windows()
    windows.add("a", 1, at=1, now=1)
    taken = windows.take(None)
    windows.add("a", 2, at=2, now=2)
    windows.restore(taken)
    assert counts(windows.take(None)) == {("a", 0): 2}


def test_rolling_up_keeps_counts_exactly() -> None:
    windows = Windows(slow_ms=50)
    for at in range(600):
        windows.add("a", at % 100, at=at, now=at, error=at % 7 == 0)
    [first, second] = sorted(roll_up(windows.take(None), 300), key=lambda part: part.start)
    assert (first.start, second.start) == (0, 300)
    assert first.digest.count + second.digest.count == 600
    assert first.errors + second.errors == sum(at % 7 == 0 for at in range(600))
    assert first.over + second.over == sum(at % 100 > 50 for at in range(600))


def test_windows_start_at_multiples_of_their_length() -> None:
    assert [window_start(at) for at in (0, 4.999, 5, 61)] == [0, 0, 5, 60]
    assert window_start(3_661, 3_600) == 3_600


def test_labels_become_part_of_the_name_in_a_fixed_order() -> None:
    assert series_name("checkout", {"b": 1, "a": "eu"}) == 'checkout{a="eu",b="1"}'
    assert series_name("checkout", {}) == "checkout"
