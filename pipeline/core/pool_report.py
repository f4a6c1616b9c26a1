"""What a pool says of those who hold its connections.

Owns: the wording, and what may be told: texts of queries without their values. Knows neither pool nor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from pipeline.core.fingerprint import fingerprint

MOST_TOLD = 5  # holders in a message; with ten a log line gets longer than anybody reads
LONGEST_TEXT = 120  # characters of a query
MOST_READ = 4_000  # of its text; whoever waits for a report must not wait for 8 MB to be read
RUNNING, IN_TRANSACTION, IDLE = "running", "idle in transaction", "idle"


class Held(msgspec.Struct, frozen=True):
    """One connection that is out. seconds: since it was acquired. task: the name of the task that took it. place:
    file:line of the call. state: running, idle in transaction, or idle. query: the one that runs or ran last,
    without its values; None: there was none. labels: as of `pipeline.labels`. ended: that task is over.
    """

    seconds: float
    task: str
    place: str
    state: str = IDLE
    query: str | None = None
    labels: dict[str, str] = {}
    pid: int | None = None
    ended: bool = False

    def __str__(self) -> str:
        labels = ", ".join(f"{name}={value}" for name, value in self.labels.items())
        what = [f"{self.seconds:.1f} s", f"{self.task}{' (ended)' if self.ended else ''}", f"at {self.place}"]
        if labels:
            what.append(labels)
        what.append(self.state)
        if self.query:
            what.append(f"{'query' if self.state == RUNNING else 'last query'}: {self.query}")
        return ", ".join(what)


def told(held: Sequence[Held]) -> str:
    """The longest first, each in one clause."""
    longest = sorted(held, key=lambda one: -one.seconds)
    clauses = [f"[{number}] {one}" for number, one in enumerate(longest[:MOST_TOLD], 1)]
    if len(longest) > MOST_TOLD:
        clauses.append(f"and {len(longest) - MOST_TOLD} more")
    return "; ".join(clauses) or "nobody"


def exhausted(name: str, waited: float, most: int, waiting: int, held: Sequence[Held]) -> str:
    """Why somebody waited in vain."""
    others = f", {waiting} others wait" if waiting else ""
    return (
        f'pool "{name}" is exhausted: none of its {most} connections came free within {waited:.1f} s{others}; '
        f"held by: {told(held)}"
    )


def unreachable(name: str, waited: float, size: int, most: int, attempts: int, reason: str) -> str:
    """Why somebody waited in vain while connections could not be opened."""
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return (
        f'pool "{name}" could not open a connection within {waited:.1f} s ({size} of {most} are open, '
        f"{tries} failed); the last one said: {reason}"
    )


def shown(query: str) -> str:
    """What stands for a query in one short line: `$1` and so on for its values."""
    return _shown(query[:MOST_READ])


@lru_cache(maxsize=256)
def _shown(query: str) -> str:
    text = " ".join(fingerprint(query).text.split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
