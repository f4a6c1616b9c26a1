"""What the demo shows in the terminal.

Owns: the picture and the plain lines. Knows only the status.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.app.daemon import Daemon
from pipeline.core.status import AlertStatus, Quantiles, SeriesStatus, Status

PICTURE_SECONDS = 0.5
LINE_SECONDS = 2.0
UNKNOWN = "–"
STYLES = {"firing": "bold red", "pending": "yellow", "resolved": "green"}


class Screen:
    """A live picture on a terminal, else a line every two seconds."""

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._console = Console(highlight=False, soft_wrap=plain)

    def say(self, what: str) -> None:
        """One line of progress."""
        self._console.print(f"pgreflex demo: {what}", markup=False, style=None if self._plain else "dim")

    async def show(self, daemon: Daemon, began: float) -> None:
        """Show the daemon's status until cancelled."""
        while not daemon.live().ready:  # noqa: ASYNC110 - readiness is a fact of many services, not an event
            await asyncio.sleep(0.05)
        self.say(f"ready after {time.monotonic() - began:.1f} s; status page at {daemon.web.url}")
        if self._plain:
            while True:
                self._console.print(line(await daemon.status()), markup=False)
                await asyncio.sleep(LINE_SECONDS)
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            while True:
                live.update(picture(await daemon.status(), daemon.web.url), refresh=True)
                await asyncio.sleep(PICTURE_SECONDS)


def line(status: Status) -> str:
    """The status in one line."""
    feed, cache, jobs = status.feed, status.cache, status.jobs
    timed = (one.latency.p95 for one in status.series if one.source == "table")
    p95 = max((p95 for p95 in timed if p95 is not None), default=None)
    alerts = ", ".join(f"{alert.rule} {alert.state}" for alert in status.alerts) or "none"
    return "  ".join(
        (
            f"events/s {number(feed.events_per_second if feed else None, 0)}",
            f"delivery p99 {milliseconds(feed.write_to_delivery.p99 if feed else None)}",
            f"cache hits {percent(cache.hit_ratio if cache else None)}",
            f"statements p95 {milliseconds(p95)}",
            f"jobs done {jobs.finished_total if jobs else UNKNOWN}",
            f"alerts: {alerts}",
        )
    )


def picture(status: Status, url: str) -> RenderableType:
    """The whole picture, for 80 columns and more."""
    return Group(
        Text.assemble(("pgreflex demo", "bold"), f"  {status.database or ''}  ", (url, "underline")),
        Text(),
        _figures(status),
        Text(),
        _series(status.series),
        Text(),
        _alerts(status.alerts),
        Text("Once a minute the demo holds a lock, and the alert fires. Ctrl-C ends everything.", style="dim"),
    )


def _figures(status: Status) -> Table:
    feed, cache, jobs = status.feed, status.cache, status.jobs
    ready = sum(queue.ready + queue.delayed for queue in jobs.queues) if jobs else None
    running = sum(queue.running for queue in jobs.queues) if jobs else None
    delivery = feed.write_to_delivery if feed else Quantiles()
    rows = (
        ("feed", f"{number(feed.events_per_second if feed else None, 0)} events/s",
         f"write to delivery  p50 {milliseconds(delivery.p50)}  p99 {milliseconds(delivery.p99)}"),
        ("cache", f"{percent(cache.hit_ratio if cache else None)} hits",
         f"{number(cache.entries if cache else None, 0)} entries, "
         f"{number(cache.invalidations_total if cache else None, 0)} invalidated"),
        ("jobs", f"{number(jobs.finished_total if jobs else None, 0)} done",
         f"{number(ready, 0)} waiting, {number(running, 0)} running, "
         f"{number(jobs.retried_total if jobs else None, 0)} retried"),
    )  # fmt: skip
    return _table(None, rows)


def _series(series: Iterable[SeriesStatus]) -> Table:
    rows = [
        (
            one.name,
            str(one.latency.count),
            milliseconds(one.latency.p50),
            milliseconds(one.latency.p95),
            milliseconds(one.latency.p99),
            milliseconds(one.max_ms),
        )
        for one in sorted(series, key=lambda one: one.name)
        if one.source == "table"
    ]
    return _table(("statements", "count", "p50", "p95", "p99", "max"), rows, right=True)


def _alerts(alerts: Iterable[AlertStatus]) -> RenderableType:
    rows = [Text("alerts", style="bold")]
    for alert in alerts:
        age = time.time() - alert.since
        rows.append(
            Text.assemble(
                (f"  {alert.state:<9}", STYLES.get(alert.state, "")),
                f"{alert.rule}, for {max(age, 0):.0f} s: {alert.message}",
                overflow="ellipsis",
                no_wrap=True,
            )
        )
    if len(rows) == 1:
        rows.append(Text("  none", style="dim"))
    return Group(*rows)


def _table(header: tuple[str, ...] | None, rows: Iterable[tuple[str, ...]], *, right: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, show_header=header is not None, padding=(0, 3, 0, 0))
    for place, name in enumerate(header or ("", "", "")):
        table.add_column(name, justify="right" if right and place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def milliseconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.1f} ms"
