"""Centroids as small integers: how a digest is stored.

Owns: the code. Must not know where it is stored. `pipeline.timing_parts` reads it to exactly the same
numbers.

There are millions of stored digests, so a mean takes 16 bits: six of exponent, ten of mantissa. That is 2.4e-7
to 4.4e12 ms with an error of at most 1/2048; whole numbers up to 2,048 are exact, and so is zero. As the means
are clamped to the exact minimum and maximum where they are read, a constant is exact as well.

    numbers = [0, mean, mean, ...]                              every weight is 1
    numbers = [1, mean, mean, ..., weight, weight, ...]         as many weights as means
    numbers = [2, mean, mean, ..., two weights, ...]            each below 256; half as many numbers, rounded up

A mean's code is stored less 32768, to fit Postgres' smallint, and so are two weights: the second counts 256 times.
A weight of its own stands for itself; below zero it counts -32768ths: -3 is 98,304. A larger weight takes two
centroids of one mean, or more: weights stay whole and exact.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import zip_longest

_HALF = 32_768
_BYTE = 256
_MANTISSA = 1_024
_SCALE = -32  # the exponent of code 1024's mantissa
_SINGLE_BITS = 13  # what a mantissa of ten bits leaves of single precision's 23
_SINGLE_OFFSET = (127 - 22) << 10  # 2 ** -22 has exponent 0 here
_MEANS = [0.0] + [(_MANTISSA + (code & 1_023)) * 2.0 ** ((code >> 10) + _SCALE) for code in range(1, 65_536)]
_LARGEST = _MEANS[-1]
_STORED = _MEANS[_HALF:] + _MEANS[:_HALF]  # by the code as it is stored; Python counts from the end below zero


def pack(means: Sequence[float], weights: Sequence[float]) -> list[int]:
    """The numbers for centroids, none below zero; the weights are whole."""
    largest = max(weights, default=1)
    if largest == 1:
        return [0, *_codes(means)]
    if largest < _BYTE:
        two = zip_longest(map(int, weights[::2]), map(int, weights[1::2]), fillvalue=0)
        return [2, *_codes(means), *(first + _BYTE * second - _HALF for first, second in two)]
    split = [(mean, each) for mean, weight in zip(means, weights, strict=True) for each in _split(int(weight))]
    return [1, *_codes([mean for mean, _ in split]), *(weight for _, weight in split)]


def unpack(numbers: Sequence[int], low: float, high: float) -> tuple[list[float], list[float]]:
    """Means and weights from what `pack` gave; low and high: the exact minimum and maximum."""
    kind, length = numbers[0], len(numbers) - 1
    size = (length, length // 2, length * 2 // 3)[kind]
    means = [_STORED[code] for code in numbers[1 : size + 1]]
    for place, mean in enumerate(means):  # they ascend, so only those at the ends can lie outside
        if mean >= low:
            break
        means[place] = low
    for place in range(size - 1, -1, -1):
        if means[place] <= high:
            break
        means[place] = high
    rest = numbers[size + 1 :]
    if kind == 0:
        return means, [1.0] * size
    if kind == 1:
        return means, [float(weight if weight >= 0 else -weight * _HALF) for weight in rest]
    both = [each for two in rest for each in divmod(two + _HALF, _BYTE)[::-1]]
    return means, [float(weight) for weight in both[:size]]


def _codes(means: Sequence[float]) -> Iterator[int]:
    # The upper bits of single precision are a mantissa of ten bits and an exponent.
    singles = struct.pack(f"={len(means)}f", *(min(mean, _LARGEST) for mean in means))
    half = 1 << (_SINGLE_BITS - 1)
    for bits in struct.unpack(f"={len(means)}I", singles):
        code = ((bits + half) >> _SINGLE_BITS) - _SINGLE_OFFSET
        yield min(max(code, 0), 65_535) - _HALF


def _split(weight: int) -> Iterator[int]:
    while weight >= _HALF:
        large = min(weight // _HALF, _HALF)
        yield -large
        weight -= large * _HALF
    if weight:
        yield weight
