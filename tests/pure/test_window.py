"""Windows of timings in memory: which window, what is rejected, every bound, and that threads lose nothing."""

from __future__ import annotations

import math
import threading
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from pipeline.core.window import (
    BATCH,
    LARGE_BATCH,
    MAX_MS,
    MAX_OTHERS,
    OTHER,
    Part,
    Windows,
    series_name,
    window_start,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def windows_at(now: float = 100.0, **options: Any) -> tuple[Windows, Clock]:
    clock = Clock(now)
    return Windows(clock, **options), clock


def counts(parts: list[Part]) -> dict[tuple[str, int], int]:
    return {(part.series.text, part.start): part.digest.count for part in parts}


def test_a_window_is_taken_once_it_has_closed_and_only_once() -> None:
    windows, clock = windows_at(100)
    live = windows.series("a")
    for clock.now in (100, 104.9, 105):
        live.add(1)
    assert windows.take(104.99) == []
    assert counts(windows.take(105)) == {("a", 100): 2}
    assert windows.take(105) == []
    assert counts(windows.take(None)) == {("a", 105): 1}


def test_late_data_goes_to_its_own_window_and_is_counted_as_late() -> None:
    windows, clock = windows_at(100)
    live = windows.series("a")
    live.add(1)
    clock.now = 200
    windows.take(200)
    live.add(3)
    assert live.add_at(2, 101)
    assert counts(windows.take(None)) == {("a", 100): 1, ("a", 200): 1}
    assert windows.late_total == 1


def test_a_clock_that_runs_ahead_opens_no_window_of_the_far_future() -> None:
    windows, _clock = windows_at(100)
    windows.series("a").add_at(1, 3_700)
    assert counts(windows.take(None)) == {("a", 105): 1}
    assert windows.ahead_total == 1


def test_windows_follow_the_clock_of_the_database() -> None:
    windows, _clock = windows_at(100)
    windows.ahead = 1_000.0
    live = windows.series("a")
    live.add(1)
    live.add_at(1, 1_100)
    assert counts(windows.take(None)) == {("a", 1_100): 2}


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    windows, clock = windows_at(3_700)
    live = windows.series("a")
    live.add(1)
    clock.now = 100
    assert counts(windows.take(100)) == {("a", 3_700): 1}
    live.add(1)
    assert counts(windows.take(105)) == {("a", 100): 1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.001, 1e308, 10**400, "7", None, 1j, object()])
def test_what_is_no_duration_is_counted_as_rejected_and_never_stored(bad: Any) -> None:
    windows, _clock = windows_at()
    live = windows.series("a")
    live.add(bad)
    assert not live.add_at(bad, 100)
    assert (windows.rejected_total, windows.added_total, windows.take(None)) == (2, 0, [])


def test_the_longest_durations_leave_a_sum_that_can_be_used() -> None:
    windows, _clock = windows_at()
    live = windows.series("a")
    for ms in (MAX_MS, Decimal("1.5"), True, 0):
        live.add(ms)  # type: ignore[arg-type]  # whatever can be a float
    [part] = windows.take(None)
    assert (part.digest.count, part.digest.total, part.digest.low) == (4, MAX_MS + 2.5, 0)


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, "noon"])
def test_a_time_that_is_none_is_rejected(at: Any) -> None:
    windows, _clock = windows_at()
    assert not windows.series("a").add_at(1, at)
    assert windows.rejected_total == 1


def test_nothing_is_no_timing() -> None:
    windows = Windows(lambda: 1_000.0)
    windows.series("s").add_many([])
    assert not windows.series("s").add_all_at([], 1_000.0)
    assert windows.take(None) == []
    assert windows.rejected_total == 0


def test_what_is_older_than_the_minutes_that_are_kept_is_rejected() -> None:
    windows, _clock = windows_at(1_000_000)
    live = windows.series("a")
    assert (live.add_at(1, 1_000_000 - 47 * 3_600), live.add_at(1, 1_000_000 - 49 * 3_600)) == (True, False)


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_that_cannot_be_used_is_rejected(name: Any) -> None:
    windows, _clock = windows_at()
    windows.series(name).add(1)
    assert not windows.series(name, {"a": 1}).add_at(1, 100)
    assert (windows.rejected_total, windows.live_series()) == (2, 0)


def test_long_names_and_labels_are_cut_and_stay_apart() -> None:
    windows, _clock = windows_at()
    for end in "ab":
        live = windows.series("x" * 300 + end, {"sql": "y" * 5_000 + end, **{f"k{i:02}": i for i in range(20)}})
        assert live is windows.series(
            "x" * 300 + end, {"sql": "y" * 5_000 + end, **{f"k{i:02}": i for i in range(20)}}
        )
        live.add(1)
    names = {part.series.name for part in windows.take(None)}
    assert {len(name) for name in names} == {200}
    assert len(names) == 2
    assert windows.cut_total > 0


@pytest.mark.parametrize("letter", ["\u4e00", "\U00020000"])
@pytest.mark.parametrize("length", [28, 199, 300])
def test_no_text_of_a_series_is_longer_than_an_index_takes(letter: str, length: int) -> None:
    windows, _clock = windows_at()
    found = {
        windows.series(letter * 200, {f"{letter * 190}{n}": letter * length + end for n in range(10)}).series.text
        for end in "ab"
    }
    assert len(found) == 2
    assert all(len(text.encode()) < 2_500 for text in found)


def test_what_would_make_the_name_of_a_series_ambiguous_is_replaced() -> None:
    windows, _clock = windows_at()
    live = windows.series('a{b="c"}\n', {'k",l="': 'say "x"', "route": "/orders/{id}"})
    assert live.series.text == 'a_b=_c___{k__l__="say _x_",route="/orders/{id}"}'


@pytest.mark.parametrize(
    ("name", "labels", "meant"),
    [
        ("n", {"x": 'a",y="b'}, 'n{x="a_,y=_b"}'),
        ("n", {'x="a",y': "b"}, 'n{x__a__y="b"}'),
        ('n{x="a",y="b"}', None, "n_x=_a_,y=_b__"),
        ('n{x="a",y', {"": ""}, "n_x=_a_,y"),
    ],
)
def test_no_label_reaches_the_series_of_others(name: str, labels: dict[str, str] | None, meant: str) -> None:
    windows, _clock = windows_at()
    windows.series("n", {"x": "a", "y": "b"}).add(1)
    windows.series(name, labels).add(2)
    assert {part.series.text for part in windows.take(None)} == {'n{x="a",y="b"}', meant}


@pytest.mark.parametrize(
    ("value", "text"),
    [(UUID(int=5), str(UUID(int=5))), (date(2026, 1, 2), "2026-01-02"), (True, "true"), ([1], "[1]")],
)
def test_a_label_of_any_kind_has_a_text(value: object, text: str) -> None:
    windows, _clock = windows_at()
    assert windows.series("a", {"k": value}) is windows.series("a", {"k": text})
    assert windows.series("a", {"k": value}).series.labels == {"k": text}


def test_rows_of_a_timing_that_is_just_being_added_are_kept() -> None:
    windows, clock = windows_at()
    live = windows.series("a")
    live.add(1)
    assert windows.take(None)
    live._rows.append(7)  # so far another thread has come
    clock.now += 5
    live.add(1)
    [part] = windows.take(None)
    assert (part.digest.count, part.rows) == (1, 7)


def test_errors_slow_ones_and_rows_are_counted_beside_the_digest() -> None:
    windows, _clock = windows_at(slow_ms=10)
    live = windows.series("a")
    live.add(10, rows=3)
    live.add(11, error=True)
    live.add_at(12, 100, error=True, rows=4)
    [part] = windows.take(None)
    assert (part.digest.count, part.errors, part.over, part.rows, part.digest.total) == (3, 2, 2, 7, 33)


@pytest.mark.parametrize(("series", "batch"), [(1, LARGE_BATCH), (2_000, BATCH)])
def test_a_buffer_that_is_full_goes_to_the_digest_by_itself(series: int, batch: int) -> None:
    windows, _clock = windows_at()
    lives = [windows.series(f"s{i}") for i in range(series)]
    for i in range(batch * 2 + 1):
        lives[0].add(i)
    assert windows.added_total == batch * 2
    [part] = windows.take(None)
    assert (part.digest.count, part.digest.high) == (batch * 2 + 1, batch * 2)
    assert part.digest.total == batch * (batch * 2 + 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e308])
def test_several_at_once_are_checked_one_by_one(bad: float) -> None:
    windows, _clock = windows_at()
    live = windows.series("a")
    live.add_many([])
    live.add_many([2.0, bad, 3.0])
    live.add_many([bad])
    live.add_many([1.0] * LARGE_BATCH)
    live.add_many(["x"])  # type: ignore[list-item]
    assert windows.added_total == LARGE_BATCH + 2
    [part] = windows.take(None)
    assert (part.digest.count, part.digest.total) == (LARGE_BATCH + 2, LARGE_BATCH + 5)
    assert windows.rejected_total == 3


def test_four_threads_lose_no_timing_while_windows_turn_and_are_taken() -> None:
    windows, clock = windows_at()
    each, begun, taken = 60_000, threading.Barrier(5), 0

    def work() -> None:
        begun.wait()
        for i in range(each):
            windows.series("a").add(1, error=i % 3 == 0, rows=2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    parts = []
    while any(thread.is_alive() for thread in threads):
        clock.now += 1.0
        parts += windows.take(clock.now)
        taken += 1
    parts += windows.take(None)
    assert sum(part.digest.count for part in parts) == 4 * each == windows.added_total
    assert sum(part.digest.total for part in parts) == 4 * each
    assert sum(part.errors for part in parts) == 4 * each // 3
    assert sum(part.rows for part in parts) == 8 * each
    assert taken > 10


def test_what_a_thread_appends_while_others_take_stands_in_the_next_part() -> None:
    windows, _clock = windows_at()
    live = windows.series("a")
    live.add(1)
    buffer = live._values  # as a thread holds it that is stopped right before its append
    assert counts(windows.take(None)) == {("a", 100): 1}
    buffer.append(2)
    assert counts(windows.take(None)) == {("a", 100): 1}


def test_not_every_name_gets_an_other_series_of_its_own() -> None:
    windows, _clock = windows_at(max_series=MAX_OTHERS + 50)
    for i in range(MAX_OTHERS + 50):
        windows.series(f"n{i}").add(1)
    for i in range(MAX_OTHERS + 50):
        windows.series(f"n{i}", {"user": i}).add(1)
    texts = {part.series.text for part in windows.take(None)}
    assert sum(text.endswith('{other="true"}') for text in texts) == MAX_OTHERS
    assert OTHER in texts


def test_series_beyond_the_bound_go_to_other_and_say_so() -> None:
    windows, _clock = windows_at(max_series=2)
    for name in ("a", "b", "c", "d", "a"):
        windows.series(name).add(1)
    windows.series("a", {"user": 7}).add_at(1, 100)
    assert counts(windows.take(None)) == {
        ("a", 100): 2, ("b", 100): 1, (OTHER, 100): 2, ('a{other="true"}', 100): 1,
    }  # fmt: skip
    assert (windows.overflowed_total, windows.live_series()) == (3, 2)


def test_many_names_take_no_more_memory_than_the_bound() -> None:
    windows, _clock = windows_at(max_series=10, max_parts=50)
    for i in range(5_000):
        windows.series(f"n{i}", {"user": i}).add(1)
        windows.series("n1", {"user": i}).add(1)
    assert windows.live_series() == 10
    assert len(windows.parts()) <= 20
    assert sum(part.digest.count for part in windows.take(None)) == 10_000


def test_a_series_that_fell_silent_makes_room_and_its_handle_stays_good() -> None:
    windows, clock = windows_at(0, max_series=2, forget_seconds=60)
    first = windows.series("a")
    first.add(1)
    clock.now = 50
    windows.series("b").add(1)
    clock.now = 100
    windows.series("c").add(1)
    assert counts(windows.take(None)) == {("a", 0): 1, ("b", 50): 1, ("c", 100): 1}
    first.add(1)  # there is no room for it now
    clock.now = 300
    first.add(1)
    assert counts(windows.take(None)) == {("other", 100): 1, ("a", 300): 1}
    assert windows.series("a") is first


def test_without_anybody_who_takes_them_the_oldest_windows_are_dropped_and_counted() -> None:
    windows, clock = windows_at(0, max_parts=20)
    for clock.now in range(0, 500, 5):
        windows.series("a").add(1)
    parts = windows.take(None)
    assert 10 <= len(parts) <= 20
    assert max(part.start for part in parts) == 495
    assert min(part.start for part in parts) == 500 - 5 * len(parts)
    assert windows.dropped_total == 100 - len(parts)


def test_windows_start_at_multiples_of_their_length() -> None:
    assert [window_start(at) for at in (0, 4.999, 5, 61)] == [0, 0, 5, 60]
    assert window_start(3_661, 3_600) == 3_600


def test_labels_become_part_of_the_name_in_a_fixed_order() -> None:
    assert series_name("checkout", {"b": 1, "a": "eu"}) == 'checkout{a="eu",b="1"}'
    assert series_name("checkout", {}) == "checkout"
