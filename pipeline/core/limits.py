"""What a task may declare about how often its jobs run, and how many of one kind there are.

Owns: the words for rates and uniqueness, and the rule of a key. Knows neither tasks nor who keeps to them.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from pipeline.core.job_filter import ENDED, STATES
from pipeline.core.keys import names_in
from pipeline.core.retry import LONGEST_WAIT

MOST = 2**31 - 1  # an int of Postgres
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

    by: a template over the arguments that make two jobs alike; None means all arguments. states: a new job is
    not added while the last one like it is in one of these; None means any. window: for so many seconds after
    it was added one that has ended counts too; None means that it does not. on_clash: what becomes of the new
    one: `skip` drops it; while the other waits for its time, `replace` gives it the new arguments and time,
    `reschedule` the time only, and `merge` adds the arguments, lists appended. Raises ValueError.
    """

    by: str | None = None
    window: float | None = None
    states: tuple[str, ...] | None = None
    on_clash: OnClash = "skip"

    def __post_init__(self) -> None:
        if self.by is not None:
            names_in(self.by)
        if self.window is not None and not 0 < self.window <= LONGEST_WAIT:
            raise ValueError("the window of Unique is more than 0 seconds and at most a year")
        if self.states is not None:
            _check_states(self.states, self.window)
        if self.on_clash not in get_args(OnClash):
            raise ValueError(
                f"Unique(on_clash=...) is one of {', '.join(get_args(OnClash))}, not {self.on_clash!r}"
            )


def _check_states(states: tuple[str, ...], window: float | None) -> None:
    wrong = [state for state in states if state not in STATES] if isinstance(states, tuple) else [states]
    if wrong or not states:
        told = f"not {wrong[0]!r}" if wrong else "and at least one"
        raise ValueError(f"Unique(states=...) is a tuple of {', '.join(STATES)}, {told}")
    ended = any(state in ENDED for state in states)
    if ended and window is None:
        raise ValueError("Unique(states=...) with a state that has ended needs a window")
    if window is not None and not ended:
        raise ValueError("the window of Unique is for states that have ended; name some, or leave states out")


class KeyRule(msgspec.Struct, frozen=True):
    """The limits of all keys that begin with `name` and a colon, for each key by itself."""

    name: str
    concurrency: int | None
    rate: Rate | None
