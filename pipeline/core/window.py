"""Timings by series and window, until they are written.

Owns: which window a timing belongs to, what is counted, and the bound on series. Must not know how windows
are stored, nor what time it is: every moment is an argument, in Unix seconds.

A window is BASE_SECONDS long and starts at a multiple of it since the epoch. A timing goes to the window of
its own time, however late it comes, so what was written earlier is never changed: a late one makes another
part of the same window, and parts are merged where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import msgspec

from pipeline.core.digest import Digest

BASE_SECONDS = 5  # an alert may be judged on windows as short as this
LEVELS = (BASE_SECONDS, 60, 300, 3_600, 86_400)
KEEP_SECONDS = {  # a part that has been rolled up is kept this long; the last level ends here
    BASE_SECONDS: 20 * 60,
    60: 48 * 3_600,
    300: 7 * 86_400,
    3_600: 30 * 86_400,
    86_400: 400 * 86_400,
}
MAX_SERIES = 10_000
MAX_NAME = 200  # characters
OTHER = "other"


class Part(msgspec.Struct):
    """What one writer saw of one series in one window. Values are milliseconds.

    over: how many were above the writer's threshold for slow. count, sum, low and high live in the digest.
    """

    series: str
    start: int
    digest: Digest
    errors: int = 0
    over: int = 0

    def merge(self, other: Part) -> None:
        """Take in another part; the counts stay exact."""
        self.digest.merge(other.digest)
        self.errors += other.errors
        self.over += other.over


class Windows:
    """The parts that have not been written yet, and which series are alive.

    slow_ms: what counts as over the threshold. max_series: beyond so many names a new one goes to the
    series "other"; `overflowed_total` says how often. A name that was not heard of for `forget_seconds` makes
    room. rejected_total: values that are no duration (NaN, infinite, negative) or had no usable name.
    """

    def __init__(
        self, *, slow_ms: float = 1_000.0, max_series: int = MAX_SERIES, forget_seconds: float = 3_600.0
    ) -> None:
        self.slow_ms = slow_ms
        self.max_series = max_series
        self.forget_seconds = forget_seconds
        self.rejected_total = 0
        self.overflowed_total = 0
        self.added_total = 0
        self._seen: dict[str, float] = {}
        self._parts: dict[tuple[str, int], Part] = {}

    def add(self, series: str, ms: float, *, at: float, now: float, error: bool = False) -> bool:
        """Count one timing in the window of `at`; False when it was rejected. Never raises."""
        if not (isfinite(ms) and ms >= 0 and isfinite(at) and 0 < len(series) <= MAX_NAME):
            self.rejected_total += 1
            return False
        at = min(at, now + BASE_SECONDS)  # a clock that runs ahead must not open windows of next year
        part = self._part(self._admit(series, now), window_start(at))
        part.digest.add(ms)
        part.errors += error
        part.over += ms > self.slow_ms
        self.added_total += 1
        return True

    def take(self, now: float | None) -> list[Part]:
        """Remove and return the parts of the windows that closed before `now`; with None all of them."""
        ready = [key for key in self._parts if now is None or key[1] + BASE_SECONDS <= now]
        return [self._parts.pop(key) for key in ready]

    def restore(self, parts: list[Part]) -> None:
        """Put back what could not be written."""
        for part in parts:
            held = self._parts.get((part.series, part.start))
            if held is None:
                self._parts[part.series, part.start] = part
            else:
                held.merge(part)

    def parts(self) -> list[Part]:
        """What is held now; not copies."""
        return list(self._parts.values())

    def live_series(self) -> int:
        return len(self._seen)

    def _part(self, series: str, start: int) -> Part:
        part = self._parts.get((series, start))
        if part is None:
            part = self._parts[series, start] = Part(series, start, Digest())
        return part

    def _admit(self, series: str, now: float) -> str:
        if series not in self._seen and len(self._seen) >= self.max_series:
            self._forget(now)
            if len(self._seen) >= self.max_series:
                self.overflowed_total += 1
                return OTHER
        # The oldest stands first, so that forgetting looks only at what it forgets.
        self._seen.pop(series, None)
        self._seen[series] = now
        return series

    def _forget(self, now: float) -> None:
        for series, seen in list(self._seen.items()):
            if seen >= now - self.forget_seconds:
                return
            del self._seen[series]


def window_start(at: float, seconds: int = BASE_SECONDS) -> int:
    """The start of the window that `at` lies in."""
    return int(at // seconds) * seconds


def series_name(name: str, labels: Mapping[str, object] | None = None) -> str:
    """One name for a name and its labels, sorted: `checkout{region="eu"}`. SQL's series_name agrees."""
    if not labels:
        return name
    inner = ",".join(f'{key}="{_label(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


def _label(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def roll_up(parts: list[Part], seconds: int) -> list[Part]:
    """Merge parts into windows of `seconds`, one part for each series and window."""
    merged: dict[tuple[str, int], Part] = {}
    for part in parts:
        start = window_start(part.start, seconds)
        into = merged.get((part.series, start))
        if into is None:
            into = merged[part.series, start] = Part(part.series, start, Digest())
        into.merge(part)
    return list(merged.values())
