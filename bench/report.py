"""What every benchmark prints at its end.

Owns: the form of the last line. Knows nothing of what is measured.
"""

from __future__ import annotations

import operator
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

QUICK = os.environ.get("BENCH") == "quick"
_HOLDS = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


class Goal(msgspec.Struct):
    """One claim. op: how `value` should stand to `goal`. value: None where it could not be measured."""

    name: str
    value: float | None
    op: str
    goal: float
    met: bool
    detail: str = ""


class Report:
    """Collects goals and figures; `finish` prints them."""

    def __init__(self, bench: str, postgres: str) -> None:
        self._bench = bench
        self._postgres = postgres
        self._goals: list[Goal] = []
        self._figures: dict[str, float] = {}
        self._peers: dict[str, float | None] = {}
        self._skipped: dict[str, str] = {}
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def goal(self, name: str, value: float, op: str, goal: float, detail: str = "") -> None:
        met = bool(_HOLDS[op](value, goal))
        self._goals.append(Goal(name, round(value, 4), op, goal, met, detail))
        self.say(f"{'met   ' if met else 'MISSED'}  {name}: {value:.4g} (goal {op} {goal:g})  {detail}")

    def has(self, name: str) -> bool:
        """Whether this goal is in the list already."""
        return any(goal.name == name for goal in self._goals)

    def unmeasured(self, name: str, op: str, goal: float, reason: str) -> None:
        """A goal that could not be measured; it counts as missed."""
        self._goals.append(Goal(name, None, op, goal, False, f"not measured: {reason}"))
        self.say(f"SKIPPED {name}: {reason}")

    def peer(self, name: str, value: float | None, reason: str = "") -> None:
        """What a peer reached; None with the reason where it cannot be had."""
        self._peers[name] = None if value is None else round(value, 1)
        if value is None:
            self._skipped[name] = reason
        self.say(f"SKIPPED {name}: {reason}" if value is None else f"{name}: {value:,.4g}")

    def figure(self, name: str, value: float) -> None:
        self._figures[name] = round(value, 3)
        self.say(f"{name}: {value:,.4g}")

    def finish(self) -> bool:
        """Print the last line; returns whether every goal was met."""
        line = {
            "bench": self._bench,
            "machine": machine(),
            "postgres": self._postgres,
            "goals": self._goals,
            "figures": self._figures,
            "peers": self._peers,
            "skipped": self._skipped,
            "quick": QUICK,
            "seconds": round(time.monotonic() - self._began),
        }
        print(msgspec.json.encode(line).decode(), flush=True)
        return all(goal.met for goal in self._goals)


def machine() -> str:
    """Processor, cores and memory, as far as the system tells."""
    try:
        info = _pairs(Path("/proc/cpuinfo").read_text().splitlines())
    except OSError:
        info = {}
    name = info.get("model name", platform.processor() or platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {name}, {memory:.0f} GiB, Python {platform.python_version()}"


def _pairs(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def quantile(values: list[float], q: float) -> float:
    """The value at rank q of the sorted values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each round, whose runs stand side by side in time."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def fall(before: float, after: float) -> float:
    """How much of `before` is lost, as a part of it; 0 when there is more than before."""
    return max(0.0, 1 - after / before)


def edges(samples: Sequence[tuple[float, float]], part: float = 0.1) -> tuple[float, float]:
    """The medians of the first and of the last `part` of the time that (time, value) samples span.

    Raises ValueError when either has no sample.
    """
    if not samples:
        raise ValueError("there is no sample")
    times = [at for at, _value in samples]
    first, last = min(times), max(times)
    width = (last - first) * part
    head = [value for at, value in samples if at <= first + width]
    tail = [value for at, value in samples if at >= last - width]
    return statistics.median(head), statistics.median(tail)


def batch_rate(total: int, first_batch: int, seconds: float) -> float:
    """Rows a second of rows that came in batches, `seconds` from the first batch to the last.

    What the first batch cost lies before those seconds, so its rows do not count. Raises ValueError when all
    came at once, which tells no rate.
    """
    if seconds <= 0 or total <= first_batch:
        raise ValueError("all rows came at once; more of them are needed")
    return (total - first_batch) / seconds
