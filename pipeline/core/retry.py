"""How long a job waits after a run that failed.

Owns: the backoff. Knows neither the time nor what failed.
"""

from __future__ import annotations

from random import Random

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """Exponential backoff: first * factor ** (attempt - 1), at most `longest`, all in seconds.

    jitter: the share of the wait that is left to chance, 0 to 1, so that jobs that failed together, because
    something they share was down, do not all come back in the same moment. Raises ValueError for parameters
    that make no sense.
    """

    first: float = 5.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not (self.first >= 0 and self.factor >= 1 and self.longest >= 0 and 0 <= self.jitter <= 1):
            raise ValueError("backoff needs first >= 0, factor >= 1, longest >= 0 and jitter from 0 to 1")

    def delay(self, attempt: int, rng: Random) -> float:
        """Seconds to wait after attempt number `attempt` (from 1) has failed."""
        wait = self.first
        for _ in range(min(attempt - 1, 1_000)):  # multiplied step by step: a power would overflow
            if wait >= self.longest or self.factor == 1 or wait == 0:
                break
            wait *= self.factor
        wait = min(wait, self.longest)
        return wait * (1 - self.jitter * rng.random())
