"""When the jobs of a task that takes many at once are run.

Owns: that decision. Knows neither jobs nor the time.
"""

from __future__ import annotations


def batch_wait(held: int, size: int, oldest: float, longest: float) -> float:
    """Seconds until the jobs at hand are to be run, unless more arrive first; 0 is now.

    held: how many are at hand. size: how many a batch takes. oldest: seconds that the first of them has
    waited for company. longest: seconds that it may.
    """
    if held <= 0:
        return longest
    return 0.0 if held >= size else max(0.0, longest - oldest)
