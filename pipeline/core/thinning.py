"""Fewer centroids for the same values: how digests of many windows become a small one.

Owns: which centroids are merged. Must not know how they are stored.

A t-digest of few centroids is wide where it matters: with 32 of them p99 lies within the last one, and as each
level is thinned again errors of 4 % came together over a day. What is asked of timings is p50, p90, p95 and p99,
within a percent of their value. So the line on which the centroids are spread evenly counts, between neighbours,

    importance(rank) * cbrt(gap ** 2 * weight)          gap: of the logarithms of the two means

which is where the best quantiser of few levels would have them, the more of them at the ranks that are asked for.
A gap that is wider than a whole step, as between the two modes of a cache, counts as one step: nothing is merged
across it, and it costs a single centroid.

Where many such digests are pooled, their centroids must not coincide, or a quantile is read from stairs. So each
begins at another phase of its first step; `phase` of the golden ratio spreads successive windows evenly.

Measured on days of 70 values a minute, which had become 40 centroids for a minute, 48 for five and 72 for an hour:
of 24 pooled hours p50, p95 and p99 were off by at most 0.9 % on lognormal, bimodal, Pareto and integer data.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import cbrt, inf, log

from fastdigest import TDigest

_RANKS = (0.02, 0.35, 0.6, 0.85, 0.97, 0.997, inf)
_IMPORTANCE = (0.12, 0.35, 0.8, 0.5, 0.9, 1.6, 0.3)  # up to each of these ranks
_SMALLEST = 1e-9  # ms; makes zero a number with a logarithm
_MANY = 600  # what is thinned in Python, at 0.5 microseconds each; more are compressed to so many before
_GOLDEN = 0.6180339887498949


def phase(place: int) -> float:
    """A phase for the window with this number; those of successive windows are far apart."""
    return place * _GOLDEN % 1.0


def thin(
    means: Sequence[float], weights: Sequence[float], size: int, at: float = 0.0
) -> tuple[list[float], list[float]]:
    """At most `size` centroids for these, ascending by mean; at: the phase, from 0 to 1.

    The weights are whole and add up as before, and no mean lies outside the given ones.
    """
    pairs = sorted(zip(means, weights, strict=True))
    if len(pairs) > size:
        if len(pairs) > _MANY:
            digest = TDigest.from_values([mean for mean, _ in pairs], [weight for _, weight in pairs], _MANY)
            pairs = sorted(digest.centroids)
        pairs = _merged(pairs, _steps(pairs), size, at)
    return [mean for mean, _ in pairs], [weight for _, weight in pairs]


def _steps(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """How far each centroid is from the one before it, on the line on which they are spread evenly."""
    total = sum(weight for _, weight in pairs)
    before, steps = 0.0, []
    logs = [log(mean + _SMALLEST) for mean, _ in pairs]
    for (_, weight), (_, following), (left, right) in zip(pairs, pairs[1:], pairwise(logs), strict=False):
        before += weight
        importance = _IMPORTANCE[bisect_left(_RANKS, before / total)]
        steps.append(importance * cbrt((right - left) ** 2 * (weight + following)))
    return steps


def _merged(
    pairs: Sequence[tuple[float, float]], steps: Sequence[float], size: int, at: float
) -> list[tuple[float, float]]:
    limit = _limit(steps, size - 1)
    found = [pairs[0]]
    total, weight = pairs[0][0] * pairs[0][1], pairs[0][1]
    place, cell = at, 0
    for step, (mean, more) in zip(steps, pairs[1:], strict=True):
        place += min(step / limit, 1.0) if limit else step > 0
        if int(place) != cell:
            cell = int(place)
            found.append((mean, more))
            total, weight = mean * more, more
        elif mean == found[-1][0]:
            weight += more
            total += mean * more
            found[-1] = (mean, weight)
        else:
            total += mean * more
            weight += more
            found[-1] = (min(max(total / weight, found[-1][0]), mean), weight)
    return found


def _limit(steps: Sequence[float], count: int) -> float:
    """The length of one of `count` steps into which all are divided, where a longer one counts as one."""
    limit, long = inf, 0
    while True:
        limit = sum(step for step in steps if step < limit) / (count - long)
        found = sum(step >= limit for step in steps)
        if found == long or found >= count:
            return limit
        long = found
