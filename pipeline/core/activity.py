"""What sessions were found at when they were looked at.

Owns: how looks add up to a minute, how many kinds of waiting are kept apart, how often to look. Knows no SQL and
no clock.

A look finds a statement with a chance that grows with how long it runs: one of 10 s is found ten thousand times as
often as one of 1 ms. So looks say how many sessions were at what, on average, and nothing of how long a statement
takes; their ages never become timings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

Wait: TypeAlias = tuple[int, str, str]  # query id, or 0; type and event, both empty for a session that runs
KEPT = 200  # kinds in one minute; with 48 hours at most 580,000 rows, about 50 MB
OTHER: Wait = (0, "other", "")
EVERY_SECONDS = 1.0
SHARE = 0.02  # of the time that looks may take
SLOWEST_SECONDS = 30.0  # between two looks, however long they take
OFF_SECONDS = 0.5  # a look that takes longer puts an end to looking for a while
PAUSE_SECONDS = 60.0


class Sample(msgspec.Struct, frozen=True):
    """One look at the sessions of this database, ours left out.

    waits: how many active sessions were at what. hidden: sessions whose doings the role may not see. blocked: how
    many waited for a lock. longest_transaction_seconds: the age of the oldest transaction;
    longest_idle_seconds: for how long one has been idle in a transaction. These three are 0 for none, and are of
    the sessions that are seen; None when none was found and some are hidden.
    """

    waits: tuple[tuple[Wait, int], ...]
    sessions: int
    hidden: int
    blocked: int | None
    longest_transaction_seconds: float | None
    longest_idle_seconds: float | None

    @property
    def active(self) -> int:
        """How many sessions were active."""
        return sum(number for _, number in self.waits)


class Minute:
    """The looks of one minute. start: Unix seconds."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.samples = 0
        self.active = 0
        self.blocked_most = 0
        self.longest_transaction_seconds: float | None = None
        self.longest_idle_seconds: float | None = None
        self.waits: dict[Wait, int] = {}

    def add(self, sample: Sample) -> None:
        """Count one look. Kinds beyond KEPT become OTHER."""
        self.samples += 1
        self.active += sample.active
        self.blocked_most = max(self.blocked_most, sample.blocked or 0)
        self.longest_transaction_seconds = _longest(
            (self.longest_transaction_seconds, sample.longest_transaction_seconds)
        )
        self.longest_idle_seconds = _longest((self.longest_idle_seconds, sample.longest_idle_seconds))
        for wait, number in sample.waits:
            room = wait in self.waits or len(self.waits) < KEPT
            kept = wait if room else OTHER
            self.waits[kept] = self.waits.get(kept, 0) + number


def pause(took: float) -> float:
    """How long to wait after a look that took so many seconds."""
    if took > OFF_SECONDS:
        return PAUSE_SECONDS
    return min(max(EVERY_SECONDS - took, took / SHARE), SLOWEST_SECONDS)


def _longest(found: Iterable[float | None]) -> float | None:
    return max((one for one in found if one is not None), default=None)
