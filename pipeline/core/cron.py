"""When a schedule is due: cron expressions in a time zone, and plain intervals.

Owns: what can be written, and which moments it means. Knows no clock, no task and no database.

cronsim reads the expression and walks through the calendar, without any zone; the zone is applied here, by the
rule of Debian's cron. With a fixed minute and hour each entry happens once a day: a time that the clocks skip
happens at the end of the gap, and one that they show twice happens the first time. With a star in minute or hour
(`*`, `*/15`) a run comes whenever the clock on the wall shows a time that fits: never in a gap, twice where an
hour is repeated.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from heapq import heappop, heappush
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from pipeline.errors import TaskError

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_SECONDS = 366 * 86400
WINDOWS = (3600, 86400, 32 * 86400, 366 * 86400)  # seconds to look back in, for the newest times
HINT = 'Write five fields as in "0 3 * * *", a name such as @daily, or an interval: every 30s, every 5m, every 2h.'

_INTERVAL = re.compile(r"every\s+([1-9][0-9]{0,8})\s*([smhd])")
_SOMEDAY = datetime(2000, 1, 1)  # what never happens within fifty years of any day never happens


class Cron:
    """Moments in Unix seconds, without end. Made by `parse`."""

    def __init__(self, text: str, zone: tzinfo, *, every: int = 0, fields: str = "") -> None:
        self.text = text
        self._zone = zone
        self._every = every
        self.fields = fields
        minute, hour, *_ = fields.split() or ["*", "*"]
        self._fixed = not minute.startswith("*") and not hour.startswith("*")

    def after(self, moment: float) -> Iterator[int]:
        """All times later than `moment`, each once, in order."""
        if self._every:
            at = int(moment // self._every) * self._every
            while True:
                at += self._every
                yield at
        last = moment
        for at in self._once(moment) if self._fixed else self._shown(moment):
            if at > last:
                last = at
                yield at

    def next(self, moment: float) -> int:
        """The first time later than `moment`."""
        return next(self.after(moment))

    def between(self, after: float, until: float) -> Iterator[int]:
        """The times later than `after`, up to and including `until`."""
        for at in self.after(after):
            if at > until:
                return
            yield at

    def newest(self, after: float, until: float, most: int) -> list[int]:
        """The last `most` of the times between two moments; cheap however far apart they are."""
        for seconds in WINDOWS:
            if until - seconds > after:
                found = deque(self.between(until - seconds, until), most)
                if len(found) == most:
                    return list(found)
        return list(deque(self.between(after, until), most))

    def _once(self, moment: float) -> Iterator[int]:
        """Each entry of the calendar once; a time in a gap is moved to the end of the gap."""
        for wall in CronSim(self.fields, self._wall(moment)):
            shown = wall
            while _offset(shown, self._zone, 0) < _offset(shown, self._zone, 1):
                shown += timedelta(minutes=1)
            yield _seconds(shown) - _offset(shown, self._zone, 0)

    def _shown(self, moment: float) -> Iterator[int]:
        """Each moment at which the clock on the wall fits."""
        start = self._wall(moment)
        if start - self._wall(moment, 90_000) != timedelta(seconds=-90_000):
            start -= timedelta(seconds=90_000)  # times shown before, which the change of a clock shows once more
        later: list[int] = []
        for wall in CronSim(self.fields, start):
            first, second = _offset(wall, self._zone, 0), _offset(wall, self._zone, 1)
            if first < second:
                continue
            heappush(later, _seconds(wall) - first)
            if first > second:
                heappush(later, _seconds(wall) - second)
            while later and later[0] <= _seconds(wall) - first:
                yield heappop(later)

    def _wall(self, moment: float, ahead: int = 0) -> datetime:
        return datetime.fromtimestamp(moment // 1 + ahead, self._zone).replace(tzinfo=None)


@lru_cache(maxsize=2_000)
def parse(text: str, timezone: str = "UTC") -> Cron:
    """Read a cron expression (five fields or a name) or an interval.

    An interval counts from the epoch, so `every 1d` is midnight UTC in any zone.
    Raises TaskError for what cannot be read, for an unknown zone, and for what never happens.
    """
    zone = _zone(timezone)
    words = " ".join(text.split())
    if interval := _INTERVAL.fullmatch(words.lower()):
        seconds = int(interval[1]) * UNITS[interval[2]]
        if seconds > LONGEST_SECONDS:
            raise TaskError(f"the interval {words!r} is longer than a year", hint=HINT)
        return Cron(words, zone, every=seconds)
    fields = NAMES.get(words.lower(), words)
    if len(fields.split()) != 5:
        raise TaskError(f"{words!r} is not a cron expression", hint=HINT)
    try:
        never = next(CronSim(fields, _SOMEDAY), None) is None
    except CronSimError as error:
        # the field that is wrong, or a day that its months do not have
        raise TaskError(f"the cron expression {words!r} cannot be met: {_lower(error)}", hint=HINT) from None
    except (ValueError, TypeError, AssertionError):
        raise TaskError(f"{words!r} is not a cron expression", hint=HINT) from None
    if never:
        raise TaskError(f"the cron expression {words!r} never happens", hint="No such day comes in fifty years.")
    return Cron(words, zone, fields=fields)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TaskError(
            f"there is no time zone {name!r} here",
            hint="Use a name such as Europe/Berlin, in exactly that spelling.",
        ) from None


def _offset(wall: datetime, zone: tzinfo, fold: int) -> int:
    """Seconds ahead of UTC. fold 1 is smaller than fold 0 where the time is shown twice, larger in a gap."""
    offset = wall.replace(tzinfo=zone, fold=fold).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def _seconds(wall: datetime) -> int:
    return int(wall.replace(tzinfo=UTC).timestamp())


def _lower(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]
