"""Which share of requests the cache answers when it is too small for all, beside LRU and W-TinyLFU.

Owns: the simulation: a miss is stored, a hit is counted, nothing changes. Knows nothing of time. The store is the
real one.
"""

from __future__ import annotations

from collections import OrderedDict

from bench.cache_kit import peer_program
from bench.cache_traces import FREQUENCY, SIZES, Trace, traces
from bench.jobs_kit import Bench, amount
from bench.jobs_peers import NotToBeHad
from pipeline.core.store import Store

NOT_BELOW = "hit ratio, least above LRU over Zipf, scans and loops, points"
NEAR = "hit ratio, most below W-TinyLFU, points"
GOALS = {NOT_BELOW: (">=", 0.0), NEAR: ("<=", 2.0)}
Ratios = dict[tuple[str, int], float]
PEER_SECONDS = 120.0


def ours(size: int, trace: Trace) -> float:
    """Percent of hits of our store, bounded to `size` entries."""
    store = Store(max_bytes=1 << 40, max_entries=size)
    entries = store.entries
    hits = 0
    for now, key in enumerate(trace):
        entry = entries.get(key)
        if entry is None:
            store.put(key, key, since=now)
        else:
            hits += 1
            entry.hits += 1
            entry.used = now
    return 100 * hits / len(trace)


def lru(size: int, trace: Trace) -> float:
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in trace:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
            continue
        kept[key] = None
        if len(kept) > size:
            kept.popitem(last=False)
    return 100 * hits / len(trace)


async def measure(bench: Bench) -> None:
    report = bench.report
    count = amount(120_000, 30_000)
    all_traces = traces(count)
    cells = [(name, size) for name in all_traces for size in SIZES[: amount(3, 2)]]  # the largest needs long ones
    own = {(name, size): ours(size, all_traces[name]) for name, size in cells}
    old = {(name, size): lru(size, all_traces[name]) for name, size in cells}
    try:
        peers = await w_tinylfu(count)
    except NotToBeHad as error:
        peers = {}
        report.peer("theine", None, str(error))
    report.say(f"{'trace':18}{'size':>6}{'ours':>8}{'LRU':>8}" + "".join(f"{name:>12}" for name in peers))
    for cell in cells:
        others = "".join(f"{ratios[cell]:12.2f}" for ratios in peers.values())
        report.say(f"{cell[0]:18}{cell[1]:6}{own[cell]:8.2f}{old[cell]:8.2f}{others}")
    above = {cell: own[cell] - old[cell] for cell in cells}
    frequency = {cell: points for cell, points in above.items() if cell[0] in FREQUENCY}
    least = min(frequency, key=frequency.__getitem__)
    report.goal(NOT_BELOW, frequency[least], *GOALS[NOT_BELOW], where(least))
    worst = min(above, key=above.__getitem__)
    report.figure(f"hit ratio, least above LRU over all traces, points ({where(worst)})", above[worst])
    for name, ratios in peers.items():
        short = {cell: ratios[cell] - own[cell] for cell in cells}
        most = max(short, key=short.__getitem__)
        below = max(old[cell] - ratios[cell] for cell in cells)
        report.figure(f"hit ratio, most that {name} is below LRU, points", below)
        if name == "theine":
            report.goal(NEAR, short[most], *GOALS[NEAR], f"{name}, {where(most)}")
        else:
            report.figure(f"hit ratio, most below {name}, points", short[most])
    if "theine" not in peers:
        report.unmeasured(NEAR, *GOALS[NEAR], "theine cannot be had")


def where(cell: tuple[str, int]) -> str:
    return f"{cell[0]}, {cell[1]} entries"


async def w_tinylfu(count: int) -> dict[str, Ratios]:
    """The ratios of theine's and moka-py's W-TinyLFU. Raises NotToBeHad."""
    async with peer_program("cache_ratio.py", str(count)) as running:
        told = await running.hear("ratios", PEER_SECONDS)
    return {name: {(trace, size): ratio for trace, size, ratio in rows} for name, rows in told.items()}
