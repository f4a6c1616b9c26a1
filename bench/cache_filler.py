"""A process that fills a cache past its bound: `python -m bench.cache_filler KIND BYTES`.

Owns: the kinds of values, and how much memory that took. That is what Python has allocated since before the cache
was made (tracemalloc), and, in another filling without that, by how much the process has grown.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from bench.cache_kit import lone_cache
from bench.jobs_child import tell
from handlers.cache import Cache


@dataclass
class Address:
    street: str
    city: str
    number: int


@dataclass
class Customer:
    id: int
    name: str
    email: str
    address: Address


class Order(msgspec.Struct):
    id: int
    note: str
    lines: list[float]


COLUMNS = ("id", "name", "email", "total", "state")


def row(n: int) -> dict[str, Any]:
    return dict(zip(COLUMNS, (1_000 + n, f"customer {n}", f"c{n}@example.com", n / 7, None), strict=True))


def nested(n: int) -> Any:
    document = {"id": n, "lines": [{"sku": f"s{n}-{i}", "count": i, "parts": [i, i + 1]} for i in range(5)]}
    return msgspec.json.decode(msgspec.json.encode(document))


VALUES: dict[str, Callable[[int], Any]] = {
    "numbers": lambda n: 1_000_000 + n,
    "rows": lambda n: [row(n + i) for i in range(40)],
    "row": lambda n: [row(n)],
    "text": lambda n: f"{n:06}" + "x" * (500 + n * 37 % 9_000),
    "nested": nested,
    "dataclasses": lambda n: Customer(
        1_000 + n, f"customer {n}", f"c{n}@example.com", Address(f"{n} Road", "Aix", n)
    ),
    "structs": lambda n: Order(1_000 + n, f"note {n}" * 5, [n / 3, n / 7]),
    "decimals": lambda n: [Decimal(n) / 7, Decimal(n) * 3, (n / 9, n / 11)],
    "tags": row,
}


def tags(kind: str, n: int) -> list[str]:
    if kind == "tags":
        return [f"orders:{n}", f"customers:{n % 1_000}", f"shops:{n % 50}", f"parts:{n}:a", f"parts:{n}:b"]
    return [f"orders:{n}"]


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def filled(kind: str, bound: int) -> Cache:
    """A cache that has given up a fifth of what it was given."""
    cache = await lone_cache(max_bytes=bound, max_entries=10**9)
    make = VALUES[kind]
    n, enough = 0, sys.maxsize
    while n < enough:

        async def load(n: int = n) -> Any:
            return make(n)

        await cache.get_or_load((filled, n), load, tags=tags(kind, n), ttl=3_600)
        n += 1
        if enough == sys.maxsize and cache.core.store.evictions:
            enough = n + n // 4
    return cache


async def main() -> None:
    kind, bound = sys.argv[1], int(sys.argv[2])
    await filled(kind, 2**18)  # what is made once is made now
    gc.collect()
    before = resident()
    cache = await filled(kind, bound)
    gc.collect()
    grown = resident() - before
    del cache
    gc.collect()
    tracemalloc.start()
    cache = await filled(kind, bound)
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0]
    status = cache.status()
    tell(filled={"traced": traced, "resident": grown, "bytes": status.bytes, "entries": status.entries})


asyncio.run(main())
