"""What timing costs in the process that is timed: each sample, a day's merge, and ten thousand series.

Owns: the processor time and the memory of one process, no database. The memory is that of a process of its own
(bench/timings_series.py).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from random import Random

import pipeline
from bench.jobs_child import child, module
from bench.jobs_kit import Bench, amount
from pipeline.app.timing import recorder
from pipeline.core.centroids import unpack
from pipeline.core.digest import Digest
from pipeline.core.kept import Sums, merge, sums_of
from pipeline.core.series import Series
from pipeline.core.window import Part, Windows

ADDED = "samples taken in by one process, per second of processor time"
MERGED = "1,440 one-minute digests merged and read, ms"
MEMORY = "memory of 10,000 live series, MB"
GOALS = {ADDED: (">=", 1_000_000.0), MERGED: ("<=", 15.0), MEMORY: ("<=", 150.0)}
SERIES = 10_000
FILL_SECONDS = 120.0
MINUTES = 1_440


async def measure(bench: Bench) -> None:
    report = bench.report
    rounds, samples = amount(7, 3), amount(1_000_000, 200_000)
    per_add = [cpu_each(adds, samples) for _ in range(rounds)]
    each = statistics.median(per_add)
    report.goal(ADDED, 1 / each, *GOALS[ADDED], f"{each * 1e6:.2f} us each through a kept handle, digest included")
    for name, run in (("pipeline.timer", timers), ("pipeline.record with a label", records)):
        figure = statistics.median(cpu_each(run, samples // 5) for _ in range(rounds))
        report.figure(f"{name}, us", figure * 1e6)
    merges = [merge_ms(day_of_minutes(Random(round_))) for round_ in range(rounds)]
    unpacked = statistics.median(unpacking for unpacking, _merging in merges)
    merged = statistics.median(merging for _unpacking, merging in merges)
    report.goal(MERGED, merged, *GOALS[MERGED], f"and {unpacked:.0f} ms before to unpack them")
    async with child("series", module("timings_series", str(SERIES))) as process:
        told = await process.hear("megabytes", FILL_SECONDS)
    detail = f"{told['samples']:,} samples in all windows; idle {told['idle']:.0f} MB"
    report.goal(MEMORY, told["filled"], *GOALS[MEMORY], detail)


def cpu_each(run: Callable[[int], None], samples: int) -> float:
    """Seconds of processor time a sample, folding and digest included."""
    began = time.process_time()
    run(samples)
    return (time.process_time() - began) / samples


def adds(samples: int) -> None:
    windows = Windows(time.time)
    live = windows.series("render", {"template": "invoice"})
    random = Random(1)
    values = [random.lognormvariate(1, 1) for _ in range(1_000)]
    for _ in range(samples // len(values)):
        for value in values:
            live.add(value)
    counted = sum(part.digest.count for part in windows.take(None))
    if counted != samples:
        raise RuntimeError(f"{counted} samples of {samples} were counted")


def timers(samples: int) -> None:
    for _ in range(samples):
        with pipeline.timer("render"):
            pass
    recorder.take(None)


def records(samples: int) -> None:
    for _ in range(samples):
        pipeline.record("render", 1.0, template="invoice")
    recorder.take(None)


def day_of_minutes(random: Random) -> list[Sums]:
    """A day's minutes as they are kept, each full."""
    series = Series("render", "span", "render")
    kept = []
    for minute in range(MINUTES):
        digest = Digest([random.lognormvariate(1, 1) for _ in range(400)])
        kept.append(merge([sums_of(Part(series, 60 * minute, digest))], 60, 60 * minute))
    return kept


def merge_ms(kept: list[Sums]) -> tuple[float, float]:
    """Processor time, in milliseconds, to unpack the minutes, and to merge them and read three percentiles."""
    began = time.process_time()
    minutes = [
        Digest.restore(*unpack(one.numbers, one.low, one.high), total=one.total, low=one.low, high=one.high)
        for one in kept
    ]
    unpacked = time.process_time()
    day = Digest()
    for minute in minutes:
        day.merge(minute)
    day.quantiles((0.5, 0.95, 0.99))
    return (unpacked - began) * 1000, (time.process_time() - unpacked) * 1000
