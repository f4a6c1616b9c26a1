"""The hit ratios of W-TinyLFU, by theine and by moka-py. Usage: python cache_ratio.py REQUESTS"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import moka_py
import theine

from bench.cache_traces import SIZES, traces


def of_theine(size: int, trace: Iterable[int]) -> int:
    cache = theine.Cache(size, True)
    hits = 0
    for key in trace:
        _value, found = cache.get(key)
        hits += found
        if not found:
            cache.set(key, key)
    cache.close()
    return hits


def of_moka(size: int, trace: Iterable[int]) -> int:
    cache = moka_py.Moka(size)
    hits = 0
    for key in trace:
        if cache.get(key) is None:
            cache.set(key, key)
            cache.run_pending_tasks()
        else:
            hits += 1
    return hits


def main() -> None:
    every = traces(int(sys.argv[1]))
    ratios = {
        name: [
            (trace, size, 100 * hits(size, keys) / len(keys)) for trace, keys in every.items() for size in SIZES
        ]
        for name, hits in {"theine": of_theine, "moka-py": of_moka}.items()
    }
    print(json.dumps({"ratios": ratios}), flush=True)


main()
