"""What may be handed out: a value that is good, or one that is not any more, flagged as stale.

Owns: the judgement on one entry for one request. Knows neither the store nor the feed.

Theory of operation
    A value stops being good at the earliest of three moments: its ttl has passed, a change of its tags was
    delivered (or everything was flushed), or the proof of freshness ran out. A request that opted in gets
    it for `stale_while_revalidate` after that moment, flagged as stale, and for `stale_if_error` when its
    load fails.

    What is flagged reflects at least every transaction that committed more than max_staleness plus that
    time before. For until the moment it was good, by the promise of cache.py. A change that is delivered
    while nothing is proved may have committed long ago; so whoever ends an entry gives the end of the proof
    where that was earlier, and never the time of delivery (CacheCore.change).

    It is the request's policy that counts, not the one of the load that stored the value: nobody gets a
    stale value who did not ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.core.cache_policy import Policy
from pipeline.core.store import Entry

SURELY_EARLY = 16.0  # a draw of XFetch that reaches further has a chance of one in nine million
RETRY_SECONDS = 1.0  # between refreshes of one value, when they fail


class Offer(NamedTuple):
    """An entry that may be handed out. stale: flagged as such. refresh: one load is to replace it."""

    entry: Entry
    stale: bool
    refresh: bool


def good_until(entry: Entry) -> float:
    """The end of what the entry itself tells; the proof of freshness may end before."""
    return min(entry.expires_at, entry.ended_at)


def is_of_use(entry: Entry, now: float) -> bool:
    """Whether the entry, as it is, could be handed out to anybody at all."""
    return now < good_until(entry) + entry.policy.outlives


def judge(entry: Entry, now: float, proved: float, policy: Policy, rng: Callable[[], float]) -> Offer | None:
    """What a request with this policy gets. proved: until when the proof of freshness reaches."""
    good = good_until(entry)
    if now <= proved and now < good:
        return Offer(entry, stale=False, refresh=_early(entry, now, rng))
    if now > proved and entry.ended_at == math.inf:
        good = min(good, proved)
    if now < good + policy.stale_while_revalidate:
        return Offer(entry, stale=True, refresh=now >= entry.retry_at)
    return None


def settle(entry: Entry, policy: Policy, now: float) -> None:
    """The entry was just stored: until when is it handed out without another thought?

    What needs more than a look at the clock never is: copies, and the draw for an early refresh.
    """
    entry.load_seconds = now - entry.since
    if policy.copy == "deep":
        entry.plain_until = -math.inf
    elif policy.early:
        entry.plain_until -= SURELY_EARLY * policy.early * entry.load_seconds


def lifetime(value: Any, policy: Policy, ttl: float | None, rng: Callable[[], float]) -> float:
    """For how many seconds from the beginning of its load a value is good; math.inf: until a change.

    ttl: what its load said, which is not shortened by chance.
    """
    own = policy.ttl
    if policy.negative_ttl is not None and is_negative(value):
        own = policy.negative_ttl
    if own is not None:
        own *= 1.0 - policy.jitter * rng()
    return min((span for span in (ttl, own) if span is not None), default=math.inf)


def is_negative(value: Any) -> bool:
    """Whether a value says that there is nothing: None, or an empty list, tuple, dict or set."""
    return value is None or (isinstance(value, (list, tuple, dict, set, frozenset)) and not value)


def _early(entry: Entry, now: float, rng: Callable[[], float]) -> bool:
    """XFetch (Vattani et al., 2015): the closer to its end and the longer its load, the likelier."""
    beta = entry.policy.early
    if not beta or now < entry.retry_at:
        return False
    return now - entry.load_seconds * beta * math.log(1.0 - rng()) >= entry.expires_at
