"""Whether what the cache serves is right: how a value that was served is judged by reading it again.

Owns: the verdict and its figures. Knows no clock, no loop and no database.

Theory of operation
    A value v was served at time t. Its load is called again and gives f. Once the feed has provably delivered
    all that had committed when f had been read (freshness.py),
      - v is FRESH if it equals f;
      - it is EXPLAINED if a change of one of its tags has been delivered since t, by a transaction that the feed's
        position at t did not see: the cache could not know of it yet;
      - else it is a VIOLATION.

    There are no false positives. Let v be what its load returns for one state of this database. If v and f differ,
    some transaction X that f contains and v lacks has changed what v depends on. X had committed when f was read,
    so by now its change has been delivered, if it was told at all. Had it been delivered by t, v would have been
    dropped (cache.py). So it was delivered after t, by a transaction that the position of t did not see, and is
    found. Where none is found, X was never told (a trigger was off, a tag was missing), or v survived it (the
    cache is wrong), or v is not what the load had returned (somebody changed the object that all share).
    No clock takes part, only positions; sampling by timestamps would suspect every busy key.

    The premise is that v depends on this database alone. So nothing is judged where the load told no snapshot,
    where it read a state older than the position of t (a standby), where values cannot be compared, and where two
    reads of the same moment differ (random numbers). These are UNCHECKABLE, with the reason. What is left is a
    function that reads the database through the cache and something else besides, or that depends on the time of
    day, and a value that may be stale on purpose. Their writers say check=False.

    What may be missed: a key that changes between t and the verdict is taken to be explained by that change,
    also if an earlier one had been lost. Such a key is soon right again, and is looked at again and again.

The figure "fresh within 1 s" is the share of the judged hits that were FRESH or EXPLAINED, and for which it was
proved, when they were served, that everything committed a second before had been delivered. It is counted as if
the next one were to fail, fresh / (judged + 1): n hits never show more than log10(n) nines.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, deque
from typing import NamedTuple

import msgspec

from pipeline.core.fill import Fence, Mark
from pipeline.core.store import Entry

VIOLATIONS_KEPT = 20
UNCHECKABLE_SECONDS = 60.0  # for so long a namespace is left alone whose values cannot be judged
MOST_BYTES = 1 << 20  # comparing a larger one takes the loop more than some ten milliseconds
MOST_LOAD_SECONDS = 1.0  # longer loads are not repeated
INTERVAL_SECONDS = 1.0
SHARE_OF_TIME = 0.01  # of one connection, at most, is spent on reading again


class Outcome(enum.Enum):
    FRESH = "fresh"
    EXPLAINED = "explained"
    VIOLATION = "violation"
    UNCHECKABLE = "uncheckable"


class Violation(msgspec.Struct, frozen=True):
    """A value that was served although it was wrong. key: as `cache.hottest()` shows keys. key_hash: tells it
    apart where argument values must not go. age_seconds: how old it may have been, by the proof. at: Unix seconds.
    """

    namespace: str
    key: str
    key_hash: str
    tags: tuple[str, ...]
    age_seconds: float
    at: float

    @property
    def tables(self) -> tuple[str, ...]:
        """The tags without the keys in them."""
        return tuple(sorted({tag.partition(":")[0] for tag in self.tags}))


class Served(NamedTuple):
    """What was known when a value was served. age: seconds, from the proof of freshness."""

    tags: frozenset[str]
    mark: Mark
    age: float


class Judge:
    """Answers the one question: has what was delivered since explained a difference?"""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    def interrupted(self, served: Served) -> bool:
        """Whether the feed had a gap since, so that nobody can say what was delivered."""
        return self._fence.generation != served.mark.generation

    def explained(self, served: Served) -> bool:
        return self._fence.changed_since(served.mark, served.tags)


class Tally:
    """The figures of all checks of one process. uncheckable: by reason; those are in no other count."""

    def __init__(self) -> None:
        self.checks = 0
        self.within_1s = 0
        self.within_60s = 0
        self.explained = 0
        self.violations = 0
        self.uncheckable: Counter[str] = Counter()
        self.latest: deque[Violation] = deque(maxlen=VIOLATIONS_KEPT)

    def add(self, outcome: Outcome, age: float) -> None:
        """A hit was judged; age as in Served."""
        self.checks += 1
        good = outcome is not Outcome.VIOLATION
        self.violations += not good
        self.explained += outcome is Outcome.EXPLAINED
        self.within_1s += good and age <= 1.0
        self.within_60s += good and age <= 60.0


def fresh_share(fresh: int, checks: int) -> float | None:
    """The share to show, as if one more check had failed; None before the first one."""
    return fresh / (checks + 1) if checks else None


def nines(share: float, checks: int) -> str:
    """The share as a percentage with no more nines than so many checks can show, rounded down."""
    decimals = min(3, max(0, len(str(checks + 1)) - 3))
    step: int = 10**decimals
    return f"{math.floor(share * 100 * step + 1e-9) / step:.{decimals}f} %"


def pause_after(read_seconds: float) -> float:
    """How long to rest after a check whose reading took so long."""
    return max(INTERVAL_SECONDS, read_seconds / SHARE_OF_TIME)


def fit(entry: Entry) -> bool:
    """Whether an entry may be read again: it is good, a change would end it, and it is neither slow nor large."""
    return (
        entry.ended_at == math.inf
        and bool(entry.tags)
        and entry.policy.check is not False
        and entry.load_seconds <= MOST_LOAD_SECONDS
        and entry.size <= MOST_BYTES
    )
