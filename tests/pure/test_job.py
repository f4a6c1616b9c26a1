"""States of a job, and how many a worker takes."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.job import ENDED, MOST_AHEAD, TRANSITIONS, Job, State, Step, after, claim_size


def job(attempt: int = 1, max_attempts: int = 3) -> Job:
    return Job(1, "t", {}, "default", 0, attempt, max_attempts, None, 0, 0, 1, 0)


def test_what_has_ended_takes_no_further_step_but_an_operator_s() -> None:
    for state in ENDED:
        for step in get_args(Step):
            if step == "redrive" and state != "finished":
                continue
            with pytest.raises(ValueError, match=f"a job that is {state} cannot {step}"):
                after(state, step)


def test_every_state_that_has_not_ended_can_be_left_and_reached() -> None:
    for state in set(get_args(State)) - ENDED:
        assert any(start == state for start, _ in TRANSITIONS)
    assert set(TRANSITIONS.values()) == set(get_args(State)) - {"blocked"}  # where only a job of a workflow begins


def test_only_a_running_job_can_finish_or_fail() -> None:
    assert {start for (start, _), end in TRANSITIONS.items() if end in {"finished", "failed"}} == {"running"}


def test_what_has_not_ended_may_expire_and_be_cancelled() -> None:
    for step in ("expire", "cancel"):
        assert {start for (start, taken) in TRANSITIONS if taken == step} == set(get_args(State)) - ENDED


def test_the_last_attempt_knows_that_it_is_the_last() -> None:
    assert [job(n).last_attempt for n in (1, 2, 3, 4)] == [False, False, True, True]


def test_slow_jobs_are_not_taken_ahead() -> None:
    assert claim_size(10, 0, per_second=1) == 10
    assert claim_size(10, 9, per_second=1) == 1
    assert claim_size(10, 10, per_second=1) == 0


def test_fast_jobs_are_taken_in_large_batches_and_not_one_by_one() -> None:
    assert claim_size(10, 0, per_second=10_000) == 1_010
    assert claim_size(10, 800, per_second=10_000) == 0
    assert claim_size(10, 400, per_second=10_000) == 610


@given(st.integers(1, 1000), st.integers(0, 5000), st.floats(0, 1e9))
def test_a_worker_with_an_idle_slot_and_nothing_else_always_asks(concurrency: int, held: int, rate: float) -> None:
    size = claim_size(concurrency, held, rate)
    assert size >= 0
    assert size + held <= max(held, concurrency + MOST_AHEAD)
    if held < concurrency // 2:
        assert size > 0
