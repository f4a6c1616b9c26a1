"""Small listeners of the feed that join the parts of one process.

Owns: what the daemon learns from the feed for its own use. Knows nothing of how the feed works.
"""

from __future__ import annotations

import time

import msgspec
import structlog

from handlers.jobs import JobWorker
from pipeline.core.cache_figures import together
from pipeline.core.events import Batch
from pipeline.core.recent import Recent
from pipeline.core.snapshot import Snapshot
from pipeline.core.status import CacheStatus, PoolStatus, TimingsStatus, sum_of_timings
from pipeline.feed.pump import Pump

CACHE_CHANNEL = "pipeline.cache"  # on which processes tell how their caches do
POOL_CHANNEL = "pipeline.pool"  # and how their connection pools do
MOST_POOLS = 8  # of one process in a report: 600 bytes each
MOST_SHOWN = 50
JOBS_CHANNEL = "pipeline.jobs"
CANCEL_CHANNEL = "pipeline.job_cancelled"
REPORT_SECONDS = 2.0
FORGET_SECONDS = 10.0

log = structlog.get_logger("pgreflex.board")


class Listener:
    """A FeedSink that cares only for batches."""

    def on_batch(self, batch: Batch) -> None:
        """Nothing by default."""

    def on_position(self, position: Snapshot) -> None:
        """Positions matter to caches only."""

    def on_flush(self, reason: str) -> None:
        """Nothing is kept that an event could have changed."""

    def on_down(self, reason: str) -> None:
        """Nothing to do."""


class JobBell(Listener):
    """Wakes the worker when a job was enqueued, and tells it of jobs that were cancelled."""

    def __init__(self, worker: JobWorker) -> None:
        self._worker = worker

    def on_batch(self, batch: Batch) -> None:
        for event in batch.events:
            if event.op == "e" and event.name == JOBS_CHANNEL and event.payload is not None:
                self._worker.wake(event.payload)
            elif event.op == "e" and event.name == CANCEL_CHANNEL and event.payload is not None:
                self._worker.cancel([int(id_) for id_ in event.payload.split(",") if id_.isdecimal()])


class DeliveryMeter(Listener):
    """How long it takes from a write to its delivery, while this process pumps.

    The part up to the read is by the server's clock alone, the rest by this process's: no two clocks are
    compared.
    """

    def __init__(self, pump: Pump) -> None:
        self.recent = Recent()
        self._pump = pump

    def on_batch(self, batch: Batch) -> None:
        read = self._pump.sent.pop(batch.seq, None)
        if read is not None:
            now = time.monotonic()
            for age in read.ages_ms:
                self.recent.add(age + (now - read.at) * 1000, now)


class CacheReport(msgspec.Struct, frozen=True):
    """What a process says of its cache, and of its timings, on CACHE_CHANNEL."""

    process: str
    cache: CacheStatus
    timings: TimingsStatus = TimingsStatus()


class CacheBoard(Listener):
    """The caches and timings of all processes, as they report them on the feed."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, CacheReport]] = {}
        self._decoder = msgspec.json.Decoder(CacheReport)

    def on_batch(self, batch: Batch) -> None:
        for event in batch.events:
            if event.op == "e" and event.name == CACHE_CHANNEL and event.payload is not None:
                try:
                    report = self._decoder.decode(event.payload)
                except msgspec.DecodeError as error:
                    log.warning("a report of a cache could not be read", error=str(error))
                    continue
                self._reports[report.process] = (time.monotonic(), report)

    def status(self, now: float) -> CacheStatus | None:
        """All caches together, or None when none has reported lately."""
        caches = [report.cache for report in self._lately(now)]
        return together(caches) if caches else None

    def timings(self, now: float, own: TimingsStatus) -> TimingsStatus:
        """The timings of all processes together. own: of this one."""
        return sum_of_timings([own, *(report.timings for report in self._lately(now))])

    def _lately(self, now: float) -> list[CacheReport]:
        self._reports = {
            process: (at, report) for process, (at, report) in self._reports.items() if at > now - FORGET_SECONDS
        }
        return [report for _at, report in self._reports.values()]

    def reports(self, now: float) -> dict[str, CacheStatus]:
        """What each process reported last of its cache, unless that is long ago."""
        return {report.process: report.cache for report in self._lately(now)}


class PoolReport(msgspec.Struct, frozen=True):
    """What a process says of its connection pools on POOL_CHANNEL."""

    process: str
    pools: tuple[PoolStatus, ...]


class PoolBoard(Listener):
    """The connection pools of all processes, as they report them on the feed."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, tuple[PoolStatus, ...]]] = {}
        self._decoder = msgspec.json.Decoder(PoolReport)

    def on_batch(self, batch: Batch) -> None:
        for event in batch.events:
            if event.op == "e" and event.name == POOL_CHANNEL and event.payload is not None:
                try:
                    report = self._decoder.decode(event.payload)
                except msgspec.DecodeError as error:
                    log.warning("a report of a pool could not be read", error=str(error))
                    continue
                self._reports[report.process] = (time.monotonic(), report.pools)

    def status(self, now: float) -> tuple[PoolStatus, ...]:
        """Each pool that was reported lately, those first in which somebody waits; no more than MOST_SHOWN."""
        self._reports = {
            process: (at, pools) for process, (at, pools) in self._reports.items() if at > now - FORGET_SECONDS
        }
        found = [
            msgspec.structs.replace(pool, process=process)
            for process, (_at, pools) in self._reports.items()
            for pool in pools
        ]
        return tuple(sorted(found, key=lambda one: (-one.waiting, one.name, one.process))[:MOST_SHOWN])
