"""What a task may declare about how often its jobs run, and how many of one kind there are.

Owns: the words for rates and uniqueness, and the rule of a key. Knows neither tasks nor who keeps to them.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from pipeline.core.keys import names_in
from pipeline.core.retry import LONGEST_WAIT

MOST = 2**31 - 1  # an int of Postgres
Until = Literal["start", "end"]
OnClash = Literal["skip", "replace", "reschedule", "merge"]

_UNITS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86_400,
    "day": 86_400,
}
_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-z]+)\s*", re.ASCII)


class Rate(msgspec.Struct, frozen=True):
    """At most `limit` jobs begin in any `seconds`. Raises ValueError for a rate that cannot be meant."""

    limit: int
    seconds: float

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or not 1 <= self.limit <= MOST:
            raise ValueError(f"a rate needs a limit from 1 to {MOST}, not {self.limit!r}")
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float):
            raise ValueError(f"a rate needs seconds, not {self.seconds!r}")  # noqa: TRY004 - as for every other
        if not 0 < self.seconds <= LONGEST_WAIT:
            raise ValueError("a rate counts over more than 0 seconds and at most a year")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `10/min`, `5/s`, `20/90s`, `1000/day`. Raises ValueError."""
        found = _RATE.fullmatch(text)
        unit = found and (_UNITS.get(found[3]) or _UNITS.get(found[3].removesuffix("s")))
        if not found or not unit:
            raise ValueError(f'{text!r} is no rate; write "10/min", "5/s", "100/hour", "1000/day" or "20/90s"')
        return cls(int(found[1]), float(found[2] or 1) * unit)


class Unique(msgspec.Struct, frozen=True):
    """Of the jobs of a task that are alike only one is there at a time.

    by: a template over the arguments that make two jobs alike; None means all arguments. until: a new job is
    not added while one like it has not begun (`start`) or not ended (`end`). window: nor for so many seconds
    after that one was added. on_clash: what becomes of the new one: `skip` drops it; while the other waits for
    its time, `replace` gives it the new arguments and time, `reschedule` the time only, and `merge` adds the
    arguments, lists appended. Raises ValueError.
    """

    by: str | None = None
    window: float | None = None
    until: Until = "end"
    on_clash: OnClash = "skip"

    def __post_init__(self) -> None:
        if self.by is not None:
            names_in(self.by)
        if self.window is not None and not 0 < self.window <= LONGEST_WAIT:
            raise ValueError("the window of Unique is more than 0 seconds and at most a year")
        if self.until not in get_args(Until):
            raise ValueError(f"Unique(until=...) is one of {', '.join(get_args(Until))}, not {self.until!r}")
        if self.on_clash not in get_args(OnClash):
            raise ValueError(
                f"Unique(on_clash=...) is one of {', '.join(get_args(OnClash))}, not {self.on_clash!r}"
            )


class KeyRule(msgspec.Struct, frozen=True):
    """The limits of all keys that begin with `name` and a colon, for each key by itself."""

    name: str
    concurrency: int | None
    rate: Rate | None
