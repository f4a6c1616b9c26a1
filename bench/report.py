"""What every benchmark prints at its end.

Owns: the form of the last line. Knows nothing of what is measured.
"""

from __future__ import annotations

import operator
import os
import platform
import time
from pathlib import Path

import msgspec

QUICK = os.environ.get("BENCH") == "quick"
_HOLDS = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


class Goal(msgspec.Struct):
    """One claim. op: how `value` should stand to `goal`."""

    name: str
    value: float
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
        self._peers: dict[str, float | str | None] = {}
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def goal(self, name: str, value: float, op: str, goal: float, detail: str = "") -> None:
        met = bool(_HOLDS[op](value, goal))
        self._goals.append(Goal(name, round(value, 4), op, goal, met, detail))
        self.say(f"{'met   ' if met else 'MISSED'}  {name}: {value:.4g} (goal {op} {goal:g})  {detail}")

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
