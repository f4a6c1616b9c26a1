"""How long a job waits after a run that failed.

Owns: the shapes of the backoff. Knows neither the time nor what failed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import isfinite
from random import Random
from typing import TypeAlias

import msgspec

LONGEST_WAIT = 366 * 86_400.0


class Backoff(msgspec.Struct, frozen=True):
    """The wait before the next attempt: each is `factor` times the one before, plus `step`; in seconds.

    `Backoff()` doubles, `Backoff.linear()` adds, `Backoff.fixed(30)` stays. longest: no wait is above it.
    jitter: the share of the wait that is left to chance, 0 to 1, so that jobs that failed together, because
    something they share was down, do not all come back in the same moment. Raises ValueError for parameters
    that make no sense.
    """

    first: float = 5.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: float = 0.5
    step: float = 0.0

    def __post_init__(self) -> None:
        if not (
            0 <= self.first < float("inf")
            and 1 <= self.factor < float("inf")
            and 0 <= self.step < float("inf")
            and 0 <= self.longest <= LONGEST_WAIT
            and 0 <= self.jitter <= 1
        ):
            raise ValueError(
                "backoff needs first >= 0, factor >= 1, step >= 0, longest from 0 to a year and jitter from 0 to 1"
            )

    @classmethod
    def linear(
        cls, step: float = 5.0, *, first: float | None = None, longest: float = 3600.0, jitter: float = 0.5
    ) -> Backoff:
        """`first` (as long as a step by default), and `step` seconds more after each further failure."""
        return cls(step if first is None else first, 1.0, longest, jitter, step)

    @classmethod
    def fixed(cls, seconds: float, *, jitter: float = 0.5) -> Backoff:
        """The same wait after each failure."""
        return cls(seconds, 1.0, seconds, jitter)

    def delay(self, attempt: int, rng: Random) -> float:
        """Seconds to wait after attempt number `attempt` (from 1) has failed."""
        wait = self.first
        if self.factor == 1:
            wait += self.step * min(attempt - 1, 10**9)
        else:
            for _ in range(min(attempt - 1, 1_000)):  # multiplied step by step: a power would overflow
                if wait >= self.longest or (wait == 0 and self.step == 0):
                    break
                wait = wait * self.factor + self.step
        return min(wait, self.longest) * (1 - self.jitter * rng.random())


CustomBackoff: TypeAlias = Callable[[int, BaseException], float | timedelta]
"""From the number of the attempt that failed and its error to the wait, in seconds; jitter is taken off it."""


def seconds_of(value: object, what: str) -> float:
    """Seconds given as a number or a timedelta. Raises ValueError unless it is from 0 to a year."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isfinite(seconds):
        raise ValueError(f"{what} is to be seconds or a timedelta, not {value!r:.100}")
    if not 0 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"{what} is to be from 0 seconds to a year, not {value!r:.100}")
    return float(seconds)


def delay_after(
    backoff: Backoff | CustomBackoff, attempt: int, error: BaseException, rng: Random
) -> tuple[float, str]:
    """Seconds to wait, and what is wrong with a function that was to tell, in whose place the default serves."""
    if isinstance(backoff, Backoff):
        return backoff.delay(attempt, rng), ""
    default = Backoff()
    try:
        wait = seconds_of(backoff(attempt, error), "the wait")
    except Exception as raised:  # it is the user's, and the job needs an answer
        return default.delay(attempt, rng), f"{type(raised).__name__}: {raised}"
    return wait * (1 - default.jitter * rng.random()), ""
