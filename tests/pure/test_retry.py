"""The backoff between attempts."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.retry import Backoff


def test_without_jitter_the_wait_doubles_up_to_its_bound() -> None:
    backoff = Backoff(first=1, factor=2, longest=10, jitter=0)
    assert [backoff.delay(n, Random(0)) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_jitter_takes_a_part_of_the_wait_away() -> None:
    backoff = Backoff(first=8, factor=2, jitter=0.5)
    waits = {backoff.delay(1, Random(seed)) for seed in range(200)}
    assert len(waits) > 100
    assert 4 <= min(waits) < 4.5
    assert 7.5 < max(waits) <= 8


def test_the_same_rng_gives_the_same_wait() -> None:
    assert Backoff().delay(3, Random(7)) == Backoff().delay(3, Random(7))


@given(
    attempt=st.integers(1, 10**9),
    factor=st.floats(1, 1e300),
    first=st.floats(0, 1e300),
    longest=st.floats(0, 1e6),
)
def test_no_attempt_number_overflows_or_waits_longer_than_the_bound(
    attempt: int, factor: float, first: float, longest: float
) -> None:
    assert 0 <= Backoff(first=first, factor=factor, longest=longest).delay(attempt, Random(1)) <= longest


@pytest.mark.parametrize(
    "wrong", [{"first": -1}, {"factor": 0.5}, {"jitter": 2}, {"jitter": -0.1}, {"longest": float("nan")}]
)
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(**wrong)
