"""Timings by series and window, until they are written.

Owns: which window a timing belongs to, what is counted, and every bound: on series, on what is kept, on what may
be a duration. Must not know how windows are stored; the clock is an argument, in Unix seconds.

A window is BASE_SECONDS long and starts at a multiple of it since the epoch. A timing goes to the window of
its own time, however late it comes, so what was written earlier is never changed: a late one makes another
part of the same window, and parts are merged where they are read.

Theory of operation
-------------------
Whoever times something often holds a Live, the handle of its series. Its `add` looks at the clock and appends to
a buffer, 0.2 microseconds in all. Buffers are folded into the digest of their window when they are full, when the
window is over, and when somebody takes what there is.

Appending takes no lock, folding does. A buffer is never replaced: who folds copies its first n values and then
deletes these n, and what another thread appends in between stands behind them. Each of these steps is one call
in C, so no timing is lost or counted twice. A thread that is held up between its look at the clock and its append
may put a timing into the window after, never into none.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import RLock

from pipeline.core.digest import Digest
from pipeline.core.part import BASE_SECONDS, KEEP_SECONDS, LEVELS, Part, window_start
from pipeline.core.series import Series, is_plain, series_name, usable
from pipeline.core.status import TimingsStatus

__all__ = [
    "BASE_SECONDS", "BATCH", "KEEP_SECONDS", "LARGE_BATCH", "LEVELS", "MAX_LATE_SECONDS", "MAX_MS", "MAX_OTHERS",
    "OTHER", "Live", "Part", "Series", "Windows", "series_name", "window_start",
]  # fmt: skip

MAX_SERIES = 10_000
MAX_OTHERS = 1_000  # names that get a series for what is over the bound; the rest shares one
MAX_PARTS = 20_000  # two windows of all series; at most 80 MB
MAX_MS = 1e12  # 31 years; sums of these stay finite and exact to the millisecond
MAX_LATE_SECONDS = KEEP_SECONDS[60]
OTHER = "other"
BATCH = 512  # values of a series that wait for its digest: 4 KB
LARGE_BATCH = 4_096  # where there are few series; folding then costs half as much for each value
BUFFERED = 1_000_000  # values that wait in all series together, as long as BATCH allows it: 8 MB
FOLD = 50

_NOTHING = Series("", "", "")


class Live:
    """The handle of one series of this process. Keep it where timings are frequent; Windows.series makes it."""

    __slots__ = ("_batch", "_clock", "_end", "_failed", "_rows", "_values", "_windows", "heard", "series", "start")

    def __init__(self, series: Series, windows: Windows) -> None:
        self.series = series
        self.start = 0
        self.heard = 0.0
        self._windows = windows
        self._clock = windows.clock
        self._batch = BATCH
        self._end = 0.0  # by the clock: from then on another window is meant
        self._values = array("d")
        self._failed = array("d")
        self._rows = array("q")

    def add(self, ms: float, *, error: bool = False, rows: int = 0) -> None:
        """Count one timing that has just ended. From any thread; never raises: what is no duration is counted."""
        try:
            now = self._clock()
            if now >= self._end:
                live = self._windows._turn(self, now)
                if live is not self:
                    live.add(ms, error=error, rows=rows)
                    return
            if 0.0 <= ms <= MAX_MS:  # refuses NaN too
                if rows:
                    self._rows.append(rows)
                buffer = self._failed if error else self._values
                buffer.append(ms)
                if len(buffer) >= self._batch:
                    self._windows._fold(self)
            else:
                self._windows.reject()
        except Exception:
            self._windows.reject()

    def add_many(self, values: Sequence[float]) -> None:
        """Count several that have just ended well. Never raises."""
        try:
            live = self._windows._turn(self, self._clock())
            usable = array("d", values)
            if not (usable and min(usable) >= 0.0 and max(usable) <= MAX_MS and sum(usable) >= 0.0):
                usable = array("d", [ms for ms in usable if 0.0 <= ms <= MAX_MS])
            live._values += usable
            if len(live._values) >= live._batch:
                self._windows._fold(live)
            for _ in range(len(values) - len(usable)):
                self._windows.reject()
        except Exception:
            self._windows.reject()

    def add_at(self, ms: float, at: float, *, error: bool = False, rows: int = 0) -> bool:
        """Count one timing that ended at `at`, by the database's clock. False: it was rejected. Never raises."""
        return self._windows._add_at(self, (ms,), at, error=error, rows=rows)

    def add_all_at(self, values: Sequence[float], at: float) -> bool:
        """As `add_at`, for many that ended about then; either all of them are counted or all are rejected."""
        return self._windows._add_at(self, values, at, error=False, rows=0)


class Windows:
    """The parts that have not been written yet, and which series are alive.

    clock: Unix seconds. slow_ms: what counts as over the threshold. max_series: beyond so many a new series of a
    known name goes to `name{other="true"}`, and one of another name to `other`. A series that was not heard of for
    `forget_seconds` makes room. max_parts: past that the oldest windows are dropped.

    Totals, in timings: added; rejected: no duration (not a number, negative, more than MAX_MS), no usable name, or
    older than MAX_LATE_SECONDS; overflowed: went to an "other" series; dropped: given up, since nobody wrote them;
    late: their window had been taken already; ahead: from a clock that runs ahead, counted as of now. cut_total:
    names and labels that were too long, and got a hash for their end.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        slow_ms: float = 1_000.0,
        max_series: int = MAX_SERIES,
        forget_seconds: float = 3_600.0,
        max_parts: int = MAX_PARTS,
    ) -> None:
        self.clock = clock
        self.ahead = 0.0  # how far the database's clock is ahead of ours, in seconds
        self.slow_ms = slow_ms
        self.max_series = max_series
        self.forget_seconds = forget_seconds
        self.max_parts = max_parts
        self._lives: dict[str, Live] = {}
        self._others: dict[str, Live] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything; in a process that was forked, whose parent has all of it too."""
        for live in [*self._lives.values(), *self._others.values()]:
            live._end = 0.0  # whoever holds it comes by when it is used again
            del live._values[:], live._failed[:], live._rows[:]
        self.lock = RLock()  # for whoever reads parts while threads add
        self.added_total = self.rejected_total = self.overflowed_total = 0
        self.dropped_total = self.late_total = self.ahead_total = self.cut_total = 0
        self._lives, self._others = {}, {}
        self._names: Counter[str] = Counter()
        self._windows: dict[int, dict[str, Part]] = {}
        self._held = 0
        self._taken_until = float("-inf")
        self._swept_at = float("-inf")
        self._readers: list[object] = []

    # Who takes

    def enter(self, reader: object) -> None:
        """From now on this one may take what is here, if nobody has entered before it; for several clients."""
        if not any(one is reader for one in self._readers):
            self._readers.append(reader)

    def leave(self, reader: object) -> None:
        """No longer; who entered next takes what comes."""
        self._readers = [one for one in self._readers if one is not reader]

    def is_read_by(self, reader: object) -> bool:
        """Whether this one is to take what is here. One does at a time, so nothing goes to two databases."""
        readers = self._readers
        return bool(readers) and readers[0] is reader

    def moment(self) -> float:
        """What time it is by the database's clock."""
        return self.clock() + self.ahead

    def totals(self) -> TimingsStatus:
        """What was counted since the start."""
        return TimingsStatus(
            series=len(self._lives),
            added_total=self.added_total,
            rejected_total=self.rejected_total,
            overflowed_total=self.overflowed_total,
            dropped_total=self.dropped_total,
            late_total=self.late_total,
            ahead_total=self.ahead_total,
            cut_total=self.cut_total,
        )

    # Series

    def series(self, name: str, labels: Mapping[str, object] | None = None, source: str = "span") -> Live:
        """The handle of a series; the same each time while it is alive. Never raises.

        Where several sources use one name and the same labels, they share the series of the first.
        """
        try:
            text = series_name(name, labels) if labels else name
            live = self._lives.get(text)
            if live is not None and is_plain(text, labels):
                return live
            series, cut = usable(name, labels, source)
        except Exception:  # no text, no mapping, or values that fail
            return _Nowhere(_NOTHING, self)
        if not series.name:
            return _Nowhere(_NOTHING, self)
        with self.lock:
            self.cut_total += cut
            return self._lives.get(series.text) or self._admit(Live(series, self))

    def live_series(self) -> int:
        return len(self._lives)

    def _admit(self, live: Live) -> Live:
        """Take in a handle if there is room; if not it asks again at each timing."""
        now = self.clock()
        if len(self._lives) >= self.max_series:
            self._forget(now)
        if len(self._lives) < self.max_series:
            live.heard = now
            self._lives[live.series.text] = live
            self._names[live.series.name] += 1
        return live

    def _forget(self, now: float) -> None:
        if now < self._swept_at + BASE_SECONDS:  # a flood of names must not look at all series each time
            return
        self._swept_at = now
        for text, live in list(self._lives.items()):
            if live.heard < now - self.forget_seconds:
                self._fold(live)  # whoever holds it comes by when it is used again: its window is over
                del self._lives[text]
                self._names[live.series.name] -= 1
        self._names = +self._names

    def _other(self, series: Series) -> Live:
        name = series.name if self._names[series.name] else OTHER
        found = self._others.get(name)
        if found is None:
            if len(self._others) >= MAX_OTHERS:
                name = OTHER
            labels = {} if name == OTHER else {"other": "true"}
            found = self._others.setdefault(
                name, Live(Series(series_name(name, labels), series.source, name, labels), self)
            )
        return found

    # What comes in

    def _turn(self, live: Live, now: float) -> Live:
        """Begin another window for a handle; returns the handle that takes the timing."""
        with self.lock:
            self._fold(live)
            text = live.series.text
            if self._lives.get(text) is not live and self._others.get(live.series.name) is not live:
                found = self._lives.get(text) or self._admit(live)
                if self._lives.get(text) is not found:
                    self.overflowed_total += 1
                    found = self._other(live.series)
                if found is not live:
                    return found
            live.heard = now
            live.start = window_start(now + self.ahead)
            live._end = live.start + BASE_SECONDS - self.ahead
            live._batch = min(max(BATCH, BUFFERED // (len(self._lives) + 1)), LARGE_BATCH)
            return live

    def _fold(self, live: Live) -> None:
        """Move what a handle has gathered into the part of its window."""
        with self.lock:
            good, bad, rows = live._values, live._failed, live._rows
            values, failed, touched = good[:], bad[:], rows[:]
            if not values and not failed:
                return  # rows are noted before their timing, which comes with the next
            del good[: len(values)], bad[: len(failed)], rows[: len(touched)]
            self._count(live.series, live.start, values + failed, len(failed), sum(touched))

    def _add_at(self, live: Live, values: Sequence[float], at: float, *, error: bool, rows: int) -> bool:
        try:
            now = self.clock() + self.ahead
            timings = array("d", values)
            usable = bool(timings) and all(0.0 <= ms <= MAX_MS for ms in timings)
            if not (usable and now - MAX_LATE_SECONDS <= at < float("inf")):
                self.reject(len(timings))
                return False
            with self.lock:
                found = self._turn(live, now - self.ahead)
                self.ahead_total += len(timings) * (at > now + BASE_SECONDS)
                start = window_start(min(at, now + BASE_SECONDS))
                self.late_total += len(timings) * (start + BASE_SECONDS <= self._taken_until)
                self._count(found.series, start, timings, int(error), int(rows))
        except Exception:
            self.reject(len(values))
            return False
        return True

    def _count(self, series: Series, start: int, values: array[float], errors: int, rows: int) -> None:
        part = self._part(series, start)
        part.digest.add_many(values)
        part.errors += errors
        part.rows += rows
        if part.digest.high > self.slow_ms:
            part.over += sum(ms > self.slow_ms for ms in values)
        self.added_total += len(values)

    def reject(self, many: int = 1) -> None:
        """Count timings that cannot be counted as one."""
        with self.lock:
            self.rejected_total += many

    def _part(self, series: Series, start: int) -> Part:
        parts = self._windows.get(start)
        part = None if parts is None else parts.get(series.text)
        if part is None:
            if self._held >= self.max_parts:
                self._drop()
            part = self._windows.setdefault(start, {}).setdefault(series.text, Part(series, start, Digest()))
            self._held += 1
        return part

    def _drop(self) -> None:
        """Give up the oldest windows, a tenth at once, so that a flood of them does not sort each time."""
        for start in sorted(self._windows):
            if self._held < self.max_parts * 0.9:
                return
            parts = self._windows.pop(start)
            self._held -= len(parts)
            self.dropped_total += sum(part.digest.count for part in parts.values())

    # What goes out

    def take(self, now: float | None) -> list[Part]:
        """Remove and return the parts of the windows that closed before `now`; with None all of them.

        now: by the database's clock. A window that lies far ahead, from before the clock was set back, has closed.
        """
        for _ in self.fold():
            pass
        with self.lock:
            ready = [
                start
                for start in self._windows
                if now is None or start + BASE_SECONDS <= now or start > now + 2 * BASE_SECONDS
            ]
            taken = [part for start in ready for part in self._windows.pop(start).values()]
            self._held -= len(taken)
            if now is not None:
                self._taken_until = max(self._taken_until, window_start(now))
        return taken

    def parts(self) -> list[Part]:
        """What is held now; not copies: hold `lock` while you read them."""
        for _ in self.fold():
            pass
        return [part for parts in self._windows.values() for part in parts.values()]

    def fold(self) -> Iterator[None]:
        """Move what all handles have gathered to the parts, and pause after FOLD of them: 50 take 2 ms at most."""
        folded, limit = 0, self.moment() + 2 * BASE_SECONDS
        for live in [*self._lives.values(), *self._others.values()]:
            if live.start > limit:
                live._end = 0.0  # the clock was set back
            if live._values or live._failed:
                self._fold(live)
                folded += 1
                if folded % FOLD == 0:
                    yield

    def give_up(self, count: int) -> None:
        """Note that so many timings that were taken could not be written."""
        with self.lock:
            self.dropped_total += count


class _Nowhere(Live):
    """The handle of a series whose name cannot be used: all it does is count what is rejected."""

    __slots__ = ()

    def add_many(self, values: Sequence[float]) -> None:
        for _ in values:
            self._windows.reject()

    def add(self, ms: float, *, error: bool = False, rows: int = 0) -> None:
        self._windows.reject()

    def add_at(self, ms: float, at: float, *, error: bool = False, rows: int = 0) -> bool:
        self._windows.reject()
        return False

    def add_all_at(self, values: Sequence[float], at: float) -> bool:
        self._windows.reject(len(values))
        return False
