"""Requests for the simulation of eviction: what programs ask a cache for, in order.

Owns: the traces. Pure Python without a dependency, since the peers' own environment reads it, too; the same seed
gives the same traces everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import accumulate, chain, islice

KEYS = 20_000
SIZES = (200, 1_000, 4_000)  # 1, 5 and 20 % of the keys of a plain trace
SEED = 1
Trace = list[int]


def zipf(rng: random.Random, skew: float, count: int, keys: int = KEYS) -> Trace:
    weights = list(accumulate(1 / (rank + 1) ** skew for rank in range(keys)))
    return rng.choices(range(keys), cum_weights=weights, k=count)


def with_scans(rng: random.Random, count: int) -> Trace:
    """3,000 requests by Zipf, then a scan of 2,000 keys that nobody asks for again, and so on."""
    base = iter(zipf(rng, 1.0, count))
    found: Trace = []
    strange = KEYS
    while len(found) < count:
        found += islice(base, 3_000)
        found += range(strange, strange + 2_000)
        strange += 2_000
    return found[:count]


def one_hit_wonders(rng: random.Random, count: int) -> Trace:
    """Every third request is for a key that is asked for once."""
    strange = iter(range(KEYS, KEYS + count))
    base = zipf(rng, 0.9, count)
    return list(
        islice(chain.from_iterable((key, next(strange)) if rng.random() < 0.5 else (key,) for key in base), count)
    )


def loop(_rng: random.Random, count: int) -> Trace:
    return [turn % (KEYS // 8) for turn in range(count)]


def zipf_and_loop(rng: random.Random, count: int) -> Trace:
    base = zipf(rng, 1.0, count)
    return [base[turn] if turn % 2 else KEYS + turn // 2 % (KEYS // 4) for turn in range(count)]


def shifting(rng: random.Random, count: int) -> Trace:
    """Each tenth of the trace, everything is a twentieth of all keys further on."""
    return [(key + turn * 10 // count * (KEYS // 20)) % KEYS for turn, key in enumerate(zipf(rng, 1.0, count))]


def reshuffled(rng: random.Random, count: int) -> Trace:
    """Five times, other keys are the popular ones."""

    def parts() -> Iterator[Trace]:
        for _ in range(5):
            names = list(range(KEYS))
            rng.shuffle(names)
            yield [names[key] for key in zipf(rng, 1.0, count // 5)]

    return list(chain.from_iterable(parts()))


def newest_first(rng: random.Random, count: int) -> Trace:
    """A feed: with every fourth request something new comes, and the newest is asked for most."""
    return [turn // 4 - rank for turn, rank in enumerate(zipf(rng, 1.0, count, 2_000))]


def bursts(rng: random.Random, count: int) -> Trace:
    """400 keys are asked for at a time, each for a while and never again."""
    live: Trace = []
    found: Trace = []
    for new in range(count):
        if rng.random() < 0.25 or not live:
            live.append(new)
            if len(live) > 400:
                del live[0]
        found.append(rng.choice(live))
    return found


FREQUENCY: dict[str, Callable[[random.Random, int], Trace]] = {
    "zipf 0.8": lambda rng, count: zipf(rng, 0.8, count),
    "zipf 1.0": lambda rng, count: zipf(rng, 1.0, count),
    "zipf 1.2": lambda rng, count: zipf(rng, 1.2, count),
    "zipf with scans": with_scans,
    "one-hit wonders": one_hit_wonders,
    "loop": loop,
    "zipf and loop": zipf_and_loop,
}
RECENCY: dict[str, Callable[[random.Random, int], Trace]] = {
    "shifting": shifting,
    "reshuffled": reshuffled,
    "newest first": newest_first,
    "bursts": bursts,
}


def traces(count: int) -> dict[str, Trace]:
    """All of them, `count` requests each, and one that is made of pieces of the others in turn."""
    found = {name: make(random.Random(SEED), count) for name, make in {**FREQUENCY, **RECENCY}.items()}
    piece = count // 22
    parts = [*found.values()] * 2
    found["mixed"] = list(chain.from_iterable(part[n * piece : (n + 1) * piece] for n, part in enumerate(parts)))
    return found
