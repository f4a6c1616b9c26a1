"""Judges the history of the freshness check: which reads broke the promise of the cache.

Owns: the rules, and how stale reads were. Pure: knows no process, no file, no clock.

The rules, each over real moments of one clock:
    stale       a read returned less than the newest version that was acknowledged `bound` before it began
    invented    a read returned what nobody wrote, what was rolled back, or what was only written after it returned
    backwards   a read returned less than an earlier one of the same process and view, which had returned before
    own         a read began after this process had committed a write, and did not see it
    torn        two rows that are always written together were read in states of different transactions

Versions of a key are committed in their order, since the row stays locked until then; so the newest version
acknowledged by a moment is the largest, and each question is one search in a sorted list.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from bench.freshness_log import (
    ABORTED,
    COMMITTED,
    KINDS,
    UNKNOWN,
    VIEWS,
    Note,
    Own,
    Record,
    Run,
    Torn,
    Write,
    told,
)

RULES = ("stale", "invented", "backwards", "own", "torn")
KEPT = 20  # violations that are told in full
STEP = 1_000_000  # ns of one step of the histogram
PARTS = 4  # points that stand for the reads of one run


class Violation(msgspec.Struct, frozen=True):
    """One broken rule. at: when the read began. late: seconds past the bound, of a stale one."""

    rule: str
    process: str
    view: int
    key: int
    version: int
    at: int
    returned: int
    text: str
    late: float = 0.0


class Line:
    """The committed versions of one key, in the order of their acknowledgements."""

    def __init__(self, writes: list[Write]) -> None:
        self.writes = sorted(writes, key=lambda write: write.acked)
        self.acked = [write.acked for write in self.writes]
        self.newest: list[int] = []
        newest = 0
        for write in self.writes:
            newest = max(newest, write.version)
            self.newest.append(newest)

    def due(self, at: int) -> int:
        """The newest version that was acknowledged before that moment; 0 if none was."""
        place = bisect_left(self.acked, at)
        return self.newest[place - 1] if place else 0

    def superseded(self, version: int) -> float:
        """When a newer version was first acknowledged; infinity if none was."""
        place = bisect_right(self.newest, version)
        return self.acked[place] if place < len(self.acked) else math.inf

    def around(self, at: int, most: int = 4) -> list[Write]:
        """What was acknowledged just before and after that moment."""
        place = bisect_left(self.acked, at)
        return self.writes[max(0, place - most) : place + 2]


class Judge:
    """Give it all writes, then the records of one reader after the other. bound: nanoseconds."""

    def __init__(self, writes: Iterable[Write], bound: int) -> None:
        self.bound = bound
        self.reads = self.hits = self.loads = 0
        self.broken: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.notes: Counter[str] = Counter()
        self.by_view: Counter[int] = Counter()
        self.worst = 0.0  # seconds that a read was behind the newest acknowledged version
        self._late: defaultdict[int, float] = defaultdict(float)  # reads that were behind, by how many steps
        self._behind = 0.0
        self._written: dict[tuple[int, int], Write] = {}
        lines: defaultdict[int, list[Write]] = defaultdict(list)
        for write in writes:
            known = self._written.get((write.key, write.version))
            if known is None or known.outcome == UNKNOWN:
                self._written[write.key, write.version] = write
            if write.outcome == COMMITTED:
                lines[write.key].append(write)
        self.lines = {key: Line(written) for key, written in lines.items()}

    @property
    def foreign(self) -> dict[str, int]:
        """Errors that a cache may not raise, by their names."""
        return {name: count for name, count in self.notes.items() if name.startswith("FOREIGN")}

    def process(self, name: str, records: Sequence[Record]) -> None:
        """Judge everything that one process read."""
        own = _own(records)
        seen: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        for record in records:
            match record:
                case Run():
                    self._count(record)
                    self._judge(name, record, own)
                    self._in_order(name, record, seen.setdefault((record.view, record.key), ([], [])))
                case Torn():
                    self._torn(name, record)
                case Note(what, count):
                    self.notes[what] += count

    def quantile(self, q: float) -> float:
        """How far behind, in seconds, the share q of all reads was at most."""
        left = q * self.reads - (self.reads - self._behind)
        if left <= 0:
            return 0.0
        for step in sorted(self._late):
            left -= self._late[step]
            if left <= 0:
                return step * STEP / 1e9
        return self.worst

    def _count(self, run: Run) -> None:
        self.reads += run.count
        self.loads += min(run.loads, run.count)
        self.hits += max(run.count - run.loads, 0)
        self.by_view[run.view] += run.count

    def _judge(self, name: str, run: Run, own: dict[int, tuple[list[int], list[int]]]) -> None:
        self._was_written(name, run)
        line = self.lines.get(run.key)
        if line is None:
            return
        due = line.due(run.last_invoke - self.bound)
        if run.version < due:
            since = line.superseded(run.version)
            late = (run.last_invoke - self.bound - since) / 1e9
            self._break("stale", name, run, f"{told(due)} was due, {late:.3f} s longer than allowed", late)
        self._measure(run, line.superseded(run.version))
        times, versions = own.get(run.key, ((), ()))
        place = bisect_left(times, run.last_invoke)
        if place and run.version < versions[place - 1]:
            since = (run.last_invoke - times[place - 1]) / 1e9
            self._break("own", name, run, f"wrote {told(versions[place - 1])} itself {since:.3f} s before")

    def _was_written(self, name: str, run: Run) -> None:
        write = self._written.get((run.key, run.version))
        if write is None:
            self._break("invented", name, run, "nobody wrote that")
        elif write.outcome == ABORTED:
            self._break("invented", name, run, "that was rolled back")
        elif run.first_return < write.began:
            self._break("invented", name, run, "that was written only later")

    def _in_order(self, name: str, run: Run, seen: tuple[list[int], list[int]]) -> None:
        """Runs of one view and key come in the order in which their reads returned."""
        returned, newest = seen
        place = bisect_left(returned, run.last_invoke)
        if place and run.version < newest[place - 1]:
            self._break("backwards", name, run, f"had {told(newest[place - 1])} before")
        if not newest or run.version > newest[-1]:
            returned.append(run.first_return)
            newest.append(run.version)

    def _torn(self, name: str, torn: Torn) -> None:
        run = Run(torn.view, torn.key, torn.first, torn.invoke, torn.returned, torn.invoke, 1, 0)
        self._break("torn", name, run, f"{torn.key + 1} was {told(torn.second)}")

    def _measure(self, run: Run, superseded: float) -> None:
        """Take the reads of a run as spread evenly over it; those after the next version were behind it."""
        behind = run.last_invoke - superseded
        if behind <= 0 or run.count == 0:
            return
        self.worst = max(self.worst, behind / 1e9)
        span = run.last_invoke - run.first_invoke
        first = max(0.0, run.first_invoke - superseded)
        share = 1.0 if span == 0 else min(1.0, (behind - first) / span)
        weight = run.count * share
        self._behind += weight
        for part in range(PARTS):
            step = int((first + (behind - first) * (part + 0.5) / PARTS) / STEP)
            self._late[step] += weight / PARTS

    def _break(self, rule: str, name: str, run: Run, text: str, late: float = 0.0) -> None:
        self.broken[rule] += 1
        if len(self.violations) < KEPT:
            said = f"{VIEWS[run.view]} of {run.key} returned {told(run.version)}: {text}"
            self.violations.append(
                Violation(
                    rule, name, run.view, run.key, run.version, run.last_invoke, run.first_return, said, late
                )
            )

    def history(self, violation: Violation) -> list[str]:
        """What was written about the time of a violation; seconds are from when the read began."""
        line = self.lines.get(violation.key)
        return [
            f"{(write.acked - violation.at) / 1e9:+8.3f} s  {KINDS[write.kind]} committed {told(write.version)},"
            f" begun {(write.began - violation.at) / 1e9:+.3f} s"
            for write in (line.around(violation.at) if line else ())
        ]


def _own(records: Sequence[Record]) -> dict[int, tuple[list[int], list[int]]]:
    """Of each key, from which moments on the process must see which version of its own."""
    found: defaultdict[int, list[Own]] = defaultdict(list)
    for record in records:
        if isinstance(record, Own):
            found[record.key].append(record)
    result = {}
    for key, writes in found.items():
        writes.sort(key=lambda own: own.since)
        versions: list[int] = []
        for own in writes:
            versions.append(max(own.version, versions[-1] if versions else 0))
        result[key] = ([own.since for own in writes], versions)
    return result
