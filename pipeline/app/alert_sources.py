"""The metrics of alert rules that no statement tells: what the daemon that leads itself knows.

Owns: the names of these metrics, and where each figure comes from. Must not know rules or what follows from it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.app.board import CacheBoard, DeliveryMeter
from pipeline.core.alert_metric import Reading
from pipeline.core.window import series_name
from pipeline.db.alert_judge import Local
from pipeline.db.connection import Database
from pipeline.errors import PermissionMissing
from pipeline.feed.follower import Follower


class LocalMetrics:
    """What this process knows of itself, of the feed, and of the caches that report on it. process: its name."""

    def __init__(
        self,
        database: Database,
        *,
        process: str,
        follower: Follower,
        delivery: DeliveryMeter,
        caches: CacheBoard,
    ) -> None:
        self._database = database
        self._process = process
        self._follower = follower
        self._delivery = delivery
        self._caches = caches

    def metrics(self) -> dict[str, Local]:
        """By the names of pipeline.alert_metrics()."""
        return {
            "cache.hit_ratio": self.hit_ratio,
            "feed.lag": self.lag,
            "feed.deaf": self.deaf,
            "disk.free": self.free,
        }

    async def hit_ratio(self) -> Sequence[Reading]:
        """Of all caches together, once they report reads."""
        cache = self._caches.status(time.monotonic())
        if cache is None:
            return []
        return [Reading("", cache.hit_ratio, samples=cache.hits_total + cache.misses_total)]

    async def lag(self) -> Sequence[Reading]:
        """From writes to their delivery, while this process pumps."""
        found = self._delivery.recent.quantiles(time.monotonic())
        return [Reading("", found.p99, samples=found.count)]

    async def deaf(self) -> Sequence[Reading]:
        """This process, and each whose cache reports; one that cannot be heard at all is told by its absence."""
        told = {self._process: "" if self._follower.up else "its listener is not connected, or hears no beat"}
        for process, cache in self._caches.reports(time.monotonic()).items():
            told[process] = "" if cache.age_bound_seconds is not None else "its cache serves nothing"
        return [
            Reading(series_name("", labels), float(bool(detail)), labels, detail=detail)
            for process, detail in told.items()
            if (labels := {"process": process})
        ]

    async def free(self) -> Sequence[Reading]:
        """The disk that the data is on, if the folder here is the server's: changed at the same moments."""
        try:
            row = await self._database.fetchrow("alert_metrics/data_directory")
        except PermissionMissing:
            return []
        if row is None:
            return []
        return await asyncio.to_thread(_free, row["path"], row["modified"], row["changed"])


def _free(path: str, modified: float, changed: float | None) -> list[Reading]:
    try:
        found, disk = Path(path).stat(), os.statvfs(path)
    except OSError:
        return []
    same = int(found.st_mtime) == int(modified) and (changed is None or int(found.st_ctime) == int(changed))
    if not same or not disk.f_blocks:
        return []
    labels = {"path": path}
    detail = f"{disk.f_bavail * disk.f_frsize / 2**30:.1f} GiB of {path}"
    return [Reading(series_name("", labels), disk.f_bavail / disk.f_blocks, labels, detail=detail)]
