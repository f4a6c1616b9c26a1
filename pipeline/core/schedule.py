"""Which runs a schedule has to make now.

Owns: the policies for runs that were missed, and what a schedule looks like. Knows no clock and no database.

A schedule has a mark, `until`: every scheduled time up to it was dealt with. Whoever looks deals with the times
between the mark and now, and moves the mark to now. It never moves back, so a clock that does makes nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Literal, get_args

import msgspec

from pipeline.core.cron import Cron

Missed = Literal["skip", "one", "all"]
MISSED: tuple[Missed, ...] = get_args(Missed)
GRACE_SECONDS = 60.0
"""A run that is at most this late was not missed: a daemon was restarted, or had much to do."""
MAX_MISSED = 100
MOST_MISSED = 10_000
COUNT_MOST = 10_000


class Schedule(msgspec.Struct, frozen=True):
    """A schedule as code defines it. function: the task's. name None: that of the task.

    queue, priority None: the task's own. max_missed: how many runs policy `all` makes up at once. source: where
    it was defined, for messages.
    """

    function: Callable[..., Any]
    name: str | None
    cron: str
    timezone: str
    missed: Missed
    max_missed: int
    args: Mapping[str, Any]
    queue: str | None
    priority: int | None
    source: str


class Decision(msgspec.Struct, frozen=True):
    """runs: the scheduled times to make a job for, in order. skipped: how many times get none, at least when
    `more`. next: the first time after now."""

    runs: tuple[int, ...]
    skipped: int
    more: bool
    next: int


def decide(cron: Cron, missed: Missed, until: float, now: float, max_missed: int = MAX_MISSED) -> Decision:
    """What is to be done at `now` with the times since the mark.

    skip: the newest run if it is at most GRACE_SECONDS late. one: the newest, however late. all: every one, and of
    more than `max_missed` the newest.
    """
    if now <= until:
        return Decision((), 0, False, cron.next(until))
    counted = sum(1 for _ in islice(cron.between(until, now), COUNT_MOST + 1))
    runs = cron.newest(until, now, max_missed if missed == "all" else 1) if counted else []
    if missed == "skip":
        runs = [at for at in runs if now - at <= GRACE_SECONDS]
    return Decision(tuple(runs), min(counted, COUNT_MOST) - len(runs), counted > COUNT_MOST, cron.next(now))
