"""Quantiles of stored digests that are read as one.

Owns: the form in which many digests of one series come from Postgres, and the reading. Must not know who asks.
`pipeline.timing_summary` reads them by the same rule, operation by operation, to the same number; for ten thousand
series at once it takes ten times as long, because it sorts their centroids all together.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from pipeline.core.centroids import unpack

_ITEM = 6  # bytes of a smallint in Postgres' binary form of an array: its length in four, then itself
_TINY = 1e-290  # dividing by less is an error in Postgres


class Pooled(msgspec.Struct, frozen=True):
    """The digests of one series. low, high: the extremes of all; lows, highs, sizes: of each digest.

    numbers: the centroids of all, one after the other, as Postgres sends the elements of an array.
    """

    count: int
    low: float
    high: float
    lows: Sequence[float]
    highs: Sequence[float]
    sizes: Sequence[int]
    numbers: bytes


def pooled_quantiles(pooled: Pooled, qs: Sequence[float]) -> list[float]:
    """The values at these ranks, each between 0 and 1."""
    numbers = _integers(pooled.numbers)
    means: list[float] = []
    weights: list[float] = []
    first = 0
    for low, high, size in zip(pooled.lows, pooled.highs, pooled.sizes, strict=True):
        some, their = unpack(numbers[first : first + size], low, high)
        means += some
        weights += their
        first += size
    if max(weights) == 1.0:
        means.sort()
    else:
        pairs = sorted(zip(means, weights, strict=True))
        means, weights = [mean for mean, _ in pairs], [weight for _, weight in pairs]
    upto = list(accumulate(weights))
    return [_value(pooled, means, weights, upto, q * (pooled.count - 1)) for q in qs]


def _value(
    pooled: Pooled, means: Sequence[float], weights: Sequence[float], upto: Sequence[float], target: float
) -> float:
    """The value at rank `target`, from the centroid that stands just before it, or the first one."""
    last = len(means) - 1
    low, high = 0, last  # the first centroid whose successor stands above the target
    while low < high:
        middle = (low + high) // 2
        if target < upto[middle] + (weights[middle + 1] - 1) / 2:
            high = middle
        else:
            low = middle + 1
    place = low
    rank = upto[place] - weights[place] + (weights[place] - 1) / 2
    value = min(max(means[place], pooled.low), pooled.high)
    next_rank = upto[place] + (weights[place + 1] - 1) / 2 if place < last else float(pooled.count - 1)
    next_value = min(max(means[place + 1] if place < last else pooled.high, pooled.low), pooled.high)
    if next_value - pooled.low < _TINY or target >= next_rank:
        return next_value
    if target < rank:
        return min(pooled.low + (value - pooled.low) * (target / rank), value)
    return min(value + (next_value - value) * ((target - rank) / (next_rank - rank)), next_value)


def _integers(sent: bytes) -> array[int]:
    """The smallints of an array that Postgres sent, without its head."""
    native = bytearray(len(sent) // _ITEM * 2)
    big, little = (1, 0) if sys.byteorder == "little" else (0, 1)
    native[big::2] = sent[4::_ITEM]
    native[little::2] = sent[5::_ITEM]
    integers = array("h")
    integers.frombytes(native)
    return integers
