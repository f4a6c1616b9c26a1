"""What is kept of one series in one window, and how several of them become one.

Owns: how many centroids each level keeps, and the arrays in which digests travel to the database. Must not know
who merges, or when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum

import msgspec

from pipeline.core.centroids import pack, unpack
from pipeline.core.thinning import phase, thin
from pipeline.core.window import BASE_SECONDS, Part

# Over a day p50, p95 and p99 stay within a percent with these, and 500 series of 30 days within a gigabyte.
CENTROIDS = {BASE_SECONDS: 64, 60: 40, 300: 48, 3_600: 72, 86_400: 100}


class Sums(msgspec.Struct):
    """A digest and its counts. numbers: the centroids as `pack` makes them."""

    total: float
    low: float
    high: float
    errors: int
    over: int
    rows: int
    numbers: list[int]
    count: int


def sums_of(part: Part) -> Sums:
    """What is kept of a part of the shortest windows."""
    digest = part.digest
    means, weights = _thin(*digest.centroids(), BASE_SECONDS, part.start)
    return Sums(
        digest.total,
        digest.low,
        digest.high,
        part.errors,
        part.over,
        part.rows,
        pack(means, weights),
        digest.count,
    )


def merge(several: Sequence[Sums], seconds: int, start: int) -> Sums:
    """One for all of these, in the window of `seconds` that begins at `start`; all but the centroids is exact."""
    means: list[float] = []
    weights: list[float] = []
    for one in several:
        its_means, its_weights = unpack(one.numbers, one.low, one.high)
        if 0.0 in its_weights:  # pack makes none, but others may write, too
            pairs = [pair for pair in zip(its_means, its_weights, strict=True) if pair[1]]
            its_means, its_weights = [mean for mean, _ in pairs], [weight for _, weight in pairs]
        means += its_means
        weights += its_weights
    return Sums(
        fsum(one.total for one in several),
        min(one.low for one in several),
        max(one.high for one in several),
        sum(one.errors for one in several),
        sum(one.over for one in several),
        sum(one.rows for one in several),
        pack(*_thin(means, weights, seconds, start)),
        sum(one.count for one in several),
    )


def columns(found: Iterable[tuple[int, Sums]]) -> list[list[int] | list[float]]:
    """Parallel arrays of series and what is kept of each; the last holds the numbers of all, one by one."""
    ids, sums = zip(*found, strict=True)
    return [
        list(ids),
        [one.count for one in sums],
        [one.total for one in sums],
        [one.low for one in sums],
        [one.high for one in sums],
        [one.errors for one in sums],
        [one.over for one in sums],
        [one.rows for one in sums],
        [len(one.numbers) for one in sums],
        [number for one in sums for number in one.numbers],
    ]


def _thin(means: list[float], weights: list[float], seconds: int, start: int) -> tuple[list[float], list[float]]:
    return thin(means, weights, CENTROIDS[seconds], phase(start // seconds))
